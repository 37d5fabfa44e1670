//! The ledger: what became of every beacon of one destination.
//!
//! Only monotonic counters are kept; what is on the ring, in a batch and in flight is *derived* from them:
//!
//! ```text
//! on ring   = accepted                       − dropped on the ring   − taken
//! in batch  = taken                          − dropped in the batch  − sealed − written
//! spooled   = recovered + written + returned − dropped in the spool  − drawn
//! in flight = sealed + drawn                 − dropped in flight     − returned − confirmed
//! ```
//!
//! so `accepted + recovered = confirmed + on ring + in batch + spooled + in flight + dropped` holds in every
//! [`Snapshot`], whatever the threads are doing meanwhile. Spooled is what the publisher does not have: a batch that was
//! written before it was sent is in flight. A snapshot reads from the far end to the near end; each beacon is counted at
//! the near end first, so no derived number can be negative. (What is returned from flight to the spool, at shutdown, is
//! drawn no more.) What the tests check independently is that the derived numbers equal the real depth of the ring and of
//! the spool, and that all of them come back to zero.

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
    /// In a batch of the spool that could not be read back.
    SpoolUnreadable,
    /// In a batch that was never sent when the shutdown deadline passed.
    ShutdownInBatch,
    /// With the publisher, never sent, when the shutdown deadline passed.
    ShutdownUnsent,
    /// It can never be sent as it is: a defect, since lines and headers are built here.
    Unencodable,
    /// Its batch cost the connection each time it was sent, was given up, and is in the dead-letter file.
    DeadLettered,
    /// Its batch cost the connection each time it was sent, and was given up.
    GivenUp,
    /// Sent, but not confirmed, when the shutdown deadline passed: the broker may or may not have it.
    ShutdownInFlight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Ring,
    Batch,
    Spool,
    Flight,
}

impl DropReason {
    /// Every reason, in the order of the way of a beacon.
    pub const ALL: [Self; 10] = [
        Self::RingFull,
        Self::Evicted,
        Self::ShutdownOnRing,
        Self::SpoolUnreadable,
        Self::ShutdownInBatch,
        Self::ShutdownUnsent,
        Self::Unencodable,
        Self::DeadLettered,
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
            Self::SpoolUnreadable => "spool_unreadable",
            Self::ShutdownInBatch => "shutdown_in_batch",
            Self::ShutdownUnsent => "shutdown_unsent",
            Self::Unencodable => "unencodable",
            Self::DeadLettered => "dead_lettered",
            Self::GivenUp => "given_up",
            Self::ShutdownInFlight => "shutdown_in_flight",
        }
    }

    fn stage(self) -> Stage {
        match self {
            Self::RingFull | Self::Evicted | Self::ShutdownOnRing => Stage::Ring,
            Self::ShutdownInBatch => Stage::Batch,
            Self::SpoolUnreadable => Stage::Spool,
            Self::ShutdownUnsent
            | Self::Unencodable
            | Self::DeadLettered
            | Self::GivenUp
            | Self::ShutdownInFlight => Stage::Flight,
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
    recovered: AtomicU64,
    written: AtomicU64,
    drawn: AtomicU64,
    returned: AtomicU64,
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
            recovered: AtomicU64::new(0),
            written: AtomicU64::new(0),
            drawn: AtomicU64::new(0),
            returned: AtomicU64::new(0),
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

    /// `n` beacons of an earlier run were found in the spool.
    pub fn recover(&self, n: u64) {
        self.recovered.fetch_add(n, Ordering::AcqRel);
    }

    /// `n` beacons, all of one batch, are in the spool.
    pub fn spool(&self, n: u64) {
        self.written.fetch_add(n, Ordering::AcqRel);
    }

    /// A batch of `n` beacons that is in the spool was handed to the publisher.
    pub fn draw(&self, n: u64) {
        self.drawn.fetch_add(n, Ordering::AcqRel);
    }

    /// A batch of `n` beacons was not confirmed before the end; it is in the spool, from which nothing is drawn any more.
    pub fn give_back(&self, n: u64) {
        self.returned.fetch_add(n, Ordering::AcqRel);
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
        let returned = self.returned.load(Ordering::Acquire);
        let drawn = self.drawn.load(Ordering::Acquire);
        let dropped_in_spool = self.dropped_at(Stage::Spool);
        let written = self.written.load(Ordering::Acquire);
        let recovered = self.recovered.load(Ordering::Acquire);
        let sealed = self.sealed.load(Ordering::Acquire);
        let dropped_in_batch = self.dropped_at(Stage::Batch);
        let taken = self.taken.load(Ordering::Acquire);
        let dropped_on_ring = self.dropped_at(Stage::Ring);
        let accepted = self.accepted.iter().map(|cell| cell.load(Ordering::Acquire)).sum::<u64>();

        // Each is zero where the reason belongs to another stage.
        let dropped = std::array::from_fn(|reason| {
            [dropped_on_ring, dropped_in_batch, dropped_in_spool, dropped_in_flight]
                .iter()
                .map(|stage| stage[reason])
                .sum()
        });
        let sum = |counts: [u64; DropReason::ALL.len()]| counts.iter().sum::<u64>();
        Snapshot {
            accepted,
            rejected: self.rejected.load(Ordering::Relaxed),
            on_ring: accepted - sum(dropped_on_ring) - taken,
            recovered,
            in_batch: taken - sum(dropped_in_batch) - sealed - written,
            spooled: recovered + written + returned - sum(dropped_in_spool) - drawn,
            in_flight: sealed + drawn - sum(dropped_in_flight) - returned - confirmed,
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
    /// Found in the spool at the start.
    pub recovered: u64,
    /// Waiting on the ring.
    pub on_ring: u64,
    /// In a batch that neither the publisher nor the spool has yet.
    pub in_batch: u64,
    /// In the spool, and not with the publisher.
    pub spooled: u64,
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

    /// In memory: neither confirmed nor dropped yet, nor in the spool alone.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.on_ring + self.in_batch + self.in_flight
    }

    /// Whether every beacon is accounted for. It cannot but hold; it is what an observer should check all the same.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.accepted + self.recovered
            == self.confirmed + self.pending() + self.spooled + self.dropped_total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_what_entered_less_what_left() {
        let ledger = Ledger::new(2);
        (0..17).for_each(|_| ledger.accept(0));
        (0..3).for_each(|_| ledger.accept(1));
        ledger.recover(5);
        ledger.drop_beacons(DropReason::RingFull, 1);
        ledger.take(16);
        ledger.drop_beacons(DropReason::ShutdownInBatch, 1);
        ledger.seal(4);
        ledger.spool(9);
        ledger.draw(7);
        ledger.drop_beacons(DropReason::SpoolUnreadable, 1);
        ledger.drop_beacons(DropReason::ShutdownInFlight, 1);
        ledger.confirm(3);
        ledger.give_back(2);
        ledger.reject();

        let seen = ledger.snapshot();
        assert_eq!((seen.accepted, seen.recovered, seen.confirmed, seen.rejected), (20, 5, 3, 1));
        assert_eq!((seen.on_ring, seen.in_batch, seen.spooled, seen.in_flight), (3, 2, 8, 5));
        assert_eq!((seen.dropped_for(DropReason::RingFull), seen.dropped_total()), (1, 4));
        assert!(seen.is_conserved());
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
                    if turn % 3 == 0 {
                        ledger.spool(1);
                        ledger.draw(1);
                    } else {
                        ledger.seal(1);
                    }
                    ledger.confirm(1);
                }
            });
            while !writer.is_finished() {
                let seen = ledger.snapshot();
                assert!(seen.is_conserved(), "{seen:?}");
                let most = [seen.on_ring, seen.in_batch, seen.spooled, seen.in_flight];
                assert!(
                    most.iter().all(|&n| n <= seen.accepted),
                    "a derived number went below zero: {seen:?}"
                );
            }
        });
        let last = ledger.snapshot();
        assert_eq!((last.pending(), last.spooled), (0, 0));
    }
}
