//! Decoding: frames and octets a second, and the time of a long body that comes in pieces.
//!
//! `cargo bench -p stompwire --bench decode`

use std::time::Duration;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stompwire::{
    Command, Frame, Version,
    proto::{Decoder, Limits},
};

mod frames;

const FRAMES: usize = 1000;

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let mut bench = |name: &str, wire: BytesMut, count: usize, read: usize| {
        group.throughput(Throughput::ElementsAndBytes { elements: count as u64, bytes: wire.len() as u64 });
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || (decoder(), BytesMut::with_capacity(wire.len()), wire.clone()),
                |(decoder, buffer, wire)| {
                    let decoded = if read >= wire.len() {
                        drain(decoder, wire)
                    } else {
                        wire.chunks(read)
                            .map(|chunk| {
                                buffer.extend_from_slice(chunk);
                                drain(decoder, buffer)
                            })
                            .sum()
                    };
                    assert_eq!(decoded, count);
                },
                BatchSize::LargeInput,
            );
        });
    };

    bench("message_342B", frames::messages(FRAMES), FRAMES, usize::MAX);
    bench("message_342B_8KiB_reads", frames::messages(FRAMES), FRAMES, 8 * 1024);
    bench("receipt_small", frames::wire(&frames::receipt(), FRAMES), FRAMES, usize::MAX);
    bench("send_64KiB", frames::wire(&frames::batch(), 16), 16, usize::MAX);

    // Linear in octets: to be compared with a body of a quarter of the size, and with one whose length is known.
    for (name, mib) in [("1MiB_no_length_8KiB_chunks", 1), ("4MiB_no_length_8KiB_chunks", 4)] {
        let mut wire = BytesMut::from("MESSAGE\nsubscription:0\n\n");
        wire.resize(wire.len() + mib * 1024 * 1024, b'j');
        wire.extend_from_slice(b"\0");
        bench(name, wire, 1, 8 * 1024);
    }
    let long =
        Frame::new(Command::Message).with_header("subscription", "0").with_body(vec![b'j'; 4 * 1024 * 1024]);
    bench("4MiB_with_length_8KiB_chunks", frames::wire(&long, 1), 1, 8 * 1024);
    group.finish();
}

fn decoder() -> Decoder {
    let mut decoder = Decoder::new(Limits::default());
    decoder.set_version(Version::V1_2);
    decoder
}

/// Takes every whole frame; says how many there were.
fn drain(decoder: &mut Decoder, buffer: &mut BytesMut) -> usize {
    let mut count = 0;
    while let Some(frame) = decoder.decode(buffer).expect("well-formed") {
        std::hint::black_box(&frame);
        count += 1;
    }
    count
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = decode
}
criterion_main!(benches);
