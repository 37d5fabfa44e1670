use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::BrokerUrl;
use crate::{Backoff, proto::ClientOptions};

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

impl Window {
    /// At least one of each, at most what can be counted.
    pub(super) fn clamped(self) -> (usize, usize) {
        (self.frames.clamp(1, Semaphore::MAX_PERMITS), self.bytes.clamp(1, u32::MAX as usize))
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
    /// How long sending, subscribing and the like may wait for a connection and for room in the window. Default 30 s.
    /// Waiting for the receipt has its own limit, `session.receipt_timeout`.
    pub operation_timeout: Duration,
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
            operation_timeout: Duration::from_secs(30),
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

/// How a client comes back after its connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reconnect {
    /// Pauses between attempts; after a round of all hosts if there are several. Default 100 ms to 10 s.
    pub backoff: Backoff,
    /// Attempts in a row that may fail before the client gives up. A connection counts as a success once it has lived for
    /// as long as the longest pause. Default `None`: it never gives up.
    pub max_attempts: Option<u32>,
}

impl Reconnect {
    /// The same with these pauses.
    #[must_use]
    pub const fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The same, giving up after so many attempts in a row have failed (at least 1).
    #[must_use]
    pub const fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(if attempts == 0 { 1 } else { attempts });
        self
    }
}

/// Who we are at the broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    login: String,
    passcode: String,
}

impl Credentials {
    /// The headers `login` and `passcode`.
    #[must_use]
    pub fn new(login: impl Into<String>, passcode: impl Into<String>) -> Self {
        Self { login: login.into(), passcode: passcode.into() }
    }

    pub(super) fn apply(self, options: &mut ClientOptions) {
        options.login = Some(self.login);
        options.passcode = Some(self.passcode);
    }
}

impl fmt::Debug for Credentials {
    /// The passcode is never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("login", &self.login).field("passcode", &"***").finish()
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Asked = Pin<Box<dyn Future<Output = Result<Credentials, BoxError>> + Send>>;

/// Asked before every connection.
#[derive(Clone)]
pub(super) struct CredentialsSource(Arc<dyn Fn() -> Asked + Send + Sync>);

impl CredentialsSource {
    pub(super) fn new<F, R, E>(source: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Arc::new(move || {
            let asked = source();
            Box::pin(async move { asked.await.map_err(Into::into) })
        }))
    }

    pub(super) async fn ask(&self) -> Result<Credentials, BoxError> {
        (self.0)().await
    }
}

impl fmt::Debug for CredentialsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsSource")
    }
}
