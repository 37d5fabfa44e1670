//! The in-memory broker, octet for octet, over raw sockets.

#![cfg(feature = "broker")]

mod bounds;
mod faults;
mod handshake;
mod lifecycle;
mod queues;
mod raw;
mod transactions;
