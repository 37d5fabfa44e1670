//! stompwire beside the other STOMP crates that build today: the same vectors, the same frames, the same run.
//!
//! `BENCHMARKS.md` has the results and the commands that write them.

pub mod bench;
pub mod conformance;
pub mod peers;
pub mod report;
pub mod vectors;
