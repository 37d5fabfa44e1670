//! stomp-agnostic: handles over a transport that hands over octets; here a queue.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use stomp_agnostic::{
    ClientData, ClientStompHandle, ClientTransport, FromServer, Message, ReadData, ReadError, ServerResponse,
    ServerStompHandle, ServerTransport, ToServer, WriteError,
};

use super::{
    Asked, Encoded, Header, Peer, Role, Run, SEND_BODY, SEND_HEADERS, Seen, Setup, Shows, Stream,
    tokio_stomp::{extend, fields, required},
};

pub(super) const PEER: Peer = Peer {
    name: "stomp-agnostic",
    version: "0.10.0",
    licence: "EUPL-1.2",
    released: "2026",
    speaks: &["1.2"],
    streams: true,
    shows: Shows::First,
    limits: "none",
    driven: "the two handles over a queue. A second frame of one read comes out at the next read only, so each \
             frame is followed by an empty read; measured with one frame a read",
    required,
    open,
    encode,
    decode_run,
    encode_run: |count| Some(encode_run(count)),
};

/// What the handle reads: the octets queued, then after each frame an empty piece, then the end.
#[derive(Clone, Default)]
struct Queue(Arc<Mutex<(VecDeque<Bytes>, bool)>>);

impl Queue {
    fn push(&self, octets: Bytes) {
        self.0.lock().expect("no thread panics with it").0.push_back(octets);
    }

    fn once_more(&self) {
        self.0.lock().expect("no thread panics with it").1 = true;
    }

    fn pop(&self) -> Result<ReadData<()>, ReadError> {
        let (queue, once_more) = &mut *self.0.lock().expect("no thread panics with it");
        let next = queue.pop_front().or_else(|| std::mem::take(once_more).then(Bytes::new));
        next.map(ReadData::Binary).ok_or(ReadError::ConnectionClosed)
    }
}

#[async_trait]
impl ClientTransport for Queue {
    type ProtocolSideChannel = ();

    async fn write(&mut self, _: Message<ToServer>) -> Result<(), WriteError> {
        Ok(())
    }

    async fn read(&mut self) -> Result<ReadData<()>, ReadError> {
        self.pop()
    }
}

#[async_trait]
impl ServerTransport for Queue {
    type ProtocolSideChannel = ();

    async fn write(&mut self, _: Message<FromServer>) -> Result<(), WriteError> {
        Ok(())
    }

    async fn read(&mut self) -> Result<ReadData<()>, ReadError> {
        self.pop()
    }
}

struct Client(Queue, ClientStompHandle<Queue>);
struct Server(Queue, ServerStompHandle<Queue>);

fn open(setup: &Setup) -> Option<Box<dyn Stream>> {
    Some(match setup.role {
        Role::Client => Box::new(client()),
        Role::Server => {
            let queue = Queue::default();
            queue.push(Bytes::from_static(b"CONNECT\naccept-version:1.2\nhost:h\n\n\0"));
            let handle = ServerStompHandle::wait_for_connection(
                queue.clone(),
                Box::new(|_, _| true),
                Box::new(|| None),
            );
            let handle = pollster::block_on(handle).expect("the handshake is well-formed");
            Box::new(Server(queue, handle))
        }
    })
}

fn client() -> Client {
    let queue = Queue::default();
    queue.push(Bytes::from_static(b"CONNECTED\nversion:1.2\n\n\0"));
    let handle = ClientStompHandle::connect(queue.clone(), "h".to_owned(), None, None, Vec::new());
    Client(queue, pollster::block_on(handle).expect("the handshake is well-formed"))
}

impl Stream for Client {
    fn feed(&mut self, octets: &[u8], frames: &mut Vec<Seen>) -> Result<(), String> {
        self.0.push(Bytes::copy_from_slice(octets));
        loop {
            match pollster::block_on(self.1.read_response()) {
                Ok(ServerResponse::Message(message)) => frames.push(from_server(message)),
                Ok(ServerResponse::Custom(())) => {}
                Err(ReadError::ConnectionClosed) => return Ok(()),
                Err(error) => return Err(format!("{error:?}")),
            }
            self.0.once_more();
        }
    }
}

impl Stream for Server {
    fn feed(&mut self, octets: &[u8], frames: &mut Vec<Seen>) -> Result<(), String> {
        self.0.push(Bytes::copy_from_slice(octets));
        loop {
            match pollster::block_on(self.1.read_data()) {
                Ok(ClientData::Message(message)) => frames.push(to_server(message)),
                Ok(ClientData::Custom(())) => {}
                Err(ReadError::ConnectionClosed) => return Ok(()),
                Err(error) => return Err(format!("{error:?}")),
            }
            self.0.once_more();
        }
    }
}

fn from_server(message: Message<FromServer>) -> Seen {
    let (command, mut headers, body) = match message.content {
        FromServer::Connected { version, session, server, heartbeat } => {
            let version = Some(version);
            let list =
                [("version", version), ("session", session), ("server", server), ("heart-beat", heartbeat)];
            ("CONNECTED", fields(&list), None)
        }
        FromServer::Message { destination, message_id, subscription, headers, body } => {
            let mut list = fields(&[
                ("destination", Some(destination)),
                ("message-id", Some(message_id)),
                ("subscription", Some(subscription)),
            ]);
            extend(&mut list, octets(headers));
            ("MESSAGE", list, body)
        }
        FromServer::Receipt { receipt_id } => ("RECEIPT", fields(&[("receipt-id", Some(receipt_id))]), None),
        FromServer::Error { message, body } => ("ERROR", fields(&[("message", message)]), body),
    };
    extend(&mut headers, message.extra_headers);
    Seen { command: command.to_owned(), headers, body: body.unwrap_or_default() }
}

fn to_server(message: Message<ToServer>) -> Seen {
    let (command, mut headers, body) = match message.content {
        ToServer::Connect { accept_version, host, login, passcode, heartbeat } => {
            let list = [
                ("accept-version", Some(accept_version)),
                ("host", Some(host)),
                ("login", login),
                ("passcode", passcode),
                ("heart-beat", heartbeat.map(|(x, y)| format!("{x},{y}"))),
            ];
            ("CONNECT", fields(&list), None)
        }
        ToServer::Send { destination, transaction, headers, body } => {
            let mut list = fields(&[("destination", Some(destination)), ("transaction", transaction)]);
            extend(&mut list, octets(headers.unwrap_or_default()));
            ("SEND", list, body)
        }
        ToServer::Subscribe { destination, id, ack } => {
            use stomp_agnostic::AckMode;
            let ack = ack.map(|ack| match ack {
                AckMode::Auto => "auto",
                AckMode::Client => "client",
                AckMode::ClientIndividual => "client-individual",
            });
            let list =
                [("destination", Some(destination)), ("id", Some(id)), ("ack", ack.map(str::to_owned))];
            ("SUBSCRIBE", fields(&list), None)
        }
        ToServer::Unsubscribe { id } => ("UNSUBSCRIBE", fields(&[("id", Some(id))]), None),
        ToServer::Ack { id, transaction } => {
            ("ACK", fields(&[("id", Some(id)), ("transaction", transaction)]), None)
        }
        ToServer::Nack { id, transaction } => {
            ("NACK", fields(&[("id", Some(id)), ("transaction", transaction)]), None)
        }
        ToServer::Begin { transaction } => ("BEGIN", fields(&[("transaction", Some(transaction))]), None),
        ToServer::Commit { transaction } => ("COMMIT", fields(&[("transaction", Some(transaction))]), None),
        ToServer::Abort { transaction } => ("ABORT", fields(&[("transaction", Some(transaction))]), None),
        ToServer::Disconnect { receipt } => ("DISCONNECT", fields(&[("receipt", receipt)]), None),
    };
    extend(&mut headers, message.extra_headers);
    Seen { command: command.to_owned(), headers, body: body.unwrap_or_default() }
}

fn octets(headers: Vec<(String, String)>) -> impl Iterator<Item = Header> {
    headers.into_iter().map(|(name, value)| (name.into(), value.into()))
}

fn encode(asked: &Asked) -> Encoded {
    let mut rest = asked.headers.clone();
    let mut take = |name: &str| {
        let at = rest.iter().position(|(other, _)| other == name)?;
        Some(rest.remove(at).1)
    };
    let or = |value: Option<String>| value.unwrap_or_else(|| "x".to_owned());
    if asked.command != "SEND" && !asked.body.is_empty() {
        return None;
    }
    let content = match asked.command.as_str() {
        "CONNECT" => ToServer::Connect {
            accept_version: or(take("accept-version")),
            host: or(take("host")),
            login: take("login"),
            passcode: take("passcode"),
            heartbeat: None,
        },
        "SEND" => ToServer::Send {
            destination: or(take("destination")),
            transaction: take("transaction"),
            headers: Some(std::mem::take(&mut rest)),
            body: (!asked.body.is_empty()).then(|| asked.body.clone()),
        },
        "ACK" => ToServer::Ack { id: or(take("id")), transaction: take("transaction") },
        _ => return None,
    };
    let extra_headers = octets(rest).collect();
    Some(Ok(Message { content, extra_headers }.into_bytes().to_vec()))
}

/// One frame a read, as over a WebSocket, if the wire is to be read at once.
fn decode_run(wire: &[u8], read: usize) -> Option<Run> {
    let Client(queue, mut handle) = client();
    let wire = Bytes::copy_from_slice(wire);
    let read = if read < wire.len() { read } else { frame_length(&wire) };
    for at in (0..wire.len()).step_by(read) {
        queue.push(wire.slice(at..wire.len().min(at + read)));
    }
    Some(Box::new(move || {
        pollster::block_on(async {
            let mut count = 0;
            loop {
                match handle.read_response().await {
                    Ok(response) => std::hint::black_box(&response),
                    Err(ReadError::ConnectionClosed) => return count,
                    Err(error) => panic!("the frames are well-formed: {error}"),
                };
                count += 1;
            }
        })
    }))
}

/// Of the first frame of many alike, none of which has a NUL in it.
fn frame_length(wire: &[u8]) -> usize {
    wire.iter().position(|&octet| octet == 0).map_or(wire.len(), |at| at + 1)
}

fn encode_run(count: usize) -> Run {
    let headers: Vec<_> =
        SEND_HEADERS[1..].iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let message = || {
        Message::from(ToServer::Send {
            destination: SEND_HEADERS[0].1.to_owned(),
            transaction: None,
            headers: Some(headers.clone()),
            body: Some(vec![b'j'; SEND_BODY]),
        })
    };
    let mut messages: Vec<_> = std::iter::repeat_with(message).take(count).collect();
    Box::new(move || messages.drain(..).map(|message| std::hint::black_box(message.into_bytes()).len()).sum())
}
