//! The decoder and encoder as a [`tokio_util::codec`], for transports and loops of your own.

use std::io;

use bytes::BytesMut;

use crate::proto::{DecodeError, Decoder, EncodeError, Encoder, Frame, Lenience, Limits, Part, Version};

/// Frames over any `AsyncRead + AsyncWrite`, with `tokio_util::codec::Framed`. It negotiates nothing: call
/// [`StompCodec::set_version`] when CONNECTED has been seen or sent.
///
/// ```
/// use bytes::BytesMut;
/// use stompwire::{Frame, codec::StompCodec, proto::Limits};
/// use tokio_util::codec::Encoder;
///
/// let mut codec = StompCodec::new(Limits::default());
/// let mut wire = BytesMut::new();
/// codec.encode(Frame::send("/queue/a", "hello"), &mut wire).unwrap();
/// assert_eq!(&wire[..], b"SEND\ndestination:/queue/a\ncontent-length:5\n\nhello\0");
/// ```
#[derive(Debug)]
pub struct StompCodec {
    decoder: Decoder,
    encoder: Encoder,
}

/// What went wrong on a framed transport.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The transport.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The caller.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl StompCodec {
    /// A codec before the handshake.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { decoder: Decoder::new(limits), encoder: Encoder::new(Version::V1_2) }
    }

    /// From the next frame on, both ways, the rules of `version` are in force.
    pub fn set_version(&mut self, version: Version) {
        self.decoder.set_version(version);
        self.encoder = self.encoder.with_version(version);
    }

    /// From the next frame on, forgive the peer this much.
    pub fn set_lenience(&mut self, lenience: Lenience) {
        self.decoder.set_lenience(lenience);
    }

    /// The same codec for bodies too long to buffer.
    #[must_use]
    pub fn in_parts(self) -> PartCodec {
        PartCodec { frames: self }
    }

    /// One item a call: each starts a new count, so that a long-lived connection may beat for ever.
    fn forgive_eols_at<T>(&mut self, item: Option<T>) -> Option<T> {
        if item.is_some() {
            self.decoder.forgive_eols();
        }
        item
    }
}

/// A [`StompCodec`] whose items are [`Part`]s: long bodies come as they arrive; see [`Decoder::decode_part`]. A stream
/// that ends inside a frame yields an error of the kind [`io::ErrorKind::UnexpectedEof`].
#[derive(Debug)]
pub struct PartCodec {
    frames: StompCodec,
}

impl PartCodec {
    /// From the next frame on, both ways, the rules of `version` are in force.
    pub fn set_version(&mut self, version: Version) {
        self.frames.set_version(version);
    }
}

impl tokio_util::codec::Decoder for StompCodec {
    type Item = Frame;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        let frame = self.decoder.decode(src)?;
        Ok(self.forgive_eols_at(frame))
    }
}

impl tokio_util::codec::Decoder for PartCodec {
    type Item = Part;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Part>, CodecError> {
        let part = self.frames.decoder.decode_part(src)?;
        Ok(self.frames.forgive_eols_at(part))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Part>, CodecError> {
        match self.decode(src)? {
            None if !src.is_empty() || self.frames.decoder.is_in_long_body() => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ends inside a frame").into())
            }
            part => Ok(part),
        }
    }
}

impl<T> tokio_util::codec::Encoder<T> for PartCodec
where
    StompCodec: tokio_util::codec::Encoder<T, Error = CodecError>,
{
    type Error = CodecError;

    fn encode(&mut self, frame: T, dst: &mut BytesMut) -> Result<(), CodecError> {
        self.frames.encode(frame, dst)
    }
}

impl tokio_util::codec::Encoder<Frame> for StompCodec {
    type Error = CodecError;

    fn encode(&mut self, frame: Frame, dst: &mut BytesMut) -> Result<(), CodecError> {
        Ok(self.encoder.encode(&frame, dst)?)
    }
}

impl tokio_util::codec::Encoder<&Frame> for StompCodec {
    type Error = CodecError;

    fn encode(&mut self, frame: &Frame, dst: &mut BytesMut) -> Result<(), CodecError> {
        Ok(self.encoder.encode(frame, dst)?)
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::codec::{Decoder, Encoder};

    use super::*;
    use crate::Command;

    #[test]
    fn a_stream_in_parts_that_ends_early() {
        let mut codec = StompCodec::new(Limits { max_body: 2, ..Limits::default() }).in_parts();
        codec.set_version(Version::V1_2);
        let mut wire = BytesMut::new();
        for body in ["ab", "abc"] {
            codec.encode(Frame::new(Command::Message).with_body(body), &mut wire).unwrap();
        }
        wire.truncate(wire.len() - 1);
        let mut parts = Vec::new();
        let error = loop {
            match codec.decode_eof(&mut wire) {
                Ok(part) => parts.push(part.expect("the stream does not end well")),
                Err(error) => break error,
            }
        };
        let head = Frame::new(Command::Message).with_header("content-length", "3");
        let whole = Frame::new(Command::Message).with_header("content-length", "2").with_body("ab");
        let expected =
            [Part::Frame(whole), Part::Head { frame: head, length: Some(3) }, Part::Body("abc".into())];
        assert_eq!(parts, expected);
        assert!(matches!(error, CodecError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof));
        wire.extend_from_slice(b"\0");
        assert_eq!(codec.decode_eof(&mut wire).unwrap(), Some(Part::End));
        assert_eq!(codec.decode_eof(&mut wire).unwrap(), None);
    }
}
