use alloc::{format, string::String};

use crate::Headers;

/// Messages in a chunk of a stream, at most: a chunk counts its entries in 16 bits.
///
/// RabbitMQ 3.10 delivers the messages of a stream in the chunks that they were written in: as long as any credit is left it
/// sends the next chunk, all of it, and keeps the account below zero until so many messages are acknowledged. A subscription
/// to a stream exceeds its credit, however large, by up to a chunk less a message, and has to allow for that.
///
/// ```
/// use stompwire::{proto::Subscribe, rabbitmq::STREAM_CHUNK};
///
/// let subscribe = Subscribe::to("/amq/queue/log").with_prefetch(1000).with_excess(STREAM_CHUNK);
/// # let _ = subscribe;
/// ```
pub const STREAM_CHUNK: u16 = u16::MAX;

/// Headers of SUBSCRIBE that RabbitMQ gives a meaning, beside `ack` and `prefetch-count`.
///
/// ```
/// use stompwire::rabbitmq::{StreamOffset, SubscriptionOptions};
///
/// let mut options = SubscriptionOptions::default();
/// options.stream_offset = Some(StreamOffset::First);
/// assert!(options.headers().iter().eq([("x-stream-offset", "first")]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SubscriptionOptions {
    /// `x-stream-offset`: where in a stream to begin. A stream also asks for `prefetch-count` and for messages to be
    /// acknowledged, and exceeds the former: see [`STREAM_CHUNK`].
    pub stream_offset: Option<StreamOffset>,
    /// `x-queue-name`: the name of the queue that a subscription to `/exchange/` or `/topic/` makes; otherwise RabbitMQ
    /// gives it one.
    pub queue_name: Option<String>,
    /// Whether that queue survives the connection (and a restart), to be found again by a SUBSCRIBE with the same
    /// destination and name; UNSUBSCRIBE with `durable:true` deletes it. For `/exchange/` and `/topic/` only. Writes
    /// `durable:true`, `auto-delete:false` and `exclusive:false`: without the last, RabbitMQ 4.0.5 deletes the queue of an
    /// `/exchange/` with its connection, and what waits in it (3.10.8 does not).
    pub durable: bool,
}

/// Where in a stream to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamOffset {
    /// The oldest message there is.
    First,
    /// The last chunk written, which may hold several messages.
    Last,
    /// What is sent from now on.
    Next,
    /// The message of this number, the first ever sent being 0.
    Offset(u64),
    /// The chunk written at this time, in seconds since 1970.
    Timestamp(u64),
}

impl SubscriptionOptions {
    /// Appends the headers to those of a SUBSCRIBE.
    ///
    /// # Panics
    /// As [`Headers::push`].
    pub fn push_to(&self, headers: &mut Headers) {
        if let Some(offset) = self.stream_offset {
            headers.push("x-stream-offset", &offset.to_header());
        }
        if let Some(name) = &self.queue_name {
            headers.push("x-queue-name", name);
        }
        if self.durable {
            headers.push("durable", "true");
            headers.push("auto-delete", "false");
            headers.push("exclusive", "false");
        }
    }

    /// The headers alone.
    #[must_use]
    pub fn headers(&self) -> Headers {
        let mut headers = Headers::new();
        self.push_to(&mut headers);
        headers
    }
}

impl StreamOffset {
    /// The value of `x-stream-offset`.
    #[must_use]
    pub fn to_header(self) -> String {
        match self {
            Self::First => "first".into(),
            Self::Last => "last".into(),
            Self::Next => "next".into(),
            Self::Offset(offset) => format!("offset={offset}"),
            Self::Timestamp(seconds) => format!("timestamp={seconds}"),
        }
    }
}
