//! The decoder: octets of any chunking in, frames out.
//!
//! Each octet is looked at once: what has been scanned is remembered across calls, so time is linear in octets
//! whatever the chunking. Octets stay in the caller's buffer until a frame is whole; the frame is then split off
//! without copying, and the only allocation is the table of its headers.

use alloc::{string::String, vec::Vec};

use bytes::{Buf, BytesMut};

use super::{Command, DecodeError, Frame, Headers, Limits, Version, escape::Escaping, headers::Span};

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
    state: State,
    /// Octets of the buffer that need not be looked at again.
    scanned: usize,
    /// Where the line being read starts.
    line_start: usize,
    /// Kept from frame to frame, so that a frame allocates its exact table once.
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
        length: Option<usize>,
    },
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
            state: State::Between,
            scanned: 0,
            line_start: 0,
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
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.advance(src);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    fn advance(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        loop {
            match self.state {
                State::Between => {
                    if !self.skip_eols(src)? {
                        return Ok(None);
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
                        let length = self.finish_head(command, src)?;
                        self.state = State::Body { command, head: self.scanned, length };
                    }
                }
                State::Body { command, head, length } => {
                    let Some(end) = self.body_end(src, command, head, length)? else { return Ok(None) };
                    let mut text = src.split_to(end + 1).freeze();
                    let body = text.slice(head..end);
                    text.truncate(head);
                    let headers = Headers::received(text, &self.spans);
                    self.start_over();
                    return Ok(Some(Frame::from_parts(command, headers, body)));
                }
            }
        }
    }

    fn start_over(&mut self) {
        self.state = State::Between;
        self.scanned = 0;
        self.line_start = 0;
        self.spans.clear();
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
        src.advance(skip);
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
        if self.spans.len() == self.limits.max_headers {
            return Err(DecodeError::TooManyHeaders { limit: self.limits.max_headers });
        }
        let colon = memchr::memchr(b':', line).unwrap_or(0);
        if colon == 0 {
            return Err(self.not_a_header(line));
        }
        // Offsets are below max_head, which is clamped to 1 GiB.
        let at = |offset: usize| (start + offset) as u32;
        self.spans.push(Span { name: (at(0), at(colon)), value: (at(colon + 1), at(line.len())) });
        Ok(())
    }

    fn not_a_header(&self, line: &[u8]) -> DecodeError {
        if self.crlf_ends_lines() && line.contains(&b'\r') {
            DecodeError::StrayCarriageReturn
        } else if line.starts_with(b":") {
            DecodeError::EmptyHeaderName
        } else {
            DecodeError::NoColon(excerpt(line))
        }
    }

    /// The head is whole: checks UTF-8 and carriage returns, unescapes in place, and finds the content-length.
    fn finish_head(&mut self, command: Command, src: &mut [u8]) -> Result<Option<usize>, DecodeError> {
        let head = &mut src[..self.scanned];
        core::str::from_utf8(head).map_err(|_| DecodeError::NotUtf8)?;
        // One look at the head instead of one at each line: mostly there is neither.
        if memchr::memchr2(b'\r', b'\\', head).is_some() {
            self.unescape_head(command, head)?;
        }
        let length = self
            .spans
            .iter()
            .find(|span| head[span.name.0 as usize..span.name.1 as usize] == *b"content-length")
            .map(|span| content_length(&head[span.value.0 as usize..span.value.1 as usize]))
            .transpose()?;
        match length {
            Some(length) if length > self.limits.max_body as u64 => {
                Err(DecodeError::BodyTooLong { limit: self.limits.max_body })
            }
            Some(length) if length > 0 && self.refuses_body(command) => {
                Err(DecodeError::UnexpectedBody(command))
            }
            // It is at most max_body, a usize.
            length => Ok(length.map(|length| length as usize)),
        }
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

    /// Where the NUL that ends the frame is.
    fn body_end(
        &mut self,
        src: &[u8],
        command: Command,
        head: usize,
        length: Option<usize>,
    ) -> Result<Option<usize>, DecodeError> {
        if let Some(length) = length {
            // A body that no address space holds never arrives.
            let end = head.saturating_add(length);
            return match src.get(end) {
                None => Ok(None),
                Some(0) => Ok(Some(end)),
                Some(_) => Err(DecodeError::BodyNotTerminated),
            };
        }
        let found = memchr::memchr(0, &src[self.scanned..]);
        let end = found.map_or(src.len(), |at| self.scanned + at);
        self.scanned = end;
        if end > head && self.refuses_body(command) {
            return Err(DecodeError::UnexpectedBody(command));
        }
        if end - head > self.limits.max_body {
            return Err(DecodeError::BodyTooLong { limit: self.limits.max_body });
        }
        Ok(found.map(|_| end))
    }

    fn refuses_body(&self, command: Command) -> bool {
        !command.may_have_body() && self.version != Some(Version::V1_0)
    }
}

/// Digits only, within 64 bits. `str::parse` would take a sign.
fn content_length(text: &[u8]) -> Result<u64, DecodeError> {
    let bad = || DecodeError::BadContentLength(excerpt(text));
    if text.is_empty() {
        return Err(bad());
    }
    text.iter().try_fold(0_u64, |sum, &octet| {
        let digit = octet.checked_sub(b'0').filter(|&digit| digit <= 9).ok_or_else(bad)?;
        sum.checked_mul(10).and_then(|sum| sum.checked_add(u64::from(digit))).ok_or_else(bad)
    })
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
    fn a_passcode_is_in_no_message() {
        let mut decoder = Decoder::new(Limits::default());
        decoder.set_unescape_connect(true);
        let mut buffer = BytesMut::from("CONNECT\npasscode:hunter\\2\n\n\0");
        let error = decoder.decode(&mut buffer).unwrap_err();
        assert!(matches!(error, DecodeError::BadEscape { .. }));
        assert!(!alloc::format!("{error} {error:?}").contains("hunter"), "{error}");
    }
}
