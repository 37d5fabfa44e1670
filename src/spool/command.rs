//! `beacon-edge spool …`: its command line.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{inspect, replay};
use crate::config::Config;

/// Something is left, or something is wrong with a file.
pub(super) const EXIT_LEFT: u8 = 1;
/// The configuration or the command line is wrong.
pub(super) const EXIT_USAGE: u8 = 2;

/// What can be done with the spool's files besides running the edge.
#[derive(Debug, clap::Subcommand)]
pub enum SpoolCommand {
    /// List files: batches, beacons, octets, ages, integrity. Changes nothing.
    Inspect(Inspect),
    /// Publish what is in a file, deleting each batch when the broker has confirmed it.
    Replay(Replay),
}

/// `beacon-edge spool inspect`
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Files, or folders with files named *.spool and *.spool.corrupt-*; by default the folder of the configuration.
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Do not read the batches to compare their CRC.
    #[arg(long)]
    pub(super) no_verify: bool,
    /// The edge's TOML file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `beacon-edge spool replay`
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// The file; by default the spool of each destination (or of the one named).
    #[arg(value_name = "PATH")]
    pub(super) path: Option<PathBuf>,
    /// The destination whose brokers get it; by default the one that the file is named after.
    #[arg(long, value_name = "NAME")]
    pub(super) destination: Option<String>,
    /// Only say what would be published.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// The edge's TOML file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SpoolCommand {
    /// The configuration that was named.
    #[must_use]
    pub fn config_file(&self) -> Option<&Path> {
        match self {
            Self::Inspect(Inspect { config, .. }) | Self::Replay(Replay { config, .. }) => config.as_deref(),
        }
    }

    /// Does it, and tells on standard output. Blocks; replaying ends when all is confirmed, at a signal, or when the
    /// brokers confirm nothing any more.
    #[must_use]
    pub fn run(&self, config: &Config) -> ExitCode {
        match self {
            Self::Inspect(arguments) => inspect::run(arguments, config),
            Self::Replay(arguments) => replay::run(arguments, config),
        }
    }
}
