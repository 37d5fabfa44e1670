//! The HTTP front: takes requests, hands beacons to the intake, answers.
//!
//! One OS thread per worker, each with its own listener on the same port (`SO_REUSEPORT`), its own single-threaded
//! runtime and its own [`Intake`](crate::intake::Intake). Workers share nothing that is written per request. A
//! request waits for nothing but its own body: no lock, no broker, no log. (Where the route promises that a beacon is
//! spooled or confirmed its answer waits for that, as a task among others: the worker goes on.)
//!
//! | file | what it does |
//! |---|---|
//! | `server.rs` | [`HttpServer`]: starts the workers, stops them |
//! | `listen.rs` | the listening sockets |
//! | `worker.rs` | one thread: accepts, stops, counts what it cuts |
//! | `cores.rs` | which core a worker stays on, if it is to |
//! | `registry.rs` | the connections of a worker: waking, evicting, waiting for the last |
//! | `connection.rs` | one connection: hyper while it is busy, a bare socket while it is idle, its time limits |
//! | `wire.rs` | what hyper reads from and writes to; keeps the connection's phase |
//! | `service.rs` | one request: route, method, body, beacon, answer |
//! | `body.rs` | a request body within its limits |
//! | `client_ip.rs` | the client's address behind a proxy |
//! | `cors.rs` | which origins get which headers |
//! | `answer.rs` | the answers |
//! | `stats.rs` | [`HttpStats`]: what is counted |
//! | `throttle.rs` | warnings at a bounded rate |
//!
//! Time limits. hyper's own `header_read_timeout` would count the idle time between two requests too and costs a
//! timer per request, and hyper has no limit for bodies. So none of hyper's timers is used: `connection.rs` keeps one
//! timer per connection and arms it only when a request does not arrive, or an answer does not leave, at once.

mod answer;
mod body;
mod client_ip;
mod connection;
mod cores;
mod cors;
mod listen;
mod registry;
mod server;
mod service;
mod stats;
mod throttle;
mod wire;
mod worker;

pub use server::{HttpError, HttpServer, Route, ShutdownReport};
pub use stats::{ACK_OUTCOMES, Acks, HttpStats, HttpStatsSnapshot, STATUSES};
