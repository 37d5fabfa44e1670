//! beacon-edge: a web-beacon edge server. It answers a 1x1 GIF and gets every beacon into RabbitMQ over STOMP,
//! confirmed. `docs/architecture.md` is the map of the rooms.
//!
//! ```text
//! http → intake → ring → batch → delivery → RabbitMQ
//! ```

pub mod admin;
pub mod batch;
pub mod beacon;
mod brokers;
pub mod config;
pub mod dead_letter;
pub mod delivery;
pub mod edge;
pub mod health;
pub mod http;
pub mod intake;
pub mod ledger;
pub mod metrics;
pub mod ring;
pub mod spool;
pub mod ticket;
pub mod watch;

pub use config::Config;
pub use edge::Edge;
