use alloc::{boxed::Box, vec::Vec};
use core::{fmt, ops::Range};

use bytes::Bytes;

use super::escape;

/// The headers of a frame, in their order on the wire, repeats included.
///
/// The text of a received frame stays where it was read: the names and values are slices of one shared buffer. Where
/// they are costs a usual frame no allocation, and any other frame one.
#[derive(Clone)]
pub struct Headers(Repr);

#[derive(Clone)]
enum Repr {
    /// Of a received frame, which `text` begins with.
    Received { text: Bytes, table: Table },
    /// Under construction.
    Built(Built),
}

/// Where the headers of a received frame are.
#[derive(Debug, Clone)]
pub(crate) enum Table {
    /// Few lines, just as they were sent.
    Lines(Lines),
    Spans(Box<[Span]>),
}

#[derive(Clone)]
struct Built {
    /// Lines of name, colon and value, nothing escaped.
    text: Vec<u8>,
    table: Vec<Span>,
    /// The text is the header lines just as they go on the wire, whatever the version.
    plain: bool,
    /// Which header is the first content-length: each frame that is encoded is asked for it.
    length: Option<usize>,
}

/// The header that says how long the body is.
pub(crate) const CONTENT_LENGTH: &str = "content-length";

/// Room made at the first header, so that a usual frame grows its vectors once.
const USUAL_HEADERS: usize = 8;
const USUAL_TEXT: usize = 256;

/// Where one header's name and value are in the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) name: (u32, u32),
    pub(crate) value: (u32, u32),
}

impl Span {
    /// Whether the name is this one. Most names differ in length already.
    pub(crate) fn name_is(self, text: &[u8], name: &[u8]) -> bool {
        (self.name.1 - self.name.0) as usize == name.len() && text[range(self.name)] == *name
    }
}

/// Header lines that follow each other, the first of them `start` octets into the text.
///
/// Aligned as what lies beside it in a frame, whose tags are then as wide: a frame that was just made is moved by words, and
/// a move across the words it was written by waits for them.
#[derive(Debug, Clone, Copy)]
#[repr(align(8))]
pub(crate) struct Lines {
    start: u16,
    count: u8,
    /// Where each has its colon and its LF.
    marks: [(u16, u16); Self::MOST],
}

impl Lines {
    /// RabbitMQ's messages have six to ten.
    const MOST: usize = 11;

    /// None so far.
    pub(crate) const fn new() -> Self {
        Self { start: 0, count: 0, marks: [(0, 0); Self::MOST] }
    }

    /// None so far; the first will start there.
    #[inline]
    pub(crate) const fn restart(&mut self, start: u16) {
        self.start = start;
        self.count = 0;
    }

    /// Adds the next line, if there is room and it is not too far off.
    #[inline]
    pub(crate) fn push(&mut self, colon: usize, end: usize) -> bool {
        let Some(slot) = self.marks.get_mut(usize::from(self.count)) else { return false };
        if end > usize::from(u16::MAX) {
            return false;
        }
        *slot = (colon as u16, end as u16);
        self.count += 1;
        true
    }

    pub(crate) const fn len(&self) -> usize {
        self.count as usize
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> {
        (0..self.len()).map(|index| self.span(index))
    }

    #[inline]
    fn span(&self, index: usize) -> Span {
        let start =
            index.checked_sub(1).map_or(u32::from(self.start), |above| u32::from(self.marks[above].1) + 1);
        let (colon, end) = self.marks[index];
        Span { name: (start, colon.into()), value: (u32::from(colon) + 1, end.into()) }
    }
}

impl Headers {
    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self(Repr::Built(Built { text: Vec::new(), table: Vec::new(), plain: true, length: None }))
    }

    /// Headers of a received frame. `text` is UTF-8 wherever `table` points (the decoder's duty).
    #[inline]
    pub(crate) const fn received(text: Bytes, table: Table) -> Self {
        Self(Repr::Received { text, table })
    }

    /// The buffer of a received frame.
    pub(crate) const fn shared(&self) -> Option<&Bytes> {
        match &self.0 {
            Repr::Received { text, .. } => Some(text),
            Repr::Built(_) => None,
        }
    }

    /// The same, taken out.
    pub(crate) fn into_shared(self) -> Option<Bytes> {
        match self.0 {
            Repr::Received { text, .. } => Some(text),
            Repr::Built(_) => None,
        }
    }

    /// The value of the first header of this name: the one that counts when it is repeated (1.2, "Repeated Header
    /// Entries"). Names are case-sensitive.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let text = self.text();
        let mut spans = (0..self.len()).map(|index| self.span(index));
        let span = spans.find(|span| span.name_is(text, name.as_bytes()))?;
        Some(str_at(text, span.value))
    }

    /// The value of the first `content-length`.
    pub(crate) fn content_length(&self) -> Option<&[u8]> {
        match &self.0 {
            Repr::Received { .. } => self.get(CONTENT_LENGTH).map(str::as_bytes),
            Repr::Built(Built { text, table, length, .. }) => {
                table.get((*length)?).map(|span| &text[range(span.value)])
            }
        }
    }

    /// Every header, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + '_ {
        let text = self.text();
        (0..self.len()).map(move |index| {
            let span = self.span(index);
            (str_at(text, span.name), str_at(text, span.value))
        })
    }

    /// How many there are, repeats included.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Received { table: Table::Lines(lines), .. } => lines.len(),
            Repr::Received { table: Table::Spans(spans), .. } => spans.len(),
            Repr::Built(built) => built.table.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a header. Whether it can be encoded is checked when the frame is: see
    /// [`EncodeError::Unencodable`](super::EncodeError::Unencodable).
    ///
    /// # Panics
    /// When all headers of the frame together pass 4 GiB.
    pub fn push(&mut self, name: &str, value: &str) {
        if let Repr::Received { .. } = self.0 {
            *self = self.iter().collect();
        }
        if let Repr::Built(built) = &mut self.0 {
            built.push(name, value);
        }
    }

    /// The header lines ready for the wire, unless something in them needs an escape or a refusal.
    pub(crate) fn lines(&self) -> Option<&[u8]> {
        match &self.0 {
            Repr::Built(built) if built.plain => Some(&built.text),
            _ => None,
        }
    }

    /// Every header, in order, not looked at again for UTF-8.
    pub(crate) fn octets(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let text = self.text();
        (0..self.len()).map(move |index| {
            let span = self.span(index);
            (&text[range(span.name)], &text[range(span.value)])
        })
    }

    fn text(&self) -> &[u8] {
        match &self.0 {
            Repr::Received { text, .. } => text,
            Repr::Built(built) => &built.text,
        }
    }

    #[inline]
    fn span(&self, index: usize) -> Span {
        match &self.0 {
            Repr::Received { table: Table::Lines(lines), .. } => lines.span(index),
            Repr::Received { table: Table::Spans(spans), .. } => spans[index],
            Repr::Built(built) => built.table[index],
        }
    }
}

impl Built {
    fn push(&mut self, name: &str, value: &str) {
        let Self { text, table, .. } = self;
        if table.capacity() == 0 {
            table.reserve(USUAL_HEADERS);
            text.reserve(USUAL_TEXT);
        }
        let mut append = |part: &str, end: u8| {
            let start = offset(text.len());
            text.extend_from_slice(part.as_bytes());
            let span = (start, offset(text.len()));
            text.push(end);
            span
        };
        table.push(Span { name: append(name, b':'), value: append(value, b'\n') });
        if self.length.is_none() && name == CONTENT_LENGTH {
            self.length = Some(table.len() - 1);
        }
        self.plain &=
            !name.is_empty() && escape::is_plain(name.as_bytes()) && escape::is_plain(value.as_bytes());
    }
}

impl Default for Headers {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Headers {
    /// Same names and values in the same order.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    /// The passcode is never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, value)| (name, if name == "passcode" { "***" } else { value }));
        f.debug_map().entries(shown).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut headers = Self::new();
        pairs.into_iter().for_each(|(name, value)| headers.push(name, value));
        headers
    }
}

fn range((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}

fn str_at(text: &[u8], at: (u32, u32)) -> &str {
    core::str::from_utf8(&text[range(at)]).expect("the decoder and `push` let only UTF-8 in")
}

fn offset(len: usize) -> u32 {
    u32::try_from(len).expect("headers stay below 4 GiB, as the documentation demands")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repeat_wins_and_the_rest_stay_readable() {
        let headers: Headers = [("foo", "World"), ("bar", ""), ("foo", "Hello")].into_iter().collect();
        assert_eq!(headers.get("foo"), Some("World"));
        assert_eq!(headers.get("bar"), Some(""));
        assert_eq!(headers.get("FOO"), None);
        assert!(headers.iter().eq([("foo", "World"), ("bar", ""), ("foo", "Hello")]));
    }

    #[test]
    fn a_received_set_can_be_extended() {
        let span = Span { name: (0, 1), value: (2, 3) };
        let mut lines = Lines::new();
        lines.restart(0);
        assert!(lines.push(1, 3));
        for table in [Table::Lines(lines), Table::Spans([span].into())] {
            let mut headers = Headers::received(Bytes::from_static(b"a:b\n\nbody\0"), table);
            headers.push("c", "d");
            assert!(headers.iter().eq([("a", "b"), ("c", "d")]));
        }
    }

    #[test]
    fn debug_hides_the_passcode() {
        let headers: Headers = [("login", "guest"), ("passcode", "hunter2")].into_iter().collect();
        let shown = alloc::format!("{headers:?}");
        assert!(shown.contains("guest") && !shown.contains("hunter2"), "{shown}");
    }
}
