//! The two sides of a connection as the scripts see them.

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf, BytesMut};
use serde::Deserialize;
use stompwire::proto::{
    AckMode, ClientEvent, ClientOptions, ClientSession, Frame, Outbox, ServerEvent, ServerOptions,
    ServerSession, SessionError, Subscribe, Time, Verdict, Version,
};

use crate::{Call, Event, What, vectors::FrameText, vectors::variant_name};

/// A frame in an event.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(from = "FrameText")]
pub(crate) struct Seen(Frame);

impl From<FrameText> for Seen {
    fn from(text: FrameText) -> Self {
        Self(text.frame())
    }
}

/// A session, and what it said.
pub(crate) trait Side {
    /// Goes through the handshake of this version, without heart-beats.
    fn handshake(&mut self, version: &str);
    fn read(&mut self, octets: &[u8], now: Time) -> Result<(), SessionError>;
    fn time_out(&mut self, now: Time) -> Result<(), SessionError>;
    fn next_timeout(&self) -> Option<Time>;
    fn call(&mut self, call: &Call, now: Time) -> Result<(), SessionError>;
    fn written(&mut self, now: Time) -> Vec<u8>;
    /// The oldest event.
    fn event(&mut self) -> Option<Event>;
    fn pending(&mut self) -> Vec<String>;
    fn is_open(&self) -> bool;
    fn version(&self) -> Version;
}

pub(crate) struct Client {
    session: ClientSession<String>,
    input: BytesMut,
    events: VecDeque<Event>,
}

pub(crate) struct Server {
    session: ServerSession,
    input: BytesMut,
    events: VecDeque<Event>,
}

impl Client {
    pub(crate) fn new(options: ClientOptions) -> Result<Self, SessionError> {
        let session = ClientSession::new(options, Duration::ZERO)?;
        Ok(Self { session, input: BytesMut::new(), events: VecDeque::new() })
    }
}

impl Side for Client {
    fn handshake(&mut self, version: &str) {
        self.written(Duration::ZERO);
        let connected = match version {
            "1.0" => "CONNECTED\n\n\0".to_owned(),
            version => format!("CONNECTED\nversion:{version}\n\n\0"),
        };
        self.read(connected.as_bytes(), Duration::ZERO).expect("a good answer");
        assert!(matches!(self.event(), Some(Event::Connected { .. })));
    }

    fn read(&mut self, octets: &[u8], now: Time) -> Result<(), SessionError> {
        self.input.extend_from_slice(octets);
        self.session.read(now);
        while let Some(event) = self.session.next_event(&mut self.input, now).inspect_err(|error| {
            let again = self.session.next_event(&mut self.input, now);
            assert_eq!(again.as_ref().err(), Some(error), "a failure is final");
        })? {
            self.events.push_back(match event {
                ClientEvent::Connected(connected) => Event::Connected {
                    version: connected.version.as_str().into(),
                    server: connected.server,
                    session: connected.session,
                    sends_every: connected.sends_every.map(millis),
                    server_patience: connected.server_patience.map(millis),
                },
                ClientEvent::Receipt(token) => Event::Receipt(token),
                ClientEvent::StrayReceipt => Event::StrayReceipt,
                ClientEvent::Message { subscription, frame } => Event::Message(subscription, Seen(frame)),
                ClientEvent::StrayMessage(frame) => Event::StrayMessage(Seen(frame)),
                ClientEvent::Error { frame, token } => Event::Error(Seen(frame), token),
                ClientEvent::Disconnected => Event::Disconnected,
                other => panic!("a new event: {other:?}"),
            });
        }
        Ok(())
    }

    fn time_out(&mut self, now: Time) -> Result<(), SessionError> {
        self.session.handle_timeout(now)?;
        self.events.extend(std::iter::from_fn(|| self.session.expire(now)).map(Event::Expired));
        Ok(())
    }

    fn next_timeout(&self) -> Option<Time> {
        self.session.next_timeout()
    }

    fn call(&mut self, call: &Call, now: Time) -> Result<(), SessionError> {
        let Call { what, token, transaction, .. } = call;
        let token = token.clone();
        let session = &mut self.session;
        let refused = match (what, token) {
            (What::Send(frame), None) if transaction.is_none() => return session.send(&frame.frame()),
            (What::Send(frame), Some(token)) if transaction.is_none() => session
                .send_with_receipt(&frame.frame(), token, now)
                .map_err(|(error, token)| (error, Some(token))),
            (What::Send(frame), token) => {
                session.send_in(transaction.expect("not none"), &frame.frame(), token, now)
            }
            (What::Subscribe { id, destination, ack }, token) => {
                let modes = [AckMode::Auto, AckMode::Client, AckMode::ClientIndividual];
                let ack = modes.into_iter().find(|mode| mode.as_str() == ack).expect("a mode");
                session.subscribe(*id, &Subscribe::to(destination).with_ack(ack), token, now)
            }
            (What::Unsubscribe(id), token) => session.unsubscribe(*id, token, now),
            (What::Ack { subscription, message }, token) => {
                session.settle(Verdict::Ack, *subscription, &message.frame(), *transaction, token, now)
            }
            (What::Nack { subscription, message }, token) => {
                session.settle(Verdict::Nack, *subscription, &message.frame(), *transaction, token, now)
            }
            (What::Begin(id), token) => session.begin(*id, token, now),
            (What::Commit(id), token) => session.commit(*id, token, now),
            (What::Abort(id), token) => session.abort(*id, token, now),
            (What::Disconnect(()), _) => return session.disconnect(now),
            (What::Accept(_) | What::ReceiptFor(_) | What::Error(..), _) => panic!("a server's"),
        };
        refused.map_err(|(error, token)| {
            assert_eq!(token, call.token, "the token is handed back");
            error
        })
    }

    fn written(&mut self, now: Time) -> Vec<u8> {
        let octets = drain(self.session.outbox());
        if !octets.is_empty() {
            self.session.wrote(now);
        }
        octets
    }

    fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn pending(&mut self) -> Vec<String> {
        self.session.take_pending().collect()
    }

    fn is_open(&self) -> bool {
        self.session.is_open()
    }

    fn version(&self) -> Version {
        self.session.version()
    }
}

impl Server {
    pub(crate) fn new(options: ServerOptions) -> Self {
        let session = ServerSession::new(options, Duration::ZERO);
        Self { session, input: BytesMut::new(), events: VecDeque::new() }
    }

    fn take_events(&mut self) -> Result<(), SessionError> {
        while let Some(event) = self.session.next_event(&mut self.input)? {
            self.events.push_back(match event {
                ServerEvent::Connect(frame) => Event::Connect(Seen(frame)),
                ServerEvent::Frame(frame) => Event::Frame(Seen(frame)),
                ServerEvent::Disconnect => Event::Disconnect,
                other => panic!("a new event: {other:?}"),
            });
        }
        Ok(())
    }
}

impl Side for Server {
    fn handshake(&mut self, version: &str) {
        let connect = match version {
            "1.0" => "CONNECT\n\n\0".to_owned(),
            version => format!("CONNECT\naccept-version:{version}\nhost:/\n\n\0"),
        };
        self.read(connect.as_bytes(), Duration::ZERO).expect("a good question");
        assert!(matches!(self.event(), Some(Event::Connect(_))));
        self.session.accept("s-1", Duration::ZERO).expect("plain text");
        self.written(Duration::ZERO);
    }

    fn read(&mut self, octets: &[u8], now: Time) -> Result<(), SessionError> {
        self.input.extend_from_slice(octets);
        self.session.read(now);
        self.take_events()
    }

    fn time_out(&mut self, now: Time) -> Result<(), SessionError> {
        self.session.handle_timeout(now)
    }

    fn next_timeout(&self) -> Option<Time> {
        self.session.next_timeout()
    }

    fn call(&mut self, call: &Call, now: Time) -> Result<(), SessionError> {
        match &call.what {
            What::Accept(session) => {
                self.session.accept(session, now)?;
                // What came behind CONNECT was kept back until now.
                self.take_events()
            }
            What::Send(frame) => self.session.send(&frame.frame()),
            What::ReceiptFor(frame) => self.session.receipt_for(&frame.frame()),
            What::Error(message, culprit) => {
                self.session.error(message, culprit.as_ref().map(FrameText::frame).as_ref());
                Ok(())
            }
            _ => panic!("a client's"),
        }
    }

    fn written(&mut self, now: Time) -> Vec<u8> {
        let octets = drain(self.session.outbox());
        if !octets.is_empty() {
            self.session.wrote(now);
        }
        octets
    }

    fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn pending(&mut self) -> Vec<String> {
        Vec::new()
    }

    fn is_open(&self) -> bool {
        self.session.is_open()
    }

    fn version(&self) -> Version {
        self.session.version()
    }
}

/// The name of the variant; that of what is inside, if it is the codec's.
pub(crate) fn variant(error: &SessionError) -> String {
    match error {
        SessionError::Decode(error) => variant_name(error),
        SessionError::Encode(error) => variant_name(error),
        error => variant_name(error),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("a script's time")
}

fn drain(outbox: &mut Outbox) -> Vec<u8> {
    outbox.copy_to_bytes(outbox.remaining()).to_vec()
}
