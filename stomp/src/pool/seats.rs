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
    errors: Mutex<Vec<Option<Failure>>>,
    changed: Notify,
    origin: Instant,
}

#[derive(Debug, Clone)]
struct Failure {
    words: String,
    /// The server gave a reason.
    is_reason: bool,
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
        let status = |((url, reading), failure): ((&BrokerUrl, Reading), Option<Failure>)| BrokerStatus {
            broker: url.to_string(),
            connections: reading.seats,
            blocked: reading.blocked,
            good: reading.good,
            failures: reading.failures,
            failures_total: reading.epoch,
            last_error: failure.map(|failure| failure.words),
        };
        self.brokers.iter().zip(readings).zip(errors).map(status).collect()
    }

    /// Keeps what a failure was, to be called before it is counted. RabbitMQ gives the reason of a refusal in one ERROR
    /// and none in the next: as long as it fails, none does not take the place of one.
    fn note(&self, broker: usize, cause: &ConnectionError) {
        let fails = self.roster().readings().nth(broker).is_some_and(|reading| reading.failures > 0);
        let is_error = matches!(cause, ConnectionError::ServerError(_));
        let is_reason = is_error && !is_without_reason(cause);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(latest) = errors.get_mut(broker) else { return };
        let is_known = fails && latest.as_ref().is_some_and(|failure| failure.is_reason);
        if !(is_known && is_error && !is_reason) {
            *latest = Some(Failure { words: cause.to_string(), is_reason });
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

/// Whether this is what RabbitMQ 3.10 says now and then instead of the reason, when another frame follows the one that
/// it fails at.
fn is_without_reason(cause: &ConnectionError) -> bool {
    matches!(cause, ConnectionError::ServerError(frame) if frame.header("message") == Some("Processing error"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Frame};

    fn refusal(message: &str) -> ConnectionError {
        ConnectionError::ServerError(Arc::new(Frame::new(Command::Error).with_header("message", message)))
    }

    #[tokio::test]
    async fn as_long_as_a_broker_fails_its_reason_is_not_forgotten_for_an_error_without_one() {
        let seats = Seats::new(vec!["stomp://127.0.0.1:1".parse().unwrap()], Backoff::default(), None);
        let fails = |cause: &ConnectionError| {
            seats.note(0, cause);
            let Claim::Try(place) = seats.roster().claim(seats.now() + Duration::from_secs(3600)) else {
                panic!("no attempt after an hour")
            };
            seats.roster().refused(place, seats.now());
            seats.readings()[0].last_error.clone().unwrap()
        };
        let (vague, missing) = (refusal("Processing error"), refusal("not_found"));
        assert!(fails(&vague).contains("Processing error"));
        assert!(fails(&missing).contains("not_found"));
        assert!(fails(&vague).contains("not_found"));
        assert!(fails(&refusal("access_refused")).contains("access_refused"), "another reason");
        assert!(fails(&ConnectionError::ClosedByServer).contains("closed"));
        assert!(fails(&vague).contains("Processing error"), "no reason is known of what it says now");

        assert!(fails(&missing).contains("not_found"));
        let Claim::Try(place) = seats.roster().claim(seats.now() + Duration::from_secs(3600)) else {
            panic!("no attempt after an hour")
        };
        let place = seats.roster().connected(place);
        seats.roster().proved(place);
        assert!(fails(&vague).contains("Processing error"), "it has worked meanwhile");
    }
}
