//! Delivery: one thread with its own runtime that carries batches to the brokers and confirmations back to the ledgers.
//!
//! Each destination has a publisher of its own, so that one that stands still cannot hold up another.
//!
//! | file | what it does |
//! |---|---|
//! | `direct.rs` | batches to the publisher |
//! | `spooling.rs` | batches to the publisher and the spool |
//! | `spooling/ending.rs` | the end of that: what is in hand goes to the publisher or the spool, or is counted |
//! | `backlog.rs` | from the spool to the publisher |
//! | `flights.rs` | what the publisher has and the spool has not |
//! | `copies.rs` | that into the spool as well, when no broker confirms it |
//! | `rows.rs` | which rows of the spool the publisher has, and who waits for those that it has not |
//! | `pace.rs`, `pressure.rs` | how fast a backlog goes, and how hard a core is to get |
//! | `episode.rs` | what the log says of a spool |
//! | `parcel.rs` | what a batch is to the publisher |
//! | `outcomes.rs` | from the publisher's outcomes to ledger, spool and tickets |
//! | `put_away.rs` | into the spool, at the end of everything |

mod backlog;
mod copies;
mod direct;
mod episode;
mod flights;
mod outcomes;
mod pace;
mod parcel;
mod pressure;
mod put_away;
mod rows;
mod spooling;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc as std_mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use stompwire::{
    broker::{Broker as EmbeddedBroker, BrokerHandle, Overflow},
    client::UrlError,
    proto::EncodeError,
    publisher::{Board, Publisher},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep_until,
};

use crate::{
    batch::Batch,
    brokers,
    config::{Broker, DestinationConfig},
    dead_letter::DeadLetters,
    ledger::Ledger,
    spool::{Refused, Spool, SpoolThread},
};

use self::{flights::Flights, outcomes::Recorder};

/// For the spools to write what is queued, if the deadline has passed.
const LAST_FLUSH: Duration = Duration::from_millis(250);
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
    /// Its spool, if it has one.
    pub spool: Option<Spool>,
    /// Whether every batch is written to the spool before it is sent.
    pub writes_ahead: bool,
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
    /// Batches that were written to the spool, and that were removed from it again.
    appended: AtomicU64,
    removed: AtomicU64,
    /// Batches that the spool refused, by [`REFUSALS`].
    refused: [AtomicU64; REFUSALS.len()],
}

/// Why a spool refuses a batch: the values of the metric label `reason`.
pub const REFUSALS: [&str; 5] = ["full", "no_space", "failing", "closed", "timed_out"];

impl Default for Readings {
    /// Buckets: 1 to 16,384 beacons by factors of 2, 0.25 ms to 16 s by factors of 2.
    fn default() -> Self {
        Self {
            batch_beacons: Histogram::new(exponential_buckets(1.0, 2.0, 15)),
            publish_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 17)),
            board: Mutex::new(None),
            appended: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            refused: Default::default(),
        }
    }
}

impl Readings {
    /// The publisher's lanes and totals; `None` before it runs.
    #[must_use]
    pub fn board(&self) -> Option<Arc<Board>> {
        self.board.lock().clone()
    }

    /// Batches written to the spool, and batches removed from it.
    #[must_use]
    pub fn appends_and_removes(&self) -> (u64, u64) {
        (self.appended.load(Ordering::Relaxed), self.removed.load(Ordering::Relaxed))
    }

    fn appended(&self) {
        self.appended.fetch_add(1, Ordering::Relaxed);
    }

    fn removed(&self) {
        self.removed.fetch_add(1, Ordering::Relaxed);
    }

    /// Batches that the spool refused, in the order of [`REFUSALS`].
    #[must_use]
    pub fn refusals(&self) -> [u64; REFUSALS.len()] {
        self.refused.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn refused(&self, refused: Refused) {
        let index = match refused {
            Refused::Full => 0,
            Refused::NoSpace => 1,
            Refused::Failing => 2,
            Refused::Closed => 3,
            Refused::TimedOut => 4,
        };
        self.refused[index].fetch_add(1, Ordering::Relaxed);
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
    /// Starts the thread, the embedded broker if a destination asks for it, and every publisher. `spools` are the threads of
    /// the destinations' spools, and end with this one. Whether the brokers can
    /// be reached shows later: see [`Readings::board`].
    ///
    /// # Errors
    /// [`DeliveryError`]: a mistake in the configuration, or the system.
    pub fn start(destinations: Vec<Delivered>, spools: Vec<SpoolThread>) -> Result<Self, DeliveryError> {
        let (deadline, watch_deadline) = watch::channel(None);
        let end = watch_deadline.clone();
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
            // Once nothing can be appended or removed any more. What is queued is little, and worth a moment.
            let until = end.borrow().unwrap_or_else(Instant::now).max(Instant::now() + LAST_FLUSH);
            spools.into_iter().for_each(|spool| spool.join(until));
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
        let flights = Flights::default();
        let recorder = Recorder {
            name: delivered.name.clone(),
            ledger: Arc::clone(&delivered.ledger),
            readings: Arc::clone(&delivered.readings),
            spool: delivered.spool.clone(),
            flights: flights.clone(),
            dead_letters: DeadLetters::open(
                &delivered.config.dead_letter_dir,
                &delivered.name,
                delivered.config.dead_letter_max_bytes as u64,
            ),
            deadline: deadline.clone(),
        };
        tasks.spawn(recorder.run(outcomes));
        match delivered.spool.clone() {
            Some(spool) => {
                tasks.spawn(spooling::feed(delivered, spool, flights, publisher, deadline.clone()))
            }
            None => tasks.spawn(direct::feed(delivered, publisher, deadline.clone())),
        };
    }
    Ok((embedded, tasks))
}

/// Completes when the deadline has been set and the time that `when` makes of it has passed, or the process is going down in
/// disorder.
async fn passed(mut deadline: watch::Receiver<Option<Instant>>, when: impl FnOnce(Instant) -> Instant) {
    let until = match deadline.wait_for(Option::is_some).await {
        Ok(until) => *until,
        Err(_) => None,
    };
    if let Some(until) = until {
        sleep_until(when(until).into()).await;
    }
}

#[cfg(test)]
mod tests;
