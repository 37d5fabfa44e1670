//! A TCP proxy on loopback that fails as networks do, when the test says so. It counts what it did.
//!
//! Each direction of a connection has a reader and a writer with a bounded queue in between. The reader stamps what it
//! reads with the time at which it may go on (delay); the writer swallows it (black hole), relays a part of it and
//! hangs up (cut), or relays it and rests (throttle).

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    select,
    sync::{Notify, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};

/// For a connection to the target, and for a peer that takes nothing.
const LIMIT: Duration = Duration::from_secs(30);
/// One read; with [`QUEUE`] it bounds what is under way in a direction.
const CHUNK: usize = 8 * 1024;
const QUEUE: usize = 16;

/// Which octets of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

pub(crate) use Direction::{Down, Up};

/// A listener that relays to one target. Its tasks end when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What became of what was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    /// Connections closed after a part of what was under way.
    pub(crate) cuts: u64,
    /// Connections ended by RST.
    pub(crate) resets: u64,
    /// Octets swallowed by black holes.
    pub(crate) swallowed: u64,
    /// Chunks held back by a delay, and by a throttle.
    pub(crate) delayed: u64,
    pub(crate) throttled: u64,
}

/// One connection through the proxy.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<Relayed>);

#[derive(Debug, Default)]
struct Shared {
    connections: Mutex<Vec<Connection>>,
    refuses: AtomicBool,
    /// Both directions of connections to come.
    holes: [AtomicBool; 2],
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Relayed {
    shared: Arc<Shared>,
    lines: [Line; 2],
    reset: Notify,
    has_ended: AtomicBool,
}

/// One direction.
#[derive(Debug)]
struct Line {
    faults: watch::Sender<Faults>,
    octets: AtomicU64,
    line_feeds: AtomicU64,
    /// A black hole took some of it.
    has_gap: AtomicBool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    hole: bool,
    cut_after: Option<u64>,
    delay: Duration,
    octets_per_second: Option<u32>,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(accept(listener, target, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connections that live now, in order of arrival.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        lock(&self.shared.connections).clone()
    }

    /// Whether new connections are reset at once.
    pub(crate) fn refuse(&self, on: bool) {
        self.shared.refuses.store(on, Relaxed);
    }

    /// A black hole for all connections, and those to come, or its end.
    pub(crate) fn hole_for_all(&self, direction: Direction, on: bool) {
        self.shared.holes[direction as usize].store(on, Relaxed);
        self.connections().iter().for_each(|connection| connection.hole(direction, on));
    }

    pub(crate) fn reset_all(&self) {
        self.connections().iter().for_each(Connection::reset);
    }

    /// Ends every fault that has an end.
    pub(crate) fn heal(&self) {
        self.refuse(false);
        self.hole_for_all(Up, false);
        self.hole_for_all(Down, false);
        self.connections().iter().for_each(Connection::heal);
    }

    pub(crate) fn counts(&self) -> Counts {
        *lock(&self.shared.counts)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections are a JoinSet of this task, and go with it.
        self.task.abort();
    }
}

impl Connection {
    /// Relays so many octets more, and then closes both ways.
    pub(crate) fn cut_after(&self, direction: Direction, octets: u64) {
        self.change(direction, |faults| faults.cut_after = Some(octets));
    }

    /// Ends it by RST, both ways; what is under way is lost.
    pub(crate) fn reset(&self) {
        self.0.reset.notify_one();
    }

    /// Swallows everything in this direction, the end of the stream too. Where something was swallowed the end of the hole
    /// is a RST: what comes after a gap is nothing that TCP delivers.
    pub(crate) fn hole(&self, direction: Direction, on: bool) {
        self.change(direction, |faults| faults.hole = on);
        if !on {
            self.reset_if_gap(direction);
        }
    }

    /// What is read from now on arrives that much later.
    pub(crate) fn delay(&self, direction: Direction, delay: Duration) {
        self.change(direction, |faults| faults.delay = delay);
    }

    pub(crate) fn throttle(&self, direction: Direction, octets_per_second: Option<u32>) {
        self.change(direction, |faults| faults.octets_per_second = octets_per_second);
    }

    pub(crate) fn heal(&self) {
        for direction in [Up, Down] {
            self.change(direction, |faults| {
                *faults = Faults { cut_after: faults.cut_after, ..Faults::default() };
            });
            self.reset_if_gap(direction);
        }
    }

    /// Octets relayed, and how many of them are line feeds.
    pub(crate) fn relayed(&self, direction: Direction) -> (u64, u64) {
        let line = &self.0.lines[direction as usize];
        (line.octets.load(Relaxed), line.line_feeds.load(Relaxed))
    }

    /// Whether it is the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.has_ended.load(Relaxed)
    }

    fn reset_if_gap(&self, direction: Direction) {
        if self.0.lines[direction as usize].has_gap.load(Relaxed) {
            self.reset();
        }
    }

    fn change(&self, direction: Direction, change: impl FnOnce(&mut Faults)) {
        self.0.lines[direction as usize].faults.send_modify(change);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    loop {
        let client = select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(error) => panic!("the proxy cannot accept: {error}"),
            },
            Some(ended) = tasks.join_next() => {
                ended.expect("a connection's task does not panic");
                continue;
            }
        };
        if shared.refuses.load(Relaxed) {
            lock(&shared.counts).refused += 1;
            drop(client.set_zero_linger());
            continue;
        }
        lock(&shared.counts).accepted += 1;
        let line = |direction: Direction| Line {
            faults: watch::Sender::new(Faults {
                hole: shared.holes[direction as usize].load(Relaxed),
                ..Faults::default()
            }),
            octets: AtomicU64::new(0),
            line_feeds: AtomicU64::new(0),
            has_gap: AtomicBool::new(false),
        };
        let connection = Connection(Arc::new(Relayed {
            shared: Arc::clone(&shared),
            lines: [line(Up), line(Down)],
            reset: Notify::new(),
            has_ended: AtomicBool::new(false),
        }));
        lock(&shared.connections).push(connection.clone());
        tasks.spawn(async move {
            connection.run(client, target).await;
            connection.0.has_ended.store(true, Relaxed);
            lock(&connection.0.shared.connections).retain(|other| !Arc::ptr_eq(&other.0, &connection.0));
        });
    }
}

impl Connection {
    async fn run(&self, mut client: TcpStream, target: SocketAddr) {
        let Ok(Ok(mut server)) = timeout(LIMIT, TcpStream::connect(target)).await else { return };
        let is_reset = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let both = async {
                tokio::try_join!(
                    self.relay(Up, from_client, to_server),
                    self.relay(Down, from_server, to_client)
                )
            };
            select! {
                () = self.0.reset.notified() => true,
                _ = both => false,
            }
        };
        if is_reset {
            self.count(|counts| counts.resets += 1);
            drop((client.set_zero_linger(), server.set_zero_linger()));
        }
    }

    /// Relays one direction to its end. An error is the end of both.
    async fn relay(&self, direction: Direction, from: ReadHalf<'_>, to: WriteHalf<'_>) -> io::Result<()> {
        let line = &self.0.lines[direction as usize];
        let (sender, receiver) = mpsc::channel(QUEUE);
        let ((), ()) = tokio::try_join!(self.read(line, from, sender), self.write(line, to, receiver))?;
        Ok(())
    }

    async fn read(&self, line: &Line, mut from: ReadHalf<'_>, to: mpsc::Sender<Chunk>) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            // A connection that breaks looks like one that ends: the writer decides whether the other side hears of it.
            let n = from.read(&mut buffer).await.unwrap_or(0);
            let delay = line.faults.borrow().delay;
            if !delay.is_zero() {
                self.count(|counts| counts.delayed += 1);
            }
            let chunk = Chunk { due: Instant::now() + delay, octets: buffer[..n].to_vec() };
            if to.send(chunk).await.is_err() || n == 0 {
                return Ok(());
            }
        }
    }

    async fn write(
        &self,
        line: &Line,
        mut to: WriteHalf<'_>,
        mut from: mpsc::Receiver<Chunk>,
    ) -> io::Result<()> {
        while let Some(Chunk { due, octets }) = from.recv().await {
            sleep_until(due).await;
            if octets.is_empty() {
                let mut faults = line.faults.subscribe();
                // Nobody hears of the end as long as the hole is there.
                drop(timeout(LIMIT, faults.wait_for(|faults| !faults.hole)).await);
                return to.shutdown().await;
            }
            let Faults { hole, cut_after, octets_per_second, .. } = *line.faults.borrow();
            if hole {
                line.has_gap.store(true, Relaxed);
                self.count(|counts| counts.swallowed += octets.len() as u64);
                continue;
            }
            if line.has_gap.load(Relaxed) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let left = cut_after.map_or(octets.len(), |left| octets.len().min(left as usize));
            let relayed = &octets[..left];
            timeout(LIMIT, to.write_all(relayed)).await??;
            line.octets.fetch_add(left as u64, Relaxed);
            let line_feeds = relayed.iter().filter(|&&octet| octet == b'\n').count();
            line.line_feeds.fetch_add(line_feeds as u64, Relaxed);
            if left < octets.len() {
                self.count(|counts| counts.cuts += 1);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if cut_after.is_some() {
                let passed = left as u64;
                line.faults.send_modify(|faults| {
                    faults.cut_after = faults.cut_after.map(|left| left.saturating_sub(passed));
                });
            }
            if let Some(rate) = octets_per_second {
                self.count(|counts| counts.throttled += 1);
                sleep(Duration::from_secs_f64(left as f64 / f64::from(rate.max(1)))).await;
            }
        }
        Ok(())
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut lock(&self.0.shared.counts));
    }
}

struct Chunk {
    due: Instant,
    /// None at all at the end of the stream.
    octets: Vec<u8>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics under the lock")
}
