//! What RabbitMQ's STOMP adapter makes of destinations and headers, with types.
//!
//! | for | there is | it goes into |
//! |---|---|---|
//! | the header `destination` | [`Destination`] | SEND, SUBSCRIBE |
//! | message properties | [`Properties`] | SEND |
//! | how `/queue/` declares its queue | [`QueueOptions`] | SEND and SUBSCRIBE, the same in both |
//! | streams, and the queues behind `/topic/` and `/exchange/` | [`SubscriptionOptions`] | SUBSCRIBE |
//! | the switch [`ClientOptions::escape_connect`](crate::proto::ClientOptions::escape_connect) | [`needs_escaped_connect`] | the handshake |
//!
//! All of it comes down to header values and plain [`Headers`](crate::Headers), so it can be used with every part of
//! this crate. That names lead where they say, and that each header arrives as what it is called, is tested against a live
//! RabbitMQ, 3.10.8 and 4.0.5 (`tests/rabbitmq_module.rs`); what else is said of its ways was read in its source.
//!
//! ```
//! use stompwire::{Frame, rabbitmq::{Destination, Properties, QueueKind, QueueOptions}};
//!
//! let mut queue = QueueOptions::default();
//! queue.kind = Some(QueueKind::Quorum);
//! let mut properties = Properties::default();
//! properties.persistent = true;
//! properties.message_id = Some("7f3a");
//!
//! let destination = Destination::queue("beacons/eu").to_header()?;
//! let mut frame = Frame::send(&destination, "{}");
//! properties.push_to(frame.headers_mut());
//! queue.push_to(frame.headers_mut());
//!
//! assert_eq!(frame.header("destination"), Some("/queue/beacons%2Feu"));
//! assert_eq!(frame.header("persistent"), Some("true"));
//! assert_eq!(frame.header("amqp-message-id"), Some("7f3a"));
//! assert_eq!(frame.header("x-queue-type"), Some("quorum"));
//! # Ok::<(), stompwire::rabbitmq::DestinationError>(())
//! ```

mod destination;
mod properties;
mod queue;
mod subscription;

pub use destination::{Destination, DestinationError};
pub use properties::Properties;
pub use queue::{QueueKind, QueueOptions};
pub use subscription::{STREAM_CHUNK, StreamOffset, SubscriptionOptions};

/// Whether a connection to RabbitMQ needs
/// [`ClientOptions::escape_connect`](crate::proto::ClientOptions::escape_connect): it unescapes the headers of CONNECT,
/// which 1.2 forbids ("Value Encoding"), so that a backslash arrives only if it is escaped. Without a backslash the
/// switch changes nothing for RabbitMQ; a server that keeps to the text of 1.2 must not see it on.
///
/// ```
/// use stompwire::{proto::ClientOptions, rabbitmq::needs_escaped_connect};
///
/// let (login, passcode, vhost) = ("guest", r"back\slash", "/");
/// let mut options = ClientOptions::default();
/// options.escape_connect = needs_escaped_connect(login, passcode, vhost);
/// assert!(options.escape_connect);
/// ```
#[must_use]
pub fn needs_escaped_connect(login: &str, passcode: &str, vhost: &str) -> bool {
    [login, passcode, vhost].iter().any(|text| text.contains('\\'))
}
