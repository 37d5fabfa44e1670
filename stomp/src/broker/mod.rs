//! An in-memory STOMP broker for first runs and tests; **not for production**. Nothing is stored on disk, nothing is
//! encrypted, there are no permissions, and when it ends every message is gone.
//!
//! ```
//! use std::{io::{Read, Write}, net::TcpStream};
//! use stompwire::broker::Broker;
//!
//! # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
//! # runtime.block_on(async {
//! let broker = Broker::builder().start().await?;
//! let mut client = TcpStream::connect(broker.local_addr())?;
//! client.write_all(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0")?;
//! client.write_all(b"SEND\ndestination:/queue/a\n\nhello\0DISCONNECT\nreceipt:bye\n\n\0")?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer)?;
//! assert!(answer.ends_with("RECEIPT\nreceipt-id:bye\n\n\0"));
//! assert_eq!(&broker.peek("a", 1)[0].body()[..], b"hello");
//! # std::io::Result::Ok(()) }).unwrap();
//! ```
//!
//! # What it claims
//! **Versions** 1.0, 1.1 and 1.2, opened with CONNECT or STOMP. Any virtual host is accepted, and all of them share the
//! same queues. Any login is accepted unless credentials are set.
//!
//! **Destinations.** `/queue/x` and `/amq/queue/x` are the queue `x`. `/topic/x` is a topic: a message goes to the
//! subscriptions that exist at that moment, each with a queue of its own that ends with it; no wildcards. Everything
//! else, `/exchange/a/b` too, is the queue of that whole name. Queues come into being at the first SEND or SUBSCRIBE
//! and stay.
//!
//! **Order and turns.** A queue is first in, first out. Several subscriptions to one queue get messages in turn. A
//! message that comes back (NACK; a connection that ends before its ACK) takes its old place, before every message
//! that was never delivered, and carries `redelivered:true` from then on.
//!
//! **MESSAGE** carries every header of its SEND but `receipt`, `transaction` and those that the broker sets itself:
//! `destination`, `message-id`, `content-length`, `subscription` (if SUBSCRIBE had an `id`), `ack` (1.2, if the
//! subscription asks for acknowledgements) and `redelivered`. Without an `id` (1.0) `destination` is the subscription's, otherwise
//! the SEND's. A header that the consumer's version cannot express is left out.
//!
//! **Acknowledgements** `auto`, `client` (cumulative, NACK too) and `client-individual`. `prefetch-count` bounds the
//! messages that a subscription holds. With `auto` a message is gone once it is handed to the connection. After
//! UNSUBSCRIBE what the subscription holds can still be acknowledged; it goes back when the connection ends. An ACK of
//! something that is not held is an ERROR.
//!
//! **Transactions** hold SEND, ACK and NACK until COMMIT, which takes them in order. A frame in a transaction gets its
//! RECEIPT when it is noted, not at COMMIT (RabbitMQ waits). If COMMIT fails in the middle, what came before stands.
//!
//! **RECEIPT** for every frame but CONNECT: a SEND is in its queue, or was discarded as [`Overflow::DropHead`] says; a
//! SEND to a topic without subscriptions is discarded, as in RabbitMQ. DISCONNECT's is written before the connection
//! is closed.
//!
//! **Heart-beats** both ways. A client that is silent for longer than agreed (two periods) is reset without an ERROR,
//! and so is one that reads nothing for 60 s of what waits for it.
//!
//! **ERROR** ends a connection: `message`, a body, and `receipt-id` if a frame with a `receipt` was at fault.
//!
//! **Bounds** on frames, connections, queues, messages, octets, subscriptions, unacknowledged messages, transactions
//! and what waits to be written: see [`BrokerBuilder`]. Reading and writing are independent; a client that does not
//! read is not served beyond its bound.
//!
//! Not there: TLS, permissions, `/temp-queue/`, `/reply-queue/`, selectors, priorities, expiry, durable subscriptions,
//! and every other header that a real broker gives a meaning.
//!
//! [`Faults`] make it misbehave on purpose.
//!
//! All of it is tested octet for octet (`tests/broker/`), and what a client can see also with one that somebody else wrote,
//! stomp.py, in all three versions (`tests/foreign/`).

mod connection;
mod faults;
mod frames;
mod handle;
mod hub;
mod message;
mod options;
mod queue;
mod receipts;
mod refusal;
mod server;
mod subscription;
mod transactions;

pub use faults::{Admission, Farewell, Faults, ReceiptId, Which};
pub use handle::BrokerHandle;
pub use options::{BrokerBuilder, Overflow};
pub use queue::QueueInfo;
pub use server::Broker;
pub use subscription::ConnectionInfo;
