//! The usual head, whole in the buffer, in one pass over its octets.
//!
//! It finds what the line by line way finds, and decides nothing else: whatever is not plain well-formed is left to that
//! way, from the start, and so is each error. A frame is tried once, so an octet is looked at twice at most.

use super::{Command, Decoder, Span};

/// Octets looked at together.
const BLOCK: usize = 64;

/// A head as the pass has found it; its headers are in the decoder's table.
pub(super) struct WholeHead {
    pub(super) command: Command,
    /// Neither a backslash nor a carriage return is in it, and it is ASCII.
    pub(super) plain: bool,
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
            self.spans.clear();
        }
        head
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

        let (mut block, mut plain) = (0, true);
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
                    return Some(WholeHead { command, plain });
                }
                let has_name = colon > line;
                if !has_name
                    || at - line > self.limits.max_line
                    || self.spans.len() >= self.limits.max_headers
                {
                    return None;
                }
                // Offsets are below max_head, which is clamped to 1 GiB.
                let span = |from: usize, to: usize| (from as u32, to as u32);
                self.spans.push(Span { name: span(line, colon), value: span(colon + 1, at) });
                line = at + 1;
            } else {
                plain &= self.is_plain(octet)?;
            }
        }
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
