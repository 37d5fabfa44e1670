use std::time::{Duration, Instant};

use tokio::{
    task::{JoinError, JoinSet},
    time::timeout_at,
};
use uuid::Uuid;

use super::flights::{Flights, Original};
use crate::spool::{Refused, Row, Spool};

/// Copies being written at most, and their octets, but for one batch: one group of the spool's, so that a fresh batch waits
/// for no more than that.
const AT_ONCE: usize = 64;
const OCTETS_AT_ONCE: usize = 4 << 20;
/// A batch that is unconfirmed for so long is copied whatever the connections look like: there are networks that swallow
/// everything, and brokers that accept connections and drop them. A broker that keeps up confirms sooner, on slow disks too.
const LATE: Duration = Duration::from_secs(2);

/// Writes what the publisher has and no broker confirms to the spool as well, so that it outlives the process. The
/// publisher keeps it, and sends it again.
///
/// A broker that is blocked is none: an alarm lasts until somebody sees to it. A copy costs one write, and there are at most
/// as many as fit into the publisher's windows.
pub(super) struct Copies {
    flights: Flights,
    spool: Spool,
    after: Duration,
    /// Since when no broker takes messages.
    gone_since: Option<Instant>,
    tasks: JoinSet<(Original, Result<Row, Refused>)>,
    /// What is being written: a row may be read before its append is told.
    writing: Vec<Uuid>,
    octets: usize,
}

/// A copy that is in the spool.
pub(super) struct Copied {
    pub(super) row: Row,
    /// Whether the publisher still has the batch. If not, the row is of no use.
    pub(super) is_in_flight: bool,
}

impl Copies {
    /// Copies begin when no broker has taken messages for `after`.
    pub(super) fn new(flights: Flights, spool: Spool, after: Duration) -> Self {
        Self {
            flights,
            spool,
            after,
            gone_since: None,
            tasks: JoinSet::new(),
            writing: Vec::new(),
            octets: 0,
        }
    }

    /// Whether something may have to be copied: [`Copies::begin`] is to be called now and then.
    pub(super) fn is_watching(&self) -> bool {
        self.flights.oldest().is_some()
    }

    /// Whether a copy of this batch is being written.
    pub(super) fn is_writing(&self, id: Uuid) -> bool {
        self.writing.contains(&id)
    }

    /// Begins to copy what is due, the oldest first. `takes`: a broker takes messages; `may_append`: the spool may be asked.
    pub(super) fn begin(&mut self, takes: bool, may_append: bool) {
        self.gone_since = if takes { None } else { self.gone_since.or_else(|| Some(Instant::now())) };
        while may_append
            && self.writing.len() < AT_ONCE
            && self.octets < OCTETS_AT_ONCE
            && let Some(since) = self.flights.oldest()
            && self.is_due(since)
            && let Some(original) = self.flights.copy()
        {
            self.octets += original.batch.body.len();
            self.writing.push(original.batch.id);
            let spool = self.spool.clone();
            self.tasks.spawn(async move {
                let row = spool.append(&original.batch).await;
                (original, row)
            });
        }
    }

    fn is_due(&self, since: Instant) -> bool {
        self.gone_since.is_some_and(|gone| gone.elapsed() >= self.after)
            || since.elapsed() >= self.after.max(LATE)
    }

    /// The next copy that is written or refused; `None` when none is under way. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Result<Result<Copied, Refused>, JoinError>> {
        let (original, row) = match self.tasks.join_next().await? {
            Ok(ended) => ended,
            Err(error) => return Some(Err(error)),
        };
        let id = original.batch.id;
        self.octets -= original.batch.body.len();
        self.writing.retain(|writing| *writing != id);
        Some(Ok(match row {
            Ok(row) => Ok(Copied { row, is_in_flight: self.flights.copied(id, row) }),
            Err(refused) => {
                self.flights.refused(original);
                Err(refused)
            }
        }))
    }

    /// The same until a time after which nothing is written any more: what was still under way is not in the spool, or is
    /// removed again.
    pub(super) async fn next_until(
        &mut self,
        until: Instant,
    ) -> Option<Result<Result<Copied, Refused>, JoinError>> {
        let next = timeout_at(until.into(), self.next()).await;
        next.unwrap_or_else(|_| {
            self.tasks.abort_all();
            None
        })
    }
}
