use std::time::Duration;

use super::Backoff;
use crate::{
    Headers, Version,
    client::{BrokerUrl, ConnectOptions},
    proto::{EncodeError, Encoder, SendTemplate},
};

/// What a [`Publisher`](super::Publisher) needs to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PublisherOptions {
    /// The brokers, at least one. Lane `i` starts at broker `i` and goes on to the next when one fails.
    pub brokers: Vec<BrokerUrl>,
    /// Connections in all. A few do: 1 to 4 for each broker. Default 1.
    pub connections: usize,
    /// The headers every message has, `destination` among them. With `persistent:true` RabbitMQ writes messages to disk.
    pub headers: Headers,
    /// The connections' own options; the window holds for each of them.
    pub connect: ConnectOptions,
    /// Pauses between attempts to connect.
    pub backoff: Backoff,
    /// When the oldest unreceipted message is this old, the lane looks closer: later ones receipted, or no heart-beats
    /// agreed: the connection is given up and its messages are sent again; only heart-beats coming: the broker is
    /// blocked (an alarm), and reconnecting would make it worse. Default 30 s.
    pub receipt_timeout: Duration,
}

impl PublisherOptions {
    /// Publishing to `destination` at these brokers, persistent, everything else at its default.
    #[must_use]
    pub fn new(brokers: Vec<BrokerUrl>, destination: &str) -> Self {
        Self {
            brokers,
            connections: 1,
            headers: [("destination", destination), ("persistent", "true")].into_iter().collect(),
            connect: ConnectOptions::default(),
            backoff: Backoff::default(),
            receipt_timeout: Duration::from_secs(30),
        }
    }

    /// Whether the constant headers can be encoded in the least able version.
    pub(crate) fn check_headers(&self) -> Result<(), EncodeError> {
        SendTemplate::new(&Encoder::new(Version::V1_2), &self.headers).map(drop)
    }
}
