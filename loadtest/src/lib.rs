//! Load for beacon-edge: what the `loadtest` program does, as a library.
//!
//! | module | what it holds |
//! |---|---|
//! | [`http`] | `loadtest http`: beacons over HTTP/1.1, closed and open loop |
//! | [`faults`] | `loadtest faults`: what the edge promises, and whether it keeps it |
//! | [`cpu`] | CPU time and resident memory of other processes |
//! | [`nginx`] | an nginx of our own on loopback, the reference for CPU per request |
//! | [`interrupt`] | Ctrl-C, which ends a run early and keeps its result |
//! | [`limits`] | the limit on open files |
//! | [`progress`] | the bar on a terminal |
//! | [`report`] | latency figures, tables and the JSON destination, shared by all subcommands |
//!
//! Time inside a run is counted in nanoseconds since the run's start; what is reported carries its unit in its
//! name (`p99_us`, `window_s`, `rss_end_mib`).

pub mod cpu;
pub mod error;
pub mod faults;
pub mod http;
pub mod interrupt;
pub mod limits;
pub mod nginx;
pub mod progress;
pub mod report;

pub use error::Error;
