//! A TCP proxy on loopback between the edge and the broker that fails as networks do, when it is told to.
//!
//! Each direction of a connection has a reader and a writer with a bounded queue between them. The reader stamps what it
//! reads with the time at which it may go on (delay); the writer swallows it (black hole), relays a part of it and hangs
//! up (cut), or relays it and rests (throttle). It runs in a thread of its own and ends when it is dropped.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    ops::Deref,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Builder,
    select,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::Error;

/// For a connection to the target, and for a peer that takes nothing.
const LIMIT: Duration = Duration::from_secs(30);
/// One read. With [`QUEUE`] it bounds what is under way in a direction: 4 MiB, so that a delay of 40 ms leaves room for
/// 100 MB/s.
const CHUNK: usize = 64 * 1024;
const QUEUE: usize = 64;

/// The network between the edge and the broker.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    control: Control,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Makes the weather of a [`Proxy`], from wherever it is needed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control(Arc<watch::Sender<Weather>>);

/// What the network does at the moment. The default is that it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// New connections are reset, and so are those that there are.
    pub refuses: bool,
    /// What is sent either way disappears. When that ends the connection is reset: no TCP stream goes on after a gap.
    pub black_hole: bool,
    /// What is read arrives so much later, each way.
    pub delay: Duration,
    /// Octets that pass in a second, each way and each connection.
    pub octets_per_second: Option<u32>,
    /// Rises with each order to reset all connections.
    resets: u64,
    /// Rises with each order to hang up in the middle of what is sent to the broker next.
    cuts: u64,
}

impl Proxy {
    /// A proxy to `target`.
    ///
    /// # Errors
    /// When the system has no port or thread to give.
    pub fn start(target: SocketAddr) -> Result<Self, Error> {
        let listener = StdListener::bind(("127.0.0.1", 0)).map_err(Error::io("port for the proxy"))?;
        listener.set_nonblocking(true).map_err(Error::io("port for the proxy"))?;
        let address = listener.local_addr().map_err(Error::io("port for the proxy"))?;
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(Error::io("runtime for the proxy"))?;
        let weather = Arc::new(watch::Sender::new(Weather::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let theirs = Arc::clone(&weather);
        let serve = move || {
            runtime.block_on(async move {
                select! {
                    () = accept(listener, target, theirs) => {}
                    // Dropped or sent: either way it is over.
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new()
            .name("proxy".into())
            .spawn(serve)
            .map_err(Error::io("thread for the proxy"))?;
        Ok(Self { address, control: Control(weather), stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What makes its weather.
    pub fn control(&self) -> Control {
        self.control.clone()
    }
}

impl Deref for Proxy {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Control {
    /// Ends every fault that has an end.
    pub fn heal(&self) {
        self.change(|weather| {
            *weather = Weather { resets: weather.resets, cuts: weather.cuts, ..Weather::default() };
        });
    }

    /// Resets every connection, and new ones until [`Control::heal`].
    pub fn refuse(&self) {
        self.change(|weather| weather.refuses = true);
    }

    /// Swallows everything until [`Control::heal`].
    pub fn black_hole(&self) {
        self.change(|weather| weather.black_hole = true);
    }

    /// Delays both ways until [`Control::heal`].
    pub fn delay(&self, delay: Duration) {
        self.change(|weather| weather.delay = delay);
    }

    /// Slows both ways of each connection down until [`Control::heal`].
    pub fn throttle(&self, octets_per_second: u32) {
        self.change(|weather| weather.octets_per_second = Some(octets_per_second.max(1)));
    }

    /// Resets every connection, once.
    pub fn reset(&self) {
        self.change(|weather| weather.resets += 1);
    }

    /// Lets half of what each connection sends next to the broker pass, and hangs up.
    pub fn cut(&self) {
        self.change(|weather| weather.cuts += 1);
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.0.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported by its hook; dropping is no place to do more.
            thread.join().unwrap_or_default();
        }
    }
}

async fn accept(listener: StdListener, target: SocketAddr, weather: Arc<watch::Sender<Weather>>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    // The connections go with it.
    let mut connections = JoinSet::new();
    loop {
        select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) if weather.borrow().refuses => drop(client.set_zero_linger()),
                Ok((client, _)) => drop(connections.spawn(relay(client, target, weather.subscribe()))),
                // Out of file descriptors: some will come back.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(client: TcpStream, target: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let Ok(Ok(server)) = timeout(LIMIT, TcpStream::connect(target)).await else {
        // As if the broker itself had refused.
        return drop(client.set_zero_linger());
    };
    // Small frames must not wait for acknowledgements here; whether the peers do is theirs.
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let resets = weather.borrow().resets;
    let (up, down) = (weather.clone(), weather.clone());
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut halves = (Direction::new(true, up), Direction::new(false, down));
    let both = async {
        tokio::try_join!(halves.0.run(from_client, &to_server), halves.1.run(from_server, &to_client))
    };
    let is_reset = select! {
        told = weather.wait_for(|weather| weather.refuses || weather.resets != resets) => told.is_ok(),
        ended = both => matches!(ended, Err(Ended::Reset)),
    };
    if is_reset {
        drop((to_client.as_ref().set_zero_linger(), to_server.as_ref().set_zero_linger()));
        // Dropped they would say goodbye first.
        to_client.forget();
        to_server.forget();
    }
}

/// Why a direction ended before its stream did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Reset,
    HungUp,
}

/// One direction of one connection.
#[derive(Debug)]
struct Direction {
    is_up: bool,
    weather: watch::Receiver<Weather>,
    cuts: u64,
    has_gap: bool,
}

/// Octets and when they may go on; none at all at the end of the stream.
struct Chunk {
    due: Instant,
    octets: Vec<u8>,
}

impl Direction {
    fn new(is_up: bool, weather: watch::Receiver<Weather>) -> Self {
        let cuts = weather.borrow().cuts;
        Self { is_up, weather, cuts, has_gap: false }
    }

    async fn run(&mut self, from: OwnedReadHalf, to: &OwnedWriteHalf) -> Result<(), Ended> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let ((), ()) = tokio::try_join!(read(from, sender, self.weather.clone()), self.write(to, receiver))?;
        Ok(())
    }

    async fn write(&mut self, to: &OwnedWriteHalf, mut from: mpsc::Receiver<Chunk>) -> Result<(), Ended> {
        loop {
            let chunk = select! {
                chunk = from.recv() => chunk,
                // A gap has to be noticed when the hole ends, not when something more comes.
                Ok(_) = self.weather.wait_for(|weather| !weather.black_hole), if self.has_gap => {
                    return Err(Ended::Reset);
                }
            };
            let Some(Chunk { due, octets }) = chunk else { return Ok(()) };
            sleep_until(due).await;
            let weather = *self.weather.borrow();
            if weather.black_hole {
                self.has_gap = true;
                if !octets.is_empty() {
                    continue;
                }
                // Nobody hears of the end as long as the hole is there.
                drop(self.weather.wait_for(|weather| !weather.black_hole).await);
                return Err(Ended::Reset);
            }
            if octets.is_empty() {
                // Both ways are closed, which is all that the peers of this protocol understand.
                return Err(Ended::HungUp);
            }
            if self.is_up && weather.cuts != self.cuts {
                write_all(to, &octets[..octets.len() / 2]).await?;
                return Err(Ended::HungUp);
            }
            match weather.octets_per_second {
                None => write_all(to, &octets).await?,
                Some(rate) => self.write_slowly(to, &octets, rate).await?,
            }
        }
    }

    /// A little at a time, so that the pauses are short and the end of the throttle is noticed.
    async fn write_slowly(&self, to: &OwnedWriteHalf, octets: &[u8], rate: u32) -> Result<(), Ended> {
        const TICK: f64 = 0.01;
        let piece = ((f64::from(rate) * TICK) as usize).max(1);
        for octets in octets.chunks(piece) {
            write_all(to, octets).await?;
            if self.weather.borrow().octets_per_second.is_some() {
                sleep(Duration::from_secs_f64(octets.len() as f64 / f64::from(rate))).await;
            }
        }
        Ok(())
    }
}

async fn read(
    mut from: OwnedReadHalf,
    to: mpsc::Sender<Chunk>,
    weather: watch::Receiver<Weather>,
) -> Result<(), Ended> {
    let mut buffer = vec![0; CHUNK];
    loop {
        // A connection that breaks looks like one that ends: the writer decides whether the other side hears of it.
        let count = from.read(&mut buffer).await.unwrap_or(0);
        let due = Instant::now() + weather.borrow().delay;
        let chunk = Chunk { due, octets: buffer[..count].to_vec() };
        if to.send(chunk).await.is_err() || count == 0 {
            return Ok(());
        }
    }
}

async fn write_all(to: &OwnedWriteHalf, mut octets: &[u8]) -> Result<(), Ended> {
    let write = async {
        while !octets.is_empty() {
            to.writable().await?;
            match to.try_write(octets) {
                Ok(count) => octets = &octets[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    match timeout(LIMIT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Ended::HungUp),
    }
}

#[cfg(test)]
mod tests;
