//! The command line of `loadtest broker`.

use std::{path::PathBuf, time::Duration};

use clap::ArgAction;

use crate::{
    broker::setting::{Mode, Protocol, QueueKind, Sweep},
    http::args::parse_duration,
    report::JsonTo,
};

/// What `loadtest broker` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
TIME is a number with ms, s or m (500ms, 10s, 2m); without a unit it is in seconds.

Without --uri a private RabbitMQ is started on loopback and removed afterwards.

Examples:
  All clients side by side, 256 octets, window 1024:
    loadtest broker
  How packing changes it, as a page with plots:
    loadtest broker --sweep packing --html packing.html
  Everything, ten seconds a point:
    loadtest broker --sweep all --time 10s --html report.html --json report.json --csv report.csv
  Latency at a fixed rate, published and consumed:
    loadtest broker --mode both --rate 5000
  What a setting of the broker changes:
    loadtest broker --broker-config stomp.tcp_listen_options.delay_send=true
  A broker that is there already:
    loadtest broker --uri stomp://guest:guest@127.0.0.1:61613/ --uri amqp://guest:guest@127.0.0.1:5672/%2f

Exit status: 0 when there is a result, even an interrupted one; 1 when the run could not be
made or the broker went away (what was measured until then is written); 2 for wrong arguments.")]
pub struct Args {
    /// A broker that is there: stomp://… and amqp://…, at most one of each, to the same broker
    #[arg(long = "uri", value_name = "URI", action = ArgAction::Append, help_heading = "Broker")]
    pub uris: Vec<String>,
    /// With --uri, the broker's process, for its CPU time
    #[arg(long, value_name = "PID", requires = "uris", help_heading = "Broker")]
    pub broker_pid: Option<i32>,
    /// A line of rabbitmq.conf for the private broker, for example stomp.tcp_listen_options.delay_send=true
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "uris", action = ArgAction::Append, help_heading = "Broker")]
    pub broker_config: Vec<String>,
    /// The clients to compare, in turns [default: all that a URI is given for]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', help_heading = "Broker")]
    pub protocols: Vec<Protocol>,

    /// What is done with the queue
    #[arg(long, value_name = "MODE", value_enum, default_value_t, help_heading = "Load")]
    pub mode: Mode,
    /// Octets of a message's body; 12 of them are PerfTest's header [default: 256]
    #[arg(long, value_name = "N", conflicts_with = "beacons", help_heading = "Load")]
    pub body: Option<usize>,
    /// Pack N beacons of 500 octets into a message
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub beacons: Option<usize>,
    /// Messages of a connection that may be unconfirmed; never more than 16 MiB of bodies [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub window: Option<usize>,
    /// Connections that publish [default: 1]
    #[arg(long, short = 'c', value_name = "N", help_heading = "Load")]
    pub connections: Option<usize>,
    /// Connections that consume [default: as many as publish]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub consumers: Option<usize>,
    /// Type of the queue [default: classic]
    #[arg(long, value_name = "KIND", value_enum, help_heading = "Load")]
    pub queue: Option<QueueKind>,
    /// Messages a second over all connections; latency then counts from when each was due. Without it as many as the
    /// window lets through
    #[arg(long, short = 'r', value_name = "R", allow_negative_numbers = true, help_heading = "Load")]
    pub rate: Option<f64>,
    /// Ask for no confirms: messages count when they are written
    #[arg(long, help_heading = "Load")]
    pub no_confirms: bool,
    /// Publish transient messages
    #[arg(long, help_heading = "Load")]
    pub transient: bool,
    /// Messages that a consumer may hold unacknowledged
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = "Load")]
    pub prefetch: u16,
    /// Acknowledge every N messages, all of them at once
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = "Load")]
    pub ack_every: usize,
    /// With --mode consume, messages in the queue beforehand [default: 100000, at most 256 MiB]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub prefill: Option<u64>,

    /// Vary this around the load above, over a range of its own
    #[arg(long, value_name = "WHAT", value_enum, help_heading = "Measurement")]
    pub sweep: Option<Sweep>,
    /// Measured time of a round
    #[arg(long, short = 't', value_name = "TIME", default_value = "5s", value_parser = parse_duration, help_heading = "Measurement")]
    pub time: Duration,
    /// Time before it that does not count
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration, help_heading = "Measurement")]
    pub warmup: Duration,
    /// Rounds of each client at each point
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Measurement")]
    pub rounds: usize,
    /// Threads that the connections share. lapin has one more for each connection
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Measurement")]
    pub threads: usize,

    /// Write the result as JSON to FILE, or instead of the table to standard output (no FILE, or `-`)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", help_heading = "Output")]
    pub json: Option<JsonTo>,
    /// Write a line for each round as CSV, with PerfTest's columns first
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub csv: Option<PathBuf>,
    /// Write one self-contained page with plots
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
}
