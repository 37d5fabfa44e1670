use std::time::Duration;

use super::BrokerUrl;
use crate::proto::ClientOptions;

/// How much may be sent and not yet receipted. Sending waits for room in it.
///
/// Never unbounded: RabbitMQ 3.10.8, flooded without a window, took 24 GB in two minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Frames. Rate times confirm latency is a good size: 20,000 frames/s × 50 ms = 1,000.
    pub frames: usize,
    /// Octets of bodies.
    pub bytes: usize,
}

impl Default for Window {
    /// 1,024 frames, 16 MiB.
    fn default() -> Self {
        Self { frames: 1024, bytes: 16 * 1024 * 1024 }
    }
}

/// How to connect, and how much to send ahead of the receipts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// The protocol's part: credentials, heart-beats, timeouts. [`Client::connect`](super::Client::connect) sets
    /// `host`, `login` and `passcode` from the URL.
    pub session: ClientOptions,
    /// What may be in flight.
    pub window: Window,
    /// Time for the transport: name look-up, TCP connection, and where the URL has them the handshakes of TLS and
    /// WebSocket. Default 5 s. The handshake of STOMP has its own.
    pub tcp_timeout: Duration,
    /// Let the system probe a connection on which nothing came for this long. Default `None`: heart-beats do it better,
    /// since they also notice a broker that hangs.
    pub tcp_keepalive: Option<Duration>,
    /// Whom to trust and who we are, for `stomp+ssl://` and `wss://`.
    #[cfg(feature = "rustls")]
    pub tls: super::TlsOptions,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            session: ClientOptions::default(),
            window: Window::default(),
            tcp_timeout: Duration::from_secs(5),
            tcp_keepalive: None,
            #[cfg(feature = "rustls")]
            tls: super::TlsOptions::default(),
        }
    }
}

impl ConnectOptions {
    pub(crate) fn for_url(mut self, url: &BrokerUrl) -> Self {
        self.session.host = url.vhost().into();
        self.session.login = url.login().map(Into::into).or(self.session.login);
        self.session.passcode = url.passcode().map(Into::into).or(self.session.passcode);
        self
    }
}
