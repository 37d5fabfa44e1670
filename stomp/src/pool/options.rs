use std::time::Duration;

use crate::{
    Backoff,
    client::{BrokerUrl, ConnectOptions},
};

/// What a [`Pool`](super::Pool) needs to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolOptions {
    /// The brokers, at least one. Connections spread evenly over those that work.
    pub brokers: Vec<BrokerUrl>,
    /// Connections in all. A few do: 1 to 4 for each broker. Default 1.
    pub connections: usize,
    /// The connections' own options.
    pub connect: ConnectOptions,
    /// Pauses between attempts at one broker.
    pub backoff: Backoff,
    /// The mean pause between two moves of connections to a broker that has come back; each is up to half longer or
    /// shorter. `None`: connections stay where they are. Default 2 s.
    pub rebalance: Option<Duration>,
    /// How long a connection that is replaced by a move waits for those who use it and for its receipts. Default 10 s.
    pub drain_timeout: Duration,
}

impl PoolOptions {
    /// One connection to one of these brokers, everything else at its default.
    #[must_use]
    pub fn new(brokers: Vec<BrokerUrl>) -> Self {
        Self {
            brokers,
            connections: 1,
            connect: ConnectOptions::default(),
            backoff: Backoff::default(),
            rebalance: Some(Duration::from_secs(2)),
            drain_timeout: Duration::from_secs(10),
        }
    }
}
