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
    /// The brokers, at least one. Lanes spread evenly over those that work.
    pub brokers: Vec<BrokerUrl>,
    /// Connections in all. A few do: 1 to 4 for each broker. Default 1.
    pub connections: usize,
    /// The headers every message has, `destination` among them. With `persistent:true` RabbitMQ writes messages to disk.
    pub headers: Headers,
    /// The connections' own options; the window holds for each of them.
    pub connect: ConnectOptions,
    /// Pauses between attempts at one broker, and between attempts to send a message that kills its connection.
    pub backoff: Backoff,
    /// When the oldest unreceipted message is this old, the lane looks closer: later ones receipted, or no heart-beats
    /// agreed: the connection is given up and its messages are sent again; only heart-beats coming: the broker is
    /// blocked (an alarm), and reconnecting would make it worse. One more message is then sent: if that is receipted, it
    /// was no alarm, the receipts before it are lost. Default 30 s.
    pub receipt_timeout: Duration,
    /// The mean pause between two moves of lanes to a broker that has come back; each is up to half longer or shorter.
    /// `None`: lanes stay where they are. Default 2 s.
    pub rebalance: Option<Duration>,
    /// How long a lane that moves waits for the receipts of its old connection. What has none by then is sent again.
    /// Default 10 s.
    pub drain_timeout: Duration,
    /// After how many attempts a message that costs the connection each time is given up
    /// ([`Outcome::GivenUp`](super::Outcome::GivenUp)). `None`: never. Default `None`.
    ///
    /// A message that was in flight when a connection was lost, twice, is a suspect: from then on it is sent alone, so
    /// that those that were only near it are confirmed. Given up is one that has had its attempts *and* was alone at the
    /// last loss *and* since the loss before that saw others confirmed; so values below 3 count as 3. A broker that takes
    /// nothing (a full queue that rejects, a missing exchange) is thus no message's fault. A suspect that was lost
    /// alone goes behind the others, with a pause that grows, given up or not: it does not stop the line.
    pub max_attempts: Option<u32>,
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
            rebalance: Some(Duration::from_secs(2)),
            drain_timeout: Duration::from_secs(10),
            max_attempts: None,
        }
    }

    /// Whether the constant headers can be encoded in the least able version.
    pub(crate) fn check_headers(&self) -> Result<(), EncodeError> {
        SendTemplate::new(&Encoder::new(Version::V1_2), &self.headers).map(drop)
    }
}
