//! The peers side by side under criterion: `cargo bench --manifest-path stomp/peers/Cargo.toml`.
//!
//! `peers bench` measures the same by alternating rounds, which says more on a noisy machine.

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stompwire_peers::{
    bench::{BODIES, FRAMES, READ, long_message, messages},
    peers,
};

fn codec(c: &mut Criterion) {
    let wire = messages(FRAMES);
    let mut group = c.benchmark_group("decode_342B");
    group.throughput(Throughput::ElementsAndBytes { elements: FRAMES as u64, bytes: wire.len() as u64 });
    for peer in peers::all() {
        if (peer.decode_run)(&wire, usize::MAX).is_some() {
            let prepare = || (peer.decode_run)(&wire, usize::MAX).expect("it was there before");
            group.bench_function(peer.name, |b| {
                b.iter_batched_ref(prepare, |run| assert_eq!(run(), FRAMES), BatchSize::LargeInput);
            });
        }
    }
    group.finish();

    let mut group = c.benchmark_group("encode_342B");
    for peer in peers::all() {
        if let Some(mut run) = (peer.encode_run)(FRAMES) {
            group.throughput(Throughput::ElementsAndBytes { elements: FRAMES as u64, bytes: run() as u64 });
            let prepare = || (peer.encode_run)(FRAMES).expect("it was there before");
            group.bench_function(peer.name, |b| {
                b.iter_batched_ref(prepare, |run| run(), BatchSize::LargeInput);
            });
        }
    }
    group.finish();

    // The largest would take a quadratic peer minutes.
    let (name, body) = BODIES[1];
    let wire = long_message(body);
    let mut group = c.benchmark_group(format!("decode_{}_in_8KiB_reads", name.replace(' ', "")));
    group.throughput(Throughput::Bytes(wire.len() as u64)).sample_size(10);
    for peer in peers::all() {
        if (peer.decode_run)(&wire, READ).is_some() {
            let prepare = || (peer.decode_run)(&wire, READ).expect("it was there before");
            group.bench_function(peer.name, |b| {
                b.iter_batched_ref(prepare, |run| assert_eq!(run(), 1), BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = codec
}
criterion_main!(benches);
