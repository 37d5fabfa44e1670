//! The decoder and encoder as a [`tokio_util::codec`], for transports and loops of your own.

use std::io;

use bytes::BytesMut;

use crate::proto::{DecodeError, Decoder, EncodeError, Encoder, Frame, Limits, Version};

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
}

impl tokio_util::codec::Decoder for StompCodec {
    type Item = Frame;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        let frame = self.decoder.decode(src)?;
        if frame.is_some() {
            // One frame a call: each starts a new count, so that a long-lived connection may beat for ever.
            self.decoder.forgive_eols();
        }
        Ok(frame)
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
