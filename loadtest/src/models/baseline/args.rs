//! The hidden subcommands. `loadtest models` writes these command lines; nobody else needs them.

use std::net::SocketAddr;

use clap::ValueEnum;

/// Where a baseline server puts its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SinkKind {
    /// SEND over a pooled STOMP connection, answer at its RECEIPT
    Direct,
    /// SEND over a pooled STOMP connection, answer when it is written
    DirectUnconfirmed,
    /// A bounded ring and a publisher behind it
    Ring,
    /// RPUSH over a pooled Redis connection, answer at its reply
    Redis,
}

/// `loadtest model-server`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// Where lines go
    #[arg(long)]
    pub sink: SinkKind,
    /// Threads, each with its own listener
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// Bind thread n to the n-th core from the last
    #[arg(long)]
    pub pin: bool,
    /// Pooled connections of each worker, at most
    #[arg(long, default_value_t = 64)]
    pub pool: usize,
    /// The broker
    #[arg(long, default_value = "")]
    pub stomp: String,
    /// The STOMP destination
    #[arg(long, default_value = "/amq/queue/beacons")]
    pub destination: String,
    /// Ring: connections to the broker
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Ring: frames without a receipt, per connection
    #[arg(long, default_value_t = 1)]
    pub window: usize,
    /// Ring: answer when the line is on the ring, not when it is confirmed
    #[arg(long)]
    pub answer_at_once: bool,
    /// Ring: lines in a message, at most
    #[arg(long, default_value_t = 1)]
    pub pack: usize,
    /// Ring: how long the first line of a message waits for others, in ms
    #[arg(long, default_value_t = 5)]
    pub linger_ms: u64,
    /// Redis' address
    #[arg(long)]
    pub redis: Option<SocketAddr>,
    /// The list in Redis
    #[arg(long, default_value = "beacons")]
    pub key: String,
}

/// `loadtest model-agent`.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// Redis' address
    #[arg(long)]
    pub redis: SocketAddr,
    /// The list in Redis
    #[arg(long, default_value = "beacons")]
    pub key: String,
    /// The broker, as an AMQP URI
    #[arg(long)]
    pub amqp: String,
    /// The queue that messages go to, through the default exchange
    #[arg(long, default_value = "beacons")]
    pub queue: String,
    /// Lines taken from the list together, and joined into a message
    #[arg(long, default_value_t = 100)]
    pub chunk: usize,
    /// Messages without a confirm
    #[arg(long, default_value_t = 32)]
    pub in_flight: usize,
}
