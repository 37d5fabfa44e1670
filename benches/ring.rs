//! The ring: an offer with room, an offer without, and offers from several lanes at once against a batcher that takes.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use beacon_edge::{
    ledger::Ledger,
    ring::{Limits, Overflow, Ring},
};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const TURN: usize = 1000;
static LINE: [u8; 512] = [b'x'; 512];

fn ring(max_beacons: usize, overflow: Overflow, lanes: usize) -> Arc<Ring> {
    Arc::new(Ring::new(Limits { max_beacons, max_bytes: 1 << 30 }, overflow, Arc::new(Ledger::new(lanes))))
}

fn offers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(TURN as u64));
    let roomy = ring(TURN * 2, Overflow::DropNewest, 1);
    group.bench_function("offer", |bencher| {
        bencher.iter_batched(
            || {
                while let Ok(line) = roomy.try_take() {
                    roomy.release(1, line.len());
                }
            },
            |()| {
                for _ in 0..TURN {
                    black_box(roomy.offer(0, Bytes::from_static(&LINE)));
                }
            },
            BatchSize::PerIteration,
        );
    });
    for (name, overflow) in [
        ("full/drop_newest", Overflow::DropNewest),
        ("full/drop_oldest", Overflow::DropOldest),
        ("full/reject", Overflow::Reject),
    ] {
        let full = ring(TURN, overflow, 1);
        for _ in 0..TURN {
            full.offer(0, Bytes::from_static(&LINE));
        }
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..TURN {
                    black_box(full.offer(0, Bytes::from_static(&LINE)));
                }
            });
        });
    }
    group.finish();
}

/// Time per beacon over all lanes while one thread takes and releases in batches.
fn contended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/contended");
    group.throughput(Throughput::Elements(1));
    for lanes in [1, 2, 4] {
        let ring = ring(1 << 16, Overflow::DropNewest, lanes);
        group.bench_function(format!("{lanes}_lanes"), |bencher| {
            bencher.iter_custom(|beacons| {
                let done = AtomicBool::new(false);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        while !done.load(Ordering::Relaxed) {
                            let (mut count, mut octets) = (0, 0);
                            while let Ok(line) = ring.try_take() {
                                count += 1;
                                octets += line.len();
                            }
                            ring.release(count, octets);
                        }
                    });
                    let start = Instant::now();
                    thread::scope(|scope| {
                        for lane in 0..lanes {
                            let ring = &ring;
                            scope.spawn(move || {
                                for _ in 0..beacons / lanes as u64 {
                                    black_box(ring.offer(lane, Bytes::from_static(&LINE)));
                                }
                            });
                        }
                    });
                    let took = start.elapsed();
                    done.store(true, Ordering::Relaxed);
                    took
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, offers, contended);
criterion_main!(benches);
