use alloc::string::ToString;
use core::time::Duration;

use super::queue::milliseconds;
use crate::Headers;

/// The headers of SEND that RabbitMQ makes properties of the AMQP message. Every other header of a SEND is stored as a
/// header of the message, `receipt` and `content-length` included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Properties<'a> {
    /// `persistent:true`, delivery mode 2: the message is written to disk in a durable queue. Otherwise it is transient,
    /// and nothing is written into the frame: `persistent:false` would make `/queue/` declare a queue that is not
    /// durable.
    pub persistent: bool,
    /// `content-type`.
    pub content_type: Option<&'a str>,
    /// `content-encoding`.
    pub content_encoding: Option<&'a str>,
    /// `priority`, for queues with [`QueueOptions::max_priority`](super::QueueOptions::max_priority).
    pub priority: Option<u8>,
    /// `correlation-id`.
    pub correlation_id: Option<&'a str>,
    /// `reply-to`: a destination ([`Destination::to_header`](super::Destination::to_header)).
    pub reply_to: Option<&'a str>,
    /// `expiration`: how long the message may wait in a queue. Whole milliseconds; what is below is cut off.
    pub expiration: Option<Duration>,
    /// `amqp-message-id`. (`message-id` in a SEND is refused with an ERROR.)
    pub message_id: Option<&'a str>,
    /// `timestamp`, seconds since 1970.
    pub timestamp: Option<u64>,
    /// `type`.
    pub message_type: Option<&'a str>,
    /// `user-id`: must be the login of the connection, or the message is refused.
    pub user_id: Option<&'a str>,
    /// `app-id`.
    pub app_id: Option<&'a str>,
}

impl Properties<'_> {
    /// Appends the headers to those of a SEND, or to the ones that a publisher gives every message.
    ///
    /// # Panics
    /// As [`Headers::push`].
    pub fn push_to(&self, headers: &mut Headers) {
        let mut push = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                headers.push(name, value);
            }
        };
        push("persistent", self.persistent.then_some("true"));
        push("content-type", self.content_type);
        push("content-encoding", self.content_encoding);
        push("priority", self.priority.map(|priority| priority.to_string()).as_deref());
        push("correlation-id", self.correlation_id);
        push("reply-to", self.reply_to);
        push("expiration", self.expiration.map(milliseconds).as_deref());
        push("amqp-message-id", self.message_id);
        push("timestamp", self.timestamp.map(|seconds| seconds.to_string()).as_deref());
        push("type", self.message_type);
        push("user-id", self.user_id);
        push("app-id", self.app_id);
    }

    /// The headers alone.
    #[must_use]
    pub fn headers(&self) -> Headers {
        let mut headers = Headers::new();
        self.push_to(&mut headers);
        headers
    }
}
