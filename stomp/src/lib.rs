//! STOMP 1.0, 1.1 and 1.2 for programs that must not lose messages and must not wait for each one.
//!
//! | part | feature | what it is |
//! |---|---|---|
//! | [`proto`] | always | frames, decoder, encoder and session without sockets, clock or runtime (`no_std` + alloc) |
//! | [`client`] | `tokio` | an async client on tokio: receipts pipelined in a window, reading and writing independent |
//! | [`publisher`] | `tokio` | confirmed publishing over several connections: each message kept until its own RECEIPT |
//! | [`pool`] | `tokio` | connections over several brokers: failover, backoff, rebalancing, without a stampede |
//! | [`codec`] | `tokio` | the decoder and encoder as a `tokio_util` codec, for transports of your own |
//! | [`broker`] | `broker` | an in-memory broker for first runs and tests; not for production |
//! | [`rabbitmq`] | always | RabbitMQ's destinations, message properties and queue arguments, with types (`no_std` + alloc) |
//!
//! The crate knows nothing of what the messages mean, and but for [`rabbitmq`] nothing of one broker in particular; where
//! RabbitMQ differs from the text of the specification the documentation of the switch says so.

#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "tokio")]
mod backoff;
#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "tokio")]
pub mod client;
#[cfg(feature = "tokio")]
pub mod codec;
#[cfg(any(feature = "tokio", feature = "broker"))]
mod log;
#[cfg(feature = "tokio")]
pub mod pool;
pub mod proto;
#[cfg(feature = "tokio")]
pub mod publisher;
pub mod rabbitmq;

#[cfg(feature = "tokio")]
pub use backoff::Backoff;
pub use proto::{Command, Frame, Headers, Version};
