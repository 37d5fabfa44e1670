use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::pool::{BrokerStatus, Seats};

/// Where a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LaneState {
    /// On its way to a broker.
    Connecting,
    /// Connected and taking messages.
    Connected,
    /// Connected, but receipts have dried up while heart-beats come: RabbitMQ does so under a memory or disk alarm. No
    /// more messages are sent, and the connection is kept, since a new one would push more into the broker.
    ///
    /// Entered two of the server's heart-beat periods after the last sign of progress: time for a broker that lives to
    /// have shown it. Not before 1 s, which a slow disk may take to confirm; after 5 s at the latest. Left with the next
    /// receipt.
    Blocked,
    /// No broker may be tried at present: each has failed and has its pause, or is being tried by another lane.
    BackingOff,
    /// The publisher was closed.
    Closed,
}

impl LaneState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Connecting, Self::Connected, Self::Blocked, Self::BackingOff, Self::Closed];

    /// A word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Blocked => "blocked",
            Self::BackingOff => "backing_off",
            Self::Closed => "closed",
        }
    }
}

/// One lane's reading.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LaneStatus {
    /// The broker it is at or was last tried at, without its password; empty before the first attempt.
    pub broker: String,
    /// Where it stands.
    pub state: LaneState,
    /// Since when.
    pub since: Instant,
    /// Why the last connection ended or was not made; `None` once connected.
    pub last_error: Option<String>,
    /// Messages sent and not receipted.
    pub in_flight: u64,
    /// Octets of their bodies.
    pub in_flight_bytes: u64,
    /// When the oldest of them was sent. While it grows old the broker is slow, blocked, or gone.
    pub oldest_sent: Option<Instant>,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Connections made.
    pub connects: u64,
    /// Connections lost, and attempts that failed.
    pub failures: u64,
    /// Messages confirmed.
    pub confirmed: u64,
    /// Messages sent again after their connection was lost: the broker may have them twice.
    pub resent: u64,
    /// Lanes moved to a broker that had come back.
    pub rebalanced: u64,
    /// Messages given up because each attempt cost a connection. See
    /// [`PublisherOptions::max_attempts`](super::PublisherOptions::max_attempts).
    pub given_up: u64,
}

/// Readings that outlive the publisher.
#[derive(Debug)]
pub struct Board {
    lanes: Mutex<Vec<LaneStatus>>,
    seats: Arc<Seats>,
    connects: AtomicU64,
    failures: AtomicU64,
    confirmed: AtomicU64,
    resent: AtomicU64,
    rebalanced: AtomicU64,
    given_up: AtomicU64,
}

impl Board {
    pub(super) fn new(lanes: usize, seats: Arc<Seats>) -> Self {
        let lane = LaneStatus {
            broker: String::new(),
            state: LaneState::Connecting,
            since: Instant::now(),
            last_error: None,
            in_flight: 0,
            in_flight_bytes: 0,
            oldest_sent: None,
        };
        Self {
            lanes: Mutex::new(vec![lane; lanes]),
            seats,
            connects: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            rebalanced: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
        }
    }

    /// Where each lane stands.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneStatus> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a lane takes messages now.
    #[must_use]
    pub fn takes(&self) -> bool {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().any(|lane| lane.state == LaneState::Connected)
    }

    /// What is known of each broker, in the order of the options.
    #[must_use]
    pub fn brokers(&self) -> Vec<BrokerStatus> {
        self.seats.readings()
    }

    /// Counts since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            connects: self.connects.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            confirmed: self.confirmed.load(Ordering::Relaxed),
            resent: self.resent.load(Ordering::Relaxed),
            rebalanced: self.rebalanced.load(Ordering::Relaxed),
            given_up: self.given_up.load(Ordering::Relaxed),
        }
    }

    pub(super) fn update(&self, lane: usize, change: impl FnOnce(&mut LaneStatus)) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = lanes.get_mut(lane) {
            change(status);
        }
    }

    /// Sets a lane's state, and the time if it is another one.
    pub(super) fn enter(&self, lane: usize, state: LaneState) {
        self.update(lane, |status| {
            if status.state != state {
                status.state = state;
                status.since = Instant::now();
            }
            if matches!(state, LaneState::Connected) {
                status.last_error = None;
            }
        });
    }

    pub(super) fn connected(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn confirmed(&self) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn resent(&self) {
        self.resent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn rebalanced(&self) {
        self.rebalanced.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn given_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }
}
