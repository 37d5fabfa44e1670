//! What can go wrong.

use std::io;
use std::time::Duration;

/// Why a node or its broker did not do what was asked. The text of an error is meant for the reader of a failed test.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program that a node needs is not on this machine.
    #[error(
        "`{program}` was not found (looked in {looked_in}). Install RabbitMQ with `make deps` or \
         `apt-get install rabbitmq-server`, or set RABBITMQ_BIN to the folder of its scripts"
    )]
    NotInstalled {
        /// The missing program.
        program: &'static str,
        /// The folders that were searched, separated by commas.
        looked_in: String,
    },

    /// The broker ended or stayed silent instead of starting.
    #[error("RabbitMQ did not start: {reason}\n{log}")]
    Start {
        /// What was seen from outside.
        reason: String,
        /// The end of the node's console output and log.
        log: String,
    },

    /// A condition was not met within its deadline.
    #[error("{what}: not within {limit:?}; last seen: {last_seen}")]
    Timeout {
        /// The condition.
        what: String,
        /// The deadline.
        limit: Duration,
        /// The state when the deadline passed.
        last_seen: String,
    },

    /// The node was killed or stopped and not started again.
    #[error("the node is not running")]
    NotRunning,

    /// The node is running, so it cannot be started again.
    #[error("the node is running already")]
    Running,

    /// There is no such queue.
    #[error("virtual host {vhost} has no queue {queue}")]
    NoQueue {
        /// The virtual host.
        vhost: String,
        /// The queue.
        queue: String,
    },

    /// The management API refused a request, or could not be reached.
    #[error("{method} {path} of the management API: {reason}")]
    Management {
        /// The HTTP method.
        method: &'static str,
        /// The path of the request, with its percent-encoding.
        path: String,
        /// The HTTP status, if there was an answer.
        status: Option<u16>,
        /// The body of the answer, or the error of the transport.
        reason: String,
    },

    /// An Erlang expression failed inside the broker.
    #[error("Erlang expression `{}`: {reason}", shortened(expression))]
    Eval {
        /// The expression.
        expression: String,
        /// What it raised, as an Erlang term.
        reason: String,
    },

    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names what was tried.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let action = action.into();
        move |source| Error::Io { action, source }
    }
}

/// Enough of an expression to recognise it.
fn shortened(expression: &str) -> String {
    const SHOWN: usize = 100;
    match expression.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &expression[..end]),
        None => expression.to_owned(),
    }
}
