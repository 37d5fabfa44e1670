//! Encoding: frames and octets a second, into a buffer that is used again and again.
//!
//! `cargo bench -p stompwire --bench encode`

use std::time::Duration;

use bytes::{Buf, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stompwire::{
    Headers, Version,
    proto::{Decoder, Encoder, Limits, Outbox, SendTemplate},
};

mod frames;

const FRAMES: usize = 1000;

fn encode(c: &mut Criterion) {
    let encoder = Encoder::new(Version::V1_2);
    let mut group = c.benchmark_group("encode");
    let (receipt, batch) = (frames::receipt(), frames::batch());
    let table = [
        ("message_342B", frames::message(), frames::messages(FRAMES), FRAMES),
        ("receipt_small", receipt.clone(), frames::wire(&receipt, FRAMES), FRAMES),
        ("send_64KiB", batch.clone(), frames::wire(&batch, 16), 16),
    ];
    for (name, frame, wire, count) in table {
        let bytes = wire.len() as u64;
        group.throughput(Throughput::ElementsAndBytes { elements: count as u64, bytes });
        let mut dst = BytesMut::with_capacity(2 * bytes as usize);
        group.bench_function(name, |b| {
            b.iter(|| {
                dst.clear();
                for _ in 0..count {
                    encoder
                        .encode(std::hint::black_box(&frame), &mut dst)
                        .expect("nothing that cannot be encoded");
                }
                assert_eq!(dst.len() as u64, bytes);
            });
        });
        let mut outbox = Outbox::new();
        group.bench_function(format!("{name}_outbox"), |b| {
            b.iter(|| {
                for _ in 0..count {
                    let frame = std::hint::black_box(&frame);
                    encoder.enqueue(frame, &[], &mut outbox).expect("nothing that cannot be encoded");
                }
                assert_eq!(outbox.remaining() as u64, bytes);
                outbox.advance(bytes as usize);
            });
        });
    }

    // What the headers cost when they are not ready: a frame built each time, and a received one passed on.
    let wire = frames::messages(1);
    let received = Decoder::new(Limits::default()).decode(&mut wire.clone());
    let received = received.expect("well-formed").expect("whole");
    let body = received.body_bytes();
    group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: wire.len() as u64 });
    let mut dst = BytesMut::with_capacity(1024);
    group.bench_function("message_342B_passed_on", |b| {
        b.iter(|| {
            dst.clear();
            encoder.encode(std::hint::black_box(&received), &mut dst).expect("it was encoded before");
        });
    });
    assert_eq!(dst, wire);
    group.bench_function("message_342B_built", |b| {
        b.iter(|| {
            dst.clear();
            let frame = frames::message_with(body.clone());
            encoder.encode(std::hint::black_box(&frame), &mut dst).expect("nothing that cannot be encoded");
        });
    });
    assert_eq!(dst, wire);

    // A publisher's way: constant headers encoded once.
    let constant: Headers =
        [("destination", "/queue/beacons"), ("persistent", "true"), ("content-type", "application/x-ndjson")]
            .into_iter()
            .collect();
    let template = SendTemplate::new(&encoder, &constant).expect("nothing that cannot be encoded");
    let mut outbox = Outbox::new();
    let send = |outbox: &mut Outbox| {
        let receipt = std::hint::black_box([("receipt", "1234567")]);
        template.enqueue(&receipt, &body, outbox).expect("nothing that cannot be encoded");
    };
    send(&mut outbox);
    let bytes = outbox.remaining();
    outbox.advance(bytes);
    group
        .throughput(Throughput::ElementsAndBytes { elements: FRAMES as u64, bytes: (FRAMES * bytes) as u64 });
    group.bench_function("send_template_outbox", |b| {
        b.iter(|| {
            (0..FRAMES).for_each(|_| send(&mut outbox));
            outbox.advance(FRAMES * bytes);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = encode
}
criterion_main!(benches);
