use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    select,
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    roster::{Claim, Place, Reading, Roster},
    status::BrokerStatus,
};
use crate::{
    Backoff,
    client::{BrokerUrl, Client, ConnectOptions, ConnectionError},
    proto::Time,
};

/// The longest pause before a connection that was lost is made elsewhere: enough for many of them not to come together,
/// too little to matter.
const FAILOVER: Duration = Duration::from_millis(100);

/// The roster with a clock, for tasks. What a task holds of it goes back when it is dropped, so a task that is
/// cancelled anywhere leaves the roster right.
pub(crate) struct Seats {
    brokers: Vec<BrokerUrl>,
    backoff: Backoff,
    roster: Mutex<Roster>,
    /// What each broker's latest failure was.
    errors: Mutex<Vec<Option<String>>>,
    changed: Notify,
    origin: Instant,
}

/// Leave to make one attempt at a broker.
pub(crate) struct Attempt {
    seats: Arc<Seats>,
    place: Option<Place>,
}

/// A connection's place at a broker.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    place: Place,
    since: Instant,
    proved: bool,
    blocked: bool,
    lost: bool,
}

/// A move on its way; there is one at a time. Over when it is dropped.
pub(crate) struct Move {
    seats: Arc<Seats>,
}

impl Seats {
    pub(crate) fn new(brokers: Vec<BrokerUrl>, backoff: Backoff, rebalance: Option<Duration>) -> Self {
        let roster = Roster::new(brokers.len(), backoff, rebalance, fastrand::Rng::new());
        Self {
            errors: Mutex::new(vec![None; brokers.len()]),
            brokers,
            backoff,
            roster: Mutex::new(roster),
            changed: Notify::new(),
            origin: Instant::now(),
        }
    }

    /// Waits for leave to make an attempt: at once if a broker is good, until a pause has passed or an attempt of
    /// another seat has ended otherwise. Cancel safe.
    pub(crate) async fn claim(self: &Arc<Self>) -> Attempt {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let claim = self.roster().claim(self.now());
            match claim {
                Claim::Try(place) => return Attempt { seats: Arc::clone(self), place: Some(place) },
                Claim::Wait(Some(until)) => select! {
                    () = changed => {}
                    () = sleep_until(self.origin + until) => {}
                },
                Claim::Wait(None) => changed.await,
            }
        }
    }

    /// A short pause before a connection is replaced.
    pub(crate) fn failover_pause(&self) -> Duration {
        self.backoff.min.min(FAILOVER).mul_f64(fastrand::f64())
    }

    /// What is known of each broker, in the order in which they were given.
    pub(crate) fn readings(&self) -> Vec<BrokerStatus> {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let readings: Vec<Reading> = self.roster().readings().collect();
        let status = |((url, reading), last_error): ((&BrokerUrl, Reading), _)| BrokerStatus {
            broker: url.to_string(),
            connections: reading.seats,
            blocked: reading.blocked,
            good: reading.good,
            failures: reading.failures,
            failures_total: reading.epoch,
            last_error,
        };
        self.brokers.iter().zip(readings).zip(errors).map(status).collect()
    }

    fn note(&self, broker: usize, cause: &ConnectionError) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = errors.get_mut(broker) {
            *error = Some(cause.to_string());
        }
    }

    fn now(&self) -> Time {
        self.origin.elapsed()
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        // No code that can panic runs under the lock.
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    pub(crate) fn broker(&self) -> Option<&BrokerUrl> {
        self.place.and_then(|place| self.seats.brokers.get(place.broker))
    }

    /// Connects, and tells the roster what came of it. Cancel safe: the attempt is given up.
    pub(crate) async fn connect(
        mut self,
        options: ConnectOptions,
    ) -> Result<(Client, Seat), ConnectionError> {
        // Neither can be missing before this function has run.
        let Some(broker) = self.broker() else { return Err(ConnectionError::ClosedByUs) };
        let result = Client::connect(broker, options).await;
        let Some(place) = self.place.take() else { return Err(ConnectionError::ClosedByUs) };
        let seats = Arc::clone(&self.seats);
        let result = match result {
            Ok(client) => {
                let place = seats.roster().connected(place);
                let since = Instant::now();
                let seats = Arc::clone(&seats);
                Ok((client, Seat { seats, place, since, proved: false, blocked: false, lost: false }))
            }
            Err(cause) => {
                seats.note(place.broker, &cause);
                seats.roster().refused(place, seats.now());
                Err(cause)
            }
        };
        seats.changed.notify_waiters();
        result
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.seats.roster().abandoned(place);
            self.seats.changed.notify_waiters();
        }
    }
}

impl Seat {
    pub(crate) fn broker(&self) -> Option<&BrokerUrl> {
        self.seats.brokers.get(self.place.broker)
    }

    /// The broker did what it is for.
    pub(crate) fn prove(&mut self) {
        if !self.proved {
            self.proved = true;
            self.seats.roster().proved(self.place);
        }
    }

    /// To be called now and then: a connection that has lived for as long as the longest pause proves its broker.
    pub(crate) fn age(&mut self) {
        if self.since.elapsed() >= self.seats.backoff.max {
            self.prove();
        }
    }

    /// The broker takes nothing at present, or does again.
    pub(crate) fn set_blocked(&mut self, blocked: bool) {
        if self.blocked != blocked {
            self.blocked = blocked;
            self.seats.roster().blocked(self.place, blocked);
            self.seats.changed.notify_waiters();
        }
    }

    /// Whether to move, and leave to try the better place.
    pub(crate) fn propose_move(&self) -> Option<(Attempt, Move)> {
        let seats = &self.seats;
        let place = seats.roster().propose_move(self.place, seats.now())?;
        let attempt = Attempt { seats: Arc::clone(seats), place: Some(place) };
        Some((attempt, Move { seats: Arc::clone(seats) }))
    }

    /// The connection was lost.
    pub(crate) fn lost(mut self, cause: &ConnectionError) {
        self.seats.note(self.place.broker, cause);
        self.lost = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.set_blocked(false);
        let mut roster = self.seats.roster();
        if self.lost {
            roster.lost(self.place, self.seats.now());
        } else {
            roster.left(self.place);
        }
        drop(roster);
        self.seats.changed.notify_waiters();
    }
}

impl Drop for Move {
    fn drop(&mut self) {
        self.seats.roster().move_ended(self.seats.now());
    }
}

impl fmt::Debug for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seats").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}
