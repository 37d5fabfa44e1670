//! The protocol without input and output: octets in, frames and events out, time passed in.
//!
//! Nothing here knows a socket, a runtime or a clock. [`Decoder`] and [`Encoder`] are enough for a transport of your
//! own; [`ClientSession`] and [`ServerSession`] add what one connection must remember: version, heart-beats, receipts.

mod command;
mod decode;
mod digits;
mod encode;
mod error;
mod escape;
mod frame;
mod headers;
mod heartbeat;
mod lenience;
mod limits;
mod outbox;
mod receipts;
mod session;
mod version;

pub use command::Command;
pub use decode::{Decoder, Part};
pub use encode::{Encoder, SendTemplate};
pub use error::{DecodeError, EncodeError};
pub use frame::Frame;
pub use headers::Headers;
pub use heartbeat::{HeartBeat, HeartBeatMonitor};
pub use lenience::Lenience;
pub use limits::Limits;
pub use outbox::Outbox;
pub use receipts::Receipts;
pub use session::{
    AckMode, ClientEvent, ClientOptions, ClientSession, Connected, Culprit, Refused, ServerEvent,
    ServerOptions, ServerSession, SessionError, Subscribe, Verdict,
};
pub use version::Version;

/// A moment: the time since an origin that the caller chose, on a clock that never goes back.
pub type Time = core::time::Duration;
