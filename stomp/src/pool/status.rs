use std::time::{Duration, Instant};

/// Where a connection of the pool stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionState {
    /// On its way to a broker.
    Connecting,
    /// There, and handed out.
    Connected,
    /// No broker may be tried at present.
    BackingOff,
    /// The pool was closed.
    Closed,
}

impl ConnectionState {
    /// A word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::BackingOff => "backing_off",
            Self::Closed => "closed",
        }
    }
}

/// One connection's reading.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// The broker it is at or was last tried at, without its password; empty before the first attempt.
    pub broker: String,
    /// Where it stands.
    pub state: ConnectionState,
    /// Since when.
    pub since: Instant,
    /// Why the last connection ended or was not made, in the server's words if it had any; `None` once connected.
    pub last_error: Option<String>,
}

/// The pool's reading.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// One for each connection.
    pub connections: Vec<ConnectionStatus>,
    /// Connections made.
    pub connects: u64,
    /// Connections lost, and attempts that failed.
    pub failures: u64,
    /// Connections moved to a broker that had come back.
    pub rebalanced: u64,
}

impl PoolStatus {
    /// Connections that can be used now.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connections.iter().filter(|connection| connection.state == ConnectionState::Connected).count()
    }

    pub(super) fn new(connections: usize) -> Self {
        let connection = ConnectionStatus {
            broker: String::new(),
            state: ConnectionState::Connecting,
            since: Instant::now(),
            last_error: None,
        };
        Self { connections: vec![connection; connections], connects: 0, failures: 0, rebalanced: 0 }
    }

    /// The error that was seen last, with its broker, of the connections that have one now.
    pub(super) fn last_error(&self) -> Option<String> {
        let failed = self.connections.iter().filter(|connection| connection.last_error.is_some());
        let ConnectionStatus { broker, last_error, .. } = failed.max_by_key(|connection| connection.since)?;
        last_error.as_ref().map(|error| format!("{broker}: {error}"))
    }
}

/// What is known of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerStatus {
    /// Its URL without the password.
    pub broker: String,
    /// Connections to it.
    pub connections: usize,
    /// Of them, those over which it takes nothing at present (an alarm). Only a
    /// [`Publisher`](crate::publisher::Publisher) finds out.
    pub blocked: usize,
    /// Whether the last thing heard of it was good.
    pub good: bool,
    /// Failures in a row: until a connection has had a receipt, or has lasted for as long as the longest pause. That all
    /// its connections end at once is one failure.
    pub failures: u32,
    /// Failures since the start.
    pub failures_total: u64,
    /// What the latest failure was, in the server's words if it had any. RabbitMQ's ERROR `Processing error` (3.10.8),
    /// which gives no reason, does not take the place of an ERROR with one in the same row of failures.
    pub last_error: Option<String>,
}

/// Why there is no connection to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// None was there in time.
    #[error("no connection to a broker within {within:?}{}", because(last_error.as_deref()))]
    NoConnection {
        /// How long was waited.
        within: Duration,
        /// What the latest attempt came to, with its broker.
        last_error: Option<String>,
    },
    /// The pool was closed.
    #[error("the pool was closed")]
    Closed,
}

fn because(last_error: Option<&str>) -> String {
    last_error.map(|error| format!("; the latest attempt: {error}")).unwrap_or_default()
}
