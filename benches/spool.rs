//! Appends, by how many wait at the same time, at both durabilities. The disk decides: say which one with the figures.
//! `TMPDIR` chooses it.

use std::time::{Duration, Instant};

use beacon_edge::{
    batch::Batch,
    spool::{Spool, SpoolOptions, Synchronous},
};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;

const BODY: usize = 16 << 10;

fn appends(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (name, synchronous) in [("full", Synchronous::Full), ("normal", Synchronous::Normal)] {
        let mut group = criterion.benchmark_group(format!("spool/append/{name}"));
        group.throughput(Throughput::Elements(1)).sample_size(10);
        for waiting in [1_u64, 8, 64, 256] {
            let options = SpoolOptions {
                path: folder.path().join(format!("{name}-{waiting}.spool")),
                destination: "/queue/beacons".to_owned(),
                max_bytes: 4 << 30,
                min_free_bytes: 0,
                synchronous,
            };
            let (spool, thread) = Spool::start(options).expect("a thread");
            group.bench_function(format!("{waiting}_waiting"), |bencher| {
                bencher.iter_custom(|appends| runtime.block_on(append(&spool, waiting, appends)));
            });
            thread.join(Instant::now() + Duration::from_secs(60));
        }
        group.finish();
    }
}

/// The time of so many appends by `waiting` callers together. Each row is removed again.
async fn append(spool: &Spool, waiting: u64, appends: u64) -> Duration {
    let body = Bytes::from(vec![b'x'; BODY]);
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..waiting {
        let (spool, body) = (spool.clone(), body.clone());
        let share = appends / waiting + u64::from(caller < appends % waiting);
        tasks.spawn(async move {
            for _ in 0..share {
                let batch = Batch { id: Uuid::now_v7(), body: body.clone(), count: 20, tickets: Vec::new() };
                let row = spool.append(&batch).await.expect("the spool has room");
                spool.remove(row);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("an append does not panic");
    }
    started.elapsed()
}

criterion_group!(benches, appends);
criterion_main!(benches);
