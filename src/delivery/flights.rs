use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{batch::Batch, spool::Row};

/// The batches of one destination that the publisher took while they were not in its spool, until their outcomes. Shared by
/// the one that hands them over and copies them when no broker confirms them, and the one that takes the outcomes; never
/// locked for longer than a look. They are as many as fit into the publisher's windows.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights(Arc<Mutex<Inner>>);

/// A batch in flight is in one of these.
#[derive(Debug, Default)]
struct Inner {
    /// In memory only. Ids grow with time, so the first is the oldest.
    bare: BTreeMap<Uuid, Flight>,
    /// Its copy is being written.
    copying: HashSet<Uuid>,
    /// It is in the spool as well.
    copied: HashMap<Uuid, Row>,
}

#[derive(Debug)]
struct Flight {
    body: Bytes,
    count: u64,
    since: Instant,
}

/// A batch in flight that is to be copied.
#[derive(Debug)]
pub(super) struct Original {
    /// Without its tickets, which are with the publisher.
    pub(super) batch: Batch,
    since: Instant,
}

impl Flights {
    /// A batch without a row is about to be handed to the publisher.
    pub(super) fn begin(&self, batch: &Batch) {
        let flight = Flight { body: batch.body.clone(), count: batch.count, since: Instant::now() };
        self.0.lock().bare.insert(batch.id, flight);
    }

    /// The outcome of a batch has come. Returns the row that it has got meanwhile. The row of a copy that is still being
    /// written is for the one who writes it: see [`Flights::copied`].
    pub(super) fn end(&self, id: Uuid) -> Option<Row> {
        let mut inner = self.0.lock();
        if inner.bare.remove(&id).is_some() || inner.copying.remove(&id) {
            return None;
        }
        inner.copied.remove(&id)
    }

    /// Since when the oldest that is in memory only has been with the publisher.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.0.lock().bare.first_key_value().map(|(_, flight)| flight.since)
    }

    /// The oldest that is in memory only. It must come back through [`Flights::copied`] or [`Flights::refused`].
    pub(super) fn copy(&self) -> Option<Original> {
        let mut inner = self.0.lock();
        let (id, Flight { body, count, since }) = inner.bare.pop_first()?;
        inner.copying.insert(id);
        Some(Original { batch: Batch { id, body, count, tickets: Vec::new() }, since })
    }

    /// A copy is in the spool. False if the outcome has come meanwhile, and nobody else will remove this row.
    pub(super) fn copied(&self, id: Uuid, row: Row) -> bool {
        let mut inner = self.0.lock();
        let is_in_flight = inner.copying.remove(&id);
        if is_in_flight {
            inner.copied.insert(id, row);
        }
        is_in_flight
    }

    /// The spool did not take a copy.
    pub(super) fn refused(&self, original: Original) {
        let Original { batch: Batch { id, body, count, .. }, since } = original;
        let mut inner = self.0.lock();
        if inner.copying.remove(&id) {
            inner.bare.insert(id, Flight { body, count, since });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(count: u64) -> Batch {
        Batch { id: Uuid::now_v7(), body: Bytes::from_static(b"x\n"), count, tickets: Vec::new() }
    }

    fn is_empty(flights: &Flights) -> bool {
        let inner = flights.0.lock();
        inner.bare.is_empty() && inner.copying.is_empty() && inner.copied.is_empty()
    }

    #[test]
    fn an_outcome_finds_the_row_or_leaves_it_to_the_writer() {
        let (flights, row) = (Flights::default(), Row::from_number(7));
        let batch = batch(1);
        let enter = || {
            flights.begin(&batch);
            assert!(flights.oldest().is_some());
        };
        enter();
        assert_eq!(flights.end(batch.id), None, "never copied");
        assert!(is_empty(&flights));

        enter();
        let original = flights.copy().unwrap();
        assert_eq!((original.batch.id, &original.batch.body), (batch.id, &batch.body));
        assert!(flights.copied(batch.id, row));
        assert_eq!((flights.oldest(), flights.copy().is_none()), (None, true), "never twice");
        assert_eq!(flights.end(batch.id), Some(row));
        assert!(is_empty(&flights));

        enter();
        drop(flights.copy());
        assert_eq!(flights.end(batch.id), None, "its row is not known yet");
        assert!(!flights.copied(batch.id, row), "the writer's to remove");
        assert!(is_empty(&flights));

        enter();
        let original = flights.copy().unwrap();
        flights.refused(original);
        let original = flights.copy().expect("to be tried again");
        assert_eq!(flights.end(batch.id), None);
        flights.refused(original);
        assert!(is_empty(&flights), "its outcome has come");
    }

    #[test]
    fn the_oldest_is_copied_first() {
        let flights = Flights::default();
        let batches = [1, 2, 3].map(batch);
        batches.iter().rev().for_each(|batch| flights.begin(batch));
        let copied = std::iter::from_fn(|| flights.copy()).map(|original| original.batch.count);
        assert_eq!(copied.collect::<Vec<_>>(), [1, 2, 3]);
    }
}
