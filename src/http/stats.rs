//! What the HTTP front counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use hyper::StatusCode;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::ticket::{Ack, Lost};

/// The status codes that an answer can have, in the order of [`HttpStatsSnapshot::responses`].
pub const STATUSES: [u16; 9] = [200, 204, 400, 404, 405, 408, 413, 431, 503];

/// Counters of all workers. Each worker writes cells of its own: no locked instruction per request.
#[derive(Debug)]
pub struct HttpStats {
    cells: Box<[CachePadded<Cells>]>,
    /// Written per connection, not per request.
    open: CachePadded<AtomicUsize>,
    acks: [Acks; 2],
}

/// What became of the promises of one level, in answers. Written only by routes that wait, by all workers.
#[derive(Debug)]
pub struct Acks {
    /// The level.
    pub level: Ack,
    /// Answers by outcome, in the order of [`ACK_OUTCOMES`].
    outcomes: [AtomicU64; ACK_OUTCOMES.len()],
    /// How long the answers waited, in seconds, whatever the outcome.
    pub seconds: Histogram,
}

/// How waiting for a promise ends: it was kept; it cannot be kept any more; it was not kept in time.
pub const ACK_OUTCOMES: [&str; 3] = ["kept", "lost", "timed_out"];

impl Acks {
    /// Buckets: 0.25 ms to 16 s by factors of 2.
    fn new(level: Ack) -> Self {
        let seconds = Histogram::new(exponential_buckets(0.000_25, 2.0, 17));
        Self { level, outcomes: Default::default(), seconds }
    }

    /// Answers by outcome, in the order of [`ACK_OUTCOMES`].
    #[must_use]
    pub fn outcomes(&self) -> [u64; ACK_OUTCOMES.len()] {
        self.outcomes.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// One answer; without an outcome it waited for too long.
    pub(super) fn count(&self, kept: Option<Result<(), Lost>>, waited: Duration) {
        let index = match kept {
            Some(Ok(())) => 0,
            Some(Err(Lost)) => 1,
            None => 2,
        };
        self.outcomes[index].fetch_add(1, Ordering::Relaxed);
        self.seconds.observe(waited.as_secs_f64());
    }
}

/// A reading of [`HttpStats`]. Counters are read one by one: they need not fit each other to the last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HttpStatsSnapshot {
    /// Answers by status, in the order of [`STATUSES`].
    pub responses: [u64; STATUSES.len()],
    /// Octets of request bodies that were recorded.
    pub body_octets: u64,
    /// Connections accepted and served.
    pub connections: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Connections open now that wait for a request and hold no buffers.
    pub connections_parked: u64,
    /// Connections closed at once because `max_connections` were open.
    pub connections_refused: u64,
    /// Idle connections closed before their time to make room for new ones.
    pub connections_evicted: u64,
    /// Connections closed because a head, a body or the reading of an answer took too long.
    pub timeouts: u64,
    /// Accepting failed, for example because the process has no file descriptor left.
    pub accept_errors: u64,
}

impl HttpStats {
    /// Counters for `workers` workers.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            cells: (0..workers).map(|_| CachePadded::default()).collect(),
            open: CachePadded::default(),
            acks: [Ack::Spooled, Ack::Confirmed].map(Acks::new),
        }
    }

    /// The counters of all workers, added up.
    #[must_use]
    pub fn snapshot(&self) -> HttpStatsSnapshot {
        let sum = |cell: fn(&Cells) -> &Cell| self.cells.iter().map(|cells| cell(cells).value()).sum::<u64>();
        let mut responses = [0; STATUSES.len()];
        for cells in &self.cells {
            for (total, cell) in responses.iter_mut().zip(&cells.responses) {
                *total += cell.value();
            }
        }
        HttpStatsSnapshot {
            responses,
            body_octets: sum(|cells| &cells.body_octets),
            connections: sum(|cells| &cells.connections),
            connections_open: self.open.load(Ordering::Relaxed) as u64,
            connections_parked: sum(|cells| &cells.parked),
            connections_refused: sum(|cells| &cells.refused),
            connections_evicted: sum(|cells| &cells.evicted),
            timeouts: sum(|cells| &cells.timeouts),
            accept_errors: sum(|cells| &cells.accept_errors),
        }
    }

    /// The promises of every level that waits.
    #[must_use]
    pub fn all_acks(&self) -> &[Acks] {
        &self.acks
    }

    /// The promises of `level`.
    pub(super) fn acks(&self, level: Ack) -> &Acks {
        &self.acks[usize::from(level == Ack::Confirmed)]
    }

    /// The cells that worker `lane`, and no other thread, may write.
    pub(super) fn lane(&self, lane: usize) -> &Cells {
        &self.cells[lane]
    }

    /// Takes one of at most `most` places for a connection. False if there is none.
    pub(super) fn open(&self, most: usize) -> bool {
        let is_open = self.open.fetch_add(1, Ordering::Relaxed) < most;
        if !is_open {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        is_open
    }

    /// Gives a place back.
    pub(super) fn close(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counters of one worker.
#[derive(Debug, Default)]
pub(super) struct Cells {
    responses: [Cell; STATUSES.len()],
    pub(super) body_octets: Cell,
    pub(super) connections: Cell,
    pub(super) parked: Cell,
    pub(super) refused: Cell,
    pub(super) evicted: Cell,
    pub(super) timeouts: Cell,
    pub(super) accept_errors: Cell,
}

impl Cells {
    /// One answer with this status. One that is not in [`STATUSES`] is not counted.
    pub(super) fn response(&self, status: StatusCode) {
        if let Some(index) = STATUSES.iter().position(|known| *known == status.as_u16()) {
            self.responses[index].add(1);
        }
    }
}

/// A counter with one writer: a load and a store, no locked instruction.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.value() + n, Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_all_workers_add_up() {
        let stats = HttpStats::new(2);
        stats.lane(0).response(StatusCode::OK);
        stats.lane(1).response(StatusCode::OK);
        stats.lane(1).response(StatusCode::SERVICE_UNAVAILABLE);
        stats.lane(1).response(StatusCode::IM_A_TEAPOT);
        stats.lane(0).parked.set(2);
        stats.lane(0).parked.set(1);
        let seen = stats.snapshot();
        assert_eq!(seen.responses, [2, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(seen.connections_parked, 1);
    }

    #[test]
    fn places_are_bounded() {
        let stats = HttpStats::new(1);
        assert!(stats.open(1));
        assert!(!stats.open(1));
        stats.close();
        assert!(stats.open(1));
        assert_eq!(stats.snapshot().connections_open, 1);
    }
}
