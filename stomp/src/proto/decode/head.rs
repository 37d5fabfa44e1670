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
        let crlf_ends_lines = self.crlf_ends_lines();
        let (mut command, mut plain) = (None, true);
        let (mut line, mut colon) = (0, 0);
        for (block, from) in (0..src.len()).step_by(BLOCK).map(|from| (&src[from..], from)) {
            let mut marks = marks_of_front(block);
            while marks != 0 {
                let at = from + marks.trailing_zeros() as usize;
                marks &= marks - 1;
                match src[at] {
                    // The first of its line: before, it is that of a line above.
                    b':' if colon < line => colon = at,
                    b'\n' if at - line > self.limits.max_line => return None,
                    b'\n' => {
                        if let Some(command) = command {
                            if at == line {
                                (self.scanned, self.line_start) = (at + 1, at + 1);
                                return Some(WholeHead { command, plain });
                            }
                            // No colon, or no name before it.
                            if colon <= line || self.spans.len() == self.limits.max_headers {
                                return None;
                            }
                            // Offsets are below max_head, which is clamped to 1 GiB.
                            let span = |from: usize, to: usize| (from as u32, to as u32);
                            self.spans.push(Span { name: span(line, colon), value: span(colon + 1, at) });
                        } else {
                            command = Some(Command::parse(&src[line..at])?);
                        }
                        line = at + 1;
                    }
                    b'\\' => plain = false,
                    b'\r' if !crlf_ends_lines => plain = false,
                    0 | b'\r' | 0x80.. => return None,
                    _ => {}
                }
            }
        }
        None
    }
}

/// A bit for each octet among the first [`BLOCK`] that may mean something.
#[inline]
fn marks_of_front(src: &[u8]) -> u64 {
    if let Some(block) = src.first_chunk() {
        return marks(block);
    }
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
    words.iter().rev().fold(0, |marks, word| (marks << 8) | gathered(u64::from_le_bytes(*word)))
}

/// The lowest bits of eight octets, side by side.
#[inline]
fn gathered(word: u64) -> u64 {
    word.wrapping_mul(0x0102_0408_1020_4080) >> 56
}
