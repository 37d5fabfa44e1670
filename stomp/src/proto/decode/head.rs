//! The usual head, whole in the buffer, in one pass over its octets.
//!
//! It finds what the line by line way finds, and decides nothing else: whatever is not plain well-formed is left to that
//! way, from the start, and so is each error. A frame is tried once, so an octet is looked at twice at most.

use super::{CONTENT_LENGTH, Command, DecodeError, Decoder, Ending, Span};

/// Octets looked at together.
const BLOCK: usize = 64;

/// A head as the pass has found it; its headers are with the decoder.
pub(super) struct WholeHead {
    pub(super) command: Command,
    /// Neither a backslash nor a carriage return is in it, and it is ASCII.
    plain: bool,
    /// Where the value of the first content-length is.
    length: Option<(usize, usize)>,
}

impl Decoder {
    /// The head at the front of `src`, up to and with its blank line. `None` if it is not whole or not usual; then the
    /// decoder is as before.
    pub(super) fn whole_head(&mut self, src: &[u8]) -> Option<WholeHead> {
        if self.lenience.trim_headers {
            return None;
        }
        let head = self.read_whole_head(&src[..src.len().min(self.limits.max_head)]);
        if head.is_none() {
            self.forget_headers();
        }
        head
    }

    /// How its body ends.
    #[inline]
    pub(super) fn finish_whole_head<const PARTS: bool>(
        &mut self,
        head: &WholeHead,
        src: &mut [u8],
    ) -> Result<Ending, DecodeError> {
        if !head.plain {
            self.lines_to_spans();
            return self.finish_head::<PARTS>(head.command, src);
        }
        match head.length {
            Some((from, to)) => self.counted::<PARTS>(head.command, &src[from..to]),
            None => Ok(Ending::Nul),
        }
    }

    /// What is noted of the headers, in the table of those that are not usual.
    #[cold]
    fn lines_to_spans(&mut self) {
        if self.spans.is_empty() {
            self.spans.extend(self.lines.spans());
        }
    }

    #[inline]
    fn read_whole_head(&mut self, src: &[u8]) -> Option<WholeHead> {
        let mut marks = marks_of_front(src);
        // No command is as long as a block.
        let end = marks.trailing_zeros() as usize;
        if src.get(end) != Some(&b'\n') || end > self.limits.max_line {
            return None;
        }
        let command = Command::parse(&src[..end])?;
        marks &= marks - 1;

        self.lines.restart(end as u16 + 1);

        let (mut block, mut plain, mut length, mut count) = (0, true, None, 0);
        // Where the line starts, and its first colon; until that is found, one of a line above.
        let (mut line, mut colon) = (end + 1, 0);
        loop {
            while marks == 0 {
                block += BLOCK;
                marks = marks_of_front(src.get(block..)?);
            }
            let at = block + marks.trailing_zeros() as usize;
            marks &= marks - 1;
            let octet = *src.get(at)?;
            if octet == b':' {
                if colon < line {
                    colon = at;
                }
            } else if octet == b'\n' {
                if at == line {
                    (self.scanned, self.line_start) = (at + 1, at + 1);
                    return Some(WholeHead { command, plain, length });
                }
                let has_name = colon > line;
                if !has_name || at - line > self.limits.max_line || count >= self.limits.max_headers {
                    return None;
                }
                count += 1;
                if !self.lines.push(colon, at) {
                    self.push_span(line, colon, at);
                }
                if colon - line == CONTENT_LENGTH.len()
                    && length.is_none()
                    && src[line..colon] == *CONTENT_LENGTH.as_bytes()
                {
                    length = Some((colon + 1, at));
                }
                line = at + 1;
            } else {
                plain &= self.is_plain(octet)?;
            }
        }
    }

    /// Notes a header that is one too many for the usual, or too far off.
    #[cold]
    fn push_span(&mut self, line: usize, colon: usize, end: usize) {
        self.lines_to_spans();
        // Offsets are below max_head, which is clamped to 1 GiB.
        let span = |from: usize, to: usize| (from as u32, to as u32);
        self.spans.push(Span { name: span(line, colon), value: span(colon + 1, end) });
    }

    /// Whether a marked octet other than colon and LF is text that needs no second look. `None` if it is not usual.
    #[cold]
    fn is_plain(&self, octet: u8) -> Option<bool> {
        match octet {
            b'\\' => Some(false),
            b'\r' if !self.crlf_ends_lines() => Some(false),
            0 | b'\r' | 0x80.. => None,
            _ => Some(true),
        }
    }
}

/// A bit for each octet among the first [`BLOCK`] that may mean something.
#[inline]
fn marks_of_front(src: &[u8]) -> u64 {
    src.first_chunk().map_or_else(|| marks_of_less(src), marks)
}

/// The same for less than a block.
#[cold]
fn marks_of_less(src: &[u8]) -> u64 {
    let mut block = [b' '; BLOCK];
    block[..src.len()].copy_from_slice(src);
    marks(&block)
}

/// One comparison finds NUL, LF, CR and, as negative numbers, what is not ASCII.
#[inline]
fn marks(block: &[u8; BLOCK]) -> u64 {
    let found =
        block.map(|octet| u8::from(((octet as i8) <= b'\r' as i8) | (octet == b':') | (octet == b'\\')));
    let (words, _) = found.as_chunks::<8>();
    let gathered = words.iter().map(|word| gathered(u64::from_le_bytes(*word)));
    gathered.enumerate().fold(0, |marks, (word, bits)| marks | (bits << (8 * word)))
}

/// The lowest bits of eight octets, side by side.
#[inline]
fn gathered(word: u64) -> u64 {
    word.wrapping_mul(0x0102_0408_1020_4080) >> 56
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec::Vec};

    use bytes::BytesMut;

    use super::Decoder;
    use crate::proto::{DecodeError, Frame, Lenience, Limits, Version};

    /// Octet by octet no head is ever whole at first: each goes the way line by line.
    #[test]
    fn both_ways_find_the_same() {
        let long = "x".repeat(100);
        let heads = [
            "MESSAGE\na:b\n\n".into(),
            "MESSAGE\n\n".into(),
            "MESSAGE\na:\nb:c:d\n:\n\n".into(),
            "MESSAGE\n:a:b\n\n".into(),
            "MESSAGE\na:b\n:c:d\n\n".into(),
            "MESSAGE\na:b\nno colon\n\n".into(),
            "MESSAGE\na\\cb:c\\nd\n\n".into(),
            "MESSAGE\na:\\t\n\n".into(),
            "MESSAGE\r\na:b\r\n\r\n".into(),
            "MESSAGE\na:b\rc\n\n".into(),
            "MESSAGE\na:b\tc\x7f\n\n".into(),
            "MESSAGE\na:\u{e9}\n\n".into(),
            "MESSAGE\na:\0b\n\n".into(),
            "MESSAGE\ncontent-length:4\ncontent-length:1\n\n".into(),
            "MESSAGE\ncontent-length:\n\n".into(),
            "MASSAGE\na:b\n\n".into(),
            "M:SSAGE\na:b\n\n".into(),
            "RECEIPT\nreceipt-id:1\n\n".into(),
            format!("{long}\na:b\n\n"),
            format!("MESSAGE\na:{long}\n\n"),
            format!("MESSAGE\n{long}:a\nb:{long}\n\n"),
            format!("MESSAGE\n{}\n", "a:b\n".repeat(40)),
            format!("MESSAGE\n{}\n", "a:b\n".repeat(11)),
            format!("MESSAGE\n{}content-length:4\na:\n\n", "a:b\n".repeat(11)),
            format!("MESSAGE\n{}\n", "a:\\\\\n".repeat(15)),
        ];
        let tight = Limits { max_line: 50, max_headers: 20, max_head: 120, ..Limits::default() };
        let untrimmed = Lenience { trim_headers: false, ..Lenience::ALL };
        for head in &heads {
            for body in ["", "body"] {
                for version in [None, Some(Version::V1_0), Some(Version::V1_1), Some(Version::V1_2)] {
                    for limits in [Limits::default(), tight] {
                        for lenience in [Lenience::STRICT, untrimmed, Lenience::ALL] {
                            let wire = format!("{head}{body}\0RECEIPT\n\n\0");
                            let decoder = || Decoder { version, lenience, ..Decoder::new(limits) };
                            let whole = frames(decoder(), &wire, wire.len());
                            assert_eq!(whole, frames(decoder(), &wire, 1), "{wire:?} {version:?} {limits:?}");
                        }
                    }
                }
            }
        }
    }

    fn frames(mut decoder: Decoder, wire: &str, read: usize) -> (Vec<Frame>, Result<(), DecodeError>) {
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for octets in wire.as_bytes().chunks(read) {
            buffer.extend_from_slice(octets);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Err(error)),
                }
            }
        }
        (frames, Ok(()))
    }

    /// Where a header is may be too far off for the table of a usual head.
    #[test]
    fn nor_does_a_long_head_differ() {
        let limits = Limits { max_line: 200_000, max_head: 400_000, ..Limits::default() };
        for length in [65_515, 65_516, 65_517, 65_518, 65_519, 65_520, 65_521, 65_522, 65_523, 100_000] {
            let wire = format!("MESSAGE\na:b\nc:{}\ncontent-length:1\nd:e\n\n\0\0", "x".repeat(length));
            let whole = frames(Decoder::new(limits), &wire, wire.len());
            assert_eq!((whole.0[0].header("d"), whole.0[0].body()), (Some("e"), &b"\0"[..]));
            assert_eq!(whole, frames(Decoder::new(limits), &wire, 4096), "{length}");
        }
    }

    #[test]
    fn every_octet_that_means_something_is_marked() {
        for octet in 0..=u8::MAX {
            let expected = octet <= b'\r' || octet >= 0x80 || matches!(octet, b':' | b'\\');
            for at in 0..super::BLOCK {
                let mut block = [b' '; super::BLOCK];
                block[at] = octet;
                assert_eq!(super::marks(&block), u64::from(expected) << at, "{octet} at {at}");
            }
            assert_eq!(super::marks_of_front(&[octet]), u64::from(expected), "{octet}");
        }
    }
}
