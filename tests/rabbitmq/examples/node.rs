//! Runs a private RabbitMQ until standard input ends or Ctrl-C, for trying things out and for measurements.
//!
//! `cargo run -p rabbitmq-node --example node [QUEUE]` declares the durable queue QUEUE (default `beacons`), which keeps
//! its newest 256 MiB, and prints one line: the STOMP URL, the broker's process id and its version.

use std::io::Read as _;

use rabbitmq_node::{Node, QueueOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queue = std::env::args().nth(1).unwrap_or_else(|| "beacons".to_owned());
    // Schedulers that spin while they wait would be counted as CPU per message.
    let node = Node::builder().busy_wait(false).start()?;
    let vhost = node.vhost("/")?;
    let options = QueueOptions { max_length_bytes: Some(256 << 20), ..QueueOptions::default() };
    vhost.declare_queue(&queue, &options)?;
    println!("{} {} {}", vhost.stomp_url(), node.pid().unwrap_or_default(), node.version());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
