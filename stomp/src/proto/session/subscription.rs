use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
};

use super::SessionError;
use crate::proto::{Command, Frame, Headers, Version};

/// How messages of a subscription are acknowledged (1.2, "SUBSCRIBE ack Header").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AckMode {
    /// The server takes a message for acknowledged once it is sent.
    Auto,
    /// An ACK or NACK speaks of every message up to that one. RabbitMQ (3.10 to 4.3) takes it for every such message of
    /// the *connection*, those of other subscriptions and of ended ones too, which are then lost to them: give such a
    /// subscription a connection of its own.
    Client,
    /// An ACK or NACK speaks of one message. 1.0 does not define it, though servers that speak 1.0 know it.
    #[default]
    ClientIndividual,
}

impl AckMode {
    /// The value of the header `ack`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Client => "client",
            Self::ClientIndividual => "client-individual",
        }
    }
}

/// What a consumer says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is done with (ACK).
    Ack,
    /// It was not consumed (NACK, from 1.1 on). What the server then does is its own: RabbitMQ puts it back.
    Nack,
}

/// What to subscribe to.
#[derive(Debug, Clone)]
pub struct Subscribe {
    pub(crate) destination: String,
    pub(crate) prefetch: u16,
    /// Messages beyond that which are no fault of the server's.
    pub(crate) excess: u16,
    pub(crate) ack: AckMode,
    /// The client acknowledges what is taken.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "for the client"))]
    pub(crate) acks_on_take: bool,
    headers: Headers,
}

impl Subscribe {
    /// A subscription to `destination`, acknowledged message by message, with at most 100 messages unacknowledged.
    #[must_use]
    pub fn to(destination: impl Into<String>) -> Self {
        Self {
            destination: destination.into(),
            prefetch: 100,
            excess: 0,
            ack: AckMode::default(),
            acks_on_take: false,
            headers: Headers::new(),
        }
    }

    /// Another way to acknowledge. With [`AckMode::Auto`] nothing holds the server back.
    #[must_use]
    pub const fn with_ack(mut self, ack: AckMode) -> Self {
        self.ack = ack;
        self
    }

    /// For those who need no acknowledging of their own but do want the server held back: a message counts as
    /// acknowledged once it is taken from the [`Subscription`](crate::client::Subscription). On the wire this is mode
    /// `client-individual`, with the ACKs of half the credit in one write; after a lost connection up to so many messages
    /// are delivered again. A session leaves acknowledging to its owner; the [`Client`](crate::client::Client) does it.
    #[cfg(feature = "tokio")]
    #[must_use]
    pub const fn acknowledged_on_take(mut self) -> Self {
        // Not cumulative: see `AckMode::Client`.
        self.ack = AckMode::ClientIndividual;
        self.acks_on_take = true;
        self
    }

    /// The subscription's credit: how many messages may be unacknowledged (RabbitMQ's header `prefetch-count`), and how
    /// many are kept on this side until they are taken. At least 1. For another broker add its own header too, such as
    /// ActiveMQ's `activemq.prefetchSize`.
    #[must_use]
    pub const fn with_prefetch(mut self, prefetch: u16) -> Self {
        self.prefetch = if prefetch == 0 { 1 } else { prefetch };
        self
    }

    /// How many messages beyond its credit a subscription keeps too, before it takes the server to be at fault and ends
    /// ([`Overrun`](crate::client::SubscriptionError::Overrun)). 0 by default. The server is not told: it is for one that
    /// keeps to the credit in pieces only, as RabbitMQ does with streams
    /// ([`STREAM_CHUNK`](crate::rabbitmq::STREAM_CHUNK)).
    #[must_use]
    pub const fn with_excess(mut self, messages: u16) -> Self {
        self.excess = messages;
        self
    }

    /// One more header of SUBSCRIBE.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(name, value);
        self
    }

    /// More headers of SUBSCRIBE.
    #[must_use]
    pub fn with_headers<'a>(mut self, headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        headers.into_iter().for_each(|(name, value)| self.headers.push(name, value));
        self
    }

    /// The SUBSCRIBE frame. Its own headers come first, so that none of the caller's can stand in for them.
    pub(super) fn frame(&self, id: &str) -> Frame {
        let mut frame = Frame::new(Command::Subscribe)
            .with_header("id", id)
            .with_header("destination", &self.destination)
            .with_header("ack", self.ack.as_str());
        if self.ack != AckMode::Auto {
            frame = frame.with_header("prefetch-count", &self.prefetch.to_string());
        }
        self.headers.iter().for_each(|(name, value)| frame.headers_mut().push(name, value));
        frame
    }
}

/// The subscriptions in force on one connection, by the number that is their header `id`.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    by_id: BTreeMap<u64, (String, AckMode)>,
}

impl Subscriptions {
    pub(super) fn check_new(&self, id: u64) -> Result<(), SessionError> {
        if self.by_id.contains_key(&id) { Err(SessionError::SubscriptionExists(id)) } else { Ok(()) }
    }

    pub(super) fn insert(&mut self, id: u64, subscribe: &Subscribe) {
        self.by_id.insert(id, (subscribe.destination.clone(), subscribe.ack));
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.by_id.remove(&id);
    }

    /// The subscription a MESSAGE is for: by its header `subscription`, which 1.0 may lack; then by destination.
    pub(super) fn of(&self, message: &Frame, version: Version) -> Option<u64> {
        match message.header("subscription") {
            Some(text) => {
                let id = super::client::own_number(text)?;
                self.by_id.contains_key(&id).then_some(id)
            }
            None if version == Version::V1_0 => {
                let destination = message.header("destination")?;
                self.by_id.iter().find(|(_, (known, _))| known == destination).map(|(id, _)| *id)
            }
            None => None,
        }
    }

    /// UNSUBSCRIBE: by id in every version; 1.0 wants id or destination.
    pub(super) fn unsubscribe(&self, id: u64) -> Result<Frame, SessionError> {
        self.known(id)?;
        Ok(Frame::new(Command::Unsubscribe).with_header("id", &id.to_string()))
    }

    /// ACK or NACK with the headers each version wants: 1.2 the message's `ack` as `id`; 1.1 `message-id` and
    /// `subscription`; 1.0 `message-id`, and no NACK.
    pub(super) fn verdict(
        &self,
        verdict: Verdict,
        id: u64,
        message: &Frame,
        version: Version,
    ) -> Result<Frame, SessionError> {
        let command = match verdict {
            Verdict::Ack => Command::Ack,
            Verdict::Nack => Command::Nack,
        };
        if command == Command::Nack && version == Version::V1_0 {
            return Err(SessionError::NotInVersion { command, version });
        }
        if self.known(id)? == AckMode::Auto {
            return Err(SessionError::NothingToAcknowledge);
        }
        let header = |name| message.header(name).ok_or(SessionError::NothingToAcknowledge);
        let frame = Frame::new(command);
        Ok(match version {
            Version::V1_2 => frame.with_header("id", header("ack")?),
            Version::V1_1 => frame
                .with_header("message-id", header("message-id")?)
                .with_header("subscription", &id.to_string()),
            Version::V1_0 => frame.with_header("message-id", header("message-id")?),
        })
    }

    fn known(&self, id: u64) -> Result<AckMode, SessionError> {
        self.by_id.get(&id).map(|(_, ack)| *ack).ok_or(SessionError::NoSubscription(id))
    }
}
