//! Delivery between a broker in this process and a real spool whose disk can be made to hang.

use std::collections::BTreeSet;

use bytes::Bytes;
use stompwire::broker::{Admission, Which};
use uuid::Uuid;

use super::*;
use crate::{
    ledger::{DropReason, Snapshot},
    spool::{SpoolOptions, Synchronous},
};

/// Longer than any step takes.
const LIMIT: Duration = Duration::from_secs(60);
const BATCHES: u64 = 20;
const DRAIN_RATE: usize = 1 << 20;

struct Rig {
    delivery: Delivery,
    batches: mpsc::Sender<Batch>,
    ledger: Arc<Ledger>,
    readings: Arc<Readings>,
    spool: Spool,
    broker: BrokerHandle,
    dir: tempfile::TempDir,
}

impl Rig {
    fn start(writes_ahead: bool, max_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (spool, thread) = Spool::start(options(dir.path(), max_bytes)).unwrap();
        let mut config = DestinationConfig {
            brokers: vec![Broker::Embedded],
            connections: 1,
            backoff_max: Duration::from_millis(100),
            dead_letter_dir: dir.path().display().to_string(),
            ..DestinationConfig::default()
        };
        config.spool.after = Duration::from_millis(20);
        config.spool.drain_rate = DRAIN_RATE;
        let (batches, receiver) = mpsc::channel(4 * BATCHES as usize);
        let (ledger, readings) = (Arc::new(Ledger::new(1)), Arc::new(Readings::default()));
        let delivered = Delivered {
            name: "main".to_owned(),
            config,
            ledger: Arc::clone(&ledger),
            batches: receiver,
            readings: Arc::clone(&readings),
            spool: Some(spool.clone()),
            writes_ahead,
        };
        let delivery = Delivery::start(vec![delivered], vec![thread]).unwrap();
        let broker = delivery.embedded().unwrap();
        let rig = Self { delivery, batches, ledger, readings, spool, broker, dir };
        rig.until("a broker", |rig| rig.readings.board().unwrap().takes());
        rig
    }

    fn send(&self, batches: u64, octets: usize) {
        for _ in 0..batches {
            self.ledger.accept(0);
            self.ledger.take(1);
            let body = Bytes::from(vec![b'x'; octets]);
            let batch = Batch { id: Uuid::now_v7(), body, count: 1, tickets: Vec::new() };
            self.batches.blocking_send(batch).unwrap();
        }
    }

    /// Sends batches that the broker takes and does not confirm before it goes.
    fn send_into_an_outage(&self, octets: usize) {
        self.broker.faults().withhold_receipts(Which::All);
        self.send(BATCHES, octets);
        self.until("sent", |rig| rig.broker.peek("beacons", usize::MAX).len() as u64 == BATCHES);
        self.broker.faults().set_admission(Admission::PortClosed);
        self.broker.faults().reset_connections();
    }

    fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < LIMIT, "{what}: {:?} {:?}", self.read(), self.spool.level());
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn read(&self) -> Snapshot {
        self.ledger.snapshot()
    }

    /// Ends everything in good order. The last account, and what is in the spool afterwards.
    fn end(self, within: Duration) -> (Snapshot, Vec<Uuid>) {
        let (read, dir) = self.finish(within);
        (read, left(&dir))
    }

    /// Ends everything in good order. The last account, and the folder with the spool.
    fn finish(self, within: Duration) -> (Snapshot, tempfile::TempDir) {
        let Self { delivery, batches, ledger, spool, dir, .. } = self;
        delivery.finish(Instant::now() + within);
        drop((batches, spool));
        delivery.join();
        (ledger.snapshot(), dir)
    }
}

/// What is in the spool of a run that has ended.
fn left(dir: &tempfile::TempDir) -> Vec<Uuid> {
    let (spool, thread) = Spool::start(options(dir.path(), 64 << 20)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let left = runtime.block_on(spool.read(None, usize::MAX, usize::MAX)).unwrap();
    thread.join(Instant::now() + LIMIT);
    left.into_iter().map(|(_, batch)| batch.id).collect()
}

fn options(dir: &std::path::Path, max_bytes: u64) -> SpoolOptions {
    SpoolOptions {
        path: dir.join("main.spool"),
        destination: "/queue/beacons".to_owned(),
        max_bytes,
        min_free_bytes: 0,
        synchronous: Synchronous::Normal,
    }
}

#[test]
fn outcomes_that_come_while_copies_are_written_leave_nothing_in_the_spool() {
    let rig = Rig::start(false, 64 << 20);
    let disk = rig.spool.hang();
    rig.send_into_an_outage(100);
    rig.until("copies wait for the disk", |rig| rig.spool.waiting() as u64 == BATCHES);
    assert_eq!(rig.read().in_flight, BATCHES);
    rig.broker.faults().clear();
    rig.until("confirmed", |rig| rig.read().confirmed == BATCHES);
    assert_eq!(rig.spool.waiting() as u64, BATCHES);
    drop(disk);
    rig.until("removed again", |rig| rig.readings.appends_and_removes() == (BATCHES, BATCHES));
    rig.until("empty", |rig| rig.spool.level().batches == 0);
    let (read, left) = rig.end(LIMIT);
    assert_eq!((read.confirmed, read.pending(), read.spooled, left.len()), (BATCHES, 0, 0, 0), "{read:?}");
}

#[test]
fn what_is_copied_is_left_there_at_a_shutdown_and_never_twice() {
    let rig = Rig::start(false, 64 << 20);
    rig.send_into_an_outage(100);
    rig.until("copied", |rig| rig.spool.level().batches == BATCHES);
    assert_eq!((rig.read().in_flight, rig.read().spooled), (BATCHES, 0), "the publisher has it");
    let readings = Arc::clone(&rig.readings);
    let (read, left) = rig.end(Duration::from_secs(2));
    assert_eq!(readings.appends_and_removes(), (BATCHES, 0));
    assert_eq!((read.spooled, read.in_flight, read.dropped_total()), (BATCHES, 0, 0), "{read:?}");
    assert_eq!(left.iter().collect::<BTreeSet<_>>().len() as u64, BATCHES);
    assert_eq!(left.len() as u64, BATCHES);
}

#[test]
fn a_spool_without_room_for_all_copies_keeps_the_account_exact() {
    for comes_back in [true, false] {
        // Room for some of them.
        let rig = Rig::start(false, 128 << 10);
        rig.send_into_an_outage(16 << 10);
        rig.until("some are refused", |rig| rig.readings.refusals().iter().sum::<u64>() > 0);
        let copied = rig.spool.level().batches;
        assert!((1..BATCHES).contains(&copied), "{copied}");
        assert_eq!(rig.read().in_flight, BATCHES);
        if comes_back {
            rig.broker.faults().clear();
            rig.until("confirmed", |rig| rig.read().confirmed == BATCHES && rig.spool.level().batches == 0);
        }
        let (read, left) = rig.end(Duration::from_secs(2));
        assert_eq!(read.pending(), 0, "{read:?}");
        assert_eq!(read.spooled, left.len() as u64, "{read:?}");
        let lost = read.dropped_for(DropReason::ShutdownInFlight);
        assert_eq!(read.accepted, read.confirmed + read.spooled + lost, "{read:?}");
        assert_eq!(read.confirmed, if comes_back { BATCHES } else { 0 });
        assert_eq!(left.iter().collect::<BTreeSet<_>>().len(), left.len(), "nothing twice");
    }
}

#[test]
fn a_shutdown_beside_a_disk_that_hangs_publishes_what_it_can_and_counts_what_it_loses() {
    const WITHIN: Duration = Duration::from_secs(2);
    for has_broker in [false, true] {
        // With a broker all waits for the disk first, without one what the publisher had is to be copied.
        let rig = Rig::start(has_broker, 64 << 20);
        let disk = rig.spool.hang();
        if has_broker {
            rig.send(BATCHES, 100);
        } else {
            rig.send_into_an_outage(100);
        }
        rig.until("all wait for the disk", |rig| rig.spool.waiting() as u64 == BATCHES);
        let start = Instant::now();
        let (read, dir) = rig.finish(WITHIN);
        assert!(start.elapsed() < WITHIN + LIMIT / 2, "{:?}", start.elapsed());
        let (confirmed, lost) = if has_broker { (BATCHES, 0) } else { (0, BATCHES) };
        assert_eq!((read.confirmed, read.dropped_total()), (confirmed, lost), "{read:?}");
        assert_eq!((read.pending(), read.spooled), (0, 0), "{read:?}");
        // What was published or given up is not there when the disk comes back.
        drop(disk);
        assert_eq!(left(&dir).len(), 0);
    }
}

#[test]
fn a_backlog_takes_at_least_the_time_that_its_rate_gives_it() {
    let rig = Rig::start(false, 64 << 20);
    rig.broker.faults().set_admission(Admission::PortClosed);
    rig.broker.faults().reset_connections();
    rig.until("no broker", |rig| !rig.readings.board().unwrap().takes());
    let octets = 16 << 10;
    rig.send(BATCHES, octets);
    rig.until("all spooled", |rig| rig.read().spooled == BATCHES);
    let start = Instant::now();
    rig.broker.faults().clear();
    rig.until("drained", |rig| rig.read().confirmed == BATCHES);
    // The first goes at once; a few milliseconds are made up for.
    let least = Duration::from_secs_f64((BATCHES - 2) as f64 * octets as f64 / DRAIN_RATE as f64);
    assert!(start.elapsed() >= least, "{:?} instead of {least:?}", start.elapsed());
}
