//! The whole edge, put together and taken down in order.
//!
//! Up: delivery (so that confirmations have somewhere to go), batchers, HTTP, admin. Down: HTTP first, so that nothing
//! new comes; then the batchers empty the rings; then delivery waits for the receipts; admin last, so that an operator
//! can watch.

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use stompwire::broker::BrokerHandle;
use tokio::sync::mpsc;

use crate::{
    admin::{Admin, AdminError, View},
    batch::{self, Batcher},
    config::{Config, DestinationConfig, SpoolSynchronous},
    delivery::{Delivered, Delivery, DeliveryError, Readings},
    http::{HttpError, HttpServer, Route},
    ledger::{DropReason, Ledger, Snapshot},
    metrics::{DestinationReading, Metrics, Observed},
    ring::Ring,
    spool::{Spool, SpoolOptions, Synchronous},
    watch::Watch,
};

/// Batches between a batcher and its publisher. Few: what does not fit stays on the ring, where the policy sees it.
const BATCHES: usize = 2;

/// A running edge. For tests and for embedding; `main` is a thin shell around it.
#[derive(Debug)]
pub struct Edge {
    http: HttpServer,
    admin: Option<Admin>,
    batchers: Vec<Batcher>,
    delivery: Delivery,
    watch: Watch,
    destinations: Vec<Observed>,
    draining: Arc<AtomicBool>,
}

/// Why an edge did not start. What was started already ends by itself, within a second.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The HTTP listener.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Delivery.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// A thread.
    #[error("the system has no thread left: {0}")]
    Thread(#[from] std::io::Error),
}

/// What became of everything, at the end.
#[derive(Debug, Clone)]
pub struct Report {
    /// Each destination's last reading.
    pub destinations: Vec<(String, Snapshot)>,
    /// Connections that had to be cut at the deadline.
    pub connections_cut: usize,
    /// How long the shutdown took.
    pub took: Duration,
}

impl Edge {
    /// Starts everything. Brokers that cannot be reached are no error: the edge answers, is not ready, and recovers.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let started = Instant::now();
        let lanes = config.http.worker_count();
        let mut destinations = Vec::new();
        let mut delivered = Vec::new();
        let mut packed = Vec::new();
        let mut spools = Vec::new();
        for (name, destination) in &config.destinations {
            let ledger = Arc::new(Ledger::new(lanes));
            let ring =
                Arc::new(Ring::new(destination.ring.limits(), destination.policy(), Arc::clone(&ledger)));
            let readings = Arc::new(Readings::default());
            let (sender, batches) = mpsc::channel(BATCHES);
            let spool = if config.has_spool(name) {
                let (spool, thread) = Spool::start(spool_options(config, name, destination))?;
                spools.push(thread);
                Some(spool)
            } else {
                None
            };
            destinations.push(Observed {
                name: name.clone(),
                ring: Arc::clone(&ring),
                readings: Arc::clone(&readings),
                spool: spool.clone(),
                writes_ahead: config.writes_ahead(name),
            });
            delivered.push(Delivered {
                name: name.clone(),
                config: destination.clone(),
                ledger,
                batches,
                readings,
                spool,
                writes_ahead: config.writes_ahead(name),
            });
            let limits = batch::Limits {
                max_beacons: destination.batch.max_beacons,
                max_bytes: destination.batch.max_bytes,
                linger: destination.batch.linger,
            };
            packed.push((name, ring, limits, sender));
        }
        let delivery = Delivery::start(delivered, spools)?;
        let mut batchers = Vec::new();
        for (name, ring, limits, sender) in packed {
            batchers.push(Batcher::start(name, ring, limits, sender)?);
        }
        let watch = Watch::start(destinations.clone())?;
        let draining = Arc::new(AtomicBool::new(false));
        let mut edge = Self {
            http: HttpServer::start(&config.http, routes(config, &destinations))?,
            admin: None,
            batchers,
            delivery,
            watch,
            destinations,
            draining,
        };
        if let Some(address) = config.admin.listen {
            edge.admin = Some(Admin::start(address, edge.view(config, started))?);
        }
        Ok(edge)
    }

    /// Where the HTTP front listens.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// Where the admin listener is.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::local_addr)
    }

    /// The broker inside this process, if a destination uses it.
    #[must_use]
    pub fn embedded(&self) -> Option<BrokerHandle> {
        self.delivery.embedded()
    }

    /// A reading of a destination.
    #[must_use]
    pub fn read(&self, destination: &str) -> Option<DestinationReading> {
        self.destinations.iter().find(|observed| observed.name == destination).map(Observed::read)
    }

    /// Stops accepting, answers what is in flight, delivers what was accepted, and counts what could not be delivered
    /// within `deadline`. Blocks.
    pub fn shutdown(self, deadline: Duration) -> Report {
        let started = Instant::now();
        let until = started + deadline;
        self.draining.store(true, Ordering::Relaxed);
        // Half of the time at most for clients that are slow to take their answers; the beacons matter more.
        let http = self.http.shutdown(deadline / 2);
        self.delivery.finish(until);
        self.batchers.iter().for_each(Batcher::finish);
        self.batchers.into_iter().for_each(Batcher::join);
        self.delivery.join();
        self.watch.stop();
        let destinations =
            self.destinations.iter().map(|seen| (seen.name.clone(), seen.ring.ledger().snapshot())).collect();
        if let Some(admin) = self.admin {
            admin.stop();
        }
        Report { destinations, connections_cut: http.cut, took: started.elapsed() }
    }

    fn view(&self, config: &Config, started: Instant) -> View {
        let path =
            config.routes.values().map(|route| route.path.as_str()).find(|path| path.ends_with(".gif"));
        let path =
            path.or_else(|| config.routes.values().map(|route| route.path.as_str()).next()).unwrap_or("/");
        View {
            destinations: self.destinations.clone(),
            metrics: Metrics::new(self.destinations.clone(), Arc::clone(self.http.stats())),
            embedded: self.delivery.embedded(),
            pixel: format!("http://{}{path}", self.http_addr()),
            draining: Arc::clone(&self.draining),
            started,
        }
    }
}

impl Report {
    /// Beacons that wait in the spools for the next run.
    #[must_use]
    pub fn in_spool(&self) -> u64 {
        self.destinations.iter().map(|(_, seen)| seen.spooled).sum()
    }

    /// Whether every accepted beacon was confirmed, is in a spool, or was dropped before the shutdown by the policy its
    /// operator chose.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.destinations.iter().all(|(_, seen)| left_behind(seen) == 0)
    }
}

impl fmt::Display for Report {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, seen)) in self.destinations.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{name}: {} accepted, ", seen.accepted)?;
            if seen.recovered > 0 {
                write!(f, "{} recovered, ", seen.recovered)?;
            }
            write!(f, "{} confirmed", seen.confirmed)?;
            let separator = [", dropped: ", ", "];
            let dropped = DropReason::ALL.iter().filter(|&&reason| seen.dropped_for(reason) > 0);
            for (index, &reason) in dropped.enumerate() {
                write!(f, "{}{} {}", separator[index.min(1)], seen.dropped_for(reason), reason.label())?;
            }
            if seen.rejected > 0 {
                write!(f, ", {} rejected", seen.rejected)?;
            }
            if seen.spooled > 0 {
                write!(f, ", {} in the spool", seen.spooled)?;
            }
        }
        Ok(())
    }
}

fn spool_options(config: &Config, name: &str, destination: &DestinationConfig) -> SpoolOptions {
    let is_full = match destination.spool.synchronous {
        SpoolSynchronous::Auto => config.writes_ahead(name),
        SpoolSynchronous::Full => true,
        SpoolSynchronous::Normal => false,
    };
    SpoolOptions {
        path: Path::new(&config.spool.dir).join(format!("{name}.spool")),
        destination: destination.destination.clone(),
        max_bytes: destination.spool.max_bytes as u64,
        min_free_bytes: config.spool.min_free_bytes as u64,
        synchronous: if is_full { Synchronous::Full } else { Synchronous::Normal },
    }
}

fn left_behind(seen: &Snapshot) -> u64 {
    let at_shutdown = [
        DropReason::ShutdownOnRing,
        DropReason::ShutdownInBatch,
        DropReason::ShutdownUnsent,
        DropReason::ShutdownInFlight,
    ];
    seen.pending() + at_shutdown.map(|reason| seen.dropped_for(reason)).iter().sum::<u64>()
}

fn routes(config: &Config, destinations: &[Observed]) -> Vec<Route> {
    let rings_of = |names: &[String]| {
        let named = destinations.iter().filter(|observed| names.contains(&observed.name));
        named.map(|observed| Arc::clone(&observed.ring)).collect()
    };
    let route = |(name, route): (&String, &crate::config::RouteConfig)| Route {
        name: name.clone(),
        path: route.path.clone(),
        reply: route.reply,
        rings: rings_of(&route.destinations),
        ack: route.ack,
        ack_timeout: route.ack_timeout,
    };
    config.routes.iter().map(route).collect()
}

#[cfg(test)]
mod tests;
