//! The decoder: octets of any chunking in, frames out.
//!
//! A head that is whole and usual is read in one pass ([`head`]); any other line by line. What has been scanned is
//! remembered across calls, so each octet is looked at once, or twice in a head that is not whole at first or not usual:
//! time is linear in octets whatever the chunking. Octets stay in the caller's buffer until a frame, or a part of one, is whole; it is then split
//! off without copying, and the only allocation is the table of its headers, where they are many or unusual.

mod head;
mod parts;

use alloc::{string::String, vec::Vec};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    Command, DecodeError, Frame, Headers, Lenience, Limits, Version,
    escape::Escaping,
    headers::{CONTENT_LENGTH, Lines, Span, Table},
};

pub use parts::Part;

/// A resumable decoder for one connection, client or server side.
///
/// ```
/// use bytes::BytesMut;
/// use stompwire::proto::{Decoder, Limits};
///
/// let mut decoder = Decoder::new(Limits::default());
/// let mut read = BytesMut::from("RECEIPT\nreceipt-id:1\n");
/// assert_eq!(decoder.decode(&mut read), Ok(None)); // not whole yet
/// read.extend_from_slice(b"\n\0\n");
/// let frame = decoder.decode(&mut read).unwrap().unwrap();
/// assert_eq!(frame.header("receipt-id"), Some("1"));
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// `None` until the version is negotiated.
    version: Option<Version>,
    unescape_connect: bool,
    lenience: Lenience,
    state: State,
    /// Octets of the buffer that need not be looked at again.
    scanned: usize,
    /// Where the line being read starts.
    line_start: usize,
    /// The headers of a usual head.
    lines: Lines,
    /// The headers of any other, or none. Kept from frame to frame, so that a frame allocates its exact table once.
    spans: Vec<Span>,
    /// End-of-lines since the last frame or the last [`Decoder::forgive_eols`].
    eols: usize,
    failed: Option<DecodeError>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Before a command; end-of-lines may come.
    Between,
    Command,
    Headers(Command),
    Body {
        command: Command,
        head: usize,
        ending: Ending,
    },
    /// In a body that comes in parts: what is left of it, and how many octets of it may still come.
    Long {
        ending: Ending,
        room: u64,
    },
}

/// What is known of a body.
enum Body {
    Incomplete,
    /// The frame's NUL is there.
    EndsAt(usize),
    /// It is too long for a whole frame, and may come in parts.
    Long,
}

/// What is to be taken from the front of the buffer.
struct Found {
    command: Command,
    head: usize,
    /// Where the frame's NUL is. `None`: the head alone is taken, and the state is [`State::Long`].
    end: Option<usize>,
}

/// How a body ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// After so many octets.
    Counted(u64),
    /// At the first NUL.
    Nul,
}

impl Decoder {
    /// A decoder before the handshake: no escaping yet, lines may end in CRLF.
    #[must_use]
    pub fn new(mut limits: Limits) -> Self {
        limits.max_head = limits.max_head.min(Limits::HARD_MAX_HEAD);
        Self {
            limits,
            version: None,
            unescape_connect: false,
            lenience: Lenience::STRICT,
            state: State::Between,
            scanned: 0,
            line_start: 0,
            lines: Lines::new(),
            spans: Vec::new(),
            eols: 0,
            failed: None,
        }
    }

    /// From the next frame on, the rules of `version` (the one CONNECTED names) are in force.
    pub fn set_version(&mut self, version: Version) {
        self.version = Some(version);
    }

    /// Unescape the headers of CONNECT and STOMP as RabbitMQ does, although 1.2 forbids it.
    pub fn set_unescape_connect(&mut self, unescape: bool) {
        self.unescape_connect = unescape;
    }

    /// From the next frame on, forgive this much.
    pub fn set_lenience(&mut self, lenience: Lenience) {
        self.lenience = lenience;
    }

    /// The same decoder, forgiving this much.
    #[must_use]
    pub fn with_lenience(mut self, lenience: Lenience) -> Self {
        self.set_lenience(lenience);
        self
    }

    /// Starts a new count of end-of-lines between frames; see [`Limits::max_eols`].
    pub fn forgive_eols(&mut self) {
        self.eols = 0;
    }

    /// Takes one frame from the front of `src`, or `None` if it is not whole yet: read more and call again with the
    /// same buffer, unchanged but for octets appended. Never keeps octets of its own.
    ///
    /// # Errors
    /// Any [`DecodeError`] is final: further calls repeat it.
    pub fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        // The frame is made where it is returned: what is written piece by piece is slow to move at once.
        match self.until_failed(|decoder| decoder.advance::<false>(src))? {
            Some(found) => Ok(Some(self.take(src, &found))),
            None => Ok(None),
        }
    }

    /// An error is final.
    #[inline]
    fn until_failed<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = work(self);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// Finds the next frame, or with `PARTS` the head of a long one.
    fn advance<const PARTS: bool>(&mut self, src: &mut BytesMut) -> Result<Option<Found>, DecodeError> {
        let (command, head, ending) = loop {
            match self.state {
                State::Between => {
                    if !self.skip_eols(src)? {
                        return Ok(None);
                    }
                    if let Some(head) = self.whole_head(src) {
                        let ending = self.finish_whole_head::<PARTS>(&head, src)?;
                        break (head.command, self.scanned, ending);
                    }
                    self.state = State::Command;
                }
                State::Command => {
                    let Some((start, end)) = self.next_line(src)? else { return Ok(None) };
                    let word = &src[start..end];
                    let command =
                        Command::parse(word).ok_or_else(|| DecodeError::UnknownCommand(excerpt(word)))?;
                    self.state = State::Headers(command);
                }
                State::Headers(command) => {
                    let Some((start, end)) = self.next_line(src)? else { return Ok(None) };
                    if start < end {
                        self.header_line(&src[start..end], start)?;
                    } else {
                        let ending = self.finish_head::<PARTS>(command, src)?;
                        break (command, self.scanned, ending);
                    }
                }
                State::Body { command, head, ending } => break (command, head, ending),
                State::Long { .. } => {
                    return Err(DecodeError::BodyTooLong { limit: self.limits.max_body as u64 });
                }
            }
        };
        self.body::<PARTS>(src, command, head, ending)
    }

    /// The head is read: the frame, if its body is there.
    #[inline]
    fn body<const PARTS: bool>(
        &mut self,
        src: &[u8],
        command: Command,
        head: usize,
        ending: Ending,
    ) -> Result<Option<Found>, DecodeError> {
        let body = match ending {
            Ending::Counted(length) => self.counted_body(src, head, length)?,
            Ending::Nul => self.body_up_to_nul::<PARTS>(src, command, head)?,
        };
        Ok(match body {
            Body::Incomplete => {
                self.state = State::Body { command, head, ending };
                None
            }
            Body::EndsAt(end) => Some(Found { command, head, end: Some(end) }),
            Body::Long => {
                self.scanned -= head;
                self.state = State::Long { ending, room: self.limits.max_long_body };
                Some(Found { command, head, end: None })
            }
        })
    }

    #[inline]
    fn take(&mut self, src: &mut BytesMut, found: &Found) -> Frame {
        let Found { command, head, end } = *found;
        let count = end.map_or(head, |end| end + 1);
        let headers = Headers::received(src.split_to(count).freeze(), self.table());
        if end.is_some() {
            self.start_over();
        }
        if end.is_none() || self.drops_body(command) {
            Frame::from_parts(command, headers, Bytes::new())
        } else {
            Frame::received(command, headers, head)
        }
    }

    /// Where the headers are.
    #[inline]
    fn table(&self) -> Table {
        if self.spans.is_empty() {
            Table::Lines(self.lines)
        } else {
            Table::Spans(self.spans.as_slice().into())
        }
    }

    fn forget_headers(&mut self) {
        self.lines.restart(0);
        self.spans.clear();
    }

    fn start_over(&mut self) {
        self.state = State::Between;
        self.scanned = 0;
        self.line_start = 0;
        self.forget_headers();
        // A broker may put one behind every frame: only those without a frame between them are a flood.
        self.eols = 0;
    }

    /// Before the handshake, and in 1.2, CRLF ends a line; in 1.0 and 1.1 CR is data.
    fn crlf_ends_lines(&self) -> bool {
        matches!(self.version, None | Some(Version::V1_2))
    }

    /// Drops end-of-lines from the front. True if a frame starts there.
    fn skip_eols(&mut self, src: &mut BytesMut) -> Result<bool, DecodeError> {
        let mut skip = 0;
        let starts = loop {
            match (src.get(skip), src.get(skip + 1)) {
                (Some(b'\n'), _) => skip += 1,
                (Some(b'\r'), None) if self.crlf_ends_lines() => break false,
                (Some(b'\r'), Some(b'\n')) if self.crlf_ends_lines() => skip += 2,
                (Some(b'\r'), _) if self.crlf_ends_lines() => return Err(DecodeError::StrayCarriageReturn),
                (Some(_), _) => break true,
                (None, _) => break false,
            }
            self.eols += 1;
            if self.eols > self.limits.max_eols {
                return Err(DecodeError::EolFlood { limit: self.limits.max_eols });
            }
        };
        if skip > 0 {
            src.advance(skip);
        }
        Ok(starts)
    }

    /// The next whole line, without its end.
    fn next_line(&mut self, src: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
        let start = self.line_start;
        // Nothing past the head's limit is looked at: the answer must not depend on the chunking.
        let seen = src.len().min(self.limits.max_head);
        let found = memchr::memchr2(b'\n', 0, &src[self.scanned..seen]);
        let end = found.map_or(seen, |at| self.scanned + at);
        // The CR of a CRLF belongs to the line's end.
        let text_end =
            if self.crlf_ends_lines() && end > start && src[end - 1] == b'\r' { end - 1 } else { end };
        if text_end - start > self.limits.max_line {
            return Err(DecodeError::LineTooLong { limit: self.limits.max_line });
        }
        if found.is_none() {
            if seen == self.limits.max_head {
                return Err(DecodeError::HeadTooLong { limit: self.limits.max_head });
            }
            self.scanned = seen;
            return Ok(None);
        }
        if src[end] == 0 {
            return Err(DecodeError::NulInHead);
        }
        self.scanned = end + 1;
        self.line_start = end + 1;
        Ok(Some((start, text_end)))
    }

    /// Notes where name and value of a header line are. `start` is the line's place in the buffer.
    fn header_line(&mut self, line: &[u8], start: usize) -> Result<(), DecodeError> {
        let colon = memchr::memchr(b':', line).unwrap_or(0);
        let (mut name, mut value) = ((0, colon), (colon + 1, line.len()));
        if self.lenience.trim_headers && colon > 0 {
            (name, value) = (trimmed(line, name), trimmed(line, value));
        }
        if name.0 == name.1 {
            return self.not_a_header(line);
        }
        if self.spans.len() == self.limits.max_headers {
            return Err(DecodeError::TooManyHeaders { limit: self.limits.max_headers });
        }
        // Offsets are below max_head, which is clamped to 1 GiB.
        let at = |(from, to): (usize, usize)| ((start + from) as u32, (start + to) as u32);
        self.spans.push(Span { name: at(name), value: at(value) });
        Ok(())
    }

    fn not_a_header(&self, line: &[u8]) -> Result<(), DecodeError> {
        if self.crlf_ends_lines() && line.contains(&b'\r') {
            Err(DecodeError::StrayCarriageReturn)
        } else if self.lenience.skip_bad_headers {
            Ok(())
        } else if line.contains(&b':') {
            Err(DecodeError::EmptyHeaderName)
        } else {
            Err(DecodeError::NoColon(excerpt(line)))
        }
    }

    /// The head is whole: checks UTF-8 and carriage returns and unescapes in place, and finds the content-length.
    fn finish_head<const PARTS: bool>(
        &mut self,
        command: Command,
        src: &mut [u8],
    ) -> Result<Ending, DecodeError> {
        let head = &mut src[..self.scanned];
        core::str::from_utf8(head).map_err(|_| DecodeError::NotUtf8)?;
        // One look at the head instead of one at each line: mostly there is neither.
        if memchr::memchr2(b'\r', b'\\', head).is_some() {
            self.unescape_head(command, head)?;
        }
        match self.spans.iter().find(|span| span.name_is(head, CONTENT_LENGTH.as_bytes())) {
            Some(span) => self.counted::<PARTS>(command, &head[span.value.0 as usize..span.value.1 as usize]),
            None => Ok(Ending::Nul),
        }
    }

    /// How a body of this content-length ends.
    #[inline]
    fn counted<const PARTS: bool>(&self, command: Command, length: &[u8]) -> Result<Ending, DecodeError> {
        let length = content_length(length)?;
        let limit = self.body_limit::<PARTS>(command);
        if length > limit {
            return Err(DecodeError::BodyTooLong { limit });
        }
        if length > 0 && self.refuses_body(command) {
            return Err(DecodeError::UnexpectedBody(command));
        }
        Ok(Ending::Counted(length))
    }

    fn unescape_head(&mut self, command: Command, head: &mut [u8]) -> Result<(), DecodeError> {
        let escaping = match self.version {
            Some(version) => Escaping::of(command, version, self.unescape_connect),
            None if command.is_handshake() => Escaping::of(command, Version::V1_2, self.unescape_connect),
            // An ERROR before CONNECTED: nothing was agreed, so nothing is unescaped.
            None => Escaping::None,
        };
        let crlf_ends_lines = self.crlf_ends_lines();
        for span in &mut self.spans {
            let line = &head[span.name.0 as usize..span.value.1 as usize];
            if crlf_ends_lines && memchr::memchr(b'\r', line).is_some() {
                return Err(DecodeError::StrayCarriageReturn);
            }
            for part in [&mut span.name, &mut span.value] {
                let text = &mut head[part.0 as usize..part.1 as usize];
                let len = escaping.unescape(text).ok_or_else(|| DecodeError::BadEscape {
                    version: self.version.unwrap_or(Version::V1_2),
                    // A passcode has no place in a message.
                    line: if command.is_handshake() { "***".into() } else { excerpt(text) },
                })?;
                part.1 = part.0 + len as u32;
            }
        }
        Ok(())
    }

    fn counted_body(&self, src: &[u8], head: usize, length: u64) -> Result<Body, DecodeError> {
        if length > self.limits.max_body as u64 {
            return Ok(Body::Long);
        }
        // It is at most max_body, a usize; a body that no address space holds never arrives.
        let end = head.saturating_add(length as usize);
        match src.get(end) {
            None => Ok(Body::Incomplete),
            Some(0) => Ok(Body::EndsAt(end)),
            Some(_) => Err(DecodeError::BodyNotTerminated),
        }
    }

    fn body_up_to_nul<const PARTS: bool>(
        &mut self,
        src: &[u8],
        command: Command,
        head: usize,
    ) -> Result<Body, DecodeError> {
        let end = self.octets_before_nul(src);
        if end > head && self.refuses_body(command) {
            return Err(DecodeError::UnexpectedBody(command));
        }
        if end - head > self.limits.max_body {
            let (whole, limit) = (self.limits.max_body as u64, self.body_limit::<PARTS>(command));
            return if limit > whole { Ok(Body::Long) } else { Err(DecodeError::BodyTooLong { limit }) };
        }
        Ok(if end < src.len() { Body::EndsAt(end) } else { Body::Incomplete })
    }

    /// Where the first NUL is that was not looked at yet; the end of `src` if there is none.
    fn octets_before_nul(&mut self, src: &[u8]) -> usize {
        let found = memchr::memchr(0, &src[self.scanned..]);
        self.scanned = found.map_or(src.len(), |at| self.scanned + at);
        self.scanned
    }

    /// How long a body may be.
    fn body_limit<const PARTS: bool>(&self, command: Command) -> u64 {
        let whole = self.limits.max_body as u64;
        if PARTS && command.may_have_body() { whole.max(self.limits.max_long_body) } else { whole }
    }

    fn refuses_body(&self, command: Command) -> bool {
        !command.may_have_body() && self.version != Some(Version::V1_0) && !self.lenience.ignore_bodies
    }

    fn drops_body(&self, command: Command) -> bool {
        !command.may_have_body() && self.lenience.ignore_bodies
    }
}

/// The part of `line` between `from` and `to` without the blanks around it.
fn trimmed(line: &[u8], (from, to): (usize, usize)) -> (usize, usize) {
    let is_text = |octet: &u8| !matches!(octet, b' ' | b'\t');
    let text = &line[from..to];
    match (text.iter().position(is_text), text.iter().rposition(is_text)) {
        (Some(first), Some(last)) => (from + first, from + last + 1),
        _ => (from, from),
    }
}

/// Digits only, within 64 bits. `str::parse` would take a sign.
fn content_length(text: &[u8]) -> Result<u64, DecodeError> {
    let sum = text.iter().try_fold(0_u64, |sum, octet| {
        let digit = octet.wrapping_sub(b'0');
        if digit > 9 { None } else { sum.checked_mul(10)?.checked_add(u64::from(digit)) }
    });
    sum.filter(|_| !text.is_empty()).ok_or_else(|| DecodeError::BadContentLength(excerpt(text)))
}

/// The beginning of what was wrong, fit for an error message.
fn excerpt(octets: &[u8]) -> String {
    const SHOWN: usize = 48;
    String::from_utf8_lossy(&octets[..octets.len().min(SHOWN)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time is linear in octets only if none is looked at twice, however small the reads are.
    #[test]
    fn what_was_looked_at_is_remembered() {
        let head = b"MESSAGE\nsubscription:0\ndestination:/queue/a\n\n";
        let mut decoder = Decoder::new(Limits::default());
        let mut buffer = BytesMut::new();
        for octet in head.iter().chain(core::iter::repeat_n(&b'x', 10_000)) {
            buffer.extend_from_slice(&[*octet]);
            assert_eq!(decoder.decode(&mut buffer), Ok(None));
            assert_eq!(decoder.scanned, buffer.len());
        }
        buffer.extend_from_slice(b"\0");
        let frame = decoder.decode(&mut buffer).unwrap().unwrap();
        assert_eq!((frame.body().len(), decoder.scanned, buffer.len()), (10_000, 0, 0));
    }

    #[test]
    fn nor_in_a_long_body() {
        let limits = Limits { max_body: 10, ..Limits::default() };
        let mut decoder = Decoder::new(limits);
        let mut buffer = BytesMut::from("MESSAGE\n\n");
        let mut body = 0;
        for octet in core::iter::repeat_n(&b'x', 10_000) {
            buffer.extend_from_slice(&[*octet]);
            while let Some(part) = decoder.decode_part(&mut buffer).unwrap() {
                if let Part::Body(octets) = part {
                    body += octets.len();
                }
            }
            // Until the body is known to be long it is held; then nothing is.
            assert_eq!(decoder.scanned, buffer.len());
            assert!(buffer.len() <= 9 + 10 && (body == 0 || buffer.is_empty()));
        }
        assert_eq!(body, 10_000);
    }

    #[test]
    fn a_long_body_is_none_for_whole_frames() {
        let limits = Limits { max_body: 2, ..Limits::default() };
        let mut decoder = Decoder::new(limits);
        let mut buffer = BytesMut::from("MESSAGE\n\nab\0MESSAGE\n\nabc\0");
        assert_eq!(decoder.decode(&mut buffer).unwrap().unwrap().body(), b"ab");
        assert!(matches!(decoder.decode_part(&mut buffer), Ok(Some(Part::Head { length: None, .. }))));
        let too_long = DecodeError::BodyTooLong { limit: 2 };
        assert_eq!(decoder.decode(&mut buffer), Err(too_long.clone()));
        assert_eq!(decoder.decode_part(&mut buffer), Err(too_long), "it is final");
    }

    #[test]
    fn a_passcode_is_in_no_message() {
        let mut decoder = Decoder::new(Limits::default());
        decoder.set_unescape_connect(true);
        let mut buffer = BytesMut::from("CONNECT\npasscode:hunter\\2\n\n\0");
        let error = decoder.decode(&mut buffer).unwrap_err();
        assert!(matches!(error, DecodeError::BadEscape { .. }));
        assert!(!alloc::format!("{error} {error:?}").contains("hunter"), "{error}");
    }
}
