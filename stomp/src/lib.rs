//! STOMP 1.0, 1.1 and 1.2 for programs that must not lose messages and must not wait for each one.
//!
//! | part | feature | what it is |
//! |---|---|---|
//! | [`proto`] | always | frames, decoder, encoder and session without sockets, clock or runtime (`no_std` + alloc) |
//! | [`rabbitmq`] | always | RabbitMQ's destinations, message properties and queue arguments, with types (`no_std` + alloc) |
//! | `client` | `tokio` (default) | an async client that comes back: receipts pipelined, subscriptions with credit, transactions |
//! | `publisher` | `tokio` | confirmed publishing over several connections: each message kept until its own RECEIPT |
//! | `pool` | `tokio` | connections over several brokers: failover, backoff, rebalancing, without a stampede |
//! | `codec` | `tokio` | the decoder and encoder as a `tokio_util` codec, for transports of your own |
//! | | `rustls` | `stomp+ssl://`: system authorities or your own, client certificates |
//! | | `ws` | `ws://`, and `wss://` with `rustls`: STOMP over WebSocket |
//! | `broker` | `broker` | an in-memory broker for first runs and tests, with faults at will; not for production |
//! | | `tracing` | events for operators, never a line per frame |
//!
//! To publish with confirms begin at `publisher::Publisher`, or at `client::Client::send_with_receipt` for a few messages; to
//! consume at `client::Client::subscribe`; to come back after a lost connection at `client::Client::builder`; for TLS at
//! `client::TlsOptions`; for quorum queues at [`rabbitmq::QueueOptions`]; for a transport of your own at
//! [`proto::ClientSession`] or `codec::StompCodec`; to test your own code at `broker::Broker`. The folder `examples` has a
//! program for each.
//!
//! ```
//! # #[cfg(all(feature = "broker", feature = "tokio"))]
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use stompwire::{Frame, broker::Broker, client::{Client, Subscribe}};
//!
//! let broker = Broker::builder().start().await?; // or a RabbitMQ at stomp://guest:guest@127.0.0.1:61613/
//! let client = Client::builder().broker(&broker.url())?.connect().await?;
//! let frame = Frame::send("/queue/orders", "two apples").with_header("persistent", "true");
//! client.send_with_receipt(frame).await?.await?; // queued, then confirmed
//!
//! let mut orders = client.subscribe(Subscribe::to("/queue/orders")).await?;
//! let order = orders.next().await.ok_or("the connection was closed")??;
//! assert_eq!(order.body(), b"two apples");
//! orders.ack(&order).await?;
//! client.close(std::time::Duration::from_secs(5)).await?;
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! The crate knows nothing of what the messages mean, and but for [`rabbitmq`] nothing of one broker in particular; where
//! RabbitMQ differs from the text of the specification the documentation of the switch says so.

#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]

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

/// The README's code is compiled and run as the rest of the documentation's.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
