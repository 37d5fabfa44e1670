//! stompwire itself.

use bytes::BytesMut;
use stompwire::{
    Command, Frame, Headers, Version,
    proto::{Decoder, Encoder, Limits},
};

use super::{Asked, Encoded, Peer, Run, SEND_BODY, SEND_HEADERS, Seen, Setup, Shows, Stream, pieces};

pub(super) const PEER: Peer = Peer {
    name: "stompwire",
    version: "0.1.0",
    licence: "MIT OR Apache-2.0",
    released: "this tree",
    speaks: &["1.0", "1.1", "1.2"],
    streams: true,
    shows: Shows::List,
    limits: "all",
    driven: "`proto::Decoder` and `proto::Encoder`, told the version and the limits of each vector",
    required: |_| &[],
    open: |setup| Some(Box::new(Ours::new(setup))),
    encode,
    decode_run: |wire, read| Some(decode_run(wire, read)),
    encode_run: |count| Some(encode_run(count)),
};

pub(crate) struct Ours {
    decoder: Decoder,
    buffer: BytesMut,
}

impl Ours {
    pub(crate) fn new(setup: &Setup) -> Self {
        let mut decoder = Decoder::new(setup.limits);
        decoder.set_unescape_connect(setup.unescape_connect);
        if let Some(version) = Version::parse(&setup.version) {
            decoder.set_version(version);
        }
        Self { decoder, buffer: BytesMut::new() }
    }
}

impl Stream for Ours {
    fn feed(&mut self, octets: &[u8], frames: &mut Vec<Seen>) -> Result<(), String> {
        self.buffer.extend_from_slice(octets);
        while let Some(frame) = self.decoder.decode(&mut self.buffer).map_err(|error| variant(&error))? {
            frames.push(seen(&frame));
        }
        Ok(())
    }
}

fn seen(frame: &Frame) -> Seen {
    Seen {
        command: frame.command().to_string(),
        headers: frame.headers().iter().map(|(name, value)| (name.into(), value.into())).collect(),
        body: frame.body().to_vec(),
    }
}

/// The name of an error's variant.
fn variant(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

fn encode(asked: &Asked) -> Encoded {
    let command = Command::parse(asked.command.as_bytes())?;
    let headers: Headers =
        asked.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let frame = Frame::from_parts(command, headers, asked.body.clone().into());
    let mut wire = BytesMut::new();
    let encoder = Encoder::new(Version::parse(&asked.version)?)
        .with_escaped_connect(asked.escape_connect)
        .with_content_length(asked.content_length);
    Some(encoder.encode(&frame, &mut wire).map(|()| wire.to_vec()).map_err(|error| variant(&error)))
}

fn decode_run(wire: &[u8], read: usize) -> Run {
    let mut decoder = Decoder::new(Limits::default());
    decoder.set_version(Version::V1_2);
    pieces(wire, read, move |buffer| {
        let mut count = 0;
        while let Some(frame) = decoder.decode(buffer).expect("the frames are well-formed") {
            std::hint::black_box(&frame);
            count += 1;
        }
        count
    })
}

fn encode_run(count: usize) -> Run {
    let mut frame = Frame::new(Command::Send);
    for (name, value) in SEND_HEADERS {
        frame = frame.with_header(name, value);
    }
    let frame = frame.with_body(vec![b'j'; SEND_BODY]);
    let encoder = Encoder::new(Version::V1_2);
    let mut wire = BytesMut::with_capacity(count * 400);
    Box::new(move || {
        for _ in 0..count {
            encoder.encode(std::hint::black_box(&frame), &mut wire).expect("it can be encoded");
        }
        wire.len()
    })
}
