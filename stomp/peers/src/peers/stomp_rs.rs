//! stomp-rs: a push parser of frames whose headers are a map and whose body is text.

use bytes::BytesMut;
use stomp_rs::protocol::{ClientCommand, Command, Frame, FrameParser, ServerCommand, StompMessage};

use super::{Asked, Encoded, Peer, Role, Run, SEND_BODY, SEND_HEADERS, Seen, Shows, Stream};

pub(super) const PEER: Peer = Peer {
    name: "stomp-rs",
    version: "0.0.8",
    licence: "MIT",
    released: "2022-03",
    speaks: &["1.2"],
    streams: true,
    shows: Shows::First,
    limits: "none",
    driven: "`FrameParser`, one for each role",
    required: |_| &[],
    open: |setup| {
        Some(match setup.role {
            Role::Client => Box::new(Parser(FrameParser::<ServerCommand>::new())),
            Role::Server => Box::new(Parser(FrameParser::<ClientCommand>::new())),
        })
    },
    encode,
    decode_run: |wire, read| {
        let mut parser = FrameParser::<ServerCommand>::new();
        Some(super::pieces(wire, read, move |buffer| {
            let messages = parser.parse(&buffer.split()).expect("the frames are well-formed");
            std::hint::black_box(&messages);
            messages.iter().filter(|message| matches!(message, StompMessage::Frame(_))).count()
        }))
    },
    encode_run: |count| Some(encode_run(count)),
};

struct Parser<T: Command>(FrameParser<T>);

impl<T: Command + Clone> Stream for Parser<T> {
    fn feed(&mut self, octets: &[u8], frames: &mut Vec<Seen>) -> Result<(), String> {
        for message in self.0.parse(octets).map_err(|error| format!("{error:?}"))? {
            if let StompMessage::Frame(frame) = message {
                let command: &str = frame.command.into();
                let headers = frame.headers.into_iter().map(|(name, value)| (name.into(), value.into()));
                let headers = headers.collect();
                frames.push(Seen { command: command.to_owned(), headers, body: frame.body.into_bytes() });
            }
        }
        Ok(())
    }
}

fn encode(asked: &Asked) -> Encoded {
    let headers: std::collections::HashMap<_, _> = asked.headers.iter().cloned().collect();
    if headers.len() < asked.headers.len() {
        return None; // a map has no room for repeats
    }
    let body = String::from_utf8(asked.body.clone()).ok()?;
    let command = asked.command.as_str();
    let wire = match (ClientCommand::try_from(command), ServerCommand::try_from(command)) {
        (Ok(command), _) => Frame { command, headers, body }.to_bytes(),
        (_, Ok(command)) => Frame { command, headers, body }.to_bytes(),
        _ => return None,
    };
    Some(Ok(wire))
}

fn encode_run(count: usize) -> Run {
    let frame = Frame {
        command: ClientCommand::Send,
        headers: SEND_HEADERS.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: "j".repeat(SEND_BODY),
    };
    let mut wire = BytesMut::with_capacity(count * 400);
    Box::new(move || {
        for _ in 0..count {
            wire.extend_from_slice(&std::hint::black_box(&frame).to_bytes());
        }
        wire.len()
    })
}
