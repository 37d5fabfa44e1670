//! Load for beacon-edge: what the `loadtest` program does, as a library.
//!
//! | module | what it holds |
//! |---|---|
//! | [`http`] | `loadtest http`: beacons over HTTP/1.1, closed and open loop |
//! | [`models`] | `loadtest models`: the first model, the second model and beacon-edge side by side |
//! | [`far_end`], [`numbers`] | which beacons are in a queue; sets of sequence numbers |
//! | [`faults`] | `loadtest faults`: what the edge promises, and whether it keeps it |
//! | [`cores`] | threads and processes bound to one core |
//! | [`cpu`] | CPU time and resident memory of other processes |
//! | [`nginx`] | an nginx of our own on loopback, the reference for CPU per request |
//! | [`interrupt`] | Ctrl-C, which ends a run early and keeps its result |
//! | [`broker`] | `loadtest broker`: STOMP against AMQP at one broker |
//! | [`plot`] | one page with plots, from any subcommand's figures |
//! | [`machine`] | what a measurement was made on |
//! | [`limits`] | the limit on open files |
//! | [`progress`] | the bar on a terminal |
//! | [`report`] | latency figures, tables and the JSON destination, shared by all subcommands |
//!
//! Time inside a run is counted in nanoseconds since the run's start; what is reported carries its unit in its
//! name (`p99_us`, `window_s`, `rss_end_mib`).

pub mod broker;
pub mod cores;
pub mod cpu;
pub mod error;
pub mod far_end;
pub mod faults;
pub mod http;
pub mod interrupt;
pub mod limits;
pub mod machine;
pub mod models;
pub mod nginx;
pub mod numbers;
pub mod plot;
pub mod progress;
pub mod report;

pub use error::Error;
