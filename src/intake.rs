//! The intake: from a request to a line on every ring of its route. One per HTTP worker, used by its thread alone.
//!
//! Memory: lines are cut from a chunk of 64 KiB, so that a line costs a reference count and no allocation. A chunk
//! lives as long as any line cut from it. Rings are first in, first out, so what a full ring holds beyond its own
//! count of octets is at most one chunk per worker at each end; with several destinations a chunk waits for the
//! slowest of them. Lines longer than a quarter of a chunk get an allocation of their own.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::beacon::{Beacon, Stamp};
use crate::ring::{Line, Offer, Overflow, Ring};
use crate::ticket::Waiting;

const CHUNK: usize = 64 * 1024;
const OWN_ALLOCATION: usize = CHUNK / 4;

/// What the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The usual answer: the beacon is on the rings, or was dropped and counted as their policy says.
    Accepted,
    /// 503: a destination that may not drop has no room. No destination got the beacon.
    Rejected,
}

/// Builds lines and offers them. `lane` is the worker's index; see [`Ring::offer`].
#[derive(Debug)]
pub struct Intake {
    lane: usize,
    chunk: BytesMut,
    line: Vec<u8>,
}

impl Intake {
    /// The intake of worker `lane`.
    #[must_use]
    pub fn new(lane: usize) -> Self {
        Self { lane, chunk: BytesMut::with_capacity(CHUNK), line: Vec::with_capacity(1024) }
    }

    /// Offers `beacon`, stamped now, to each of `rings`. Never blocks.
    ///
    /// Either every destination gets the beacon (or drops it by its policy), or none does and the verdict is
    /// [`Verdict::Rejected`]. Only when another worker takes the last room of a rejecting ring between the check
    /// and the offer, the other destinations keep a beacon that the client is told to send again.
    ///
    /// `waiting` gets a ticket for each destination: one that drops the beacon makes it lost at once.
    pub fn take(&mut self, beacon: &Beacon<'_>, rings: &[Arc<Ring>], waiting: Option<&Waiting>) -> Verdict {
        let estimate = beacon.estimate();
        if reject(rings, estimate) {
            return Verdict::Rejected;
        }
        if rings.iter().all(|ring| drops(ring, estimate)) {
            for ring in rings {
                ring.drop_newest(self.lane);
                drop(waiting.map(Waiting::ticket));
            }
            return Verdict::Accepted;
        }
        let line = self.line(beacon);
        if reject(rings, line.len()) {
            return Verdict::Rejected;
        }
        let mut verdict = Verdict::Accepted;
        for ring in rings {
            let line = Line { octets: line.clone(), ticket: waiting.map(Waiting::ticket) };
            if ring.offer(self.lane, line) == Offer::Rejected {
                verdict = Verdict::Rejected;
            }
        }
        verdict
    }

    fn line(&mut self, beacon: &Beacon<'_>) -> Bytes {
        self.line.clear();
        beacon.write(&Stamp::now(), &mut self.line);
        if self.line.len() > OWN_ALLOCATION {
            return Bytes::from(std::mem::take(&mut self.line));
        }
        if self.chunk.capacity() < self.line.len() {
            // Takes the old chunk again if no line of it is left, else a new one.
            self.chunk.reserve(CHUNK);
        }
        self.chunk.extend_from_slice(&self.line);
        self.chunk.split().freeze()
    }
}

/// Counts the refusal at each destination that has no room and may not drop. True if there is one.
fn reject(rings: &[Arc<Ring>], octets: usize) -> bool {
    let mut is_rejected = false;
    for ring in rings.iter().filter(|ring| ring.would_reject(octets)) {
        ring.reject();
        is_rejected = true;
    }
    is_rejected
}

/// Whether a line of about `octets` would be dropped: then it need not be built.
fn drops(ring: &Ring, octets: usize) -> bool {
    ring.overflow() == Overflow::DropNewest && !ring.has_room(octets)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;

    use super::*;
    use crate::ledger::{DropReason, Ledger};
    use crate::ring::Limits;
    use crate::ticket::{Ack, Lost};

    const BEACON: Beacon<'_> = Beacon {
        route: "pixel",
        method: "GET",
        path: "/b.gif",
        query: Some("a=1"),
        ip: "192.0.2.7",
        ua: None,
        referer: None,
        body: b"",
    };

    fn ring(max_beacons: usize, overflow: Overflow) -> Arc<Ring> {
        let limits = Limits { max_beacons, max_bytes: 1 << 20 };
        Arc::new(Ring::new(limits, overflow, Arc::new(Ledger::new(1))))
    }

    #[test]
    fn every_ring_gets_the_same_octets() {
        let rings = [ring(10, Overflow::DropNewest), ring(10, Overflow::Reject)];
        let mut intake = Intake::new(0);
        assert_eq!(intake.take(&BEACON, &rings, None), Verdict::Accepted);
        let lines = rings.each_ref().map(|ring| ring.try_take().unwrap());
        assert_eq!(lines[0].as_ptr(), lines[1].as_ptr(), "serialized once");
        let seen: serde_json::Value = serde_json::from_slice(&lines[0]).unwrap();
        assert_eq!((&seen["route"], &seen["query"]), (&"pixel".into(), &"a=1".into()));
    }

    #[test]
    fn one_rejecting_ring_keeps_the_beacon_from_all() {
        let rings = [ring(10, Overflow::DropNewest), ring(1, Overflow::Reject)];
        let mut intake = Intake::new(0);
        assert_eq!(intake.take(&BEACON, &rings, None), Verdict::Accepted);
        assert_eq!(intake.take(&BEACON, &rings, None), Verdict::Rejected);
        let [kept, refused] = rings.map(|ring| ring.ledger().snapshot());
        assert_eq!((kept.accepted, kept.rejected), (1, 0));
        assert_eq!((refused.accepted, refused.rejected), (1, 1));
    }

    #[test]
    fn a_full_ring_drops_and_counts_without_building_the_line() {
        let rings = [ring(1, Overflow::DropNewest)];
        let mut intake = Intake::new(0);
        assert_eq!(intake.take(&BEACON, &rings, None), Verdict::Accepted);
        let room = intake.chunk.capacity();
        assert_eq!(intake.take(&BEACON, &rings, None), Verdict::Accepted);
        assert_eq!(intake.chunk.capacity(), room, "no line was cut");
        let seen = rings[0].ledger().snapshot();
        assert_eq!((seen.accepted, seen.dropped_for(DropReason::RingFull)), (2, 1));
    }

    #[test]
    fn a_tee_with_one_full_ring_still_feeds_the_other() {
        let rings = [ring(1, Overflow::DropNewest), ring(10, Overflow::DropNewest)];
        let mut intake = Intake::new(0);
        (0..3).for_each(|_| assert_eq!(intake.take(&BEACON, &rings, None), Verdict::Accepted));
        assert_eq!(rings.map(|ring| ring.level().beacons), [1, 3]);
    }

    #[test]
    fn a_beacon_that_any_ring_drops_is_lost_for_its_answer() {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for (small, overflow, expected) in [
            (2, Overflow::DropNewest, Poll::Pending),
            (1, Overflow::DropNewest, Poll::Ready(Err(Lost))),
            (1, Overflow::DropOldest, Poll::Pending),
        ] {
            let rings = [ring(small, overflow), ring(10, Overflow::DropNewest)];
            let mut intake = Intake::new(0);
            let [mut first, mut second] = [Ack::Spooled; 2].map(Waiting::new);
            intake.take(&BEACON, &rings, Some(&first));
            intake.take(&BEACON, &rings, Some(&second));
            assert_eq!(Pin::new(&mut second).poll(&mut context), expected, "{small} {overflow:?}");
            let pushed_out = small == 1 && overflow == Overflow::DropOldest;
            let lost = Poll::Ready(Err(Lost));
            assert_eq!(Pin::new(&mut first).poll(&mut context) == lost, pushed_out);
        }
    }

    #[test]
    fn chunks_are_used_again_and_long_lines_stand_alone() {
        let rings = [ring(10_000, Overflow::DropNewest)];
        let mut intake = Intake::new(0);
        let first = intake.line(&BEACON);
        let (start, length) = (first.as_ptr() as usize, first.len());
        drop(first);
        let turns = CHUNK / length + 10;
        let starts = (0..turns).map(|_| intake.line(&BEACON).as_ptr() as usize).collect::<Vec<_>>();
        assert!(
            starts.iter().all(|at| (start..start + CHUNK).contains(at)),
            "a free chunk was not taken again"
        );

        let body = vec![b'x'; CHUNK];
        assert_eq!(intake.take(&Beacon { body: &body, ..BEACON }, &rings, None), Verdict::Accepted);
        assert!(rings[0].try_take().unwrap().len() > CHUNK);
        assert_eq!(intake.line.capacity(), 0, "the line took the buffer with it");
    }
}
