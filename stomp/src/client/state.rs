use std::{sync::Arc, time::Duration};

use super::ConnectionError;
use crate::proto::Connected;

/// Where a client stands. Watch it with [`Client::state`](super::Client::state).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum State {
    /// A connection is being made: TCP, TLS, handshake.
    Connecting,
    /// Connected.
    Connected {
        /// Which connection of this client it is, counted from 1. What belongs to an earlier one is stale.
        number: u64,
        /// What the server agreed to.
        connected: Arc<Connected>,
    },
    /// The last connection was lost, or could not be made; the next attempt comes after a pause.
    Waiting {
        /// Attempts that failed in a row.
        failures: u32,
        /// The pause before the next one.
        pause: Duration,
        /// Why the last one failed.
        cause: ConnectionError,
    },
    /// The end: closed by this side, not to be made anew, or tried in vain.
    Closed {
        /// Why; [`ConnectionError::ClosedByUs`] if all was well.
        cause: ConnectionError,
    },
}

impl State {
    /// Whether frames can be sent now.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }

    /// Whether this is the end.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}
