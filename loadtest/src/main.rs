//! The command line of `loadtest`; what it does is in the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use loadtest::{
    Error, broker, faults, http,
    models::{self, baseline},
};

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
    /// Publishes and consumes over STOMP and over AMQP 0.9.1, side by side, and measures what it costs
    Broker(Box<broker::Args>),
    /// Measures the first model, the second model and beacon-edge side by side, and the path between
    Models(Box<models::Args>),
    /// A server of `loadtest models`
    #[command(hide = true)]
    ModelServer(baseline::ServerArgs),
    /// The agent of `loadtest models`
    #[command(hide = true)]
    ModelAgent(baseline::AgentArgs),
    /// Breaks edge, broker, network and disk, and judges whether every promise is kept
    Faults(Box<faults::Args>),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Http(args) => http::command(*args),
        Command::Broker(args) => broker::command(*args),
        Command::Models(args) => models::command(*args),
        Command::ModelServer(args) => baseline::serve(&args),
        Command::ModelAgent(args) => baseline::carry(&args),
        Command::Faults(args) => faults::command(*args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::from(match error {
                Error::Argument(_) => 2,
                Error::NotConserved { .. } => 3,
                _ => 1,
            })
        }
    }
}
