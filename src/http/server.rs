//! The HTTP server as a whole: workers that start together and stop together.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hyper::header::{HeaderName, InvalidHeaderName};
use tokio::sync::watch;
use tracing::{error, info};

use super::cors::Cors;
use super::listen;
use super::stats::HttpStats;
use super::worker::{self, Shared};
use crate::config::{HttpConfig, Reply};
use crate::ring::Ring;
use crate::ticket::Ack;

/// A path that takes beacons.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name in the beacon record.
    pub name: String,
    /// The path, matched exactly.
    pub path: String,
    /// What clients get.
    pub reply: Reply,
    /// Where beacons go. Each ring's ledger needs a lane per worker.
    pub rings: Vec<Arc<Ring>>,
    /// What answers wait for.
    pub ack: Ack,
    /// How long they wait at most.
    pub ack_timeout: Duration,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The address is taken, not of this machine, or its port is reserved.
    #[error("cannot listen on http.listen = \"{address}\": {source}{}", advice(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A worker's thread or runtime could not be made.
    #[error("cannot start an HTTP worker: {0}")]
    Worker(#[source] io::Error),
    /// `http.client_ip_header` is not the name of a header.
    #[error("http.client_ip_header: {0}")]
    Header(#[from] InvalidHeaderName),
    /// A ring's ledger has fewer lanes than there are workers.
    #[error("the ledger of a ring has {lanes} lanes for {workers} HTTP workers")]
    Lanes {
        /// Lanes of the ledger.
        lanes: usize,
        /// Workers to be started.
        workers: usize,
    },
}

/// What a shutdown had to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShutdownReport {
    /// Connections that had a request under way when the deadline passed.
    pub cut: usize,
}

/// A running HTTP front. Dropping it closes all connections at once.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stats: Arc<HttpStats>,
    stop: watch::Sender<Option<Instant>>,
    threads: Vec<JoinHandle<usize>>,
}

impl HttpServer {
    /// Starts the workers. When this returns, each of them listens. Blocking, for about a millisecond.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or threads cannot be made; then nothing is left running.
    pub fn start(config: &HttpConfig, routes: Vec<Route>) -> Result<Self, HttpError> {
        let workers = config.worker_count();
        if let Some(ring) =
            routes.iter().flat_map(|route| &route.rings).find(|ring| ring.ledger().lanes() < workers)
        {
            return Err(HttpError::Lanes { lanes: ring.ledger().lanes(), workers });
        }
        let stats = Arc::new(HttpStats::new(workers));
        let shared = Arc::new(shared(config, routes, Arc::clone(&stats))?);
        let on_listen = |source| HttpError::Listen { address: config.listen, source };
        let (sockets, address) =
            listen::bind(config.listen, workers, config.share_port).map_err(on_listen)?;

        let (stop, stopped) = watch::channel(None);
        let mut server = Self { address, stats, stop, threads: Vec::with_capacity(workers) };
        let (ready, reports) = sync_channel(workers);
        for (lane, socket) in sockets.into_iter().enumerate() {
            let (shared, stopped, ready) = (Arc::clone(&shared), stopped.clone(), ready.clone());
            let thread = thread::Builder::new()
                .name(format!("http-{lane}"))
                .spawn(move || worker::run(lane, socket, shared, stopped, &ready))
                .map_err(HttpError::Worker)?;
            server.threads.push(thread);
        }
        drop(ready);
        for _ in 0..workers {
            let died = || Err(io::Error::other("it ended before it listened"));
            reports.recv().unwrap_or_else(|_| died()).map_err(on_listen)?;
        }
        tell_open_files(config.max_connections);
        Ok(server)
    }

    /// The address that is listened on; with the real port if port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The counters, which outlive the server.
    #[must_use]
    pub fn stats(&self) -> &Arc<HttpStats> {
        &self.stats
    }

    /// Stops accepting at once, answers what is in flight, closes idle connections, and cuts what is left after
    /// `deadline`. When this returns the workers have ended: no beacon is offered to any ring any more. Blocking.
    pub fn shutdown(mut self, deadline: Duration) -> ShutdownReport {
        self.end(Instant::now() + deadline)
    }

    fn end(&mut self, deadline: Instant) -> ShutdownReport {
        self.stop.send_replace(Some(deadline));
        let mut report = ShutdownReport::default();
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(cut) => report.cut += cut,
                Err(_) => error!("an HTTP worker had panicked"),
            }
        }
        report
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.end(Instant::now());
    }
}

fn shared(config: &HttpConfig, routes: Vec<Route>, stats: Arc<HttpStats>) -> Result<Shared, HttpError> {
    let client_ip_header = match config.client_ip_header.as_str() {
        "" => None,
        name => Some(HeaderName::from_bytes(name.as_bytes())?),
    };
    Ok(Shared {
        routes,
        cors: Cors::new(&config.cors_origins),
        client_ip_header,
        max_head_bytes: config.max_head_bytes,
        max_headers: config.max_headers,
        max_body_bytes: config.max_body_bytes,
        head_timeout: config.head_timeout,
        body_timeout: config.body_timeout,
        keep_alive_timeout: config.keep_alive_timeout,
        max_connections: config.max_connections,
        pin_workers: config.pin_workers,
        stats,
    })
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it, choose another port, or set http.share_port = true in both"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose one above",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    }
}

/// Says so if the process may not open as many files as it may have connections. Linux only; elsewhere silent.
fn tell_open_files(max_connections: usize) {
    let Ok(limits) = fs::read_to_string("/proc/self/limits") else { return };
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    if let Some(open_files) = soft.filter(|open_files| *open_files < max_connections) {
        info!(
            open_files,
            max_connections, "the limit of open files (ulimit -n) is below http.max_connections"
        );
    }
}
