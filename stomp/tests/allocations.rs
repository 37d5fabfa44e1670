//! How many allocations a frame costs. The counter is the whole process's, and the threads of the usual test harness
//! allocate too: this test is a program of its own (`harness = false`).
#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::alloc::System;

use bytes::{Buf, Bytes, BytesMut};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use stompwire::{
    Command, Frame, Headers, Version,
    proto::{Decoder, Encoder, Lenience, Limits, Outbox, Part, SendTemplate},
};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FRAMES: usize = 1000;

fn main() {
    allocations_a_frame();
    println!("test allocations_a_frame ... ok");
}

fn allocations_a_frame() {
    let message = Frame::new(Command::Message)
        .with_header("subscription", "0")
        .with_header("destination", "/queue/beacons")
        .with_header("message-id", "T_0@@session@@1")
        .with_header("note", "a b")
        .with_body(vec![b'j'; 200]);
    let bare = Frame::new(Command::Receipt);
    let encoder = Encoder::new(Version::V1_2);

    let mut many = message.clone();
    (0..10).for_each(|n| many.headers_mut().push("n", &n.to_string()));

    // Decoding: the table of the headers where they are many or unusual, and for the buffer as a whole the count of those
    // who share it.
    for (frame, a_frame, lenience) in [
        (&message, 0, Lenience::STRICT),
        (&bare, 0, Lenience::STRICT),
        (&many, 1, Lenience::STRICT),
        (&message, 1, Lenience::ALL),
        (&bare, 0, Lenience::ALL),
    ] {
        let mut wire = BytesMut::new();
        for _ in 0..FRAMES {
            encoder.encode(frame, &mut wire).unwrap();
        }
        let mut decoder = Decoder::new(Limits::default()).with_lenience(lenience);
        decoder.set_version(Version::V1_2);
        let mut frames = Vec::with_capacity(FRAMES);
        let decoding = counted(|| {
            while let Some(frame) = decoder.decode(&mut wire).unwrap() {
                frames.push(frame);
            }
        });
        assert_eq!(frames.len(), FRAMES);
        // The decoder's own table, if it needs one, grows once to the greatest number of headers.
        assert!(decoding <= a_frame * FRAMES + 5, "{decoding} allocations for {FRAMES} {}", frame.command());
    }

    // Decoding in parts: the same, however many parts a body comes in.
    let mut wire = BytesMut::new();
    encoder.encode(&message.clone().with_body(vec![b'j'; 100 * FRAMES]), &mut wire).unwrap();
    let mut decoder = Decoder::new(Limits { max_body: 10, ..Limits::default() });
    decoder.set_version(Version::V1_2);
    let (mut parts, mut rest) = (Vec::with_capacity(FRAMES + 10), wire.split_off(200));
    let decoding = counted(|| {
        while !rest.is_empty() {
            while let Some(part) = decoder.decode_part(&mut wire).unwrap() {
                parts.push(part);
            }
            wire.unsplit(rest.split_to(rest.len().min(100)));
        }
        parts.extend(core::iter::from_fn(|| decoder.decode_part(&mut wire).unwrap()));
    });
    assert!(parts.len() > FRAMES && parts.last() == Some(&Part::End), "{} parts", parts.len());
    assert!(decoding <= 8, "{decoding} allocations for {} parts", parts.len());

    // Encoding into a buffer that is large enough: none.
    let mut dst = BytesMut::with_capacity(FRAMES * 1024);
    let encoding = counted(|| (0..FRAMES).for_each(|_| encoder.encode(&message, &mut dst).unwrap()));
    assert_eq!(encoding, 0);

    // Queueing in an outbox that is written now and then: none once it has grown, as long as bodies are copied.
    let constant: Headers = [("destination", "/queue/beacons"), ("persistent", "true")].into_iter().collect();
    let template = SendTemplate::new(&encoder, &constant).unwrap();
    let mut outbox = Outbox::new();
    let mut round = |body: &Bytes| {
        for _ in 0..10 {
            template.enqueue(&[("receipt", "1234567")], body, &mut outbox).unwrap();
            encoder.enqueue(&message, &[("receipt", "1234567")], &mut outbox).unwrap();
        }
        outbox.advance(outbox.remaining());
    };
    let short = Bytes::from(vec![b'j'; 200]);
    (0..10).for_each(|_| round(&short));
    assert_eq!(counted(|| (0..FRAMES / 20).for_each(|_| round(&short))), 0);

    // A body too long to be copied is shared; what is around it costs at most two allocations.
    let long = Bytes::from(vec![b'j'; 64 * 1024]);
    (0..10).for_each(|_| round(&long));
    let sharing = counted(|| (0..FRAMES / 10).for_each(|_| round(&long)));
    assert!(sharing <= 2 * FRAMES, "{sharing} allocations for {FRAMES} long bodies");
}

fn counted(work: impl FnOnce()) -> usize {
    let region = Region::new(COUNTED);
    work();
    let change = region.change();
    change.allocations + change.reallocations
}
