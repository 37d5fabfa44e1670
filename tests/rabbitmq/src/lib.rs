//! Private RabbitMQ nodes for tests.
//!
//! A [`Node`] is a `rabbitmq-server` of this machine, started with its own folder, ports, node name and cookie,
//! with the STOMP and management plugins on. Every socket it opens (AMQP, STOMP, management, Erlang distribution,
//! epmd, and those of STOMP over TLS and WebSocket if asked for) listens on loopback only. Nodes run side by side, as
//! root or as an ordinary user, and are gone when their [`Node`] is dropped, when the test process ends, and when it is
//! killed.
//!
//! Most tests want one node for all of a test binary and a virtual host each:
//!
//! ```no_run
//! use rabbitmq_node::{QueueOptions, shared};
//! use std::time::Duration;
//!
//! let vhost = shared().new_vhost()?;
//! vhost.declare_queue("beacons", &QueueOptions::default())?;
//! // … publish to vhost.stomp_url() …
//! vhost.wait_for_depth("beacons", 3, Duration::from_secs(5))?;
//! let lines = vhost.get_messages("beacons", 3)?;
//! # Ok::<(), rabbitmq_node::Error>(())
//! ```
//!
//! A test that hurts the broker takes a node of its own, because [`Node::kill`], [`Node::stop_app`] and the alarms
//! are felt by every virtual host:
//!
//! ```no_run
//! let node = rabbitmq_node::Node::start()?;
//! node.kill()?;
//! node.start_again()?; // same ports, same data
//! # Ok::<(), rabbitmq_node::Error>(())
//! ```
//!
//! A [`Cluster`] is several nodes that know each other, for quorum queues; each can be killed and started again.
//!
//! Every function blocks, and every one has a deadline. An async test calls them directly (a test has its runtime to
//! itself) or, where other tasks of a single-threaded runtime must go on meanwhile, through `spawn_blocking`: [`Node`]
//! and [`Vhost`] are `Send + Sync + 'static`.

mod builder;
mod cluster;
mod control;
mod error;
mod install;
mod management;
mod node;
mod ports;
mod process;
mod queue;
mod run;
mod shared;
mod vhost;
mod wait;

pub use builder::{Builder, Tls};
pub use cluster::Cluster;
pub use error::Error;
pub use node::{GUEST, Node};
pub use queue::{Message, QueueCounts, QueueKind, QueueOptions};
pub use shared::shared;
pub use vhost::Vhost;
