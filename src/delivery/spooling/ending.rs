//! The end of everything: what is in hand goes to the brokers or into the spool, or is counted as dropped.

use std::time::{Duration, Instant};

use stompwire::publisher::{LaneState, Publisher};
use tokio::{task::JoinError, time::timeout_at};

use super::{Appended, Carrier, Held, forget_spooled};
use crate::{
    batch::Batch,
    delivery::{parcel::Parcel, put_away::put_away},
    ledger::DropReason,
    spool::Row,
    ticket::Ticket,
};

/// The part of the time for a shutdown that is kept for writing what was not confirmed, and its bound.
const LAST_WRITES: u32 = 4;
const MOST_LAST_WRITES: Duration = Duration::from_secs(2);

/// When to begin with the last writes.
pub(super) fn last_writes(until: Instant) -> Instant {
    let left = until.saturating_duration_since(Instant::now());
    until - (left / LAST_WRITES).min(MOST_LAST_WRITES)
}

impl Carrier {
    /// No more fresh batches: sends what there is room for, and puts the others into the spool. Returns how long to wait
    /// for receipts.
    pub(super) async fn finish(
        &mut self,
        publisher: &Publisher<Parcel>,
        until: Instant,
        in_time: bool,
    ) -> Duration {
        let name = self.delivered.name.clone();
        self.delivered.batches.close();
        let mut left = Vec::new();
        for Held { batch, row, .. } in std::mem::take(&mut self.held) {
            left.extend(self.last_offer(publisher, in_time, batch, row));
        }
        while let Some(batch) = self.delivered.batches.recv().await {
            left.push(batch);
        }
        // A disk that does not answer must not keep from the brokers what they can still take, nor the time to confirm it.
        let now = Instant::now();
        let enough = now + until.saturating_duration_since(now) / 2;
        while let Ok(Some(ended)) = timeout_at(enough.into(), self.appends.join_next()).await {
            left.extend(self.last_appended(publisher, in_time, ended));
        }
        drop(self.patience.take());
        while let Some(ended) = self.appends.join_next().await {
            left.extend(self.last_appended(publisher, in_time, ended));
        }
        // What has no row then is put away when the publisher gives it back.
        while let Some(copied) = self.copies.next_until(until).await {
            self.copied(copied);
        }
        let ledger = &self.delivered.ledger;
        for (_, count) in self.appending.drain(..) {
            ledger.drop_beacons(DropReason::ShutdownInBatch, count);
        }
        let left = left.into_iter().map(|batch| (batch, DropReason::ShutdownInBatch)).collect();
        put_away(&self.spool, left, until, |count, reason, is_kept| {
            if is_kept { ledger.spool(count) } else { ledger.drop_beacons(reason, count) }
        })
        .await;
        let has_broker = self
            .board
            .lanes()
            .iter()
            .any(|lane| matches!(lane.state, LaneState::Connected | LaneState::Blocked));
        let patience = until.saturating_duration_since(Instant::now());
        if has_broker {
            return patience;
        }
        tracing::debug!(destination = name, "no broker to wait for: what is not confirmed goes to the spool");
        patience.min(self.delivered.config.spool.after)
    }

    /// A batch that was being written: to the publisher if it has room, or back if it is nowhere.
    fn last_appended(
        &mut self,
        publisher: &Publisher<Parcel>,
        in_time: bool,
        ended: Result<Appended, JoinError>,
    ) -> Option<Batch> {
        // One that panicked stays among those that are being written, and is counted there.
        let Appended { mut batch, row } = ended.ok()?;
        self.appending.retain(|(id, _)| *id != batch.id);
        match row {
            Ok(_) => {
                self.delivered.readings.appended();
                self.delivered.ledger.spool(batch.count);
                Ticket::resolve_spooled(&mut batch.tickets);
            }
            Err(refused) => {
                self.delivered.readings.refused(refused);
                forget_spooled(&mut batch.tickets);
            }
        }
        self.last_offer(publisher, in_time, batch, row.ok())
    }

    /// To the publisher if it has room, or back if it is nowhere: what has a row is in the spool, and counted there.
    fn last_offer(
        &mut self,
        publisher: &Publisher<Parcel>,
        in_time: bool,
        batch: Batch,
        row: Option<Row>,
    ) -> Option<Batch> {
        let takes = in_time && self.board.takes();
        match if takes { publisher.try_reserve(batch.body.len()) } else { None } {
            Some(place) => self.publish(place, batch, row),
            None if row.is_none() => return Some(batch),
            None => {}
        }
        None
    }
}
