//! iridium-stomp: a codec of frames as lists of headers.

use bytes::BytesMut;
use iridium_stomp::{Frame, StompCodec, StompItem};
use tokio_util::codec::Encoder;

use super::{Asked, Codec, Peer, Run, SEND_BODY, SEND_HEADERS, Seen, Shows};

pub(super) const PEER: Peer = Peer {
    name: "iridium-stomp",
    version: "0.6.0",
    licence: "MIT",
    released: "2026",
    speaks: &["1.2"],
    streams: true,
    shows: Shows::List,
    limits: "frame (16 MiB)",
    driven: "`StompCodec`, heart-beats left out",
    required: |_| &[],
    open: |_| Some(Box::new(Codec { codec: StompCodec::new(), buffer: BytesMut::new(), show: seen })),
    encode: |asked| Some(encode(asked)),
    decode_run: |wire, read| {
        let frame = |item: &StompItem| matches!(item, StompItem::Frame(_));
        Some(super::decode_run(StompCodec::new(), frame, wire, read))
    },
    encode_run: |count| Some(encode_run(count)),
};

fn seen(item: StompItem) -> Option<Seen> {
    let StompItem::Frame(frame) = item else { return None };
    let headers = frame.headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    Some(Seen { command: frame.command, headers, body: frame.body })
}

fn encode(asked: &Asked) -> Result<Vec<u8>, String> {
    let frame =
        Frame { command: asked.command.clone(), headers: asked.headers.clone(), body: asked.body.clone() };
    let mut wire = BytesMut::new();
    StompCodec::new().encode(StompItem::Frame(frame), &mut wire).map_err(|error| error.to_string())?;
    Ok(wire.to_vec())
}

fn encode_run(count: usize) -> Run {
    let mut frame = Frame::new("SEND").set_body(vec![b'j'; SEND_BODY]);
    for (name, value) in SEND_HEADERS {
        frame = frame.header(name, value);
    }
    let mut frames = vec![StompItem::Frame(frame); count];
    let mut wire = BytesMut::with_capacity(count * 400);
    Box::new(move || {
        for frame in frames.drain(..) {
            StompCodec::new().encode(frame, &mut wire).expect("it can be encoded");
        }
        wire.len()
    })
}
