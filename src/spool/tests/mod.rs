//! The spool as delivery meets it: over a real file, in good order and in every kind of trouble.

mod model;
mod trouble;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::batch::Batch;

/// Longer than any step takes.
const LIMIT: Duration = Duration::from_secs(30);

fn options(path: &Path) -> SpoolOptions {
    SpoolOptions {
        path: path.to_owned(),
        destination: "/queue/beacons".to_owned(),
        max_bytes: 64 << 20,
        min_free_bytes: 0,
        synchronous: Synchronous::Normal,
    }
}

/// A spool in a runtime that lasts as long.
struct Rig {
    runtime: tokio::runtime::Runtime,
    spool: Spool,
    thread: SpoolThread,
}

impl Rig {
    fn start(options: SpoolOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (spool, thread) = Spool::start(options).unwrap();
        Self { runtime, spool, thread }
    }

    fn append(&self, batch: &Batch) -> Result<Row, Refused> {
        self.runtime.block_on(self.spool.append(batch))
    }

    fn append_all(&self, batches: impl IntoIterator<Item = Batch>) -> Vec<Row> {
        batches.into_iter().map(|batch| self.append(&batch).unwrap()).collect()
    }

    fn read(&self, after: Option<Row>) -> Result<Vec<(Row, Batch)>, Refused> {
        self.runtime.block_on(self.spool.read(after, usize::MAX, usize::MAX))
    }

    /// The bodies of everything that is read.
    fn bodies(&self) -> Vec<String> {
        let read = self.read(None).unwrap();
        read.iter().map(|(_, batch)| String::from_utf8(batch.body.to_vec()).unwrap()).collect()
    }

    fn state(&self) -> State {
        self.spool.state().borrow().clone()
    }

    fn wait(&self, wanted: impl FnMut(&State) -> bool) -> State {
        let mut state = self.spool.state();
        let waited = async { tokio::time::timeout(LIMIT, state.wait_for(wanted)).await };
        self.runtime.block_on(waited).expect("it comes to this state").unwrap().clone()
    }

    /// Waits until the figures are so.
    fn wait_until(&self, is_so: impl Fn(&Spool) -> bool) {
        let start = Instant::now();
        while !is_so(&self.spool) {
            assert!(start.elapsed() < LIMIT, "{:?} {:?}", self.spool.level(), self.state());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn stop(self) {
        drop(self.spool);
        self.thread.join(Instant::now() + LIMIT);
    }
}

fn batch(body: &str, count: u64) -> Batch {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Batch { id: Uuid::now_v7(), body, count, tickets: Vec::new() }
}

fn level(batches: u64, beacons: u64, octets: u64) -> Level {
    Level { batches, beacons, octets }
}

#[test]
fn batches_come_back_in_order_without_those_removed_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    // The folder is made too.
    let path = folder.path().join("deep/er/main.spool");
    let rig = Rig::start(options(&path));
    assert_eq!(rig.state(), State::Working);
    let first = batch("a\n", 1);
    let rows = [
        rig.append(&first).unwrap(),
        rig.append(&batch("bb\nb\n", 2)).unwrap(),
        rig.append(&batch("", 0)).unwrap(),
        rig.append(&batch("d\n", 1)).unwrap(),
    ];
    assert!(rows.is_sorted_by(|one, other| one < other));
    let read = rig.read(None).unwrap();
    assert_eq!(read.iter().map(|(row, _)| *row).collect::<Vec<_>>(), rows);
    assert_eq!((read[0].1.id, read[0].1.count, &read[0].1.body), (first.id, 1, &first.body));
    assert_eq!(rig.spool.level(), level(4, 4, 9));
    assert_eq!(rig.spool.recovered(), Level::default());

    rig.spool.remove(rows[1]);
    assert_eq!(rig.bodies(), ["a\n", "", "d\n"], "gone at once for who reads");
    let (after, limited) = rig.runtime.block_on(async {
        let after = rig.spool.read(Some(rows[2]), 10, 10).await.unwrap();
        (after, [rig.spool.read(None, 1, 10).await.unwrap(), rig.spool.read(None, 10, 1).await.unwrap()])
    });
    assert_eq!(after.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [rows[3]]);
    assert_eq!(limited.map(|read| read.len()), [1, 1]);
    rig.wait_until(|spool| spool.level() == level(3, 2, 4));
    rig.stop();
    assert!(!aside::has_companions(&path).unwrap(), "closed properly");

    let rig = Rig::start(options(&path));
    assert_eq!(rig.spool.recovered(), level(3, 2, 4));
    assert_eq!(rig.spool.level(), level(3, 2, 4));
    assert_eq!(rig.bodies(), ["a\n", "", "d\n"]);
    let next = rig.append(&batch("e\n", 1)).unwrap();
    assert!(next > rows[3]);
    for (row, _) in rig.read(None).unwrap() {
        rig.spool.remove(row);
    }
    rig.stop();
    let rig = Rig::start(options(&path));
    assert_eq!(rig.spool.recovered(), Level::default(), "what was removed is deleted when it ends");
    assert!(rig.append(&batch("f\n", 1)).unwrap() > next, "rows are not used again");
}

#[test]
fn many_appends_share_a_transaction_and_a_dropped_one_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(SpoolOptions {
        synchronous: Synchronous::Full,
        ..options(&folder.path().join("main.spool"))
    });
    let batches: Vec<Batch> = (0..2000).map(|number| batch(&format!("{number}\n"), 1)).collect();
    rig.runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for (number, batch) in batches.into_iter().enumerate() {
            let spool = rig.spool.clone();
            let is_dropped = number % 10 == 0;
            tasks.spawn(async move {
                let append = spool.append(&batch);
                if is_dropped {
                    // Polled once: it is on its way.
                    let now = std::future::ready(());
                    tokio::select! { biased; _ = append => {}, () = now => {} }
                } else {
                    append.await.unwrap();
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    });
    rig.wait_until(|spool| spool.level().batches == 1800);
    let mut numbers: Vec<u64> = rig.bodies().iter().map(|body| body.trim().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq((0..2000).filter(|number| number % 10 != 0)));
    let rows: Vec<Row> = rig.read(None).unwrap().into_iter().map(|(row, _)| row).collect();
    assert!(rows.is_sorted());
}

#[test]
fn the_bound_holds_to_the_page_and_the_state_comes_back_with_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    let max_bytes = 1 << 20;
    let rig = Rig::start(SpoolOptions { max_bytes, ..options(&path) });
    for length in [10, 700, 2100, 4000, 5000, 30_000] {
        let body = "x".repeat(length);
        let mut rows = Vec::new();
        let refused = loop {
            match rig.append(&batch(&body, 1)) {
                Ok(row) => rows.push(row),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, Refused::Full);
        assert_eq!(rig.state(), State::Full);
        assert!(rig.spool.used_bytes() <= max_bytes);
        assert!(rig.spool.used_bytes() >= max_bytes - 2 * 4096 - 30_000, "{length}");
        // Bodies of 2,100 octets leave nearly half of each page empty.
        assert!(rig.spool.level().octets >= max_bytes / 100 * if length == 10 { 10 } else { 50 }, "{length}");
        rows.into_iter().for_each(|row| rig.spool.remove(row));
        rig.wait(|state| *state == State::Working);
        rig.wait_until(|spool| spool.level() == Level::default());
        assert!(rig.spool.used_bytes() <= 5 * 4096, "everything else is free: {}", rig.spool.used_bytes());
    }
    rig.stop();
    assert!(std::fs::metadata(&path).unwrap().len() <= max_bytes);
}

#[test]
fn what_was_drained_is_given_back_to_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    let rig = Rig::start(options(&path));
    let size = |suffix| std::fs::metadata(aside::with_suffix(&path, suffix)).map_or(0, |found| found.len());
    let body = "x".repeat(64 << 10);
    let rows = rig.append_all((0..600).map(|_| batch(&body, 10)));
    assert!(size("-wal") <= 24 << 20, "the log is {} octets long", size("-wal"));
    let (last, drained) = rows.split_last().unwrap();
    drained.iter().for_each(|row| rig.spool.remove(*row));
    rig.wait_until(|spool| spool.level().batches == 1);
    rig.wait_until(|_| size("") < 1 << 20 && size("-wal") == 0);
    assert_eq!(rig.read(None).unwrap().iter().map(|(row, _)| *row).collect::<Vec<_>>(), [*last]);
    assert_eq!(rig.bodies(), [body]);
}

#[test]
fn a_closed_spool_says_so_and_ends_without_its_handles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    let Rig { runtime, spool, thread } = Rig::start(options(&path));
    runtime.block_on(spool.append(&batch("a\n", 1))).unwrap();
    thread.join(Instant::now() + LIMIT);
    assert_eq!(runtime.block_on(spool.append(&batch("b\n", 1))), Err(Refused::Closed));
    assert_eq!(runtime.block_on(spool.read(None, 1, 1)).map(|read| read.len()), Err(Refused::Closed));
    spool.remove(Row(1));
    drop(spool);
    // Neither joined nor told to end.
    let rig = Rig::start(options(&path));
    let Rig { spool, thread, .. } = rig;
    drop((spool, thread));
    let rig = Rig::start(options(&path));
    rig.wait(|state| *state == State::Working);
    assert_eq!(rig.bodies(), ["a\n"], "only what was not queued before the end is still there");
}
