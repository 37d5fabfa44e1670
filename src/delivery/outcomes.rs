use std::{sync::Arc, time::Instant};

use stompwire::publisher::{Outcome, Outcomes};
use tokio::{
    select,
    sync::watch,
    task::{JoinError, JoinSet},
    time::timeout_at,
};

use super::{Readings, flights::Flights, parcel::Parcel, put_away::put_away};
use crate::{
    batch::Batch,
    dead_letter::{DeadLetter, DeadLetterError, DeadLetters},
    ledger::{DropReason, Ledger},
    spool::{Row, Spool},
    ticket::Ticket,
};

/// Outcomes taken at once.
const AT_ONCE: usize = 256;

/// Dead letters being written at once; above that outcomes wait.
const MOST_LETTERS: usize = 16;

/// Dead letters that are being written.
#[derive(Default)]
struct Letters {
    tasks: JoinSet<Letter>,
    /// Their beacons.
    beacons: u64,
}

struct Letter {
    count: u64,
    row: Option<Row>,
    written: Result<(), DeadLetterError>,
}

/// Where the outcomes of one destination go.
pub(super) struct Recorder {
    pub(super) name: String,
    pub(super) ledger: Arc<Ledger>,
    pub(super) readings: Arc<Readings>,
    pub(super) spool: Option<Spool>,
    /// What the publisher took without a row, if there is a spool.
    pub(super) flights: Flights,
    pub(super) dead_letters: DeadLetters,
    /// By when everything must be told, once it is known.
    pub(super) deadline: watch::Receiver<Option<Instant>>,
}

impl Recorder {
    /// Takes outcomes until the publisher is closed, then puts into the spool what was not confirmed and is not there.
    pub(super) async fn run(self, mut outcomes: Outcomes<Parcel>) {
        let mut some = Vec::with_capacity(AT_ONCE);
        // At most what fits into the publisher's windows.
        let mut left = Vec::new();
        let mut letters = Letters::default();
        loop {
            let taken = select! {
                biased;
                Some(written) = letters.tasks.join_next() => {
                    self.written(&mut letters, written);
                    continue;
                }
                taken = outcomes.recv_many(&mut some, AT_ONCE), if letters.tasks.len() < MOST_LETTERS => taken,
            };
            if taken == 0 {
                break;
            }
            for outcome in some.drain(..) {
                left.extend(self.record(outcome, &mut letters));
            }
        }
        let until = self.deadline.borrow().unwrap_or_else(Instant::now);
        while let Ok(Some(written)) = timeout_at(until.into(), letters.tasks.join_next()).await {
            self.written(&mut letters, written);
        }
        self.ledger.drop_beacons(DropReason::GivenUp, letters.beacons);
        let Some(spool) = &self.spool else { return };
        put_away(spool, left, until, |count, reason, is_kept| {
            if is_kept { self.ledger.give_back(count) } else { self.ledger.drop_beacons(reason, count) }
        })
        .await;
    }

    /// A dead letter is written, or cannot be: either way its batch leaves the spool.
    fn written(&self, letters: &mut Letters, written: Result<Letter, JoinError>) {
        // After a panic it is among those that are counted at the end.
        let Ok(Letter { count, row, written }) = written else { return };
        letters.beacons -= count;
        let reason = match written {
            Ok(()) => DropReason::DeadLettered,
            Err(_) => DropReason::GivenUp,
        };
        self.ledger.drop_beacons(reason, count);
        self.remove(row);
    }

    /// Records one outcome. Returns the batch if it is neither confirmed nor anywhere but here, and why it will be dropped
    /// if it cannot be put elsewhere.
    fn record(&self, outcome: Outcome<Parcel>, letters: &mut Letters) -> Option<(Batch, DropReason)> {
        let destination = &self.name;
        match outcome {
            Outcome::Confirmed { token, latency, .. } => {
                self.readings.publish_seconds.observe(latency.as_secs_f64());
                self.remove(self.row(&token));
                self.ledger.confirm(token.batch.count);
                token.batch.tickets.into_iter().for_each(Ticket::resolve);
                None
            }
            Outcome::Abandoned { token, attempts } => {
                let reason =
                    if attempts == 0 { DropReason::ShutdownUnsent } else { DropReason::ShutdownInFlight };
                match (&self.spool, self.row(&token)) {
                    (Some(_), Some(_)) => self.ledger.give_back(token.batch.count),
                    (Some(_), None) => return Some((token.batch, reason)),
                    (None, _) => self.ledger.drop_beacons(reason, token.batch.count),
                }
                None
            }
            Outcome::Unencodable { token, error } => {
                let beacons = token.batch.count;
                tracing::error!(
                    destination,
                    beacons,
                    %error,
                    "a batch cannot be sent; this is a defect in beacon-edge, please report it"
                );
                self.ledger.drop_beacons(DropReason::Unencodable, beacons);
                self.remove(self.row(&token));
                None
            }
            Outcome::GivenUp { token, attempts, error } => {
                let row = self.row(&token);
                let Batch { id, body, count, .. } = token.batch;
                tracing::error!(
                    destination,
                    batch = %id,
                    beacons = count,
                    attempts,
                    error,
                    file = %self.dead_letters.path().display(),
                    "a batch was given up: it cost the connection each time it was sent; it goes to the dead letters"
                );
                letters.beacons += count;
                let dead_letters = self.dead_letters.clone();
                letters.tasks.spawn(async move {
                    let letter = DeadLetter { id, count, body, attempts, error };
                    Letter { count, row, written: dead_letters.set_aside(letter).await }
                });
                None
            }
            // The enum may grow; an outcome not known here must not lose its beacons from the account.
            other => {
                tracing::error!(destination, ?other, "an unknown outcome was not counted");
                None
            }
        }
    }

    /// Where the batch of an outcome is in the spool, if it is. To be asked once.
    fn row(&self, parcel: &Parcel) -> Option<Row> {
        self.spool.as_ref()?;
        parcel.row.or_else(|| self.flights.end(parcel.batch.id))
    }

    fn remove(&self, row: Option<Row>) {
        if let (Some(spool), Some(row)) = (&self.spool, row) {
            spool.remove(row);
            self.readings.removed();
        }
    }
}
