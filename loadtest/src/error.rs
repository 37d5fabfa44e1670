//! Why a run could not be made. What goes wrong *inside* a run is counted in its result instead.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument, or a combination of arguments, that makes no sense; the text says why.
    #[error("{0}")]
    Argument(String),
    /// No connection to the target could be opened at the start.
    #[error("cannot connect to {address}: {source}; is the server running?")]
    Connect {
        /// Where the connection was to go.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A process named by `--pid` cannot be read.
    #[error("cannot measure process {name} (pid {pid}): {reason}")]
    Process {
        /// Its label in the report.
        name: String,
        /// Its process id.
        pid: i32,
        /// What is wrong with it.
        reason: String,
    },
    /// A broker could not be started or reached, or went away.
    #[error("the broker: {0}")]
    Broker(String),
    /// The reference server could not be started.
    #[error("the nginx reference: {0}")]
    Nginx(String),
    /// The far end of `--verify`, or of a broker's death, could not be read.
    #[error("the far end: {0}")]
    FarEnd(String),
    /// Beacons that were answered with 2xx are not at the far end.
    #[error("{missing} beacons were answered with 2xx and are not at the far end")]
    NotConserved {
        /// How many.
        missing: u64,
    },
    /// A model could not be measured.
    #[error("{0}")]
    Model(String),
    /// The limit on open files is too low and may not be raised by this user.
    #[error(
        "{needed} open files are needed and the hard limit is {hard}: raise it (`ulimit -Hn {needed}` as root, \
         or LimitNOFILE= in a systemd unit) and run again"
    )]
    OpenFiles {
        /// Open files that the run needs.
        needed: u64,
        /// The limit that stands in the way.
        hard: u64,
    },
    /// A file or a system facility of this machine failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The broker could not be started, or not be made to do what a schedule asks of it.
    #[error("RabbitMQ: {0}")]
    Node(#[source] Box<rabbitmq_node::Error>),
    /// The edge could not be started, or did what it should not.
    #[error("the edge {reason}\n{log}")]
    Edge {
        /// What it did.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// Runs in which the edge did not keep what its mode promises.
    #[error("{0}")]
    Broken(String),
    /// A result file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Turns an error of the broker into [`Error::Node`], for use with `map_err`.
    pub(crate) fn broker(error: rabbitmq_node::Error) -> Self {
        Self::Node(Box::new(error))
    }

    /// Turns an [`io::Error`] into [`Error::Io`], for use with `map_err`.
    pub fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
