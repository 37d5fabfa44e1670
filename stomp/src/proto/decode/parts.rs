use bytes::{Buf, Bytes, BytesMut};

use super::{Decoder, Ending, State};
use crate::proto::{DecodeError, Frame};

/// What [`Decoder::decode_part`] takes from the front of the input. A body comes in parts if it is longer than
/// [`Limits::max_body`](crate::proto::Limits::max_body), and only then: how the input was cut decides nothing but where
/// one [`Part::Body`] ends and the next begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A whole frame.
    Frame(Frame),
    /// The head of a frame with a long body; parts of the body follow, then [`Part::End`].
    Head {
        /// Command and headers; the body is empty.
        frame: Frame,
        /// The body's length in octets, if the peer announced it.
        length: Option<u64>,
    },
    /// The next octets of the body, at least one: a slice of the buffer they were read into.
    Body(Bytes),
    /// The body is whole, and as long as was announced.
    End,
}

impl Decoder {
    /// Like [`Decoder::decode`], but a body longer than [`Limits::max_body`](crate::proto::Limits::max_body) is not an
    /// error: its frame comes as head, parts of the body as they arrive, and end, up to
    /// [`Limits::max_long_body`](crate::proto::Limits::max_long_body) octets in all. Only SEND, MESSAGE and ERROR may
    /// have such a body. No octet is copied, and the buffer never holds more than a head, `max_body` octets and what was
    /// read last. Until [`Part::End`] has come the frame is not whole: a connection that ends before has lost the rest.
    ///
    /// Calls to [`Decoder::decode`] may come between those to this method, but for the middle of a long body, where it
    /// fails: the body is too long for a whole frame.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use stompwire::proto::{Decoder, Limits, Part};
    ///
    /// let mut decoder = Decoder::new(Limits { max_body: 4, ..Limits::default() });
    /// let mut read = BytesMut::new();
    /// let (mut file, mut whole) = (Vec::new(), false);
    /// for octets in ["MESSAGE\ndestination:/a\ncont", "ent-length:10\n\n0123", "45678", "9\0"] {
    ///     read.extend_from_slice(octets.as_bytes());
    ///     while let Some(part) = decoder.decode_part(&mut read).unwrap() {
    ///         match part {
    ///             Part::Frame(frame) => println!("{} at once", frame.command()),
    ///             Part::Head { frame, length } => {
    ///                 assert_eq!((frame.header("destination"), length), (Some("/a"), Some(10)));
    ///             }
    ///             Part::Body(octets) => file.extend_from_slice(&octets),
    ///             Part::End => whole = true,
    ///         }
    ///     }
    /// }
    /// assert!(whole && file == b"0123456789");
    /// ```
    ///
    /// # Errors
    /// As for [`Decoder::decode`]. Parts that have come before the error are the same whatever the chunking.
    pub fn decode_part(&mut self, src: &mut BytesMut) -> Result<Option<Part>, DecodeError> {
        if let State::Long { ending, room } = self.state {
            return self.until_failed(|decoder| decoder.next_part(src, ending, room));
        }
        let Some(found) = self.until_failed(|decoder| decoder.advance::<true>(src))? else { return Ok(None) };
        let frame = self.take(src, &found);
        Ok(Some(match self.state {
            State::Long { ending: Ending::Counted(length), .. } => Part::Head { frame, length: Some(length) },
            State::Long { ending: Ending::Nul, .. } => Part::Head { frame, length: None },
            _ => Part::Frame(frame),
        }))
    }

    /// Whether a [`Part::End`] is due.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_in_long_body(&self) -> bool {
        matches!(self.state, State::Long { .. })
    }

    /// More of a long body. `room` is how many octets of it may still come.
    fn next_part(
        &mut self,
        src: &mut BytesMut,
        ending: Ending,
        room: u64,
    ) -> Result<Option<Part>, DecodeError> {
        let Some(&first) = src.first() else { return Ok(None) };
        let available = match ending {
            Ending::Counted(0) if first != 0 => return Err(DecodeError::BodyNotTerminated),
            Ending::Counted(left) => up_to(src.len(), left),
            Ending::Nul => self.octets_before_nul(src),
        };
        if available == 0 {
            src.advance(1);
            self.start_over();
            return Ok(Some(Part::End));
        }
        let count = up_to(available, room);
        if count == 0 {
            return Err(DecodeError::BodyTooLong { limit: self.limits.max_long_body });
        }
        self.scanned = self.scanned.saturating_sub(count);
        self.state = State::Long { ending: ending.after(count), room: room - count as u64 };
        Ok(Some(Part::Body(src.split_to(count).freeze())))
    }
}

impl Ending {
    fn after(self, count: usize) -> Self {
        match self {
            Self::Counted(left) => Self::Counted(left - count as u64),
            Self::Nul => Self::Nul,
        }
    }
}

/// `len`, but at most `limit`.
fn up_to(len: usize, limit: u64) -> usize {
    usize::try_from(limit).map_or(len, |limit| len.min(limit))
}
