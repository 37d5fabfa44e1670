//! Confirmed publishing over several connections: each message is kept until its own RECEIPT, and sent again with the
//! same `amqp-message-id` when its connection is lost before that.
//!
//! ```text
//!  publish ──▶ backlog (bounded by the windows) ──▶ lane 1 ── connection ──▶ broker
//!                   ▲                            ├─▶ lane 2 ── connection ──▶ broker
//!                   └──── unreceipted, on loss ──┘
//! ```
//!
//! A lane is one connection and what it takes to have one: it claims a place at a broker as the connections of a
//! [`pool`](crate::pool) do, and *pulls* messages while its window has room. A lane whose broker is gone, or blocked,
//! pulls nothing, so the others carry the load without anyone deciding so. When a broker has come back, a lane connects
//! there, takes nothing more over its old connection, waits for the receipts and changes over.
//!
//! A message that costs the connection each time it is sent is isolated, and given up if that is wished: see
//! [`PublisherOptions::max_attempts`].

mod alarm;
mod backlog;
mod flight;
mod lane;
mod options;
mod shared;
mod status;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use self::{lane::Lane, shared::Shared};
use crate::{Headers, proto::EncodeError};

pub use crate::backoff::Backoff;
pub use options::PublisherOptions;
pub use status::{Board, LaneState, LaneStatus, Totals};

/// One loss is bad luck; a message that is there again at the next one is worth a closer look.
const SUSPECT_AFTER: u32 = 2;

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Message<T> {
    /// Stable over every re-send: the header `amqp-message-id`, by which consumers recognise duplicates.
    pub id: String,
    /// Headers besides the constant ones of [`PublisherOptions`].
    pub headers: Headers,
    /// The body.
    pub body: bytes::Bytes,
    /// What comes back with the outcome.
    pub token: T,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome<T> {
    /// Its RECEIPT came.
    Confirmed {
        /// The message's token.
        token: T,
        /// From the last time it was handed to a connection to its RECEIPT.
        latency: Duration,
        /// How many times it was handed to a connection; above 1 the broker may have it twice.
        attempts: u32,
    },
    /// The publisher was closed before the RECEIPT came.
    Abandoned {
        /// The message's token.
        token: T,
        /// Whether it was ever handed to a connection, so that the broker may have it.
        attempts: u32,
    },
    /// It cost its connection each time it was sent, at the last alone, and others passed: see [`PublisherOptions::max_attempts`]. A broker
    /// may have it nevertheless.
    GivenUp {
        /// The message's token.
        token: T,
        /// How many times it was handed to a connection.
        attempts: u32,
        /// How the last connection ended, in the server's words if it had any.
        error: String,
    },
    /// It can never be sent: the caller's mistake.
    Unencodable {
        /// The message's token.
        token: T,
        /// What is wrong with it.
        error: EncodeError,
    },
}

/// A message with its place in the windows.
#[derive(Debug)]
struct Retained<T> {
    message: Message<T>,
    attempts: u32,
    /// Connections lost while it was in flight.
    losses: u32,
    /// How many messages had been confirmed at the last of them.
    confirmed_then: u64,
    sent_at: Instant,
    _room: [OwnedSemaphorePermit; 2],
}

/// The publisher was closed; here is the message.
#[derive(Debug, Clone)]
pub struct Closed<T>(pub Message<T>);

/// Publishes messages over a pool of connections. See the module's text.
#[derive(Debug)]
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    frames: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    window_bytes: u32,
    closing: watch::Sender<bool>,
    lanes: JoinSet<()>,
}

/// Room in the windows for one message. Dropped, it is given back.
#[derive(Debug)]
pub struct Place<'a, T> {
    publisher: &'a Publisher<T>,
    octets: usize,
    room: [OwnedSemaphorePermit; 2],
}

/// Where the outcomes arrive. It must be read: when its buffer (one window) is full, the lanes wait.
pub type Outcomes<T> = mpsc::Receiver<Outcome<T>>;

impl<T: Send + 'static> Publisher<T> {
    /// Starts the lanes on the current tokio runtime. They connect at once and keep trying.
    ///
    /// # Errors
    /// Constant headers that no version can encode.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(options: PublisherOptions) -> Result<(Self, Outcomes<T>), EncodeError> {
        options.check_headers()?;
        let lanes = options.connections.max(1);
        let window = options.connect.window;
        let frames = (window.frames.max(1) * lanes).min(Semaphore::MAX_PERMITS);
        let window_bytes = window.bytes.saturating_mul(lanes).clamp(1, u32::MAX as usize) as u32;
        let (outcomes, receiver) = mpsc::channel(frames.min(4096));
        let (closing, watch_closing) = watch::channel(false);
        let shared = Arc::new(Shared::new(options, outcomes));
        let mut tasks = JoinSet::new();
        for index in 0..lanes {
            tasks.spawn(Lane::new(index, Arc::clone(&shared), watch_closing.clone()).run());
        }
        let publisher = Self {
            shared,
            frames: Arc::new(Semaphore::new(frames)),
            bytes: Arc::new(Semaphore::new(window_bytes as usize)),
            window_bytes,
            closing,
            lanes: tasks,
        };
        Ok((publisher, receiver))
    }

    /// Takes a message, waiting for room in the windows. Cancel safe: taken or not at all (and then lost with the
    /// future: keep a clone, or do not cancel).
    ///
    /// A message longer than all windows together is taken when they are empty.
    ///
    /// # Errors
    /// [`Closed`] hands the message back.
    pub async fn publish(&self, message: Message<T>) -> Result<(), Closed<T>> {
        match self.reserve(message.body.len()).await {
            Some(place) => place.publish(message),
            None => return Err(Closed(message)),
        }
        Ok(())
    }

    /// Waits for a place for a message whose body has `octets`; `None` once the publisher is closed. Cancel safe: nothing
    /// is held. Whoever waits is served in order.
    pub async fn reserve(&self, octets: usize) -> Option<Place<'_, T>> {
        let frames = Arc::clone(&self.frames).acquire_owned().await.ok()?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(self.permits(octets)).await.ok()?;
        Some(Place { publisher: self, octets, room: [frames, bytes] })
    }

    /// A place for a message whose body has `octets`, if there is one now.
    #[must_use]
    pub fn try_reserve(&self, octets: usize) -> Option<Place<'_, T>> {
        let frames = Arc::clone(&self.frames).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(self.permits(octets)).ok()?;
        Some(Place { publisher: self, octets, room: [frames, bytes] })
    }

    fn permits(&self, octets: usize) -> u32 {
        u32::try_from(octets).unwrap_or(u32::MAX).min(self.window_bytes)
    }

    /// Where each lane stands.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneStatus> {
        self.shared.board.lanes()
    }

    /// A handle to the same readings that can outlive the publisher.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.shared.board)
    }

    /// Takes no more messages, waits until all are confirmed (at most `deadline`), disconnects, and ends every task.
    /// What is not confirmed by then comes as [`Outcome::Abandoned`]. Read the outcomes meanwhile; they end when all is
    /// told. Not cancel safe: the lanes are stopped when the future is dropped, and what was pending is not told.
    pub async fn close(mut self, deadline: Duration) {
        self.frames.close();
        self.bytes.close();
        self.shared.backlog.finish();
        let drained = timeout(deadline, async { while self.lanes.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            // The lanes stop at once, and tell what they hold.
            self.closing.send_replace(true);
            while self.lanes.join_next().await.is_some() {}
        }
        for retained in self.shared.backlog.take_all() {
            self.shared.abandon(retained).await;
        }
    }
}

impl<'a, T: Send + 'static> Place<'a, T> {
    /// Publishes the message. Its body should not be longer than was said.
    pub fn publish(self, message: Message<T>) {
        let (publisher, retained) = self.retain(message);
        publisher.shared.backlog.push(retained);
    }

    /// Publishes the message behind all others that are not sent yet, those that are published later too.
    pub fn publish_behind(self, message: Message<T>) {
        let (publisher, retained) = self.retain(message);
        publisher.shared.backlog.push_behind(retained);
    }

    fn retain(self, message: Message<T>) -> (&'a Publisher<T>, Retained<T>) {
        debug_assert!(message.body.len() <= self.octets, "a place for fewer octets");
        let retained = Retained {
            message,
            attempts: 0,
            losses: 0,
            confirmed_then: 0,
            sent_at: Instant::now(),
            _room: self.room,
        };
        (self.publisher, retained)
    }
}

impl<T> Retained<T> {
    /// Whether it may be what kills its connections. Such a one is sent alone.
    fn is_suspect(&self) -> bool {
        self.losses >= SUSPECT_AFTER
    }
}
