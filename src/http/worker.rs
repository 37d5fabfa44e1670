//! One worker: a thread with its own listener, runtime, intake and connections.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use hyper::header::HeaderName;
use hyper::server::conn::http1;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::{spawn_local, unconstrained};
use tokio::time::{sleep, timeout_at};
use tracing::warn;

use super::connection::drive;
use super::cores;
use super::cors::Cors;
use super::registry::{Link, Registry};
use super::server::Route;
use super::stats::{Cells, HttpStats};
use super::throttle::Throttle;
use crate::intake::Intake;

/// Connections that wait to be accepted, per listener. The kernel may hold fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// Pauses after a failed accept: out of file descriptors passes only when connections close.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long before the end of a shutdown an answer that waits is given.
const LAST_WORD: Duration = Duration::from_millis(100);
/// hyper panics when told to use less.
const HYPER_LEAST_BUFFER: usize = 8192;
/// What hyper does when it is told nothing.
const HYPER_MAX_HEADERS: usize = 100;

/// What all workers share. Read only, but for the counters.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) routes: Vec<Route>,
    pub(super) cors: Cors,
    pub(super) client_ip_header: Option<HeaderName>,
    pub(super) max_head_bytes: usize,
    pub(super) max_headers: usize,
    pub(super) max_body_bytes: usize,
    pub(super) head_timeout: Duration,
    pub(super) body_timeout: Duration,
    pub(super) keep_alive_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) pin_workers: bool,
    pub(super) stats: Arc<HttpStats>,
}

/// When to stop: none until then, and then until when connections may go on.
pub(super) type Stop = watch::Receiver<Option<Instant>>;

/// The worker's own things. Its thread alone uses them.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) builder: http1::Builder,
    pub(super) intake: RefCell<Intake>,
    pub(super) registry: Registry,
    /// Connections that are not parked.
    pub(super) warm: Cell<usize>,
    lane: usize,
    stopping: Cell<bool>,
    stop: Stop,
    full: Throttle,
    failing: Throttle,
}

impl Worker {
    pub(super) fn stats(&self) -> &Cells {
        self.shared.stats.lane(self.lane)
    }

    /// Whether the server is shutting down: answers then close their connections.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Completes when an answer that waits has to be given so that its client has it before connections are cut.
    pub(super) async fn last_word(&self) {
        let mut stop = self.stop.clone();
        // Without a sender the server is being dropped: there is nothing to wait for.
        let until = stop.wait_for(Option::is_some).await.ok().and_then(|until| *until);
        if let Some(until) = until {
            let left = until.saturating_duration_since(Instant::now());
            sleep(left.saturating_sub(LAST_WORD.max(left / 10).min(left))).await;
        }
    }

    fn new(lane: usize, shared: Arc<Shared>, stop: Stop) -> Self {
        Self {
            builder: builder(&shared),
            shared,
            intake: RefCell::new(Intake::new(lane)),
            registry: Registry::default(),
            warm: Cell::new(0),
            lane,
            stopping: Cell::new(false),
            stop,
            full: Throttle::default(),
            failing: Throttle::default(),
        }
    }
}

/// A connection's place in its worker; gives it back when dropped.
pub(super) struct Place {
    pub(super) worker: Rc<Worker>,
    pub(super) link: Rc<Link>,
    number: u64,
}

impl Place {
    fn take(worker: &Rc<Worker>, most: usize) -> Option<Self> {
        if !worker.shared.stats.open(most) {
            return None;
        }
        let (number, link) = worker.registry.enter();
        Some(Self { worker: Rc::clone(worker), link, number })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.shared.stats.close();
        self.worker.registry.leave(self.number);
    }
}

/// Runs a worker until it is told to stop. Says through `ready` whether it listens. Returns how many connections had
/// a request under way when the deadline passed.
pub(super) fn run(
    lane: usize,
    socket: TcpSocket,
    shared: Arc<Shared>,
    stop: Stop,
    ready: &SyncSender<io::Result<()>>,
) -> usize {
    if shared.pin_workers
        && let Err(error) = cores::bind(lane)
    {
        warn!(lane, %error, "http.pin_workers: this worker cannot be bound to a core and goes where the system puts it");
    }
    let started = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let runtime = match started {
        Ok(runtime) => runtime,
        Err(error) => {
            report(ready, Err(error));
            return 0;
        }
    };
    // What still runs afterwards is dropped with the runtime.
    runtime.block_on(async {
        match socket.listen(BACKLOG) {
            Ok(listener) => {
                report(ready, Ok(()));
                serve(listener, Rc::new(Worker::new(lane, shared, stop.clone())), stop).await
            }
            Err(error) => {
                report(ready, Err(error));
                0
            }
        }
    })
}

/// `start` waits for every report; if it is gone, there is nobody left to tell.
fn report(ready: &SyncSender<io::Result<()>>, result: io::Result<()>) {
    drop(ready.send(result));
}

async fn serve(listener: TcpListener, worker: Rc<Worker>, mut stop: Stop) -> usize {
    tokio::select! {
        biased;
        _ = stop.wait_for(Option::is_some) => {}
        never = accept_all(&listener, &worker) => match never {},
    }
    let deadline = stop.borrow().unwrap_or_else(Instant::now);
    unconstrained(accept_waiting(&listener, &worker)).await;
    drop(listener);

    worker.stopping.set(true);
    worker.registry.wake_all();
    match timeout_at(deadline.into(), worker.registry.empty()).await {
        Ok(()) => 0,
        Err(_) => worker.registry.busy(),
    }
}

async fn accept_all(listener: &TcpListener, worker: &Rc<Worker>) -> std::convert::Infallible {
    let mut pause = MIN_PAUSE;
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                admit(socket, peer.ip(), worker);
                pause = MIN_PAUSE;
            }
            // These concern the one connection, which is gone.
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                worker.stats().accept_errors.add(1);
                if let Some(held) = worker.failing.pass(Instant::now()) {
                    warn!(%error, held, "cannot accept connections; pausing (is the limit of open files too low?)");
                }
                if worker.registry.evict() {
                    worker.stats().evicted.add(1);
                }
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

/// Takes what the kernel has accepted already: closing the listener would reset it.
async fn accept_waiting(listener: &TcpListener, worker: &Rc<Worker>) {
    for _ in 0..BACKLOG {
        // Polled once: what is not there now will not be waited for.
        tokio::select! {
            biased;
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => admit(socket, peer.ip(), worker),
                Err(error) if is_of_the_peer(&error) => {}
                Err(_) => return,
            },
            () = std::future::ready(()) => return,
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves the connection if there is a place for it. If not, the longest idle one is told to leave, and if there is
/// none the new one is closed at once: a client or balancer learns more from that than from silence.
fn admit(socket: TcpStream, peer: IpAddr, worker: &Rc<Worker>) {
    let stats = worker.stats();
    let most = worker.shared.max_connections;
    let mut place = Place::take(worker, most);
    if place.is_none() && worker.registry.evict() {
        stats.evicted.add(1);
        // Its place comes back when its task runs; until then there is one connection more than allowed.
        place = Place::take(worker, usize::MAX);
    }
    let Some(place) = place else {
        stats.refused.add(1);
        if let Some(held) = worker.full.pass(Instant::now()) {
            warn!(most, held, "closing new connections: http.max_connections are open");
        }
        return;
    };
    stats.connections.add(1);
    // Answers are one write each; waiting for more would only delay them. A failure costs latency, not correctness.
    drop(socket.set_nodelay(true));
    spawn_local(drive(socket, peer, place));
}

fn builder(shared: &Shared) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_header_size(shared.max_head_bytes)
        .max_buf_size(shared.max_head_bytes.max(HYPER_LEAST_BUFFER));
    // hyper's own bound is kept on the stack; any other costs two allocations per request.
    if shared.max_headers != HYPER_MAX_HEADERS {
        builder.max_headers(shared.max_headers);
    }
    builder
}
