use tokio::sync::mpsc;

use super::{Client, SendError};
use crate::proto::{Command, Frame, Headers, Version};

/// How messages of a subscription are acknowledged (1.2, "SUBSCRIBE ack Header").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// The server takes a message for acknowledged once it is sent.
    Auto,
    /// An ACK acknowledges every message up to that one.
    Client,
    /// An ACK acknowledges one message.
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

/// What to subscribe to.
#[derive(Debug, Clone)]
pub struct Subscribe {
    pub(crate) destination: String,
    pub(crate) prefetch: u16,
    ack: AckMode,
    headers: Headers,
}

impl Subscribe {
    /// A subscription to `destination`, acknowledged message by message, with at most 100 messages unacknowledged.
    #[must_use]
    pub fn to(destination: &str) -> Self {
        Self {
            destination: destination.into(),
            prefetch: 100,
            ack: AckMode::default(),
            headers: Headers::new(),
        }
    }

    /// Another way to acknowledge. With [`AckMode::Auto`] nothing holds the server back: if messages come faster than
    /// they are taken, the connection ends with [`ConnectionError::Overrun`](super::ConnectionError::Overrun).
    #[must_use]
    pub const fn with_ack(mut self, ack: AckMode) -> Self {
        self.ack = ack;
        self
    }

    /// How many messages may be unacknowledged (RabbitMQ's header `prefetch-count`), and how many are kept here until
    /// they are taken. At least 1.
    #[must_use]
    pub const fn with_prefetch(mut self, prefetch: u16) -> Self {
        self.prefetch = if prefetch == 0 { 1 } else { prefetch };
        self
    }

    /// One more header of SUBSCRIBE.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(name, value);
        self
    }

    pub(crate) fn frame(&self, id: &str) -> Frame {
        let mut frame = Frame::new(Command::Subscribe)
            .with_header("id", id)
            .with_header("destination", &self.destination)
            .with_header("ack", self.ack.as_str())
            .with_header("prefetch-count", &self.prefetch.to_string());
        self.headers.iter().for_each(|(name, value)| frame.headers_mut().push(name, value));
        frame
    }
}

/// The messages of one subscription, in order.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) client: Client,
    pub(crate) id: String,
    pub(crate) messages: mpsc::Receiver<Frame>,
}

impl Subscription {
    /// The next MESSAGE; `None` when the connection has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Frame> {
        self.messages.recv().await
    }

    /// Acknowledges `message` (and, in mode `client`, all before it). Returns when it is queued. Cancel safe: queued or
    /// not at all.
    ///
    /// # Errors
    /// [`SendError`]: the connection has ended, and the server will deliver the message again.
    pub async fn ack(&self, message: &Frame) -> Result<(), SendError> {
        self.client.send(self.settle(Command::Ack, message)).await
    }

    /// Refuses `message`. What the server then does is its own: RabbitMQ puts it back. There is no NACK in 1.0.
    ///
    /// # Errors
    /// As [`Subscription::ack`].
    pub async fn nack(&self, message: &Frame) -> Result<(), SendError> {
        self.client.send(self.settle(Command::Nack, message)).await
    }

    /// The headers each version wants: 1.2 the message's `ack` as `id`; 1.1 `message-id` and `subscription`; 1.0
    /// `message-id`.
    fn settle(&self, command: Command, message: &Frame) -> Frame {
        let frame = Frame::new(command);
        let header = |name| message.header(name).unwrap_or_default();
        match self.client.version() {
            Version::V1_2 => frame.with_header("id", header("ack")),
            Version::V1_1 => {
                frame.with_header("message-id", header("message-id")).with_header("subscription", &self.id)
            }
            Version::V1_0 => frame.with_header("message-id", header("message-id")),
        }
    }
}
