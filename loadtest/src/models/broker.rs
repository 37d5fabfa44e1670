//! The private RabbitMQ that all models publish to.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rabbitmq_node::{Node, QueueOptions, Vhost};
use tokio::task::spawn_blocking;

use super::Failure;
use crate::cpu::Process;

/// The queue of the rounds keeps its newest octets only: nobody reads it.
const KEPT_OCTETS: u64 = 256 << 20;

/// Messages that the broker has taken from publishers since it started. Kept by the channels themselves, so what is read
/// is current.
const RECEIVED: &str = "lists:sum([maps:get(messages_received_total, Counters, 0) || \
                        Counters <- maps:values(rabbit_global_counters:overview())])";

/// A handle to the running node. Its functions block a thread of their own.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    node: Arc<Node>,
    /// The process that should be running, or was the last to run.
    current: Arc<Mutex<Process>>,
}

impl Broker {
    /// Starts a node; it raises its memory alarm at `watermark` octets, by default at 40 % of the machine's memory.
    pub(crate) async fn start(watermark: Option<u64>) -> Result<Self, Failure> {
        let start = move || {
            // Schedulers that spin while they wait would be counted as CPU per beacon.
            let builder = Node::builder().busy_wait(false);
            match watermark {
                Some(octets) => builder.memory_watermark(octets),
                None => builder,
            }
            .start()
        };
        let node = blocking(start).await?;
        let current = Arc::new(Mutex::new(process_of(&node)?));
        Ok(Self { node: Arc::new(node), current })
    }

    /// What it calls itself.
    pub(crate) fn version(&self) -> String {
        self.node.version().to_owned()
    }

    /// The Erlang VM, for measuring; another one after every death.
    pub(crate) fn process(&self) -> Process {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it has ended: by itself, or because it did not come back from a death.
    pub(crate) fn is_gone(&self) -> bool {
        self.process().resident_octets().is_err()
    }

    /// Every process of it.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.node.processes()
    }

    /// Declares a durable queue that is empty and, unless `unbounded`, keeps its newest 256 MiB only. Says its addresses.
    pub(crate) async fn fresh_queue(
        &self,
        name: &'static str,
        unbounded: bool,
    ) -> Result<Addresses, Failure> {
        let node = self.node.clone();
        blocking(move || {
            let vhost = node.vhost("/")?;
            drop(vhost.delete_queue(name));
            let max_length_bytes = (!unbounded).then_some(KEPT_OCTETS);
            vhost.declare_queue(name, &QueueOptions { max_length_bytes, ..QueueOptions::default() })?;
            Ok(Addresses::new(&vhost))
        })
        .await
    }

    /// How it is reached.
    pub(crate) async fn addresses(&self) -> Result<Addresses, Failure> {
        let node = self.node.clone();
        blocking(move || Ok(Addresses::new(&node.vhost("/")?))).await
    }

    /// Messages that publishers have got into the broker since it started.
    pub(crate) async fn received(&self) -> Result<u64, Failure> {
        let node = self.node.clone();
        let text = blocking(move || node.eval(RECEIVED)).await?;
        text.trim().parse().map_err(|error| Failure::Counts {
            name: "rabbitmq",
            source: std::io::Error::other(format!("{text}: {error}")),
        })
    }

    /// Kills it, leaves it dead for `rest`, and starts it again with its data.
    pub(crate) async fn die_and_return(&self, rest: Duration) -> Result<(), Failure> {
        let node = self.node.clone();
        blocking(move || {
            node.kill()?;
            std::thread::sleep(rest);
            node.start_again()
        })
        .await?;
        let process = process_of(&self.node)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = process;
        Ok(())
    }
}

/// How the broker is reached.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// For STOMP.
    pub(crate) stomp: String,
    /// For AMQP 0.9.1.
    pub(crate) amqp: String,
}

impl Addresses {
    fn new(vhost: &Vhost) -> Self {
        Self { stomp: vhost.stomp_url(), amqp: vhost.amqp_url() }
    }
}

fn process_of(node: &Node) -> Result<Process, Failure> {
    let pid = node.pid().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(-1);
    Ok(Process::attach(Some("rabbitmq"), pid)?)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, rabbitmq_node::Error> + Send + 'static,
) -> Result<T, Failure> {
    match spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(Failure::Start { name: "rabbitmq", reason: error.to_string() }),
    }
}
