//! The ring: the one place where the request path and the broker path meet.
//!
//! A bounded crossbeam channel of serialized lines, bounded in beacons and in octets. The request path only ever
//! *offers*: it never blocks and never awaits. What one offer costs when there is room: one relaxed load, one atomic
//! addition for the level, the channel's own slot claim, and (only when the batcher sleeps on an empty ring) a wake-up.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError};
use crossbeam_utils::CachePadded;
use serde::{Deserialize, Serialize};

use crate::ledger::{DropReason, Ledger};
use crate::ticket::Ticket;

/// A serialized beacon on its way to one destination.
#[derive(Debug)]
pub struct Line {
    /// The line, with its line feed.
    pub octets: Bytes,
    /// What its answer waits for, if it does.
    pub ticket: Option<Ticket>,
}

impl From<Bytes> for Line {
    fn from(octets: Bytes) -> Self {
        Self { octets, ticket: None }
    }
}

impl Deref for Line {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.octets
    }
}

/// What happens to a beacon that finds the ring full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// The arriving beacon is dropped and counted; the client gets its usual answer.
    #[default]
    DropNewest,
    /// The oldest beacons on the ring are dropped and counted until the arriving one fits.
    DropOldest,
    /// The client is told: 503. Nothing that was accepted is dropped.
    Reject,
}

/// What became of an offered beacon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is on the ring (with [`Overflow::DropOldest`] perhaps in the place of older ones).
    Accepted,
    /// It was accepted, dropped and counted.
    Dropped,
    /// It was not accepted: answer 503.
    Rejected,
}

/// Bounds of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most beacons on the ring.
    pub max_beacons: usize,
    /// Most octets of lines on the ring.
    pub max_bytes: usize,
}

/// How full a ring is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Beacons on the ring.
    pub beacons: usize,
    /// Octets of their lines.
    pub bytes: usize,
}

/// Beacons in the upper 24 bits, octets in the lower 40: one atomic for both bounds.
const BEACON: u64 = 1 << 40;
const OCTETS: u64 = BEACON - 1;
/// The largest ring the packed level can describe, with head room for racing lanes.
pub const MAX_BEACONS: usize = (1 << 24) - (1 << 16);
/// The largest ring in octets (512 GiB).
pub const MAX_BYTES: usize = 1 << 39;
/// An arriving beacon may push out at most this many older ones; a body is bounded, so this is ample.
const MAX_EVICTIONS: usize = 1024;
/// Several lanes may pass the fullness check at once; the channel has this many slots more than the bound.
const RACE_SLOTS: usize = 256;

/// A bounded queue of serialized beacons for one destination. Shared by all HTTP workers and one batcher.
#[derive(Debug)]
pub struct Ring {
    sender: Sender<Line>,
    receiver: Receiver<Line>,
    level: CachePadded<AtomicU64>,
    limits: Limits,
    overflow: Overflow,
    ledger: Arc<Ledger>,
}

impl Ring {
    /// An empty ring. Bounds are clamped to [`MAX_BEACONS`] and [`MAX_BYTES`]. The slots (48 octets each) are
    /// allocated here, once.
    #[must_use]
    pub fn new(limits: Limits, overflow: Overflow, ledger: Arc<Ledger>) -> Self {
        let limits = Limits {
            max_beacons: limits.max_beacons.clamp(1, MAX_BEACONS),
            max_bytes: limits.max_bytes.clamp(1, MAX_BYTES),
        };
        let (sender, receiver) = crossbeam_channel::bounded(limits.max_beacons + RACE_SLOTS);
        Self { sender, receiver, level: CachePadded::default(), limits, overflow, ledger }
    }

    /// The counters of this ring's destination.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The policy at the bound.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// How full the ring is now. One relaxed load.
    #[must_use]
    pub fn level(&self) -> Level {
        let level = self.level.load(Ordering::Relaxed);
        Level { beacons: (level >> 40) as usize, bytes: (level & OCTETS) as usize }
    }

    /// Whether a line of `octets` would fit now. One relaxed load; ask before building the line.
    #[must_use]
    pub fn has_room(&self, octets: usize) -> bool {
        let level = self.level();
        level.beacons < self.limits.max_beacons && level.bytes + octets <= self.limits.max_bytes
    }

    /// Whether a beacon arriving now would have to be answered 503.
    #[must_use]
    pub fn would_reject(&self, octets: usize) -> bool {
        self.overflow == Overflow::Reject && !self.has_room(octets)
    }

    /// Refuses a beacon that [`Ring::would_reject`], and counts it.
    pub fn reject(&self) -> Offer {
        self.ledger.reject();
        Offer::Rejected
    }

    /// Offers one line for `lane` (the index of the HTTP worker; each lane has one thread). Never blocks.
    pub fn offer(&self, lane: usize, line: impl Into<Line>) -> Offer {
        let line = line.into();
        let octets = line.len();
        if !self.has_room(octets) {
            match self.overflow {
                Overflow::Reject => return self.reject(),
                Overflow::DropNewest => return self.drop_newest(lane),
                Overflow::DropOldest => {
                    if octets > self.limits.max_bytes || !self.evict_for(octets) {
                        return self.drop_newest(lane);
                    }
                }
            }
        }
        // Counted at the near end first: see the ledger.
        self.ledger.accept(lane);
        self.level.fetch_add(BEACON + octets as u64, Ordering::Relaxed);
        match self.sender.try_send(line) {
            Ok(()) => Offer::Accepted,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.level.fetch_sub(BEACON + octets as u64, Ordering::Relaxed);
                self.ledger.drop_beacons(DropReason::RingFull, 1);
                Offer::Dropped
            }
        }
    }

    /// Takes one line, waiting for it at most `timeout`. For the batcher.
    pub(crate) fn take_within(&self, timeout: Duration) -> Result<Line, RecvTimeoutError> {
        self.receiver.recv_timeout(timeout)
    }

    /// Takes one line if there is one. For the batcher, and for tests that read lines back.
    ///
    /// # Errors
    ///
    /// The ring is empty.
    pub fn try_take(&self) -> Result<Line, TryRecvError> {
        self.receiver.try_recv()
    }

    /// Gives back the room of `beacons` lines of together `octets`: once per batch, not per beacon.
    pub fn release(&self, beacons: usize, octets: usize) {
        self.level.fetch_sub(BEACON * beacons as u64 + octets as u64, Ordering::Relaxed);
    }

    /// Accepts a beacon for `lane`, drops it at once and counts both. For the intake, which need not build a line
    /// that has no room.
    pub(crate) fn drop_newest(&self, lane: usize) -> Offer {
        self.ledger.accept(lane);
        self.ledger.drop_beacons(DropReason::RingFull, 1);
        Offer::Dropped
    }

    /// Makes room for `octets` by dropping the oldest. False when the batcher and other lanes keep it full.
    fn evict_for(&self, octets: usize) -> bool {
        for _ in 0..MAX_EVICTIONS {
            if self.has_room(octets) {
                return true;
            }
            let Ok(oldest) = self.try_take() else { break };
            self.release(1, oldest.len());
            self.ledger.drop_beacons(DropReason::Evicted, 1);
        }
        self.has_room(octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(max_beacons: usize, max_bytes: usize, overflow: Overflow) -> Ring {
        Ring::new(Limits { max_beacons, max_bytes }, overflow, Arc::new(Ledger::new(1)))
    }

    fn line(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn drop_newest_keeps_what_is_there() {
        let ring = ring(2, 100, Overflow::DropNewest);
        let offers = ["a", "b", "c"].map(|text| ring.offer(0, line(text)));
        assert_eq!(offers, [Offer::Accepted, Offer::Accepted, Offer::Dropped]);
        assert_eq!(ring.try_take().unwrap().octets, "a");
        let seen = ring.ledger().snapshot();
        assert_eq!((seen.accepted, seen.dropped_for(DropReason::RingFull)), (3, 1));
    }

    #[test]
    fn drop_oldest_makes_room_in_octets() {
        let ring = ring(10, 10, Overflow::DropOldest);
        for text in ["aaaa", "bbbb", "cc"] {
            assert_eq!(ring.offer(0, line(text)), Offer::Accepted);
        }
        assert_eq!(ring.offer(0, line("ddddd")), Offer::Accepted);
        assert_eq!(ring.level(), Level { beacons: 2, bytes: 7 });
        assert_eq!(ring.try_take().unwrap().octets, "cc");
        assert_eq!(ring.ledger().snapshot().dropped_for(DropReason::Evicted), 2);
        assert_eq!(ring.offer(0, line("a line longer than the ring")), Offer::Dropped);
    }

    #[test]
    fn reject_is_not_accepted() {
        let ring = ring(1, 100, Overflow::Reject);
        assert_eq!(ring.offer(0, line("a")), Offer::Accepted);
        assert!(ring.would_reject(1));
        assert_eq!(ring.offer(0, line("b")), Offer::Rejected);
        let seen = ring.ledger().snapshot();
        assert_eq!((seen.accepted, seen.rejected, seen.dropped_total()), (1, 1, 0));
    }

    #[test]
    fn room_comes_back_once_per_batch() {
        let ring = ring(3, 30, Overflow::Reject);
        for text in ["a", "bb", "ccc"] {
            ring.offer(0, line(text));
        }
        assert!(!ring.has_room(1));
        (0..3).for_each(|_| drop(ring.try_take().unwrap()));
        assert!(!ring.has_room(1), "room is given back by release, not by taking");
        ring.release(3, 6);
        assert_eq!(ring.level(), Level { beacons: 0, bytes: 0 });
    }
}
