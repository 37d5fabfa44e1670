//! `loadtest models`: the first model, the second model and beacon-edge side by side, and the path from "window 1" to
//! beacon-edge one change at a time; all confirmed into one RabbitMQ, under the same HTTP load.
//!
//! | module | what it holds |
//! |---|---|
//! | `args` | the command line, and its check into a plan |
//! | `model` | the models |
//! | [`baseline`] | the servers that stand for the first and second model, run as processes of their own |
//! | `run` | the course: rounds in which the models alternate, then broker deaths |
//! | `round` | one model in one round: search, load at that rate, load at the common rate |
//! | `search` | which rate to try next |
//! | `probe` | one load on one model, and what came of it |
//! | `death` | the broker killed in the middle, and what is lost |
//! | `cast` | the processes of one model |
//! | `broker`, `redis`, `child` | a private RabbitMQ, a private Redis, processes that cannot outlive this one |
//! | `counts` | accepted and confirmed, asked of the processes |
//! | `memory`, `enclosure` | peak memory; all of it in a bounded cgroup |
//! | `report`, `medians`, `table`, `csv`, `page` | the result |

mod args;
pub mod baseline;
mod broker;
mod cast;
mod child;
mod counts;
mod csv;
mod death;
mod enclosure;
mod eta;
pub mod medians;
mod memory;
mod model;
mod page;
mod probe;
mod redis;
pub mod report;
mod round;
mod run;
mod search;
mod table;

pub use args::{Args, Plan};
pub use model::{Group, Model};
pub use run::{command, run};

use crate::Error;

/// Why a model cannot be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A process does not start.
    #[error("{name} does not start: {reason}")]
    Start {
        /// Which.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// A process does not say its counts.
    #[error("{name} does not say what it has counted: {source}")]
    Counts {
        /// Which.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is in Redis is not what was accepted, or not all that was sent had room there.
    #[error("redis: {0}")]
    List(String),
    /// The broker.
    #[error("RabbitMQ: {0}")]
    Broker(#[from] rabbitmq_node::Error),
    /// The load.
    #[error(transparent)]
    Load(#[from] Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Load(error) => error,
            other => Self::Model(other.to_string()),
        }
    }
}
