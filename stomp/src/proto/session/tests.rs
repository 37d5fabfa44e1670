//! Client and server joined on a virtual clock: hours pass in microseconds, and to the millisecond.

use alloc::{collections::VecDeque, string::ToString, vec, vec::Vec};
use core::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::*;
use crate::proto::{
    Command, DecodeError, EncodeError, Frame, Headers, HeartBeat, Limits, SendTemplate, Time, Version,
};

mod callers_mistakes;
mod handshake;
mod heart_beats;
mod out_of_place;
mod receipts;
mod subscriptions;
mod the_end;
mod transactions;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One direction of a connection. Octets arrive in order, `latency` after they were written, until the link is cut.
struct Wire {
    latency: Duration,
    cut: bool,
    in_flight: VecDeque<(Time, Bytes)>,
    /// Everything ever written.
    log: Vec<u8>,
}

impl Wire {
    fn new(latency: Duration) -> Self {
        Self { latency, cut: false, in_flight: VecDeque::new(), log: Vec::new() }
    }

    fn write(&mut self, octets: Bytes, now: Time) {
        self.log.extend_from_slice(&octets);
        if !self.cut {
            self.in_flight.push_back((now + self.latency, octets));
        }
    }

    /// What has arrived.
    fn read(&mut self, now: Time, input: &mut BytesMut) -> bool {
        let mut read = false;
        while let Some((_, octets)) = self.in_flight.pop_front_if(|(due, _)| *due <= now) {
            input.extend_from_slice(&octets);
            read = true;
        }
        read
    }

    fn cut(&mut self) {
        self.cut = true;
        self.in_flight.clear();
    }
}

/// A client and a server. What the server does with frames is the test's; CONNECT it accepts by itself.
struct Pair {
    now: Time,
    client: ClientSession<&'static str>,
    server: ServerSession,
    up: Wire,
    down: Wire,
    client_input: BytesMut,
    server_input: BytesMut,
    client_events: Vec<ClientEvent<&'static str>>,
    server_frames: Vec<Frame>,
    disconnected: bool,
    /// Receipts that timed out, and when.
    expired: Vec<(&'static str, Time)>,
    client_end: Option<(SessionError, Time)>,
    server_end: Option<(SessionError, Time)>,
}

impl Pair {
    fn new(client: ClientOptions, server: ServerOptions) -> Self {
        Self::with_latency(client, server, ms(1))
    }

    fn with_latency(client: ClientOptions, server: ServerOptions, latency: Duration) -> Self {
        // Not zero, so that nothing depends on the origin of the clock.
        let now = secs(1000);
        Self {
            now,
            client: ClientSession::new(client, now).unwrap(),
            server: ServerSession::new(server, now),
            up: Wire::new(latency),
            down: Wire::new(latency),
            client_input: BytesMut::new(),
            server_input: BytesMut::new(),
            client_events: Vec::new(),
            server_frames: Vec::new(),
            disconnected: false,
            expired: Vec::new(),
            client_end: None,
            server_end: None,
        }
    }

    /// The default options, connected.
    fn open() -> Self {
        let mut pair = Self::new(ClientOptions::default(), ServerOptions::default());
        pair.run(ms(10));
        assert!(pair.client.is_open() && pair.server.is_open());
        pair.client_events.clear();
        pair
    }

    /// Lets time pass, stopping at every moment at which something is due.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut calls_at_once = 0;
        loop {
            self.write();
            let wires = [&self.up, &self.down].into_iter().filter_map(|wire| Some(wire.in_flight.front()?.0));
            let client = self.client_end.is_none().then(|| self.client.next_timeout()).flatten();
            let server = self.server_end.is_none().then(|| self.server.next_timeout()).flatten();
            let Some(next) = wires.chain(client).chain(server).min().filter(|next| *next <= until) else {
                break;
            };
            calls_at_once = if next > self.now { 0 } else { calls_at_once + 1 };
            assert!(calls_at_once < 20, "a session asks to be called again and again at {:?}", self.now);
            self.now = self.now.max(next);
            self.read();
            self.time_out();
        }
        self.now = until;
    }

    fn write(&mut self) {
        let now = self.now;
        let outbox = self.client.outbox();
        if outbox.has_remaining() {
            self.up.write(outbox.copy_to_bytes(outbox.remaining()), now);
            self.client.wrote(now);
        }
        let outbox = self.server.outbox();
        if outbox.has_remaining() {
            self.down.write(outbox.copy_to_bytes(outbox.remaining()), now);
            self.server.wrote(now);
        }
    }

    fn read(&mut self) {
        let now = self.now;
        if self.down.read(now, &mut self.client_input) && self.client_end.is_none() {
            self.client.read(now);
            self.client_end = self.client_events_until_none().err().map(|error| (error, now));
        }
        if self.up.read(now, &mut self.server_input) && self.server_end.is_none() {
            self.server.read(now);
            self.server_end = self.server_events_until_none().err().map(|error| (error, now));
        }
    }

    fn client_events_until_none(&mut self) -> Result<(), SessionError> {
        while let Some(event) = self.client.next_event(&mut self.client_input, self.now)? {
            self.client_events.push(event);
        }
        Ok(())
    }

    fn server_events_until_none(&mut self) -> Result<(), SessionError> {
        while let Some(event) = self.server.next_event(&mut self.server_input)? {
            match event {
                ServerEvent::Connect(_) => self.server.accept("s-1", self.now)?,
                ServerEvent::Frame(frame) => self.server_frames.push(frame),
                ServerEvent::Disconnect => self.disconnected = true,
            }
        }
        Ok(())
    }

    fn time_out(&mut self) {
        let now = self.now;
        if self.client_end.is_none() {
            self.client_end = self.client.handle_timeout(now).err().map(|error| (error, now));
            self.expired.extend(core::iter::from_fn(|| self.client.expire(now)).map(|token| (token, now)));
        }
        if self.server_end.is_none() {
            self.server_end = self.server.handle_timeout(now).err().map(|error| (error, now));
        }
    }

    fn send(&mut self, token: &'static str) {
        self.client.send_with_receipt(&Frame::send("/a", token), token, self.now).unwrap();
    }

    fn receipt(&mut self, id: &str) {
        self.server.send(&Frame::new(Command::Receipt).with_header("receipt-id", id)).unwrap();
    }

    /// The tokens of the receipts so far; a stray one is "stray".
    fn receipts(&self) -> Vec<&'static str> {
        let token = |event: &ClientEvent<&'static str>| match event {
            ClientEvent::Receipt(token) => Some(*token),
            ClientEvent::StrayReceipt => Some("stray"),
            _ => None,
        };
        self.client_events.iter().filter_map(token).collect()
    }

    fn connected(&self) -> &Connected {
        match self.client_events.first() {
            Some(ClientEvent::Connected(connected)) => connected,
            other => panic!("not connected: {other:?}, {:?}", self.client_end),
        }
    }
}

fn client(heart_beat: HeartBeat) -> ClientOptions {
    ClientOptions { heart_beat, ..ClientOptions::default() }
}

fn server(heart_beat: HeartBeat) -> ServerOptions {
    ServerOptions { heart_beat, ..ServerOptions::default() }
}

/// What a client makes of these octets right after its CONNECT.
fn answered(options: ClientOptions, octets: &str) -> Result<Vec<ClientEvent<&'static str>>, SessionError> {
    let mut client = ClientSession::new(options, Time::ZERO).unwrap();
    client.read(Time::ZERO);
    let mut input = BytesMut::from(octets);
    let mut events = Vec::new();
    loop {
        match client.next_event(&mut input, Time::ZERO) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return Ok(events),
            Err(error) => {
                assert_eq!(
                    client.next_event(&mut input, Time::ZERO).err(),
                    Some(error.clone()),
                    "it repeats"
                );
                assert!(!client.is_open() && client.next_timeout().is_none());
                return Err(error);
            }
        }
    }
}

/// What a server makes of these octets, accepting CONNECT; it may speak `versions`.
fn asked(versions: &[Version], octets: &str) -> Result<(Version, usize), SessionError> {
    let options = ServerOptions { versions: versions.to_vec(), ..ServerOptions::default() };
    let mut server = ServerSession::new(options, Time::ZERO);
    let mut input = BytesMut::from(octets);
    let mut frames = 0;
    while let Some(event) = server.next_event(&mut input)? {
        match event {
            ServerEvent::Connect(_) => server.accept("s-1", Time::ZERO)?,
            ServerEvent::Frame(_) | ServerEvent::Disconnect => frames += 1,
        }
    }
    Ok((server.version(), frames))
}

fn written(outbox: &mut crate::proto::Outbox) -> alloc::string::String {
    let octets = outbox.copy_to_bytes(outbox.remaining());
    core::str::from_utf8(&octets).unwrap().to_string()
}
