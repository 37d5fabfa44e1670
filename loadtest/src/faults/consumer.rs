//! The far end: takes every message out of the queue, looks at every line, and only then acknowledges.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use memchr::memchr;
use stompwire::{
    Backoff,
    client::{BrokerUrl, Client, ConnectOptions, Message, Reconnect, Subscribe},
    proto::HeartBeat,
};
use tokio::{runtime::Builder, select, sync::watch, task::JoinSet};

use crate::{
    Error,
    faults::{
        book::{Bits, Shape},
        mark::{Damage, Reader},
    },
    http::worker::thread_died,
};

/// Connections, each with [`SUBSCRIPTIONS`].
const CONNECTIONS: usize = 2;
const SUBSCRIPTIONS: usize = 2;
/// Messages of up to 64 KiB on their way to each subscription.
const PREFETCH: u16 = 64;
/// For the goodbye of a connection.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// What came out of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Delivered {
    pub(crate) beacons: Bits,
    /// Lines, repeated ones included.
    pub(crate) lines: u64,
    pub(crate) messages: u64,
    /// Beacons that had come before.
    pub(crate) duplicates: u64,
    /// Lines that are not what was sent, or whose message says that there are more or fewer of them.
    pub(crate) corrupt: u64,
    /// Beacons that nobody has issued in this run.
    pub(crate) foreign: u64,
    /// The first thing that was wrong.
    pub(crate) example: Option<String>,
}

impl Delivered {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { beacons: Bits::new(shape.beacons()), ..Self::default() }
    }

    /// Takes the lines of one message apart. `count` is what its header says.
    pub(crate) fn take(&mut self, reader: &Reader, run: u32, shape: Shape, count: Option<&str>, body: &[u8]) {
        self.messages += 1;
        let mut rest = body;
        let mut lines = 0u64;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest);
            let (line, after) = match end {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, &rest[rest.len()..]),
            };
            rest = after;
            lines += 1;
            let mark = if end.is_some() { reader.read(line) } else { Err(Damage::Line) };
            match mark.map(|mark| (mark, (mark.run == run).then(|| shape.place(mark)).flatten())) {
                Ok((_, Some(place))) => self.duplicates += u64::from(self.beacons.set(place)),
                Ok((mark, None)) => {
                    self.foreign += 1;
                    self.note(|| format!("a beacon that was not issued here: {mark:?}"));
                }
                Err(damage) => {
                    self.corrupt += 1;
                    self.note(|| format!("{damage:?}: {}", String::from_utf8_lossy(line)));
                }
            }
        }
        self.lines += lines;
        if count.and_then(|count| count.parse().ok()) != Some(lines) {
            self.corrupt += 1;
            self.note(|| format!("a message of {lines} lines says beacon-count {count:?}"));
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        self.example.get_or_insert_with(what);
    }
}

/// A thread that consumes.
#[derive(Debug)]
pub(crate) struct Consumer {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<(), Error>>,
}

#[derive(Debug)]
struct Shared {
    run: u32,
    shape: Shape,
    reader: Reader,
    delivered: Mutex<Delivered>,
    lines: AtomicU64,
}

impl Consumer {
    /// Begins to consume `queue` of the brokers at `urls`, and comes back whenever one of them does.
    ///
    /// # Errors
    /// When there is no thread.
    pub(crate) fn start(urls: Vec<BrokerUrl>, queue: &str, run: u32, shape: Shape) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            run,
            shape,
            reader: Reader::default(),
            delivered: Mutex::new(Delivered::new(shape)),
            lines: AtomicU64::new(0),
        });
        let (stop, stopped) = watch::channel(false);
        let (theirs, destination) = (Arc::clone(&shared), format!("/amq/queue/{queue}"));
        let thread = thread::Builder::new()
            .name("consumer".into())
            .spawn(move || consume_all(urls, destination, theirs, stopped))
            .map_err(Error::io("thread for the consumer"))?;
        Ok(Self { shared, stop, thread })
    }

    /// Lines so far.
    pub(crate) fn lines(&self) -> u64 {
        self.shared.lines.load(Relaxed)
    }

    /// Ends it. What it has acknowledged is in the result.
    ///
    /// # Errors
    /// When its thread failed.
    pub(crate) fn finish(self) -> Result<Delivered, Error> {
        self.stop.send_replace(true);
        self.thread.join().map_err(|_| thread_died("it panicked"))??;
        Ok(std::mem::take(&mut *self.shared.delivered.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn consume_all(
    urls: Vec<BrokerUrl>,
    destination: String,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(Error::io("runtime for the consumer"))?;
    runtime.block_on(async {
        let mut options = ConnectOptions::default();
        options.session.heart_beat = HeartBeat::every(Duration::from_secs(2));
        options.session.receipt_timeout = Some(Duration::from_secs(5));
        let backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_millis(500) };
        let builder = Client::builder()
            .brokers(urls)
            .options(options)
            .reconnect(Reconnect::default().with_backoff(backoff));
        let mut clients = Vec::with_capacity(CONNECTIONS);
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let client = builder.clone().start().map_err(thread_died)?;
            for _ in 0..SUBSCRIPTIONS {
                tasks.spawn(consume(client.clone(), destination.clone(), Arc::clone(&shared), stop.clone()));
            }
            clients.push(client);
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(thread_died)?;
        }
        for client in clients {
            // A broker that is gone by now takes its connections with it.
            drop(client.close(CLOSE_LIMIT).await);
        }
        Ok(())
    })
}

/// One subscription, made anew as often as it ends.
async fn consume(client: Client, destination: String, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut stopped = std::pin::pin!(async move {
        // The sender is gone when the judge is: that ends it too.
        drop(stop.wait_for(|&stop| stop).await);
    });
    loop {
        let subscribe = Subscribe::to(destination.clone()).with_prefetch(PREFETCH);
        let mut messages = select! {
            subscribed = client.subscribe(subscribe) => match subscribed {
                Ok(messages) => messages,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stopped => return,
        };
        loop {
            let message = select! {
                message = messages.next() => message,
                () = &mut stopped => return,
            };
            let Some(Ok(message)) = message else { break };
            shared.take(&message);
            // A verdict that comes too late for its connection means that the message comes again.
            drop(messages.ack(&message).await);
        }
    }
}

impl Shared {
    fn take(&self, message: &Message) {
        let mut delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = message.frame();
        delivered.take(&self.reader, self.run, self.shape, frame.header("beacon-count"), frame.body());
        self.lines.store(delivered.lines, Relaxed);
    }
}
