//! The pool, and the publisher's lanes, over several brokers that come and go.

#![cfg(all(feature = "tokio", feature = "broker"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests end the test")]

mod connections;
mod lanes;
mod poison;
mod support;
