//! `loadtest faults latency|outage|drain`: what trouble costs those who are answered meanwhile, and the machine.
//!
//! | module | what it holds |
//! |---|---|
//! | [`latency`] | answer times with the broker dead, blocked or far away, against those with it well |
//! | [`outage`] | resident memory through an outage at full load, against the configured bound |
//! | [`drain`] | answer times while a backlog drains, against those without one |
//! | `stand` | edge, proxy, broker and far end with the configuration of production |
//! | `sink` | the far end: takes everything, and says how old it is |

pub mod drain;
pub mod latency;
pub mod outage;
mod sink;
mod stand;

use clap::Subcommand;
use tokio::runtime;

use crate::{Error, interrupt::Interrupt};

/// What can be measured.
#[derive(Debug, Clone, Subcommand)]
pub enum Measure {
    /// Answer times with the broker dead, blocked and 80 ms away, against those with it well
    Latency(latency::Args),
    /// Resident memory through an outage of the broker at full load, against the configured bound
    Outage(outage::Args),
    /// Answer times while a spooled backlog drains, against those without one
    Drain(drain::Args),
}

/// Carries out a measurement.
///
/// # Errors
/// Why there is no result; see [`Error`].
pub fn command(measure: Measure) -> Result<(), Error> {
    match measure {
        Measure::Latency(args) => latency::command(&args),
        Measure::Outage(args) => outage::command(&args),
        Measure::Drain(args) => drain::command(&args),
    }
}

/// Runs a measurement, which Ctrl-C ends early.
fn carry_out<R>(measure: impl AsyncFnOnce(&Interrupt) -> Result<R, Error>) -> Result<R, Error> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("runtime"))?;
    runtime.block_on(async { measure(&Interrupt::on_signals()?).await })
}
