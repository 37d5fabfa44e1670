use alloc::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Octets waiting to be written, in order: small frames flattened into one buffer, long bodies as shared slices between.
///
/// It is a [`Buf`] whose `chunks_vectored` gives every part, so one vectored write takes many frames.
#[derive(Debug, Default)]
pub struct Outbox {
    sealed: VecDeque<Bytes>,
    sealed_len: usize,
    tail: BytesMut,
}

impl Outbox {
    /// Nothing to write.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the end-of-line of a heart-beat.
    pub fn push_eol(&mut self) {
        self.tail.extend_from_slice(b"\n");
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Where small parts are appended.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends a shared part behind the tail.
    pub(crate) fn share(&mut self, part: Bytes) {
        let tail = self.tail.split().freeze();
        for sealed in [tail, part] {
            if !sealed.is_empty() {
                self.sealed_len += sealed.len();
                self.sealed.push_back(sealed);
            }
        }
    }
}

impl Buf for Outbox {
    fn remaining(&self) -> usize {
        self.sealed_len + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.sealed.front().map_or(&self.tail, |part| part)
    }

    #[cfg(feature = "std")]
    fn chunks_vectored<'a>(&'a self, dst: &mut [std::io::IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let parts = self.sealed.iter().map(|part| &part[..]).chain(tail);
        dst.iter_mut().zip(parts).map(|(slot, part)| *slot = std::io::IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining(), "advanced past what there is to write");
        while count > 0 {
            let Some(front) = self.sealed.front_mut() else {
                self.tail.advance(count);
                return;
            };
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            self.sealed_len -= step;
            if front.is_empty() {
                self.sealed.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_out_in_order_whatever_the_steps() {
        for step in 1..9 {
            let mut outbox = Outbox::new();
            outbox.tail().extend_from_slice(b"abc");
            outbox.share(Bytes::from_static(b"defgh"));
            outbox.tail().extend_from_slice(b"i");
            outbox.share(Bytes::from_static(b"jk"));
            outbox.push_eol();
            let mut written = alloc::vec::Vec::new();
            while outbox.has_remaining() {
                let count = step.min(outbox.chunk().len());
                written.extend_from_slice(&outbox.chunk()[..count]);
                outbox.advance(count);
            }
            assert_eq!(written, b"abcdefghijk\n", "step {step}");
        }
    }

    #[cfg(feature = "std")]
    #[test]
    fn one_vectored_write_sees_every_part() {
        let mut outbox = Outbox::new();
        outbox.tail().extend_from_slice(b"ab");
        outbox.share(Bytes::from_static(b"cd"));
        outbox.tail().extend_from_slice(b"ef");
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let count = outbox.chunks_vectored(&mut slices);
        let parts: alloc::vec::Vec<&[u8]> = slices[..count].iter().map(|slice| &**slice).collect();
        assert_eq!(parts, [b"ab", b"cd", b"ef"]);
    }
}
