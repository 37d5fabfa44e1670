//! Delivery: one thread with its own runtime that carries batches to the brokers and confirmations back to the ledgers.
//!
//! Each destination has a publisher of its own, so that one that stands still cannot hold up another.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use stompwire::{
    Headers,
    broker::{Broker as EmbeddedBroker, BrokerHandle, Overflow},
    client::UrlError,
    proto::EncodeError,
    publisher::{Board, Message, Outcome, Outcomes, Publisher},
};
use tokio::{
    select,
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep_until,
};

use crate::{
    batch::Batch,
    brokers,
    config::{Broker, DestinationConfig},
    ledger::{DropReason, Ledger},
};

/// Time for starting the embedded broker.
const START: Duration = Duration::from_secs(10);

/// One destination's way to the brokers.
#[derive(Debug)]
pub struct Delivered {
    /// The destination's name in the configuration.
    pub name: String,
    /// Its configuration.
    pub config: DestinationConfig,
    /// Its counters.
    pub ledger: Arc<Ledger>,
    /// Its batches.
    pub batches: mpsc::Receiver<Batch>,
    /// Where its readings go.
    pub readings: Arc<Readings>,
}

/// What is measured of one destination's delivery.
#[derive(Debug)]
pub struct Readings {
    /// Beacons per batch.
    pub batch_beacons: Histogram,
    /// From handing a batch to a connection to its RECEIPT, in seconds.
    pub publish_seconds: Histogram,
    /// The publisher's lanes and totals, once it runs.
    board: Mutex<Option<Arc<Board>>>,
}

impl Default for Readings {
    /// Buckets: 1 to 16,384 beacons by factors of 2, 0.25 ms to 16 s by factors of 2.
    fn default() -> Self {
        Self {
            batch_beacons: Histogram::new(exponential_buckets(1.0, 2.0, 15)),
            publish_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 17)),
            board: Mutex::new(None),
        }
    }
}

impl Readings {
    /// The publisher's lanes and totals; `None` before it runs.
    #[must_use]
    pub fn board(&self) -> Option<Arc<Board>> {
        self.board.lock().clone()
    }
}

/// Why delivery could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// A broker's URL.
    #[error("destinations.{destination}.brokers: {cause}")]
    Url {
        /// The destination's name.
        destination: String,
        /// What is wrong with it.
        cause: UrlError,
    },
    /// The STOMP destination, or another constant header, cannot be sent.
    #[error("destinations.{destination}.destination: {cause}")]
    Header {
        /// The destination's name.
        destination: String,
        /// What is wrong with it.
        cause: EncodeError,
    },
    /// Thread, runtime or embedded broker.
    #[error("delivery could not start: {0}")]
    Io(#[from] std::io::Error),
    /// The thread said nothing.
    #[error("delivery did not start within {START:?}")]
    Timeout,
}

/// The running thread.
#[derive(Debug)]
pub struct Delivery {
    /// Set when no more batches will come: the time by which everything must be told.
    deadline: watch::Sender<Option<Instant>>,
    embedded: Option<BrokerHandle>,
    thread: thread::JoinHandle<()>,
}

impl Delivery {
    /// Starts the thread, the embedded broker if a destination asks for it, and every publisher. Whether the brokers can
    /// be reached shows later: see [`Readings::board`].
    ///
    /// # Errors
    /// [`DeliveryError`]: a mistake in the configuration, or the system.
    pub fn start(destinations: Vec<Delivered>) -> Result<Self, DeliveryError> {
        let (deadline, watch_deadline) = watch::channel(None);
        let (started, wait_started) = std_mpsc::sync_channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("delivery".into()).spawn(move || {
            runtime.block_on(async move {
                match start_all(destinations, watch_deadline).await {
                    Ok((embedded, mut tasks)) => {
                        let handle = embedded.as_ref().map(EmbeddedBroker::handle);
                        // The starter waits; if it has given up, the watch is gone and the tasks end.
                        drop(started.send(Ok(handle)));
                        while tasks.join_next().await.is_some() {}
                        if let Some(embedded) = embedded {
                            embedded.shutdown().await;
                        }
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        })?;
        let embedded = wait_started.recv_timeout(START).map_err(|_| DeliveryError::Timeout)??;
        Ok(Self { deadline, embedded, thread })
    }

    /// The broker inside this process, if a destination uses it.
    #[must_use]
    pub fn embedded(&self) -> Option<BrokerHandle> {
        self.embedded.clone()
    }

    /// No beacon will come after those that are on their way: delivers what comes until every sender of batches is gone,
    /// waits for the receipts until `deadline`, and counts what is left then. Does not wait; see [`Delivery::join`].
    pub fn finish(&self, deadline: Instant) {
        self.deadline.send_replace(Some(deadline));
    }

    /// Waits for the thread.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!(
                "the delivery thread panicked; this is a defect in beacon-edge, please report it"
            );
        }
    }
}

async fn start_all(
    destinations: Vec<Delivered>,
    deadline: watch::Receiver<Option<Instant>>,
) -> Result<(Option<EmbeddedBroker>, JoinSet<()>), DeliveryError> {
    let wants_embedded =
        destinations.iter().any(|delivered| delivered.config.brokers.contains(&Broker::Embedded));
    let embedded = if wants_embedded {
        Some(EmbeddedBroker::builder().overflow(Overflow::DropHead).start().await?)
    } else {
        None
    };
    let embedded_url = embedded.as_ref().map(|broker| broker.url());
    let mut tasks = JoinSet::new();
    for delivered in destinations {
        let options =
            brokers::publisher_options(&delivered.name, &delivered.config, embedded_url.as_deref())?;
        let (publisher, outcomes) = Publisher::start(options)
            .map_err(|cause| DeliveryError::Header { destination: delivered.name.clone(), cause })?;
        *delivered.readings.board.lock() = Some(publisher.board());
        let (ledger, readings) = (Arc::clone(&delivered.ledger), Arc::clone(&delivered.readings));
        tasks.spawn(record(outcomes, delivered.name.clone(), ledger, readings));
        tasks.spawn(feed(delivered, publisher, deadline.clone()));
    }
    Ok((embedded, tasks))
}

/// Batches to the publisher, until they end or the deadline passes.
async fn feed(
    mut delivered: Delivered,
    publisher: Publisher<u64>,
    deadline: watch::Receiver<Option<Instant>>,
) {
    let ledger = &delivered.ledger;
    let mut passed = std::pin::pin!(passed(deadline.clone()));
    loop {
        let batch = select! {
            biased;
            () = &mut passed => break,
            batch = delivered.batches.recv() => batch,
        };
        let Some(Batch { id, body, count }) = batch else { break };
        delivered.readings.batch_beacons.observe(count as f64);
        let mut headers = Headers::new();
        headers.push("beacon-count", &count.to_string());
        let message = Message { id: id.to_string(), headers, body, token: count };
        let taken = select! {
            biased;
            () = &mut passed => false,
            taken = publisher.publish(message) => taken.is_ok(),
        };
        if !taken {
            ledger.drop_beacons(DropReason::ShutdownInBatch, count);
            break;
        }
        // No confirmation can be recorded before this: it needs this thread.
        ledger.seal(count);
    }
    delivered.batches.close();
    while let Some(batch) = delivered.batches.recv().await {
        ledger.drop_beacons(DropReason::ShutdownInBatch, batch.count);
    }
    // Without a deadline the process is going down in disorder: do not wait.
    let until = deadline.borrow().unwrap_or_else(Instant::now);
    publisher.close(until.saturating_duration_since(Instant::now())).await;
}

/// Outcomes to the ledger, until the publisher is closed.
async fn record(mut outcomes: Outcomes<u64>, name: String, ledger: Arc<Ledger>, readings: Arc<Readings>) {
    const AT_ONCE: usize = 256;
    let mut some = Vec::with_capacity(AT_ONCE);
    while outcomes.recv_many(&mut some, AT_ONCE).await > 0 {
        for outcome in some.drain(..) {
            match outcome {
                Outcome::Confirmed { token: count, latency, .. } => {
                    readings.publish_seconds.observe(latency.as_secs_f64());
                    ledger.confirm(count);
                }
                Outcome::Abandoned { token: count, attempts: 0 } => {
                    ledger.drop_beacons(DropReason::ShutdownUnsent, count);
                }
                Outcome::Abandoned { token: count, .. } => {
                    ledger.drop_beacons(DropReason::ShutdownInFlight, count);
                }
                Outcome::Unencodable { token: count, error } => {
                    tracing::error!(
                        destination = name,
                        beacons = count,
                        %error,
                        "a batch cannot be sent; this is a defect in beacon-edge, please report it"
                    );
                    ledger.drop_beacons(DropReason::Unencodable, count);
                }
                Outcome::GivenUp { token: count, attempts, error } => {
                    tracing::error!(
                        destination = name,
                        beacons = count,
                        attempts,
                        error,
                        "a batch was given up: it cost the connection each time it was sent"
                    );
                    ledger.drop_beacons(DropReason::GivenUp, count);
                }
                // The enum may grow; an outcome not known here must not lose its beacons from the account.
                other => tracing::error!(destination = name, ?other, "an unknown outcome was not counted"),
            }
        }
    }
}

/// Completes when the deadline has been set and has passed, or the process is going down in disorder.
async fn passed(mut deadline: watch::Receiver<Option<Instant>>) {
    let until = match deadline.wait_for(Option::is_some).await {
        Ok(until) => *until,
        Err(_) => None,
    };
    if let Some(until) = until {
        sleep_until(until.into()).await;
    }
}
