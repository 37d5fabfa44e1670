//! Clients that send a request octet by octet, as attackers and bad networks do: what the server does with them, and (by
//! the figures of the load beside them) whether others feel it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Error,
    http::{
        beacon::Beacons,
        fleet::FleetOptions,
        tls::{Stream, Tls},
    },
};

/// Slow clients are numbered from here, out of the way of all others; few of their beacons are ever complete.
const SLOW_SEQ: u64 = 950_000_000_000;

/// Before a connection that failed is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// What became of slow clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SlowFigures {
    /// Connections that sent slowly, at any time.
    pub connections: usize,
    /// Connections opened in all, one after another.
    pub opened: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Cut off with 408, as is right.
    pub timed_out: u64,
    /// Closed or reset without an answer.
    pub closed: u64,
    /// Given another answer; 2xx when the request was complete after all.
    pub answered: u64,
    /// How long the longest was let send, in ms.
    pub longest_ms: u64,
}

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    closed: AtomicU64,
    answered: AtomicU64,
    longest_ms: AtomicU64,
}

/// Slow clients at work, in a thread of their own.
#[derive(Debug)]
pub(crate) struct SlowClients {
    connections: usize,
    counts: Arc<Counts>,
    stop: watch::Sender<bool>,
    thread: thread::JoinHandle<()>,
}

impl SlowClients {
    /// Starts `connections` of them that wait for `pace` between two octets.
    pub(crate) fn start(
        connections: usize,
        pace: Duration,
        beacons: Arc<Beacons>,
        fleet: &FleetOptions,
    ) -> Result<Self, Error> {
        let (stop, stopped) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::io("runtime for slow clients"))?;
        let (address, tls, theirs) = (fleet.address, fleet.tls.clone(), counts.clone());
        let work = move || {
            runtime.block_on(async move {
                let mut clients = JoinSet::new();
                for number in 0..connections as u64 {
                    let mut request = Vec::new();
                    beacons.render(SLOW_SEQ + number, false, &mut request);
                    clients.spawn(client(
                        address,
                        tls.clone(),
                        request,
                        pace,
                        theirs.clone(),
                        stopped.clone(),
                    ));
                }
                while clients.join_next().await.is_some() {}
            });
        };
        let thread = thread::Builder::new()
            .name("slow".to_owned())
            .spawn(work)
            .map_err(Error::io("thread for slow clients"))?;
        Ok(Self { connections, counts, stop, thread })
    }

    /// Ends them.
    pub(crate) fn finish(self) -> SlowFigures {
        self.stop.send_replace(true);
        // A panic there would be a defect; its clients are then simply not counted any further.
        self.thread.join().unwrap_or_default();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SlowFigures {
            connections: self.connections,
            opened: read(&self.counts.opened),
            failed: read(&self.counts.failed),
            timed_out: read(&self.counts.timed_out),
            closed: read(&self.counts.closed),
            answered: read(&self.counts.answered),
            longest_ms: read(&self.counts.longest_ms),
        }
    }
}

async fn client(
    address: SocketAddr,
    tls: Option<Tls>,
    request: Vec<u8>,
    pace: Duration,
    counts: Arc<Counts>,
    mut stopped: watch::Receiver<bool>,
) {
    let work = async {
        loop {
            let Ok(Ok(stream)) = timeout(Duration::from_secs(5), Stream::open(address, tls.as_ref())).await
            else {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
                continue;
            };
            counts.opened.fetch_add(1, Ordering::Relaxed);
            let start = Instant::now();
            let outcome = match trickle(stream, &request, pace).await {
                Some(answer) if answer.starts_with(b"HTTP/1.1 408 ") => &counts.timed_out,
                Some(_) => &counts.answered,
                None => &counts.closed,
            };
            outcome.fetch_add(1, Ordering::Relaxed);
            let lasted = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            counts.longest_ms.fetch_max(lasted, Ordering::Relaxed);
            // A server that closes at once is not dialled in a tight loop.
            sleep(pace).await;
        }
    };
    // That the starter is gone ends them as well.
    tokio::select! {
        () = work => {}
        _ = stopped.wait_for(|&stop| stop) => {}
    }
}

/// Sends octet by octet until the server says something, or closes.
async fn trickle(mut stream: Stream, request: &[u8], pace: Duration) -> Option<Vec<u8>> {
    let mut answer = vec![0; 64];
    for octet in request {
        if stream.write_all(&[*octet]).await.is_err() || stream.flush().await.is_err() {
            break;
        }
        match timeout(pace, stream.read(&mut answer)).await {
            Ok(Ok(0) | Err(_)) => return None,
            Ok(Ok(length)) => return Some(answer[..length].to_vec()),
            Err(_) => {}
        }
    }
    match stream.read(&mut answer).await {
        Ok(0) | Err(_) => None,
        Ok(length) => Some(answer[..length].to_vec()),
    }
}
