//! The batcher: one thread per destination that turns beacons on a ring into batches.
//!
//! It sleeps on the empty ring. The first beacon wakes it; it then pauses for the linger, so that under load there is at
//! most one wake-up per linger and none per request, and packs everything that has come. Under light load a batch is one
//! line; under heavy load batches fill up, and what the broker pays for a beacon falls by the size of the batch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use crossbeam_channel::RecvTimeoutError;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    beacon::Stamp,
    ledger::DropReason,
    ring::{Line, Ring},
    ticket::Ticket,
};

/// How often an idle batcher looks whether it is to finish.
const IDLE_LOOK: Duration = Duration::from_millis(100);

/// Beacons that travel together: NDJSON, one line each.
#[derive(Debug)]
pub struct Batch {
    /// Stable over every re-send; becomes the header `amqp-message-id`.
    pub id: Uuid,
    /// The lines, each with its line feed.
    pub body: Bytes,
    /// How many lines; becomes the header `beacon-count`.
    pub count: u64,
    /// What the answers to some of them wait for. Empty, without an allocation, when none does.
    pub tickets: Vec<Ticket>,
}

/// When a batch is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most beacons in a batch; 1 makes every beacon a message of its own.
    pub max_beacons: usize,
    /// Most octets of a batch. A line longer than this travels alone.
    pub max_bytes: usize,
    /// The pause after a first beacon.
    pub linger: Duration,
}

/// Packs lines within the limits. The thread's part is in [`Batcher`]; this one is what benches and tests use.
#[derive(Debug)]
pub struct Packer {
    limits: Limits,
    lines: Vec<Line>,
    octets: usize,
    /// The line that did not fit into the last batch.
    carried: Option<Line>,
}

impl Packer {
    /// An empty packer.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, lines: Vec::new(), octets: 0, carried: None }
    }

    /// Starts the next batch with this line, or with the one that was carried over (then `first` must be `None`).
    pub fn begin(&mut self, first: Option<Line>) {
        for line in self.carried.take().into_iter().chain(first) {
            self.octets += line.len();
            self.lines.push(line);
        }
    }

    /// Takes lines from `ring` until the batch is full or the ring is empty. True if it is full.
    pub fn fill(&mut self, ring: &Ring) -> bool {
        while self.lines.len() < self.limits.max_beacons {
            let Ok(line) = ring.try_take() else { return false };
            if self.octets + line.len() > self.limits.max_bytes && !self.lines.is_empty() {
                self.carried = Some(line);
                return true;
            }
            self.octets += line.len();
            self.lines.push(line);
        }
        true
    }

    /// Closes the batch: copies its lines together, and gives the room on the ring back.
    pub fn seal(&mut self, ring: &Ring) -> Batch {
        let mut body = BytesMut::with_capacity(self.octets);
        let mut tickets = Vec::new();
        let count = self.lines.len();
        for line in self.lines.drain(..) {
            body.extend_from_slice(&line);
            tickets.extend(line.ticket);
        }
        ring.ledger().take(count as u64);
        ring.release(count, self.octets);
        self.octets = 0;
        Batch { id: Stamp::now().id(), body: body.freeze(), count: count as u64, tickets }
    }

    /// Whether a line waits for the next batch.
    #[must_use]
    pub fn has_carried(&self) -> bool {
        self.carried.is_some()
    }
}

/// The thread of one destination. Dropped, it finishes by itself.
#[derive(Debug)]
pub struct Batcher {
    finish: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Batcher {
    /// Starts the thread, named after the destination. Batches go to `batches`, which should be short: what does not
    /// fit waits on the ring, where the overflow policy sees it.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        name: &str,
        ring: Arc<Ring>,
        limits: Limits,
        batches: mpsc::Sender<Batch>,
    ) -> std::io::Result<Self> {
        let finish = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&finish);
        let thread = thread::Builder::new()
            .name(format!("batch-{name}"))
            .spawn(move || run(&ring, limits, &batches, &seen))?;
        Ok(Self { finish, thread: Some(thread) })
    }

    /// Packs what is still on the ring, then ends. Nothing may be offered to the ring any more. When the receiver of the
    /// batches is gone, what is left is counted as dropped.
    pub fn finish(&self) {
        self.finish.store(true, Ordering::Release);
    }

    /// Waits for the thread.
    pub fn join(mut self) {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a batcher thread panicked; this is a defect in beacon-edge, please report it");
        }
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.finish();
    }
}

fn run(ring: &Ring, limits: Limits, batches: &mpsc::Sender<Batch>, finish: &AtomicBool) {
    let mut packer = Packer::new(limits);
    loop {
        let first = if packer.has_carried() {
            None
        } else {
            // Read before the ring is: what was offered before `finish` was set is found.
            let finishing = finish.load(Ordering::Acquire);
            match ring.take_within(if finishing { Duration::ZERO } else { IDLE_LOOK }) {
                Ok(first) => {
                    if !finishing && !limits.linger.is_zero() && limits.max_beacons > 1 {
                        thread::sleep(limits.linger);
                    }
                    Some(first)
                }
                Err(RecvTimeoutError::Timeout) if !finishing => continue,
                Err(_) => return,
            }
        };
        packer.begin(first);
        // After the pause, full batches follow each other without another one.
        loop {
            let full = packer.fill(ring);
            let batch = packer.seal(ring);
            let count = batch.count;
            if batches.blocking_send(batch).is_err() {
                ring.ledger().drop_beacons(DropReason::ShutdownInBatch, count);
                return give_up(ring, &mut packer);
            }
            if !full {
                break;
            }
            if packer.has_carried() {
                packer.begin(None);
            } else if let Ok(next) = ring.try_take() {
                packer.begin(Some(next));
            } else {
                break;
            }
        }
    }
}

/// Nobody takes batches any more: what is left is counted.
fn give_up(ring: &Ring, packer: &mut Packer) {
    let (mut count, mut octets) = (0, 0);
    for line in packer.carried.take().into_iter().chain(std::iter::from_fn(|| ring.try_take().ok())) {
        count += 1;
        octets += line.len();
    }
    ring.release(count, octets);
    ring.ledger().drop_beacons(DropReason::ShutdownOnRing, count as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::Ledger,
        ring::{Limits as RingLimits, Overflow},
    };

    fn ring() -> Arc<Ring> {
        let limits = RingLimits { max_beacons: 1000, max_bytes: 1 << 20 };
        Arc::new(Ring::new(limits, Overflow::Reject, Arc::new(Ledger::new(1))))
    }

    fn offer(ring: &Ring, lines: &[&'static str]) {
        for line in lines {
            ring.offer(0, Bytes::from_static(line.as_bytes()));
        }
    }

    fn limits(max_beacons: usize, max_bytes: usize) -> Limits {
        Limits { max_beacons, max_bytes, linger: Duration::ZERO }
    }

    /// The bodies of all batches that the thread makes of what is on the ring.
    fn batches(ring: &Arc<Ring>, limits: Limits) -> Vec<(String, u64)> {
        let (sender, mut receiver) = mpsc::channel(2);
        let batcher = Batcher::start("test", Arc::clone(ring), limits, sender).unwrap();
        batcher.finish();
        let mut seen = Vec::new();
        while let Some(batch) = receiver.blocking_recv() {
            ring.ledger().seal(batch.count);
            seen.push((String::from_utf8(batch.body.to_vec()).unwrap(), batch.count));
        }
        batcher.join();
        seen
    }

    fn bodies(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
        expected.iter().map(|&(body, count)| (body.to_owned(), count)).collect()
    }

    #[test]
    fn batches_close_by_count_and_by_octets_and_keep_the_order() {
        let lines = ["a\n", "bb\n", "ccc\n", "dddd\n", "e\n"];
        let table: [(Limits, &[(&str, u64)]); 5] = [
            (limits(2, 100), &[("a\nbb\n", 2), ("ccc\ndddd\n", 2), ("e\n", 1)]),
            (limits(1, 100), &[("a\n", 1), ("bb\n", 1), ("ccc\n", 1), ("dddd\n", 1), ("e\n", 1)]),
            (limits(100, 5), &[("a\nbb\n", 2), ("ccc\n", 1), ("dddd\n", 1), ("e\n", 1)]),
            (limits(100, 1), &[("a\n", 1), ("bb\n", 1), ("ccc\n", 1), ("dddd\n", 1), ("e\n", 1)]),
            (limits(100, 100), &[("a\nbb\nccc\ndddd\ne\n", 5)]),
        ];
        for (limits, expected) in table {
            let ring = ring();
            offer(&ring, &lines);
            assert_eq!(batches(&ring, limits), bodies(expected), "{limits:?}");
            assert_eq!(ring.level().beacons, 0);
            assert_eq!(ring.level().bytes, 0);
            assert_eq!(ring.ledger().snapshot().in_flight, 5);
        }
    }

    #[test]
    fn a_dropped_batcher_ends() {
        let (sender, mut receiver) = mpsc::channel(2);
        drop(Batcher::start("test", ring(), limits(2, 100), sender).unwrap());
        let start = std::time::Instant::now();
        while !matches!(receiver.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)) {
            assert!(start.elapsed() < Duration::from_secs(10), "its thread still holds the sender");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_nobody_takes_is_counted() {
        let ring = ring();
        offer(&ring, &["a\n", "b\n", "c\n", "d\n"]);
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let batcher = Batcher::start("test", Arc::clone(&ring), limits(2, 100), sender).unwrap();
        batcher.finish();
        batcher.join();
        let seen = ring.ledger().snapshot();
        assert_eq!(seen.dropped_for(DropReason::ShutdownInBatch), 2);
        assert_eq!(seen.dropped_for(DropReason::ShutdownOnRing), 2);
        assert_eq!((seen.pending(), ring.level().beacons), (0, 0));
    }
}
