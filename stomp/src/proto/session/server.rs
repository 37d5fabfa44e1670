use alloc::{string::String, vec::Vec};
use core::time::Duration;

use bytes::{Buf, BytesMut};

use super::{SessionError, link::Link};
use crate::proto::{
    Command, Encoder, Frame, HeartBeat, HeartBeatMonitor, Lenience, Limits, Outbox, Time, Version,
};

/// How a server introduces itself, and how long it waits.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// The header `server` of CONNECTED.
    pub server: String,
    /// Versions this server speaks.
    pub versions: Vec<Version>,
    /// What to offer in `heart-beat`. Default 10 s both ways.
    pub heart_beat: HeartBeat,
    /// For how many agreed periods the client may be silent. Default 2.
    pub heart_beat_grace: f32,
    /// Time until CONNECT must be here. Default 10 s.
    pub connect_timeout: Duration,
    /// Refuse a CONNECT of 1.1 or 1.2 without the header `host`, as the specification demands. RabbitMQ takes it for its
    /// default virtual host, and some clients (stomp.py) leave it out. Default on.
    pub require_host: bool,
    /// What the client may make us hold.
    pub limits: Limits,
    /// What to forgive. Default nothing.
    pub lenience: Lenience,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            server: concat!("stompwire/", env!("CARGO_PKG_VERSION")).into(),
            versions: Version::ALL.to_vec(),
            heart_beat: HeartBeat::every(Duration::from_secs(10)),
            heart_beat_grace: 2.0,
            connect_timeout: Duration::from_secs(10),
            require_host: true,
            limits: Limits::default(),
            lenience: Lenience::STRICT,
        }
    }
}

/// A server's side of one connection: the handshake, heart-beats and the order of frames. What SEND, SUBSCRIBE and the
/// rest mean is the owner's. The octets move as with [`ClientSession`](super::ClientSession).
#[derive(Debug)]
pub struct ServerSession {
    options: ServerOptions,
    phase: Phase,
    link: Link,
    client_heart_beat: HeartBeat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting {
        deadline: Time,
    },
    /// CONNECT is here; the owner decides.
    Asked,
    Open,
    Closed,
}

/// What the client did.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// CONNECT or STOMP, its version negotiated: answer with [`ServerSession::accept`] or [`ServerSession::error`].
    Connect(Frame),
    /// Any other frame of a client but DISCONNECT.
    Frame(Frame),
    /// DISCONNECT; its receipt, if it asked for one, is in the outbox. Write that, then close.
    Disconnect,
}

impl ServerSession {
    /// A session that waits for CONNECT.
    #[must_use]
    pub fn new(options: ServerOptions, now: Time) -> Self {
        Self {
            phase: Phase::Waiting { deadline: now.saturating_add(options.connect_timeout) },
            link: Link::new(options.limits, options.lenience, Encoder::new(Version::V1_2), now),
            client_heart_beat: HeartBeat::NONE,
            options,
        }
    }

    /// What is to be written.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.link.outbox
    }

    /// Octets waiting to be written.
    #[must_use]
    pub fn outbox_len(&self) -> usize {
        self.link.outbox.remaining()
    }

    /// The owner wrote some of the outbox.
    pub fn wrote(&mut self, now: Time) {
        self.link.wrote(now);
    }

    /// The owner read some octets.
    pub fn read(&mut self, now: Time) {
        self.link.read(now);
    }

    /// The next event in what was read; `None` when more octets are needed or the session is closed.
    ///
    /// # Errors
    /// The connection cannot go on: send [`ServerSession::error`] and close.
    pub fn next_event(&mut self, input: &mut BytesMut) -> Result<Option<ServerEvent>, SessionError> {
        if matches!(self.phase, Phase::Closed | Phase::Asked) {
            return Ok(None);
        }
        let Some(frame) = self.link.decoder.decode(input)? else { return Ok(None) };
        let waiting = matches!(self.phase, Phase::Waiting { .. });
        match frame.command() {
            Command::Connect | Command::Stomp if waiting => self.connect(frame).map(Some),
            Command::Disconnect if !waiting => {
                self.receipt_for(&frame)?;
                self.phase = Phase::Closed;
                Ok(Some(ServerEvent::Disconnect))
            }
            command if !waiting && !command.is_from_server() && !command.is_handshake() => {
                Ok(Some(ServerEvent::Frame(frame)))
            }
            other => Err(SessionError::Unexpected(other)),
        }
    }

    /// Queues CONNECTED. `session` is the header of that name.
    ///
    /// # Errors
    /// A value that cannot be encoded; [`SessionError::NotOpen`] if no CONNECT waits for an answer.
    pub fn accept(&mut self, session: &str, now: Time) -> Result<(), SessionError> {
        if self.phase != Phase::Asked {
            return Err(SessionError::NotOpen);
        }
        let version = self.link.encoder.version();
        let mut frame = Frame::new(Command::Connected).with_header("session", session);
        if version > Version::V1_0 {
            frame = frame
                .with_header("version", version.as_str())
                .with_header("heart-beat", &alloc::format!("{}", self.options.heart_beat))
                .with_header("server", &self.options.server);
        }
        self.link.encoder.enqueue(&frame, &[], &mut self.link.outbox)?;
        self.phase = Phase::Open;
        self.link.heart_beat = HeartBeatMonitor::negotiated(
            self.options.heart_beat,
            self.client_heart_beat,
            self.options.heart_beat_grace,
            now,
        );
        Ok(())
    }

    /// Queues a MESSAGE or any other frame of a server.
    ///
    /// # Errors
    /// The caller's mistakes only.
    pub fn send(&mut self, frame: &Frame) -> Result<(), SessionError> {
        if self.phase != Phase::Open {
            return Err(SessionError::NotOpen);
        }
        Ok(self.link.encoder.enqueue(frame, &[], &mut self.link.outbox)?)
    }

    /// Queues the RECEIPT that `frame` asked for, if it did.
    ///
    /// # Errors
    /// A receipt id that cannot be encoded.
    pub fn receipt_for(&mut self, frame: &Frame) -> Result<(), SessionError> {
        match frame.header("receipt") {
            Some(id) => self.send(&Frame::new(Command::Receipt).with_header("receipt-id", id)),
            None => Ok(()),
        }
    }

    /// Queues an ERROR, which is the last frame: write it, then close. `culprit` is the frame at fault. Does nothing once
    /// the session is closed, by an earlier ERROR or by DISCONNECT.
    pub fn error(&mut self, message: &str, culprit: Option<&Frame>) {
        if self.phase == Phase::Closed {
            return;
        }
        let agreed = self.phase == Phase::Open;
        let mut frame = Frame::new(Command::Error)
            .with_header("content-type", "text/plain")
            .with_body(String::from(message));
        // In a header the message must fit on a line in every version; before a version is agreed on, the client cannot
        // know whether it is escaped. The body has it whole.
        let line: String = message
            .chars()
            .map(|c| if c.is_control() || !agreed && matches!(c, ':' | '\\') { ' ' } else { c })
            .collect();
        frame.headers_mut().push("message", &line);
        if let Some(id) = culprit.and_then(|culprit| culprit.header("receipt")) {
            frame.headers_mut().push("receipt-id", id);
        }
        // Cannot fail but for an id that cannot be written; the message matters more than the id.
        if self.link.encoder.enqueue(&frame, &[], &mut self.link.outbox).is_err() {
            let bare = Frame::new(Command::Error).with_header("message", "error");
            self.link.encoder.enqueue(&bare, &[], &mut self.link.outbox).unwrap_or_default();
        }
        self.phase = Phase::Closed;
    }

    /// When [`ServerSession::handle_timeout`] has something to do.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        match self.phase {
            Phase::Waiting { deadline } => Some(deadline),
            Phase::Asked | Phase::Closed => None,
            Phase::Open => {
                let send =
                    if self.link.outbox.has_remaining() { None } else { self.link.heart_beat.send_at() };
                [send, self.link.heart_beat.dead_at()].into_iter().flatten().min()
            }
        }
    }

    /// Acts on the time: queues a heart-beat, or finds that the client is gone.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), SessionError> {
        match self.phase {
            Phase::Waiting { deadline } if now >= deadline => {
                return Err(SessionError::HandshakeTimeout(self.options.connect_timeout));
            }
            Phase::Open => {}
            _ => return Ok(()),
        }
        if self.link.heart_beat.dead_at().is_some_and(|at| now >= at) {
            return Err(SessionError::PeerSilent(self.link.heart_beat.silence(now)));
        }
        if !self.link.outbox.has_remaining() && self.link.heart_beat.send_at().is_some_and(|at| now >= at) {
            self.link.outbox.push_eol();
        }
        Ok(())
    }

    /// Whether the handshake is done and the end has not come.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The version in force.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.link.encoder.version()
    }

    fn connect(&mut self, frame: Frame) -> Result<ServerEvent, SessionError> {
        // Without accept-version the client speaks 1.0.
        let offered = frame.header("accept-version").unwrap_or(Version::V1_0.as_str());
        let version = offered
            .split(',')
            .filter_map(Version::parse)
            .filter(|version| self.options.versions.contains(version))
            .max()
            .ok_or_else(|| SessionError::NoCommonVersion(offered.into()))?;
        if self.options.require_host && version > Version::V1_0 && frame.header("host").is_none() {
            return Err(SessionError::MissingHeader { command: frame.command(), header: "host" });
        }
        self.client_heart_beat = match frame.header("heart-beat") {
            Some(value) if version > Version::V1_0 => {
                HeartBeat::parse(value).ok_or_else(|| SessionError::BadHeartBeat(value.into()))?
            }
            _ => HeartBeat::NONE,
        };
        self.link.agree_on(version);
        self.phase = Phase::Asked;
        Ok(ServerEvent::Connect(frame))
    }
}
