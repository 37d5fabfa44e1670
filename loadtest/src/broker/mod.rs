//! `loadtest broker`: the same messages over STOMP and over AMQP 0.9.1, side by side in one run.
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`], [`plan`] | the command line, and its check into a [`Plan`] |
//! | [`setting`] | what is varied, and the sweeps over it |
//! | [`mod@run`] | the course of a run: points, rounds, protocols in turns |
//! | `round`, `director` | one round: threads; warm-up, measurement, drain |
//! | `lane` | one connection: publishing within its window, or consuming |
//! | `driver` | what a client library has to do, and the three that do it |
//! | `server` | the broker: a private one, or one that is there |
//! | `payload`, `flight`, `seen` | bodies, what is unconfirmed, what has arrived |
//! | `wire` | octets on the wire, as the kernel counts them |
//! | [`report`], [`summary`], `table`, `csv`, `page` | the result for machines and for people |
//! | [`steps`] | the path of the sweep over factors, step by step |

pub mod args;
mod csv;
mod director;
mod driver;
mod flight;
mod lane;
mod page;
mod payload;
pub mod plan;
mod progress;
pub mod report;
mod round;
pub mod run;
mod seen;
mod server;
pub mod setting;
pub mod steps;
pub mod summary;
mod table;
mod wire;

pub use args::Args;
pub use plan::Plan;
pub use run::{command, run};

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Args;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Arguments as the command line has them.
    pub(super) fn parse(words: impl IntoIterator<Item = String>) -> Args {
        Line::parse_from(words).args
    }
}
