//! The spool: batches that wait on disk. One SQLite file per destination, one thread per file, one write for many.
//!
//! | file | what it holds |
//! |---|---|
//! | `handle.rs` | [`Spool`], what delivery holds: append, remove, read, and the figures |
//! | `shared.rs` | what the handles and the thread share |
//! | `thread.rs` | the thread: groups and timers |
//! | `repair.rs` | its trouble: told once, set aside, tried again |
//! | `store.rs` | the file while it is open: commits, reads, space given back |
//! | `open.rs` | from a path to an open file, or the reason why not |
//! | `aside.rs` | files that cannot be used, kept under another name |
//! | `format.rs` | the schema and its version |
//! | `disk.rs` | free space |
//! | `command.rs`, `inspect.rs`, `replay.rs` | `beacon-edge spool …`: looking at files, publishing one that was left over |
//!
//! What an operator needs to know is in `docs/spool.md`.

mod aside;
pub mod command;
mod disk;
mod format;
mod handle;
mod inspect;
mod open;
mod repair;
mod replay;
mod shared;
mod store;
mod thread;

use std::{path::PathBuf, sync::Arc};

pub use handle::{Spool, SpoolThread};

/// What a [`Spool`] needs to know.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// The file. Its folder is made if it is missing.
    pub path: PathBuf,
    /// The STOMP destination, which is written to every row for whoever finds the file.
    pub destination: String,
    /// Most octets of the file. Beside it there is a write-ahead log of at most 32 MiB.
    pub max_bytes: u64,
    /// Nothing is appended when less than this is free on the disk.
    pub min_free_bytes: u64,
    /// What [`Spool::append`] waits for.
    pub synchronous: Synchronous,
}

/// What is on disk when [`Spool::append`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// The batch: it survives a power cut.
    Full,
    /// Perhaps nothing yet, but the system has it: it survives the end of this process, however sudden.
    Normal,
}

/// A batch's place in the spool. Later ones are greater. Never used again while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(i64);

impl Row {
    /// Rows that follow each other have numbers that do.
    pub(crate) fn number(self) -> i64 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn from_number(number: i64) -> Self {
        Self(number)
    }
}

/// How much is in a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level {
    /// Batches.
    pub batches: u64,
    /// Beacons in them.
    pub beacons: u64,
    /// Octets of their bodies.
    pub octets: u64,
}

/// What was found unusable since the start. All of it was set aside, nothing was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Damage {
    /// Files set aside: corrupt, foreign, or of a newer version.
    pub files: u64,
    /// Batches set aside within the file, because their CRC did not match.
    pub batches: u64,
    /// Beacons that were in [`Spool::level`] and are set aside now.
    pub beacons: u64,
}

/// Whether a spool takes batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does.
    Working,
    /// It is at its bound. It works again when an eighth of it is free.
    Full,
    /// It cannot, for this reason; it tries again by itself.
    Failing(Arc<str>),
}

/// Why a batch is not in the spool, or cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The file is at its bound.
    #[error("the spool is at its bound")]
    Full,
    /// The disk has less free space than is to be kept, or none.
    #[error("the disk of the spool has too little free space")]
    NoSpace,
    /// The file cannot be used; [`Spool::state`] has the reason.
    #[error("the spool's file cannot be used")]
    Failing,
    /// The spool was closed.
    #[error("the spool is closed")]
    Closed,
    /// The disk did not answer in time.
    #[error("the disk of the spool did not answer in time")]
    TimedOut,
}

#[cfg(test)]
mod tests;
