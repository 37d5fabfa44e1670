//! Packing: lines from the ring into batches, by limits. Per batch a copy of its octets, per beacon a slot of the ring.

use std::{hint::black_box, sync::Arc, time::Duration};

use beacon_edge::{
    batch::{Limits, Packer},
    ledger::Ledger,
    ring::{Limits as RingLimits, Overflow, Ring},
};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const BEACONS: usize = 10_000;
static LINE: [u8; 512] = [b'x'; 512];

fn pack(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(BEACONS as u64));
    let limits = RingLimits { max_beacons: BEACONS * 2, max_bytes: 1 << 30 };
    let ring = Arc::new(Ring::new(limits, Overflow::DropNewest, Arc::new(Ledger::new(1))));
    for (name, max_beacons) in [("one_beacon", 1), ("64KiB", usize::MAX)] {
        let limits = Limits { max_beacons, max_bytes: 64 * 1024, linger: Duration::ZERO };
        let mut packer = Packer::new(limits);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    for _ in 0..BEACONS {
                        ring.offer(0, Bytes::from_static(&LINE));
                    }
                },
                |()| {
                    while packer.has_carried() || ring.level().beacons > 0 {
                        packer.begin(None);
                        packer.fill(&ring);
                        black_box(packer.seal(&ring));
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, pack);
criterion_main!(benches);
