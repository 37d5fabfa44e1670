use alloc::{boxed::Box, vec::Vec};
use core::{fmt, ops::Range};

use bytes::Bytes;

use super::escape;

/// The headers of a frame, in their order on the wire, repeats included.
///
/// The text of a received frame stays where it was read: the names and values are slices of one shared buffer, and a
/// whole set of headers costs one allocation, for its table of offsets.
#[derive(Clone)]
pub struct Headers {
    text: Text,
    table: Table,
    /// The text is the header lines just as they go on the wire, whatever the version.
    plain: bool,
    /// Which header is the first content-length: each frame that is encoded is asked for it.
    length: LengthAt,
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

#[derive(Clone, Copy)]
enum LengthAt {
    Nowhere,
    Index(usize),
    /// A received set.
    Unknown,
}

#[derive(Clone)]
enum Text {
    /// A received frame: its head.
    Shared(Bytes),
    /// A frame under construction: lines of name, colon and value, nothing escaped.
    Owned(Vec<u8>),
}

#[derive(Clone)]
enum Table {
    Exact(Box<[Span]>),
    Growing(Vec<Span>),
}

impl Headers {
    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            text: Text::Owned(Vec::new()),
            table: Table::Growing(Vec::new()),
            plain: true,
            length: LengthAt::Nowhere,
        }
    }

    /// Headers of a received frame. `text` is UTF-8 wherever `spans` point (the decoder's duty).
    pub(crate) fn received(text: Bytes, spans: &[Span]) -> Self {
        Self {
            text: Text::Shared(text),
            table: Table::Exact(spans.into()),
            plain: false,
            length: LengthAt::Unknown,
        }
    }

    /// The value of the first header of this name: the one that counts when it is repeated (1.2, "Repeated Header
    /// Entries"). Names are case-sensitive.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let text = self.text();
        let span = self.spans().iter().find(|span| span.name_is(text, name.as_bytes()))?;
        Some(str_at(text, span.value))
    }

    /// The value of the first `content-length`.
    pub(crate) fn content_length(&self) -> Option<&[u8]> {
        let at = |span: &Span| &self.text()[range(span.value)];
        match self.length {
            LengthAt::Nowhere => None,
            LengthAt::Index(index) => self.spans().get(index).map(at),
            LengthAt::Unknown => self.get(CONTENT_LENGTH).map(str::as_bytes),
        }
    }

    /// Every header, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + '_ {
        let text = self.text();
        self.spans().iter().map(move |span| (str_at(text, span.name), str_at(text, span.value)))
    }

    /// How many there are, repeats included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans().is_empty()
    }

    /// Appends a header. Whether it can be encoded is checked when the frame is: see
    /// [`EncodeError::Unencodable`](super::EncodeError::Unencodable).
    ///
    /// # Panics
    /// When all headers of the frame together pass 4 GiB.
    pub fn push(&mut self, name: &str, value: &str) {
        if let Text::Shared(shared) = &self.text {
            self.text = Text::Owned(shared.to_vec());
        }
        if let Table::Exact(spans) = &mut self.table {
            self.table = Table::Growing(core::mem::take(spans).into_vec());
        }
        let (Text::Owned(text), Table::Growing(table)) = (&mut self.text, &mut self.table) else { return };
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
        if matches!(self.length, LengthAt::Nowhere) && name == CONTENT_LENGTH {
            self.length = LengthAt::Index(table.len() - 1);
        }
        self.plain &=
            !name.is_empty() && escape::is_plain(name.as_bytes()) && escape::is_plain(value.as_bytes());
    }

    /// The header lines ready for the wire, unless something in them needs an escape or a refusal.
    pub(crate) fn lines(&self) -> Option<&[u8]> {
        self.plain.then(|| self.text())
    }

    /// Every header, in order, not looked at again for UTF-8.
    pub(crate) fn octets(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let text = self.text();
        self.spans().iter().map(move |span| (&text[range(span.name)], &text[range(span.value)]))
    }

    fn text(&self) -> &[u8] {
        match &self.text {
            Text::Shared(text) => text,
            Text::Owned(text) => text,
        }
    }

    fn spans(&self) -> &[Span] {
        match &self.table {
            Table::Exact(spans) => spans,
            Table::Growing(spans) => spans,
        }
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
        let mut headers = Headers::received(Bytes::from_static(b"a:b"), &[span]);
        headers.push("c", "d");
        assert!(headers.iter().eq([("a", "b"), ("c", "d")]));
    }

    #[test]
    fn debug_hides_the_passcode() {
        let headers: Headers = [("login", "guest"), ("passcode", "hunter2")].into_iter().collect();
        let shown = alloc::format!("{headers:?}");
        assert!(shown.contains("guest") && !shown.contains("hunter2"), "{shown}");
    }
}
