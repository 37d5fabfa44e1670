use alloc::{string::String, vec::Vec};
use core::{fmt, time::Duration};

use crate::proto::{Command, Frame, Headers, HeartBeat, Lenience, Limits, Version};

/// How a client introduces itself, and how long it waits. Every default is safe to use.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The virtual host (header `host`). RabbitMQ's default one is `/`.
    pub host: String,
    /// The header `login`.
    pub login: Option<String>,
    /// The header `passcode`. Never shown by `Debug`.
    pub passcode: Option<String>,
    /// Further headers of CONNECT.
    pub headers: Headers,
    /// Versions to offer.
    pub versions: Vec<Version>,
    /// Open with STOMP instead of CONNECT; servers of 1.0 do not know it.
    pub stomp_command: bool,
    /// What to offer in `heart-beat`. Default 10 s both ways.
    pub heart_beat: HeartBeat,
    /// For how many agreed periods the server may be silent. Default 2.
    pub heart_beat_grace: f32,
    /// Time for the whole handshake. Default 10 s.
    pub connect_timeout: Duration,
    /// How long a frame may wait for its RECEIPT. Default 30 s; `None` waits for ever (the connection's end resolves it).
    pub receipt_timeout: Option<Duration>,
    /// Time for DISCONNECT and its receipt. Default 5 s.
    pub close_timeout: Duration,
    /// Escape the headers of CONNECT, for RabbitMQ (3.10 to 4.3), which unescapes them although 1.2 forbids it. Set it
    /// when login or passcode hold a backslash. Default off.
    pub escape_connect: bool,
    /// Write content-length on SEND. Default on; ActiveMQ takes a SEND without one for a text message.
    pub content_length: bool,
    /// What the server may make us hold.
    pub limits: Limits,
    /// What to forgive. Default nothing.
    pub lenience: Lenience,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            host: String::from("/"),
            login: None,
            passcode: None,
            headers: Headers::new(),
            versions: Version::ALL.to_vec(),
            stomp_command: false,
            heart_beat: HeartBeat::every(Duration::from_secs(10)),
            heart_beat_grace: 2.0,
            connect_timeout: Duration::from_secs(10),
            receipt_timeout: Some(Duration::from_secs(30)),
            close_timeout: Duration::from_secs(5),
            escape_connect: false,
            content_length: true,
            limits: Limits::default(),
            lenience: Lenience::STRICT,
        }
    }
}

impl ClientOptions {
    /// The CONNECT (or STOMP) frame.
    pub(crate) fn connect_frame(&self) -> Frame {
        let mut versions = self.versions.clone();
        versions.sort_unstable();
        versions.dedup();
        let mut offered = String::new();
        for version in versions {
            if !offered.is_empty() {
                offered.push(',');
            }
            offered.push_str(version.as_str());
        }
        let command = if self.stomp_command { Command::Stomp } else { Command::Connect };
        let mut frame = Frame::new(command)
            .with_header("accept-version", &offered)
            .with_header("host", &self.host)
            .with_header("heart-beat", &alloc::format!("{}", self.heart_beat));
        for (name, value) in [("login", &self.login), ("passcode", &self.passcode)] {
            if let Some(value) = value {
                frame.headers_mut().push(name, value);
            }
        }
        self.headers.iter().for_each(|(name, value)| frame.headers_mut().push(name, value));
        frame
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("host", &self.host)
            .field("login", &self.login)
            .field("passcode", &self.passcode.as_ref().map(|_| "***"))
            .field("versions", &self.versions)
            .field("heart_beat", &self.heart_beat)
            .finish_non_exhaustive()
    }
}
