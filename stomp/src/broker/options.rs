use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use crate::proto::{HeartBeat, Limits, ServerOptions};

/// What happens to a SEND whose queue is full. A subscription to a topic always loses its oldest message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest waiting message is discarded and counted; the SEND gets its RECEIPT. When every message of the queue
    /// is with a consumer, the new one is discarded and counted.
    #[default]
    DropHead,
    /// The SEND is answered with ERROR and the connection is closed; nothing is discarded.
    Refuse,
    /// The connection that sent it is not read until there is room, which is looked at every 5 ms; heart-beats are
    /// still sent to it. A client that consumes from that queue over the same connection blocks itself.
    Block,
}

/// How the broker is set up. Every default is safe to use; see each method for its default.
#[derive(Clone)]
pub struct BrokerBuilder {
    pub(super) bind: SocketAddr,
    pub(super) remote_allowed: bool,
    pub(super) options: Options,
}

#[derive(Clone)]
pub(super) struct Options {
    pub(super) credentials: Option<(String, String)>,
    pub(super) server: ServerOptions,
    pub(super) max_connections: usize,
    pub(super) bounds: Bounds,
}

/// What clients can make the broker hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) overflow: Overflow,
    pub(super) max_queues: usize,
    pub(super) max_messages: usize,
    pub(super) max_octets: usize,
    pub(super) max_total_octets: usize,
    pub(super) max_unacked: usize,
    pub(super) max_subscriptions: usize,
    pub(super) max_outbox: usize,
}

impl Default for BrokerBuilder {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            remote_allowed: false,
            options: Options {
                credentials: None,
                server: ServerOptions::default(),
                max_connections: 1024,
                bounds: Bounds {
                    overflow: Overflow::default(),
                    max_queues: 1024,
                    max_messages: 100_000,
                    max_octets: 64 * 1024 * 1024,
                    max_total_octets: 256 * 1024 * 1024,
                    max_unacked: 65_536,
                    max_subscriptions: 256,
                    max_outbox: 1024 * 1024,
                },
            },
        }
    }
}

impl BrokerBuilder {
    /// Where to listen. Default `127.0.0.1:0`, a port that the system chooses.
    #[must_use]
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = address;
        self
    }

    /// Lets the broker listen on an address that other machines can reach. Refused by default: it has no TLS, no
    /// permissions, and accepts any login unless [`BrokerBuilder::credentials`] are set.
    #[must_use]
    pub fn allow_remote(mut self) -> Self {
        self.remote_allowed = true;
        self
    }

    /// The only login and passcode that are let in. By default any are, and none as well.
    #[must_use]
    pub fn credentials(mut self, login: &str, passcode: &str) -> Self {
        self.options.credentials = Some((login.into(), passcode.into()));
        self
    }

    /// What CONNECTED says in `heart-beat`. Default 10 s both ways.
    #[must_use]
    pub fn heart_beat(mut self, heart_beat: HeartBeat) -> Self {
        self.options.server.heart_beat = heart_beat;
        self
    }

    /// For how many agreed periods a client may be silent. Default 2.
    #[must_use]
    pub fn heart_beat_grace(mut self, periods: f32) -> Self {
        self.options.server.heart_beat_grace = periods;
        self
    }

    /// Time until CONNECT must be here. Default 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.server.connect_timeout = timeout;
        self
    }

    /// Lets clients of 1.1 and 1.2 connect without the header `host`, as RabbitMQ does and as some clients need (stomp.py
    /// in 1.1, unless it is told a virtual host). The specification asks for the header, so by default its absence is an ERROR:
    /// a test should see it.
    #[must_use]
    pub fn allow_missing_host(mut self) -> Self {
        self.options.server.require_host = false;
        self
    }

    /// Limits of one frame.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.server.limits = limits;
        self
    }

    /// What to do when a queue is full. Default [`Overflow::DropHead`].
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.options.bounds.overflow = overflow;
        self
    }

    /// Connections at a time; further ones are closed as soon as they are accepted. Default 1,024.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.options.max_connections = connections;
        self
    }

    /// Queues, the ones behind subscriptions to topics included. The frame that would need one more is answered with
    /// ERROR. Default 1,024.
    #[must_use]
    pub fn max_queues(mut self, queues: usize) -> Self {
        self.options.bounds.max_queues = queues;
        self
    }

    /// Messages of one queue, those that wait for an ACK included. Default 100,000.
    #[must_use]
    pub fn max_messages(mut self, messages: usize) -> Self {
        self.options.bounds.max_messages = messages;
        self
    }

    /// Octets of one queue, counted as header names, header values and bodies, those that wait for an ACK included.
    /// Memory can be up to three times that. Default 64 MiB.
    #[must_use]
    pub fn max_octets(mut self, octets: usize) -> Self {
        self.options.bounds.max_octets = octets;
        self
    }

    /// Octets of all queues together; a SEND beyond it is treated as if its queue were full. Default 256 MiB.
    #[must_use]
    pub fn max_total_octets(mut self, octets: usize) -> Self {
        self.options.bounds.max_total_octets = octets;
        self
    }

    /// Messages of one subscription that wait for an ACK; a `prefetch-count` can only lower it. Default 65,536.
    #[must_use]
    pub fn max_unacked(mut self, messages: usize) -> Self {
        self.options.bounds.max_unacked = messages.max(1);
        self
    }

    /// Subscriptions of one connection; one more is answered with ERROR. Default 256.
    #[must_use]
    pub fn max_subscriptions(mut self, subscriptions: usize) -> Self {
        self.options.bounds.max_subscriptions = subscriptions;
        self
    }

    /// Octets that may wait to be written to one connection. Above it the connection is not read and gets no message
    /// until it has read what is there. Default 1 MiB.
    #[must_use]
    pub fn max_outbox(mut self, octets: usize) -> Self {
        self.options.bounds.max_outbox = octets.max(1);
        self
    }
}

impl fmt::Debug for BrokerBuilder {
    /// The passcode is never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerBuilder")
            .field("bind", &self.bind)
            .field("login", &self.options.credentials.as_ref().map(|(login, _)| login))
            .field("bounds", &self.options.bounds)
            .finish_non_exhaustive()
    }
}
