//! Queues and what is in them.

use serde_json::{Map, Value, json};

/// How a queue is declared. The default is a durable classic queue without arguments.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// Whether it survives a restart. Quorum queues and streams must be durable.
    pub durable: bool,
    /// Classic, quorum or stream.
    pub kind: QueueKind,
    /// `x-max-length`, in messages.
    pub max_length: Option<u64>,
    /// `x-max-length-bytes`, in octets of bodies.
    pub max_length_bytes: Option<u64>,
    /// `x-overflow`: `drop-head`, `reject-publish` or `reject-publish-dlx`.
    pub overflow: Option<String>,
    /// `x-message-ttl`, in milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// Further arguments, by their full names. They win over the fields above.
    pub arguments: Map<String, Value>,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            durable: true,
            kind: QueueKind::Classic,
            max_length: None,
            max_length_bytes: None,
            overflow: None,
            message_ttl_ms: None,
            arguments: Map::new(),
        }
    }
}

impl QueueOptions {
    /// A durable queue of this kind without further arguments.
    pub fn of_kind(kind: QueueKind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// The body of the declaration.
    pub(crate) fn to_json(&self) -> Value {
        let numbers = [
            ("x-max-length", self.max_length),
            ("x-max-length-bytes", self.max_length_bytes),
            ("x-message-ttl", self.message_ttl_ms),
        ];
        let mut arguments = Map::from_iter([("x-queue-type".to_owned(), self.kind.name().into())]);
        arguments
            .extend(numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
        if let Some(overflow) = &self.overflow {
            arguments.insert("x-overflow".to_owned(), overflow.as_str().into());
        }
        arguments.extend(self.arguments.clone());
        json!({ "durable": self.durable, "auto_delete": false, "arguments": arguments })
    }
}

/// The type of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueKind {
    /// On one node; the only type that may be non-durable.
    #[default]
    Classic,
    /// Replicated, on the Raft log.
    Quorum,
    /// An append-only log. Its messages stay when they are consumed, and [`Vhost::get_messages`] cannot read them.
    ///
    /// [`Vhost::get_messages`]: crate::Vhost::get_messages
    Stream,
}

impl QueueKind {
    fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }
}

/// How many messages a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounts {
    /// Waiting for a consumer.
    pub ready: u64,
    /// Delivered and not acknowledged yet.
    pub unacknowledged: u64,
}

impl QueueCounts {
    /// Both together.
    pub fn total(&self) -> u64 {
        self.ready + self.unacknowledged
    }
}

/// A message taken from a queue.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Message {
    /// The body, octet for octet.
    pub payload: Vec<u8>,
    /// The exchange it was published to; empty for the default exchange.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// The message's properties under their AMQP names (`delivery_mode`, `message_id`, …), its headers under
    /// `headers`.
    pub properties: Map<String, Value>,
}

impl Message {
    /// A header of the message, if there is one of this name.
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.properties.get("headers")?.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_arguments() {
        let options = QueueOptions {
            max_length: Some(10),
            overflow: Some("reject-publish".into()),
            arguments: Map::from_iter([("x-max-priority".to_owned(), 3.into())]),
            ..QueueOptions::default()
        };
        let expected = json!({
            "durable": true,
            "auto_delete": false,
            "arguments": {
                "x-queue-type": "classic", "x-max-length": 10, "x-overflow": "reject-publish", "x-max-priority": 3
            },
        });
        assert_eq!(options.to_json(), expected);
    }
}
