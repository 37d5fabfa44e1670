//! The in-memory broker, octet for octet, over raw sockets.

#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used, reason = "helpers of tests end the test")]

mod bounds;
mod faults;
mod handshake;
mod lifecycle;
mod queues;
mod raw;
mod transactions;
