//! The command line of `loadtest`; what it does is in the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use loadtest::{Error, faults, http};

/// Load for beacon-edge, and the figures that come out of it.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about, max_term_width = 110, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends beacons over HTTP/1.1 and measures rate, latency, and CPU per request
    Http(Box<http::Args>),
    /// Breaks edge, broker, network and disk, and judges whether every promise is kept
    Faults(Box<faults::Args>),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Http(args) => http::command(*args),
        Command::Faults(args) => faults::command(*args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::from(if matches!(error, Error::Argument(_)) { 2 } else { 1 })
        }
    }
}
