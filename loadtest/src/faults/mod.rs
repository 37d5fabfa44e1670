//! `loadtest faults`: does the edge keep what its modes promise, whatever happens to it, its broker, network and disk?
//!
//! ```text
//!  load ──HTTP──▶ beacon-edge ──STOMP──▶ proxy ──▶ RabbitMQ ──STOMP──▶ consumer
//!   │ book: what was promised            (fails)                        │ what came
//!   └──────────────────────────────▶ judge ◀───────────────────────────┘
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`] | the command line, and its check into a [`Plan`] |
//! | [`mode`], [`fault`], [`schedule`] | rows and columns of the table; from a seed to what is done when |
//! | [`mod@run`], [`trial`] | many runs; one run from its first beacon to the verdict |
//! | `mark`, `book` | what every beacon carries; what is known of each |
//! | `load`, `consumer` | both ends |
//! | `edge`, `rig` | the program under judgement; the broker |
//! | [`proxy`], `disk`, `power` | what fails: network, disk, electricity |
//! | [`judge`] | whether that was as promised |
//! | [`measure`] | what trouble costs: `latency`, `outage`, `drain` |
//! | [`report`], `markdown` | the result for machines and for people; the table of `docs/guarantees.md` |

pub mod args;
mod book;
mod consumer;
mod disk;
mod edge;
pub mod fault;
pub mod judge;
mod load;
mod mark;
mod markdown;
pub mod measure;
pub mod mode;
mod power;
pub mod proxy;
pub mod report;
mod rig;
pub mod run;
pub mod schedule;
pub mod trial;

pub use args::{Args, Plan};
pub use fault::Fault;
pub use mode::Mode;
pub use run::{command, run};
