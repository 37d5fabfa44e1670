//! Operations on a client and a server session, and octets between them cut and spoilt at will.

use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::{Buf, Bytes, BytesMut};
use stompwire::{
    Command, Frame, Headers, Version,
    proto::{
        ClientEvent, ClientOptions, ClientSession, HeartBeat, SendTemplate, ServerEvent, ServerOptions,
        ServerSession, Time,
    },
};

#[derive(Debug, Arbitrary)]
pub(crate) struct Input {
    client_versions: u8,
    server_versions: u8,
    client_beats: (u16, u16),
    server_beats: (u16, u16),
    /// Start with the handshake done.
    open: bool,
    ops: Vec<Op>,
}

#[derive(Debug, Arbitrary)]
enum Op {
    /// The client sends, with or without a receipt.
    Send {
        command: u8,
        header: (String, String),
        body: Vec<u8>,
        receipt: bool,
    },
    SendTemplate {
        header: (String, String),
        body: Vec<u8>,
    },
    Disconnect,
    /// The server receipts one of the frames it has, whatever their order.
    Receipt(u8),
    Message {
        header: (String, String),
        body: Vec<u8>,
    },
    Error {
        message: String,
        about: u8,
    },
    /// So many octets that were written reach the other side; 255: all.
    ToServer(u8),
    ToClient(u8),
    /// Octets that nobody wrote.
    Spoil {
        to_client: bool,
        octets: Vec<u8>,
    },
    Wait(u16),
    TakePending,
}

struct World {
    now: Time,
    client: ClientSession<u64>,
    server: ServerSession,
    up: BytesMut,
    down: BytesMut,
    client_input: BytesMut,
    server_input: BytesMut,
    /// Frames the server may receipt.
    frames: Vec<Frame>,
    next_token: u64,
    /// Tokens that are still out.
    out: Vec<u64>,
    client_over: bool,
    server_over: bool,
    disconnecting: bool,
    /// DISCONNECT was written.
    disconnected: bool,
}

pub(crate) fn run(input: &Input) {
    let Some(mut world) = World::new(input) else { return };
    let handshake = [Op::ToServer(u8::MAX), Op::ToClient(u8::MAX)];
    for op in handshake.iter().filter(|_| input.open).chain(&input.ops) {
        world.flush();
        world.act(op);
        world.take_time();
    }
    let rest: Vec<u64> = world.client.take_pending().collect();
    assert!(rest.is_sorted(), "oldest first");
    rest.into_iter().for_each(|token| world.come_back(token));
    assert!(world.out.is_empty(), "tokens are lost: {:?}", world.out);
}

impl World {
    fn new(input: &Input) -> Option<Self> {
        let versions = |bits: u8| -> Vec<Version> {
            Version::ALL
                .into_iter()
                .enumerate()
                .filter(|(at, _)| bits >> at & 1 == 1)
                .map(|(_, version)| version)
                .collect()
        };
        let beats = |(send, receive): (u16, u16)| HeartBeat {
            send: Duration::from_millis(send.into()),
            receive: Duration::from_millis(receive.into()),
        };
        let mut client = ClientOptions::default();
        client.versions = versions(input.client_versions);
        client.heart_beat = beats(input.client_beats);
        let mut server = ServerOptions::default();
        server.versions = versions(input.server_versions);
        server.heart_beat = beats(input.server_beats);
        let now = Duration::from_secs(1);
        Some(Self {
            now,
            client: ClientSession::new(client, now).ok()?,
            server: ServerSession::new(server, now),
            up: BytesMut::new(),
            down: BytesMut::new(),
            client_input: BytesMut::new(),
            server_input: BytesMut::new(),
            frames: Vec::new(),
            next_token: 0,
            out: Vec::new(),
            client_over: false,
            server_over: false,
            disconnecting: false,
            disconnected: false,
        })
    }

    fn act(&mut self, op: &Op) {
        match op {
            Op::Send { command, header: (name, value), body, receipt } => {
                let command = Command::ALL[usize::from(*command) % Command::ALL.len()];
                let frame = Frame::new(command).with_header(name, value).with_body(body.clone());
                if *receipt {
                    let token = self.token();
                    match self.client.send_with_receipt(&frame, token, self.now) {
                        Ok(()) => self.out.push(token),
                        Err((error, back)) => assert!(back == token && error.is_callers(), "{error}"),
                    }
                } else if let Err(error) = self.client.send(&frame) {
                    assert!(error.is_callers(), "{error}");
                }
            }
            Op::SendTemplate { header: (name, value), body } => {
                let constant: Headers = [("destination", "/a")].into_iter().collect();
                let template = SendTemplate::new(self.client.encoder(), &constant).expect("plain text");
                let headers: Headers = [(&name[..], &value[..])].into_iter().collect();
                let (token, body) = (self.token(), Bytes::from(body.clone()));
                match self.client.send_template_with_receipt(&template, &headers, &body, token, self.now) {
                    Ok(()) => self.out.push(token),
                    Err((error, back)) => assert!(back == token && error.is_callers(), "{error}"),
                }
            }
            Op::Disconnect => self.disconnecting |= self.client.disconnect(self.now).is_ok(),
            Op::Receipt(which) => {
                if !self.frames.is_empty() {
                    let frame = self.frames.swap_remove(usize::from(*which) % self.frames.len());
                    // Refused when the session is closed, or when the id was spoilt.
                    drop(self.server.receipt_for(&frame));
                }
            }
            Op::Message { header: (name, value), body } => {
                let frame = Frame::new(Command::Message).with_header(name, value).with_body(body.clone());
                if let Err(error) = self.server.send(&frame) {
                    assert!(error.is_callers(), "{error}");
                }
            }
            Op::Error { message, about } => {
                let about =
                    usize::from(*about).checked_rem(self.frames.len()).map(|at| self.frames[at].clone());
                self.server.error(message, about.as_ref());
            }
            Op::ToServer(count) => {
                let count =
                    if *count == u8::MAX { self.up.len() } else { self.up.len().min(usize::from(*count)) };
                self.server_input.unsplit(self.up.split_to(count));
                self.server.read(self.now);
                self.server_events();
            }
            Op::ToClient(count) => {
                let count = if *count == u8::MAX {
                    self.down.len()
                } else {
                    self.down.len().min(usize::from(*count))
                };
                self.client_input.unsplit(self.down.split_to(count));
                self.client.read(self.now);
                self.client_events();
            }
            Op::Spoil { to_client, octets } => {
                if *to_client { &mut self.down } else { &mut self.up }.extend_from_slice(octets);
            }
            Op::Wait(millis) => self.now += Duration::from_millis((*millis).into()),
            Op::TakePending => {
                self.client_over = true;
                let pending: Vec<u64> = self.client.take_pending().collect();
                pending.into_iter().for_each(|token| self.come_back(token));
            }
        }
    }

    /// Whatever is to be written is.
    fn flush(&mut self) {
        let outbox = self.client.outbox();
        if outbox.has_remaining() {
            assert!(!self.disconnected, "nothing follows DISCONNECT");
            self.up.extend_from_slice(&outbox.copy_to_bytes(outbox.remaining()));
            self.client.wrote(self.now);
        }
        self.disconnected = self.disconnecting;
        let outbox = self.server.outbox();
        if outbox.has_remaining() {
            self.down.extend_from_slice(&outbox.copy_to_bytes(outbox.remaining()));
            self.server.wrote(self.now);
        }
    }

    fn take_time(&mut self) {
        if !self.client_over {
            self.client_over = self.client.handle_timeout(self.now).is_err();
            while let Some(token) = self.client.expire(self.now) {
                self.come_back(token);
            }
        }
        if !self.server_over {
            self.server_over = self.server.handle_timeout(self.now).is_err();
        }
        self.flush();
        if !self.client_over {
            assert!(self.client.next_timeout().is_none_or(|at| at > self.now), "a busy loop");
        }
        if !self.server_over {
            assert!(self.server.next_timeout().is_none_or(|at| at > self.now), "a busy loop");
        }
    }

    fn client_events(&mut self) {
        loop {
            match self.client.next_event(&mut self.client_input, self.now) {
                Ok(Some(ClientEvent::Receipt(token))) => self.come_back(token),
                Ok(Some(ClientEvent::Error { token: Some(token), .. })) => self.come_back(token),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    assert!(!error.is_callers(), "{error}");
                    assert_eq!(self.client.next_event(&mut self.client_input, self.now).err(), Some(error));
                    self.client_over = true;
                    return;
                }
            }
        }
    }

    fn server_events(&mut self) {
        while !self.server_over {
            match self.server.next_event(&mut self.server_input) {
                Ok(Some(ServerEvent::Connect(_))) => self.server.accept("s-1", self.now).expect("plain text"),
                Ok(Some(ServerEvent::Frame(frame))) => self.frames.push(frame),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    self.server.error(&error.to_string(), None);
                    self.server_over = true;
                }
            }
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn come_back(&mut self, token: u64) {
        let at = self.out.iter().position(|out| *out == token).expect("a token comes back once");
        self.out.swap_remove(at);
    }
}
