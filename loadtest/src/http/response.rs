//! Just enough of an HTTP/1.1 response parser for a beacon's answer: status, `Content-Length`, `Connection`.
//!
//! Sans-io: octets go in as they arrive. The head is usually whole in one read and is then parsed where it lies; only a
//! head that is cut by the end of a read is copied. Bodies are counted, not kept. A head that is the same as the one before,
//! as nearly all are, is compared instead of parsed.

use std::fmt;

use memchr::{memchr, memmem};

/// The largest response head that is taken, in octets.
pub const MAX_HEAD: usize = 16 * 1024;

/// The largest response head that is kept to compare the next one with, in octets.
const MAX_KNOWN_HEAD: usize = 1024;

/// A response that has arrived whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Whether the server closes the connection after it.
    pub close: bool,
    /// What it says became of the beacon.
    pub beacon: BeaconStatus,
}

/// The field `X-Beacon-Status`, with which routes that wait for more than the ring say what they waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BeaconStatus {
    /// There is no such field, or one that says something else.
    #[default]
    Unsaid,
    /// On disk.
    Spooled,
    /// With the broker.
    Confirmed,
    /// Neither, in the time that there was.
    Unconfirmed,
}

/// Why octets are not a response that a beacon server should send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseError {
    /// The head exceeds [`MAX_HEAD`].
    HeadTooLarge,
    /// The first line is not `HTTP/1.x NNN …`.
    StatusLine,
    /// A field line without a colon, or with an empty or blank name.
    FieldLine,
    /// `Content-Length` is not a number, or is given twice with two values.
    ContentLength,
    /// `Transfer-Encoding` is not expected of an answer to a beacon.
    TransferEncoding,
    /// Neither `Content-Length` nor a status that has no body: the end cannot be told.
    NoLength,
    /// Octets after the end of the response, though nothing more was asked for.
    Surplus,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeadTooLarge => "response head over 16 KiB",
            Self::StatusLine => "malformed status line",
            Self::FieldLine => "malformed header field",
            Self::ContentLength => "malformed Content-Length",
            Self::TransferEncoding => "Transfer-Encoding, where only Content-Length is expected",
            Self::NoLength => "response without Content-Length",
            Self::Surplus => "octets after the end of the response",
        })
    }
}

impl std::error::Error for ResponseError {}

/// Takes the octets of one response after another.
#[derive(Debug, Default)]
pub struct ResponseParser {
    /// A head that was cut by the end of a read.
    partial: Vec<u8>,
    /// The last head that was whole in one read, with its empty line, and what it says.
    known: Option<(Vec<u8>, Head)>,
    /// The response whose body is arriving, and how many octets of it are still to come.
    body: Option<Head>,
}

impl ResponseParser {
    /// Takes the next octets. `Ok(Some(_))` means that a response has ended exactly at the end of `input`, and that the
    /// parser is ready for the next. After an error the connection is of no more use; call [`ResponseParser::reset`].
    ///
    /// # Errors
    /// [`ResponseError`] when the octets are not a response, or more than one.
    pub fn advance(&mut self, mut input: &[u8]) -> Result<Option<Response>, ResponseError> {
        loop {
            if let Some((response, missing)) = self.body {
                let available = input.len() as u64;
                if available > missing {
                    return Err(ResponseError::Surplus);
                }
                self.body = (available < missing).then_some((response, missing - available));
                return Ok(self.body.is_none().then_some(response));
            }
            let Some((head, rest)) = self.take_head(input)? else { return Ok(None) };
            input = &input[input.len() - rest..];
            // Interim responses (1xx) have no body, and the real one follows.
            if let Some((response, length)) = head {
                self.body = Some((response, length));
            }
        }
    }

    /// Whether nothing of a response has arrived yet.
    pub fn is_idle(&self) -> bool {
        self.partial.is_empty() && self.body.is_none()
    }

    /// Forgets a response that has begun, for a new connection.
    pub fn reset(&mut self) {
        self.partial.clear();
        self.body = None;
    }

    /// Parses a head if it is whole; also says how many octets of `input` follow it.
    fn take_head(&mut self, input: &[u8]) -> Result<Option<(Option<Head>, usize)>, ResponseError> {
        if self.partial.is_empty() {
            if let Some((octets, head)) = &self.known
                && input.starts_with(octets)
            {
                return Ok(Some((Some(*head), input.len() - octets.len())));
            }
            if let Some(end) = head_end(input, 0) {
                let head = parse_head(&input[..end])?;
                if let Some(head) = head {
                    self.remember(&input[..end], head);
                }
                return Ok(Some((head, input.len() - end)));
            }
            if input.len() > MAX_HEAD {
                return Err(ResponseError::HeadTooLarge);
            }
            self.partial.extend_from_slice(input);
            return Ok(None);
        }
        let before = self.partial.len();
        // Bounded before it is copied: whatever lies beyond the limit cannot belong to a head that is taken.
        let copied = input.len().min(MAX_HEAD + 1 - before);
        self.partial.extend_from_slice(&input[..copied]);
        match head_end(&self.partial, before.saturating_sub(3)) {
            Some(end) => {
                let head = parse_head(&self.partial[..end]);
                self.partial.clear();
                Ok(Some((head?, input.len() - (end - before))))
            }
            None if self.partial.len() > MAX_HEAD => Err(ResponseError::HeadTooLarge),
            None => Ok(None),
        }
    }

    fn remember(&mut self, octets: &[u8], head: Head) {
        if octets.len() <= MAX_KNOWN_HEAD {
            let (known, says) = self.known.get_or_insert_with(|| (Vec::new(), head));
            known.clear();
            known.extend_from_slice(octets);
            *says = head;
        }
    }
}

/// A parsed head: the response, and how many octets of body follow.
type Head = (Response, u64);

/// Where a head ends, searching from `from`.
fn head_end(octets: &[u8], from: usize) -> Option<usize> {
    memmem::find(&octets[from..], b"\r\n\r\n").map(|at| from + at + 4)
}

/// A head with its empty line; `None` for an interim response.
fn parse_head(head: &[u8]) -> Result<Option<Head>, ResponseError> {
    if head.len() > MAX_HEAD {
        return Err(ResponseError::HeadTooLarge);
    }
    let (line, mut rest) = split_line(head).ok_or(ResponseError::StatusLine)?;
    let (status, mut close) = parse_status_line(line).ok_or(ResponseError::StatusLine)?;
    let mut length = None;
    let mut beacon = BeaconStatus::Unsaid;
    while let Some((line, after)) = split_line(rest) {
        rest = after;
        if line.is_empty() {
            break;
        }
        let colon = memchr(b':', line).ok_or(ResponseError::FieldLine)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
            return Err(ResponseError::FieldLine);
        }
        // The lengths tell the four names of interest apart from nearly all others.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let value = parse_number(value).ok_or(ResponseError::ContentLength)?;
                if length.is_some_and(|earlier| earlier != value) {
                    return Err(ResponseError::ContentLength);
                }
                length = Some(value);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                return Err(ResponseError::TransferEncoding);
            }
            15 if name.eq_ignore_ascii_case(b"x-beacon-status") => {
                beacon = match value {
                    b"spooled" => BeaconStatus::Spooled,
                    b"confirmed" => BeaconStatus::Confirmed,
                    b"unconfirmed" => BeaconStatus::Unconfirmed,
                    _ => BeaconStatus::Unsaid,
                };
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|&octet| octet == b',').map(<[u8]>::trim_ascii) {
                    close |= option.eq_ignore_ascii_case(b"close");
                    close &= !option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
    }
    if status < 200 {
        return Ok(None);
    }
    let length = if matches!(status, 204 | 304) { 0 } else { length.ok_or(ResponseError::NoLength)? };
    Ok(Some((Response { status, close, beacon }, length)))
}

/// The line up to CR LF and what comes after it.
fn split_line(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', octets)?;
    Some((octets[..end].strip_suffix(b"\r")?, &octets[end + 1..]))
}

/// Status, and whether this version of HTTP closes the connection unless told otherwise.
fn parse_status_line(line: &[u8]) -> Option<(u16, bool)> {
    let close = match line.get(..9)? {
        b"HTTP/1.1 " => false,
        b"HTTP/1.0 " => true,
        _ => return None,
    };
    let &[a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] = line.get(9..12)? else { return None };
    if !matches!(line.get(12), None | Some(b' ')) {
        return None;
    }
    let digit = |octet: u8| u16::from(octet - b'0');
    Some((digit(a) * 100 + digit(b) * 10 + digit(c), close))
}

fn parse_number(octets: &[u8]) -> Option<u64> {
    if octets.is_empty() || octets.len() > 18 {
        return None;
    }
    octets
        .iter()
        .try_fold(0, |sum, &octet| octet.is_ascii_digit().then(|| sum * 10 + u64::from(octet - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\ncontent-length: 3\r\n\r\nGIF";

    type Outcome = Result<Option<Response>, ResponseError>;

    /// What comes of feeding `pieces`, up to the first error.
    fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        let mut parser = ResponseParser::default();
        let mut last = None;
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            if last.is_some() {
                return Err(ResponseError::Surplus);
            }
            last = parser.advance(piece)?;
        }
        assert!(last.is_none() || parser.is_idle());
        Ok(last)
    }

    #[test]
    fn responses_are_read_as_the_standard_says() {
        let ok = |status, close| Ok(Some(Response { status, close, beacon: BeaconStatus::Unsaid }));
        let cases: &[(&[u8], Outcome)] = &[
            (GIF, ok(200, false)),
            (b"HTTP/1.1 204 No Content\r\n\r\n", ok(204, false)),
            (b"HTTP/1.1 204\r\nContent-Length: 9\r\n\r\n", ok(204, false)),
            (b"HTTP/1.1 503 Busy\r\nContent-Length:0\r\nConnection: close\r\n\r\n", ok(503, true)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n", ok(200, true)),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", ok(200, true)),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", ok(200, false)),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 x\r\n\r\n", ok(204, false)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nab", ok(200, false)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Ok(None)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", Ok(None)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", Err(ResponseError::Surplus)),
            (
                b"HTTP/1.1 200 OK\r\nX-Beacon-Status: confirmed\r\nContent-Length: 0\r\n\r\n",
                Ok(Some(Response { status: 200, close: false, beacon: BeaconStatus::Confirmed })),
            ),
            (b"HTTP/1.1 204 x\r\nX-Beacon-Status: lost\r\n\r\n", ok(204, false)),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
                Err(ResponseError::ContentLength),
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Err(ResponseError::ContentLength)),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
                Err(ResponseError::ContentLength),
            ),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Err(ResponseError::TransferEncoding)),
            (b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n", Err(ResponseError::NoLength)),
            (b"HTTP/1.1 200 OK\r\nServer\r\n\r\n", Err(ResponseError::FieldLine)),
            (b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", Err(ResponseError::FieldLine)),
            (b"HTTP/1.1 2000 OK\r\n\r\n", Err(ResponseError::StatusLine)),
            (b"HTTP/1.1 999 OK\r\n\r\n", Err(ResponseError::StatusLine)),
            (b"HTTP/2 200\r\n\r\n", Err(ResponseError::StatusLine)),
            (b"\r\n\r\n", Err(ResponseError::StatusLine)),
        ];
        for (octets, expected) in cases {
            let shown = octets.escape_ascii();
            assert_eq!(feed([*octets]), *expected, "{shown}");
            for at in 0..=octets.len() {
                assert_eq!(feed([&octets[..at], &octets[at..]]), *expected, "{shown} split at {at}");
            }
            assert_eq!(feed(octets.chunks(1)), *expected, "{shown} octet by octet");
        }
    }

    #[test]
    fn one_parser_takes_many_responses() {
        let mut parser = ResponseParser::default();
        for _ in 0..3 {
            assert_eq!(parser.advance(&GIF[..20]), Ok(None));
            assert!(!parser.is_idle());
            assert_eq!(
                parser.advance(&GIF[20..]),
                Ok(Some(Response { status: 200, close: false, beacon: BeaconStatus::Unsaid }))
            );
            assert!(parser.is_idle());
        }
    }

    #[test]
    fn a_head_is_known_only_as_long_as_it_is_the_same() {
        let ok = |status, close| Ok(Some(Response { status, close, beacon: BeaconStatus::Unsaid }));
        let cases: &[(&[u8], Outcome)] = &[
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", ok(200, false)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb", ok(200, false)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ok(200, false)),
            (b"HTTP/1.1 503 OK\r\nContent-Length: 0\r\n\r\n", ok(503, false)),
            (b"HTTP/1.1 503 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", ok(503, true)),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 x\r\n\r\n", ok(204, false)),
            (b"HTTP/1.1 204 x\r\n\r\n", ok(204, false)),
            (b"HTTP/1.1 204 x\r\n", Ok(None)),
            (b"\r\n", ok(204, false)),
        ];
        let mut parser = ResponseParser::default();
        for (octets, expected) in cases {
            assert_eq!(parser.advance(octets), *expected, "{}", octets.escape_ascii());
        }
        assert_eq!(parser.advance(b"HTTP/1.1 204 x\r\n\r\nx"), Err(ResponseError::Surplus));
    }

    #[test]
    fn a_head_is_bounded_however_it_arrives() {
        let head = |fill: usize| {
            let mut head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx: ".to_vec();
            head.resize(fill - 4, b'x');
            head.extend_from_slice(b"\r\n\r\n");
            head
        };
        for chunk in [1000, 4096, MAX_HEAD, 2 * MAX_HEAD] {
            assert!(feed(head(MAX_HEAD).chunks(chunk)).unwrap().is_some(), "{chunk}");
            assert_eq!(feed(head(MAX_HEAD + 1).chunks(chunk)), Err(ResponseError::HeadTooLarge), "{chunk}");
            assert_eq!(
                feed(vec![b'x'; 3 * MAX_HEAD].chunks(chunk)),
                Err(ResponseError::HeadTooLarge),
                "{chunk}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_octets_never_panic_and_splits_change_nothing(
            octets in prop::collection::vec(any::<u8>(), 0..200),
            head in prop::sample::select(vec![&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"]),
            end in any::<bool>(),
        ) {
            let mut all = head.to_vec();
            all.extend_from_slice(&octets);
            if end {
                all.extend_from_slice(b"\r\n\r\n");
            }
            let whole = feed([&all[..]]);
            for at in 0..=all.len() {
                prop_assert_eq!(feed([&all[..at], &all[at..]]), whole, "split at {}", at);
            }
        }

        #[test]
        fn well_formed_responses_are_read_in_any_pieces(
            status in 200u16..600, body in 0usize..300, cuts in prop::collection::vec(0usize..400, 0..6),
        ) {
            let mut all = format!("HTTP/1.1 {status} x\r\nDate: now\r\nContent-Length: {body}\r\n\r\n").into_bytes();
            if !matches!(status, 204 | 304) {
                all.resize(all.len() + body, b'b');
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(all.len())).collect();
            cuts.extend([0, all.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &all[pair[0]..pair[1]]);
            prop_assert_eq!(feed(pieces), Ok(Some(Response { status, close: false, beacon: BeaconStatus::Unsaid })));
        }
    }
}
