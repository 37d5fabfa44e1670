use std::{sync::Arc, time::Instant};

use stompwire::publisher::{Outcome, Outcomes};
use tokio::sync::watch;

use super::{Readings, parcel::Parcel, put_away::put_away};
use crate::{
    batch::Batch,
    ledger::{DropReason, Ledger},
    spool::Spool,
    ticket::Ticket,
};

/// Outcomes taken at once.
const AT_ONCE: usize = 256;

/// Where the outcomes of one destination go.
pub(super) struct Recorder {
    pub(super) name: String,
    pub(super) ledger: Arc<Ledger>,
    pub(super) readings: Arc<Readings>,
    pub(super) spool: Option<Spool>,
    /// By when everything must be told, once it is known.
    pub(super) deadline: watch::Receiver<Option<Instant>>,
}

impl Recorder {
    /// Takes outcomes until the publisher is closed, then puts into the spool what was not confirmed and is not there.
    pub(super) async fn run(self, mut outcomes: Outcomes<Parcel>) {
        let mut some = Vec::with_capacity(AT_ONCE);
        // At most what fits into the publisher's windows.
        let mut left = Vec::new();
        while outcomes.recv_many(&mut some, AT_ONCE).await > 0 {
            for outcome in some.drain(..) {
                left.extend(self.record(outcome));
            }
        }
        let Some(spool) = &self.spool else { return };
        let until = self.deadline.borrow().unwrap_or_else(Instant::now);
        put_away(spool, left, until, |count, reason, is_kept| {
            if is_kept { self.ledger.give_back(count) } else { self.ledger.drop_beacons(reason, count) }
        })
        .await;
    }

    /// Records one outcome. Returns the batch if it is neither confirmed nor anywhere but here, and why it will be dropped
    /// if it cannot be put elsewhere.
    fn record(&self, outcome: Outcome<Parcel>) -> Option<(Batch, DropReason)> {
        let destination = &self.name;
        match outcome {
            Outcome::Confirmed { token, latency, .. } => {
                self.readings.publish_seconds.observe(latency.as_secs_f64());
                self.remove(&token);
                self.ledger.confirm(token.batch.count);
                token.batch.tickets.into_iter().for_each(Ticket::resolve);
                None
            }
            Outcome::Abandoned { token, attempts } => {
                let reason =
                    if attempts == 0 { DropReason::ShutdownUnsent } else { DropReason::ShutdownInFlight };
                match (&self.spool, token.row) {
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
                self.drop_for(DropReason::Unencodable, &token);
                None
            }
            Outcome::GivenUp { token, attempts, error } => {
                let beacons = token.batch.count;
                tracing::error!(
                    destination,
                    beacons,
                    attempts,
                    error,
                    "a batch was given up: it cost the connection each time it was sent"
                );
                self.drop_for(DropReason::GivenUp, &token);
                None
            }
            // The enum may grow; an outcome not known here must not lose its beacons from the account.
            other => {
                tracing::error!(destination, ?other, "an unknown outcome was not counted");
                None
            }
        }
    }

    fn drop_for(&self, reason: DropReason, parcel: &Parcel) {
        self.ledger.drop_beacons(reason, parcel.batch.count);
        self.remove(parcel);
    }

    fn remove(&self, parcel: &Parcel) {
        if let (Some(spool), Some(row)) = (&self.spool, parcel.row) {
            spool.remove(row);
            self.readings.removed();
        }
    }
}
