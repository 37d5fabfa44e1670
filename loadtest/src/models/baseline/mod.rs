//! The servers that beacon-edge is compared with, run as hidden subcommands of this program, so that each is a process
//! with CPU time and memory of its own.
//!
//! ```text
//!  direct   request ── pooled connection ── SEND, wait for RECEIPT ──▶ RabbitMQ, then the answer     (first model)
//!  redis    request ── pooled connection ── RPUSH ──▶ Redis, then the answer                         (second model)
//!           agent   ── LPOP of a chunk ── one message over AMQP, confirmed ──▶ RabbitMQ
//!  ring     request ── bounded ring ── publisher: window, connections, packing ──▶ RabbitMQ          (the path between)
//! ```
//!
//! All take requests the same way (hyper, a thread per worker with its own listener and runtime), write the same line
//! and give the same answer. Only where the line goes differs.
//!
//! | module | what it holds |
//! |---|---|
//! | `args` | the two hidden subcommands |
//! | `server` | workers, requests, answers |
//! | `line` | a request as a line of JSON |
//! | `slots` | a pool of connections, each used by one request at a time |
//! | `direct` | a STOMP connection with one frame outstanding |
//! | `redis` | a Redis connection with one command outstanding |
//! | `ring` | lines to a publisher beside the request path |
//! | `agent` | Redis to RabbitMQ |
//! | `counts` | what was accepted and confirmed, for whoever asks |

mod agent;
mod args;
mod counts;
mod direct;
mod line;
mod redis;
mod ring;
mod server;
mod slots;

pub use args::{AgentArgs, ServerArgs, SinkKind};

pub(super) use redis::Redis;

use crate::Error;

/// Serves until the process is ended. Prints `listening http=ADDRESS counts=ADDRESS` when it takes connections.
///
/// # Errors
/// What kept it from starting.
pub fn serve(args: &ServerArgs) -> Result<(), Error> {
    server::run(args)
}

/// Carries chunks from Redis to RabbitMQ until the process is ended. Prints `listening counts=ADDRESS` at its start.
///
/// # Errors
/// What kept it from starting.
pub fn carry(args: &AgentArgs) -> Result<(), Error> {
    agent::run(args)
}
