//! One connection's memory, client or server side: handshake, heart-beats, receipts, orderly end.

mod client;
mod error;
mod link;
mod options;
mod server;
mod subscription;
#[cfg(test)]
mod tests;

pub use client::{ClientEvent, ClientSession, Connected, Refused};
pub use error::{Culprit, SessionError};
pub use options::ClientOptions;
pub use server::{ServerEvent, ServerOptions, ServerSession};
pub use subscription::{AckMode, Subscribe, Verdict};
