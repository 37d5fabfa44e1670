//! What a client library has to do, the same for all: the window, the bodies, the clock and the counting are the lane's.

mod amqprs;
mod lapin;
mod stomp;

use std::{future::Future, net::SocketAddr};

use crate::broker::{
    payload::Stamp,
    setting::{Protocol, QueueKind},
};

pub(crate) use self::lapin::{declare, delete};
pub(crate) use self::{amqprs::Amqprs, lapin::Lapin, stomp::Stomp};

/// Why a client cannot go on, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    /// For use with `map_err`.
    pub(crate) fn of<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Self + '_ {
        move |error| Self(format!("{what}: {error}"))
    }
}

/// Where to go and how: equal for all clients.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) endpoints: Endpoints,
    pub(crate) queue: String,
    pub(crate) kind: QueueKind,
    pub(crate) persistent: bool,
    pub(crate) confirms: bool,
    /// Most messages of a connection that are unconfirmed.
    pub(crate) window: usize,
    /// Messages that a consumer may hold unacknowledged.
    pub(crate) prefetch: u16,
}

/// How a broker is reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Endpoints {
    pub(crate) stomp: Option<stompwire::client::BrokerUrl>,
    pub(crate) amqp: Option<::lapin::uri::AMQPUri>,
}

impl Endpoints {
    /// Whether a protocol has somewhere to go.
    pub(crate) fn serves(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Stomp => self.stomp.is_some(),
            Protocol::Lapin | Protocol::Amqprs => self.amqp.is_some(),
        }
    }

    /// The port that a protocol goes to.
    pub(crate) fn port(&self, protocol: Protocol) -> Option<u16> {
        match protocol {
            Protocol::Stomp => self.stomp.as_ref().map(stompwire::client::BrokerUrl::port),
            Protocol::Lapin | Protocol::Amqprs => self.amqp.as_ref().map(|uri| uri.authority.port),
        }
    }

    /// Without credentials, for people.
    pub(crate) fn describe(&self) -> String {
        let stomp = self.stomp.as_ref().map(|url| format!("stomp://{}:{}", url.host(), url.port()));
        let amqp =
            self.amqp.as_ref().map(|uri| format!("amqp://{}:{}", uri.authority.host, uri.authority.port));
        [stomp, amqp].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// On the loopback interface of a private broker.
    pub(crate) fn loopback(stomp_url: &str, amqp: SocketAddr) -> Result<Self, Failure> {
        let stomp = stomp_url.parse().map_err(Failure::of("STOMP URL"))?;
        let amqp = format!("amqp://guest:guest@{amqp}/%2f").parse().map_err(Failure::of("AMQP URL"))?;
        Ok(Self { stomp: Some(stomp), amqp: Some(amqp) })
    }
}

/// What has become of messages, by their number on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// This one is confirmed; without confirms: handed to the system.
    One(u64),
    /// All up to this one are confirmed.
    UpTo(u64),
    /// The broker has refused this one.
    Refused(u64),
}

/// A message as it arrives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    /// What its header says; `None` for one that has none.
    pub(crate) stamp: Option<Stamp>,
    /// Octets of its body.
    pub(crate) octets: usize,
}

impl Arrived {
    fn of(body: &[u8]) -> Self {
        Self { stamp: Stamp::of(body), octets: body.len() }
    }
}

/// A client library.
pub(crate) trait Driver: 'static {
    /// A connection that publishes.
    type Publisher: Publisher;
    /// A connection that consumes.
    type Consumer: Consumer;

    /// Connects to publish.
    fn publisher(link: &Link) -> impl Future<Output = Result<Self::Publisher, Failure>>;

    /// Connects and subscribes.
    fn consumer(link: &Link) -> impl Future<Output = Result<Self::Consumer, Failure>>;
}

/// A connection that publishes.
pub(crate) trait Publisher {
    /// Hands the message `number` (0, 1, 2 … on this connection) to the library. Called only while fewer than the window
    /// are unsettled. Not cancel safe.
    fn publish(&mut self, number: u64, body: Vec<u8>) -> impl Future<Output = Result<(), Failure>>;

    /// Waits until something is settled, and adds all that is. Cancel safe.
    fn settled(&mut self, into: &mut Vec<Settled>) -> impl Future<Output = Result<(), Failure>>;

    /// Whether the connection stands, and if not why.
    fn health(&self) -> Result<(), Failure>;

    /// Closes the connection in good order.
    fn close(self) -> impl Future<Output = ()>;
}

/// A connection that consumes.
pub(crate) trait Consumer {
    /// Waits for a message. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Result<Arrived, Failure>>;

    /// Acknowledges all that has arrived.
    fn acknowledge(&mut self) -> impl Future<Output = Result<(), Failure>>;

    /// Whether the connection stands, and if not why.
    fn health(&self) -> Result<(), Failure>;

    /// Closes the connection in good order.
    fn close(self) -> impl Future<Output = ()>;
}
