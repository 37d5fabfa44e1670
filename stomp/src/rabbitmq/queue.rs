use alloc::string::{String, ToString};
use core::time::Duration;

use crate::Headers;

/// How `/queue/` declares its queue: the same in every SEND and SUBSCRIBE to it. A queue that exists with other options
/// is refused: ERROR, and the connection ends. RabbitMQ declares once for each connection, at the first frame that names
/// the queue.
///
/// The default is what RabbitMQ does without any header: a durable queue of the virtual host's default type.
///
/// `x-overflow` is not among what the adapter passes on: what happens when a queue is full needs a policy. In SEND these
/// headers are also stored with each message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueOptions {
    /// `x-queue-type`.
    pub kind: Option<QueueKind>,
    /// `x-message-ttl`: how long a message may wait. Whole milliseconds; what is below is cut off.
    pub message_ttl: Option<Duration>,
    /// `x-expires`: how long the queue may go unused. Whole milliseconds, at least 1.
    pub expires: Option<Duration>,
    /// `x-max-length`, messages.
    pub max_length: Option<u64>,
    /// `x-max-length-bytes`, octets of bodies.
    pub max_length_bytes: Option<u64>,
    /// `x-dead-letter-exchange`: where messages go that expire, are refused or do not fit. Spaces around it are cut off.
    pub dead_letter_exchange: Option<String>,
    /// `x-dead-letter-routing-key`: their own is kept otherwise. Spaces around it are cut off.
    pub dead_letter_routing_key: Option<String>,
    /// `x-max-priority`, for classic queues.
    pub max_priority: Option<u8>,
    /// Whether the queue survives a restart of the broker. Default true.
    pub durable: bool,
    /// Whether it is deleted with its last consumer. Default false.
    pub auto_delete: bool,
    /// Whether it belongs to this connection and ends with it; then it is not durable. Default false.
    pub exclusive: bool,
}

/// The type of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueueKind {
    /// On one node.
    Classic,
    /// Replicated; must be durable, and neither exclusive nor deleted with its consumers.
    Quorum,
    /// A log: messages stay when they are consumed ([`StreamOffset`](super::StreamOffset)). The same holds for it.
    Stream,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            kind: None,
            message_ttl: None,
            expires: None,
            max_length: None,
            max_length_bytes: None,
            dead_letter_exchange: None,
            dead_letter_routing_key: None,
            max_priority: None,
            durable: true,
            auto_delete: false,
            exclusive: false,
        }
    }
}

impl QueueOptions {
    /// Appends the headers to those of a SEND or SUBSCRIBE. In SEND behind [`Properties`](super::Properties): RabbitMQ
    /// also takes `persistent` for a statement about the queue, and obeys the last.
    ///
    /// # Panics
    /// As [`Headers::push`].
    pub fn push_to(&self, headers: &mut Headers) {
        let mut push = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                headers.push(name, value);
            }
        };
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        push("x-queue-type", self.kind.map(QueueKind::as_str));
        push("x-message-ttl", self.message_ttl.map(milliseconds).as_deref());
        push("x-expires", self.expires.map(milliseconds).as_deref());
        push("x-max-length", number(self.max_length).as_deref());
        push("x-max-length-bytes", number(self.max_length_bytes).as_deref());
        push("x-dead-letter-exchange", self.dead_letter_exchange.as_deref());
        push("x-dead-letter-routing-key", self.dead_letter_routing_key.as_deref());
        push("x-max-priority", number(self.max_priority.map(u64::from)).as_deref());
        // `durable:true` is left out: it is the default here, and asks for an `id` where there may be none.
        let flag = |name, value| (name, Some(if value { "true" } else { "false" }));
        if !self.durable {
            // Without the other two, it would be exclusive and deleted with its last consumer.
            [
                flag("durable", false),
                flag("auto-delete", self.auto_delete),
                flag("exclusive", self.exclusive),
            ]
            .into_iter()
            .for_each(|(name, value)| push(name, value));
            return;
        }
        push("auto-delete", self.auto_delete.then_some("true"));
        push("exclusive", self.exclusive.then_some("true"));
    }

    /// The headers alone.
    #[must_use]
    pub fn headers(&self) -> Headers {
        let mut headers = Headers::new();
        self.push_to(&mut headers);
        headers
    }
}

impl QueueKind {
    /// The value of `x-queue-type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }
}

pub(super) fn milliseconds(duration: Duration) -> String {
    duration.as_millis().to_string()
}
