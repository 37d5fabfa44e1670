//! stomp-parser: typed frames out of whole messages, as WebSocket delivers them.

use bytes::BytesMut;
use stomp_parser::{
    client::{ClientFrame, ConnectFrameBuilder, SendFrameBuilder},
    headers::{CustomValue, DecodableValue, HeaderValue, StompVersion, StompVersions},
    server::ServerFrame,
};

use super::{Asked, Encoded, Header, Peer, Role, Run, SEND_BODY, SEND_HEADERS, Seen, Shows, Stream};

pub(super) const PEER: Peer = Peer {
    name: "stomp-parser",
    version: "0.8.0",
    licence: "MIT",
    released: "2025-09",
    speaks: &["1.2"],
    streams: false,
    shows: Shows::First,
    limits: "none",
    driven: "`ServerFrame::try_from` and `ClientFrame::try_from`, the decoded values. Whole messages only: \
             judged on vectors of one frame, fed whole",
    required,
    open: |setup| {
        Some(match setup.role {
            Role::Client => Box::new(OfServer),
            Role::Server => Box::new(OfClient),
        })
    },
    encode,
    decode_run,
    encode_run: |count| Some(encode_run(count)),
};

fn required(command: &str) -> &'static [&'static str] {
    match command {
        "CONNECT" | "STOMP" => &["host", "accept-version"],
        "CONNECTED" => &["version"],
        "MESSAGE" => &["message-id", "destination", "subscription"],
        "RECEIPT" => &["receipt-id"],
        "SEND" => &["destination"],
        "SUBSCRIBE" => &["destination", "id"],
        "UNSUBSCRIBE" => &["id"],
        "ACK" | "NACK" => &["id", "transaction"],
        "BEGIN" | "COMMIT" | "ABORT" => &["transaction"],
        "DISCONNECT" => &["receipt"],
        _ => &[],
    }
}

struct OfServer;
struct OfClient;

impl Stream for OfServer {
    fn feed(&mut self, octets: &[u8], frames: &mut Vec<Seen>) -> Result<(), String> {
        let frame = ServerFrame::try_from(octets.to_vec()).map_err(|error| error.message().to_owned())?;
        frames.push(of_server(&frame)?);
        Ok(())
    }
}

impl Stream for OfClient {
    fn feed(&mut self, octets: &[u8], frames: &mut Vec<Seen>) -> Result<(), String> {
        let frame = ClientFrame::try_from(octets.to_vec()).map_err(|error| error.message().to_owned())?;
        frames.push(of_client(&frame)?);
        Ok(())
    }
}

/// Headers as they are read from a frame.
#[derive(Default)]
struct List(Vec<Header>);

impl List {
    fn text<T: HeaderValue + DecodableValue>(mut self, header: &T) -> Result<Self, String> {
        let value = header.decoded_value().map_err(|error| error.message().to_owned())?;
        self.0.push((header.header_name().into(), value.to_string().into()));
        Ok(self)
    }

    fn option<T: HeaderValue + DecodableValue>(self, header: Option<&T>) -> Result<Self, String> {
        match header {
            Some(header) => self.text(header),
            None => Ok(self),
        }
    }

    /// A value that is no text; it shows itself with its name.
    fn typed<T: HeaderValue>(mut self, header: Option<&T>) -> Self {
        if let Some(header) = header {
            let line = header.to_string();
            let value = line.split_once(':').map_or("", |(_, value)| value);
            self.0.push((header.header_name().into(), value.into()));
        }
        self
    }

    /// Its `Display` has no text for an unknown version, so not by that.
    fn versions(mut self, name: &str, versions: &[StompVersion]) -> Self {
        let text = versions.iter().map(|version| match version {
            StompVersion::Unknown(text) => text.clone(),
            version => version.to_string(),
        });
        self.0.push((name.into(), text.collect::<Vec<_>>().join(",").into()));
        self
    }

    fn custom(mut self, headers: &[CustomValue]) -> Result<Self, String> {
        for header in headers {
            let name = header.decoded_name().map_err(|error| error.message().to_owned())?;
            let value = header.decoded_value().map_err(|error| error.message().to_owned())?;
            self.0.push((name.to_string().into(), value.to_string().into()));
        }
        Ok(self)
    }

    fn seen(self, command: &str, body: Option<&[u8]>) -> Seen {
        Seen { command: command.to_owned(), headers: self.0, body: body.unwrap_or_default().to_vec() }
    }
}

fn of_server(frame: &ServerFrame) -> Result<Seen, String> {
    let list = List::default();
    Ok(match frame {
        ServerFrame::Connected(frame) => list
            .versions("version", std::slice::from_ref(frame.version().value()))
            .typed(frame.heartbeat())
            .option(frame.session())?
            .option(frame.server())?
            .seen("CONNECTED", None),
        ServerFrame::Receipt(frame) => list.text(frame.receipt_id())?.seen("RECEIPT", None),
        ServerFrame::Error(frame) => {
            list.option(frame.message())?.custom(&frame.custom)?.seen("ERROR", frame.body())
        }
        ServerFrame::Message(frame) => list
            .text(frame.message_id())?
            .text(frame.destination())?
            .text(frame.subscription())?
            .option(frame.content_type())?
            .typed(frame.content_length())
            .custom(&frame.custom)?
            .seen("MESSAGE", frame.body()),
    })
}

fn of_client(frame: &ClientFrame) -> Result<Seen, String> {
    let list = List::default();
    Ok(match frame {
        ClientFrame::Abort(frame) => list.text(frame.transaction())?.seen("ABORT", None),
        ClientFrame::Ack(frame) => {
            list.text(frame.id())?.text(frame.transaction())?.option(frame.receipt())?.seen("ACK", None)
        }
        ClientFrame::Begin(frame) => {
            list.text(frame.transaction())?.option(frame.receipt())?.seen("BEGIN", None)
        }
        ClientFrame::Commit(frame) => {
            list.text(frame.transaction())?.option(frame.receipt())?.seen("COMMIT", None)
        }
        ClientFrame::Connect(frame) => list
            .text(frame.host())?
            .versions("accept-version", frame.accept_version().value())
            .typed(Some(frame.heartbeat()))
            .option(frame.login())?
            .option(frame.passcode())?
            .custom(&frame.custom)?
            .seen("CONNECT", None),
        ClientFrame::Disconnect(frame) => list.text(frame.receipt())?.seen("DISCONNECT", None),
        ClientFrame::Nack(frame) => {
            list.text(frame.id())?.text(frame.transaction())?.option(frame.receipt())?.seen("NACK", None)
        }
        ClientFrame::Send(frame) => list
            .text(frame.destination())?
            .option(frame.content_type())?
            .typed(frame.content_length())
            .option(frame.transaction())?
            .option(frame.receipt())?
            .custom(&frame.custom)?
            .seen("SEND", frame.body()),
        ClientFrame::Subscribe(frame) => list
            .text(frame.destination())?
            .text(frame.id())?
            .typed(Some(frame.ack_type()))
            .option(frame.receipt())?
            .custom(&frame.custom)?
            .seen("SUBSCRIBE", None),
        ClientFrame::Unsubscribe(frame) => {
            list.text(frame.id())?.option(frame.receipt())?.seen("UNSUBSCRIBE", None)
        }
    })
}

fn encode(asked: &Asked) -> Encoded {
    let mut rest = asked.headers.clone();
    let mut take = |name: &str| {
        let at = rest.iter().position(|(other, _)| other == name)?;
        Some(rest.remove(at).1)
    };
    let or = |value: Option<String>| value.unwrap_or_else(|| "x".to_owned());
    let wire = match asked.command.as_str() {
        "CONNECT" if asked.body.is_empty() => {
            let host = or(take("host"));
            let mut frame = ConnectFrameBuilder::new(host, StompVersions(vec![StompVersion::V1_2]));
            if let Some(passcode) = take("passcode") {
                frame = frame.passcode(passcode);
            }
            let frame =
                rest.into_iter().fold(frame, |frame, (name, value)| frame.add_custom_header(name, value));
            frame.build().into()
        }
        "SEND" => {
            let mut frame = SendFrameBuilder::new(or(take("destination")));
            if let Some(length) = take("content-length") {
                frame = frame.content_length(length.parse().ok()?);
            }
            let frame =
                rest.into_iter().fold(frame, |frame, (name, value)| frame.add_custom_header(name, value));
            frame.body(asked.body.clone()).build().into()
        }
        _ => return None,
    };
    Some(Ok(wire))
}

/// Each frame in a vector of its own, which the parser takes; a body that comes in pieces is not for it.
fn decode_run(wire: &[u8], read: usize) -> Option<Run> {
    if read < wire.len() {
        return None;
    }
    let mut messages: Vec<Vec<u8>> = wire.split_inclusive(|&octet| octet == 0).map(<[u8]>::to_vec).collect();
    Some(Box::new(move || {
        let frames = messages.drain(..).map(|message| {
            std::hint::black_box(ServerFrame::try_from(message).expect("the frames are well-formed"));
        });
        frames.count()
    }))
}

fn encode_run(count: usize) -> Run {
    let frame = || {
        SendFrameBuilder::new(SEND_HEADERS[0].1.to_owned())
            .add_custom_header(SEND_HEADERS[1].0.to_owned(), SEND_HEADERS[1].1.to_owned())
            .add_custom_header(SEND_HEADERS[2].0.to_owned(), SEND_HEADERS[2].1.to_owned())
            .content_type(SEND_HEADERS[3].1.to_owned())
            .content_length(SEND_BODY as u32)
            .body(vec![b'j'; SEND_BODY])
    };
    let mut frames: Vec<_> = std::iter::repeat_with(frame).take(count).collect();
    let mut wire = BytesMut::with_capacity(count * 400);
    Box::new(move || {
        for frame in frames.drain(..) {
            let octets: Vec<u8> = frame.build().into();
            wire.extend_from_slice(&octets);
        }
        wire.len()
    })
}
