//! `loadtest http`: beacons over HTTP/1.1 to one server, and what it answers.
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`] | the command line, and its check into a [`Plan`] |
//! | [`mod@run`] | the course of a run: idle connections, warm-up, measurement, rounds against a reference |
//! | [`report`], `table` | the result for machines and for people |
//! | [`idle`], [`reference`](mod@reference) | memory of idle connections; rounds against nginx |
//! | [`fleet`] | connections on threads that run one phase after another |
//! | `worker` | one thread of the fleet: its runtime and its connections |
//! | `lane` | one thread's part of a phase: closed loop, open loop, counting |
//! | `pacer` | wakes connections when their next request is due |
//! | `connection` | one keep-alive connection |
//! | [`target`], [`beacon`], [`response`] | the URL, the octets sent, the octets taken |
//! | `tls` | TLS below the requests |
//! | `skew` | which of a corpus a number gets |
//! | [`slow`] | clients that send octet by octet |
//! | `verification` | the far end against what was answered |
//! | [`stats`], [`answered`] | what is counted, and the file of answered numbers |

pub mod answered;
pub mod args;
pub mod beacon;
pub(crate) mod connection;
pub mod fleet;
pub mod idle;
mod lane;
pub(crate) mod pacer;
pub mod reference;
pub mod report;
pub mod response;
pub mod run;
mod skew;
pub mod slow;
pub mod stats;
mod table;
pub mod target;
pub mod tls;
mod verification;
pub(crate) mod worker;

pub use args::{Args, Plan};
pub use run::{command, run};
pub use target::Target;
