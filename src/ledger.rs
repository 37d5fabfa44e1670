//! The ledger: what became of every beacon of one destination.
//!
//! Only monotonic counters are kept; what is on the ring, in a batch and in flight is *derived* from them:
//!
//! ```text
//! on ring   = accepted − dropped on the ring   − taken
//! in batch  = taken    − dropped in the batch  − sealed
//! in flight = sealed   − dropped in flight     − confirmed
//! ```
//!
//! so `accepted = confirmed + on ring + in batch + in flight + dropped` holds in every [`Snapshot`], whatever the
//! threads are doing meanwhile. A snapshot reads from the far end to the near end; each beacon is counted at the
//! near end first, so no derived number can be negative. What the tests check independently is that the derived
//! numbers equal the real depth of the ring, and that all of them come back to zero.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// Why an accepted beacon will not reach the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The ring was full and the policy is to drop the newest.
    RingFull,
    /// It was the oldest on a full ring and had to make room.
    Evicted,
    /// Still on the ring when the shutdown deadline passed.
    ShutdownOnRing,
    /// In a batch that was never sent when the shutdown deadline passed.
    ShutdownInBatch,
    /// With the publisher, never sent, when the shutdown deadline passed.
    ShutdownUnsent,
    /// It can never be sent as it is: a defect, since lines and headers are built here.
    Unencodable,
    /// Its batch cost the connection each time it was sent, and was given up.
    GivenUp,
    /// Sent, but not confirmed, when the shutdown deadline passed: the broker may or may not have it.
    ShutdownInFlight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Ring,
    Batch,
    Flight,
}

impl DropReason {
    /// Every reason, in the order of the way of a beacon.
    pub const ALL: [Self; 8] = [
        Self::RingFull,
        Self::Evicted,
        Self::ShutdownOnRing,
        Self::ShutdownInBatch,
        Self::ShutdownUnsent,
        Self::Unencodable,
        Self::GivenUp,
        Self::ShutdownInFlight,
    ];

    /// The value of the metric label `reason`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::Evicted => "evicted",
            Self::ShutdownOnRing => "shutdown_on_ring",
            Self::ShutdownInBatch => "shutdown_in_batch",
            Self::ShutdownUnsent => "shutdown_unsent",
            Self::Unencodable => "unencodable",
            Self::GivenUp => "given_up",
            Self::ShutdownInFlight => "shutdown_in_flight",
        }
    }

    fn stage(self) -> Stage {
        match self {
            Self::RingFull | Self::Evicted | Self::ShutdownOnRing => Stage::Ring,
            Self::ShutdownInBatch => Stage::Batch,
            Self::ShutdownUnsent | Self::Unencodable | Self::GivenUp | Self::ShutdownInFlight => {
                Stage::Flight
            }
        }
    }
}

/// Counters of one destination; see the module's text for the identity they keep.
#[derive(Debug)]
pub struct Ledger {
    /// One cell per HTTP worker, each with a single writer: no locked instruction, no shared cache line.
    accepted: Box<[CachePadded<AtomicU64>]>,
    rejected: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    taken: CachePadded<AtomicU64>,
    sealed: AtomicU64,
    confirmed: AtomicU64,
}

impl Ledger {
    /// A ledger for `lanes` writers of the accepted counter (one per HTTP worker), at least one.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        Self {
            accepted: (0..lanes.max(1)).map(|_| CachePadded::default()).collect(),
            rejected: AtomicU64::new(0),
            dropped: Default::default(),
            taken: CachePadded::default(),
            sealed: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
        }
    }

    /// How many lanes there are.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.accepted.len()
    }

    /// One beacon accepted by `lane`. Called before the beacon goes on the ring. Each lane has one writer: this is
    /// a load and a store, not an atomic addition.
    pub(crate) fn accept(&self, lane: usize) {
        let cell = &self.accepted[lane];
        cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// One beacon refused with an answer that says so; it was never accepted.
    pub fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// `n` accepted beacons will not reach the broker.
    pub fn drop_beacons(&self, reason: DropReason, n: u64) {
        self.dropped[reason as usize].fetch_add(n, Ordering::AcqRel);
    }

    /// `n` beacons went from the ring into a batch.
    pub fn take(&self, n: u64) {
        self.taken.fetch_add(n, Ordering::AcqRel);
    }

    /// `n` beacons, all of one batch, were handed to the publisher.
    pub fn seal(&self, n: u64) {
        self.sealed.fetch_add(n, Ordering::AcqRel);
    }

    /// The broker confirmed a batch of `n` beacons.
    pub fn confirm(&self, n: u64) {
        self.confirmed.fetch_add(n, Ordering::AcqRel);
    }

    /// A consistent reading: the identity holds in it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        // Far end first. A beacon counted here was counted at every nearer stage before.
        let confirmed = self.confirmed.load(Ordering::Acquire);
        let dropped_in_flight = self.dropped_at(Stage::Flight);
        let sealed = self.sealed.load(Ordering::Acquire);
        let dropped_in_batch = self.dropped_at(Stage::Batch);
        let taken = self.taken.load(Ordering::Acquire);
        let dropped_on_ring = self.dropped_at(Stage::Ring);
        let accepted = self.accepted.iter().map(|cell| cell.load(Ordering::Acquire)).sum::<u64>();

        // Each is zero where the reason belongs to another stage.
        let dropped = std::array::from_fn(|reason| {
            dropped_on_ring[reason] + dropped_in_batch[reason] + dropped_in_flight[reason]
        });
        let sum = |counts: [u64; DropReason::ALL.len()]| counts.iter().sum::<u64>();
        Snapshot {
            accepted,
            rejected: self.rejected.load(Ordering::Relaxed),
            on_ring: accepted - sum(dropped_on_ring) - taken,
            in_batch: taken - sum(dropped_in_batch) - sealed,
            in_flight: sealed - sum(dropped_in_flight) - confirmed,
            confirmed,
            dropped,
        }
    }

    /// The drops of one stage, zero elsewhere.
    fn dropped_at(&self, stage: Stage) -> [u64; DropReason::ALL.len()] {
        DropReason::ALL.map(|reason| {
            if reason.stage() == stage { self.dropped[reason as usize].load(Ordering::Acquire) } else { 0 }
        })
    }
}

/// A consistent reading of a [`Ledger`], in beacons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Taken in and answered as such (a beacon dropped by policy was accepted too).
    pub accepted: u64,
    /// Refused with an answer that says so; not part of `accepted`.
    pub rejected: u64,
    /// Waiting on the ring.
    pub on_ring: u64,
    /// In a batch that the publisher does not have yet.
    pub in_batch: u64,
    /// With the publisher, not confirmed.
    pub in_flight: u64,
    /// Confirmed by the broker.
    pub confirmed: u64,
    /// Dropped, in the order of [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl Snapshot {
    /// How many were dropped for `reason`.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// How many were dropped, whatever the reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Accepted, and neither confirmed nor dropped yet.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.on_ring + self.in_batch + self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_what_entered_less_what_left() {
        let ledger = Ledger::new(2);
        (0..7).for_each(|_| ledger.accept(0));
        (0..3).for_each(|_| ledger.accept(1));
        ledger.drop_beacons(DropReason::RingFull, 1);
        ledger.take(6);
        ledger.drop_beacons(DropReason::ShutdownInBatch, 1);
        ledger.seal(4);
        ledger.drop_beacons(DropReason::ShutdownInFlight, 1);
        ledger.confirm(2);
        ledger.reject();

        let seen = ledger.snapshot();
        assert_eq!(
            (seen.accepted, seen.on_ring, seen.in_batch, seen.in_flight, seen.confirmed, seen.rejected),
            (10, 3, 1, 1, 2, 1)
        );
        assert_eq!(seen.dropped_for(DropReason::RingFull), 1);
        assert_eq!(seen.accepted, seen.confirmed + seen.pending() + seen.dropped_total());
    }

    #[test]
    fn the_identity_holds_while_every_stage_is_busy() {
        let ledger = Ledger::new(1);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for turn in 0..200_000_u64 {
                    ledger.accept(0);
                    if turn % 10 == 0 {
                        ledger.drop_beacons(DropReason::Evicted, 1);
                        continue;
                    }
                    ledger.take(1);
                    ledger.seal(1);
                    ledger.confirm(1);
                }
            });
            while !writer.is_finished() {
                let seen = ledger.snapshot();
                assert_eq!(seen.accepted, seen.confirmed + seen.pending() + seen.dropped_total());
                assert!(seen.pending() <= seen.accepted, "a derived number went below zero: {seen:?}");
            }
        });
        assert_eq!(ledger.snapshot().pending(), 0);
    }
}
