//! The HTTP front over real sockets, octet by octet: what it answers, what it records, what it refuses, and that it
//! keeps answering others meanwhile. No broker: lines are read back from the rings.
//!
//! | file | what is tested |
//! |---|---|
//! | `answers.rs` | what it answers and records |
//! | `refusals.rs` | what it refuses, and how |
//! | `time.rs` | that every wait has a limit, and that idle connections go on |
//! | `lifecycle.rs` | starting, stopping, bounds of connections |
//! | `anything.rs` | any octets: none are lost, none kill a worker |
//! | `edge.rs` | the server and the client of these tests |

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "clippy.toml allows unwrap in tests, but not in their helpers; threads of tests need no names"
)]

mod answers;
mod anything;
mod edge;
mod lifecycle;
mod refusals;
mod time;
