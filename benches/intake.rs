//! From a parsed request to a line on the ring: what one beacon costs besides HTTP.
//!
//! `beacon/stamp` and `beacon/write` are its parts; `intake/accept` is all of it, with one destination and with two (the
//! line is serialized once); `intake/full` is a beacon that finds the ring full and is dropped by policy.

#[path = "support.rs"]
mod support;

use std::{hint::black_box, sync::Arc};

use beacon_edge::{
    beacon::{Beacon, Stamp},
    intake::Intake,
    ledger::Ledger,
    ring::{Limits, Overflow, Ring},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use support::BEACON;

/// Beacons per measured turn; the ring is emptied between turns, outside the measurement.
const TURN: usize = 1000;

fn ring(max_beacons: usize) -> Arc<Ring> {
    let limits = Limits { max_beacons, max_bytes: 1 << 30 };
    Arc::new(Ring::new(limits, Overflow::DropNewest, Arc::new(Ledger::new(1))))
}

fn empty(rings: &[Arc<Ring>]) {
    for ring in rings {
        while let Ok(line) = ring.try_take() {
            ring.release(1, line.len());
        }
    }
}

fn beacon(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("beacon");
    group.throughput(Throughput::Elements(1));
    group.bench_function("stamp", |bencher| bencher.iter(|| black_box(Stamp::now())));
    let stamp = Stamp::now();
    let body = [b'x'; 400];
    for (name, beacon) in [("write/get", BEACON), ("write/post_400", Beacon { body: &body, ..BEACON })] {
        let mut line = Vec::with_capacity(4096);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                line.clear();
                black_box(&beacon).write(&stamp, &mut line);
                black_box(line.len())
            });
        });
    }
    group.finish();
}

fn intake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("intake");
    group.throughput(Throughput::Elements(TURN as u64));
    let cases = [
        ("accept", vec![ring(TURN * 2)]),
        ("accept_two", vec![ring(TURN * 2), ring(TURN * 2)]),
        ("full", vec![ring(1)]),
    ];
    for (name, rings) in cases {
        let mut intake = Intake::new(0);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || empty(if name == "full" { &[] } else { &rings }),
                |()| {
                    for _ in 0..TURN {
                        black_box(intake.take(black_box(&BEACON), &rings, None));
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, beacon, intake);
criterion_main!(benches);
