//! What must hold for every input: round trips, one result whatever the chunking, agreement with a second parser, and
//! limits that hold before the octets are buffered.

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*, sample::select};
use reference::{
    End, Parsed, Rules,
    feed::{decoder, frame_by_frame, parsed, part_by_part},
};
use stompwire::proto::{
    Command, DecodeError, Decoder, EncodeError, Encoder, Frame, Headers, Lenience, Limits, Outbox, Version,
};

mod reference;

/// Pieces that are likely to make sense, or trouble, next to each other.
const PIECES: [&[u8]; 46] = [
    b"\n",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\r",
    b"\0",
    b"\0",
    b":",
    b"\\",
    b"\\n",
    b"\\c",
    b"\\r",
    b"\\\\",
    b"\\t",
    b"SEND\n",
    b"MESSAGE\n",
    b"MESSAGE\r\n",
    b"RECEIPT\n",
    b"ERROR\n",
    b"CONNECT\n",
    b"CONNECTED\n",
    b"ACK\n",
    b"STOMP\n",
    b"send\n",
    b"a:b\n",
    b"a:b\r\n",
    b"a\\cb:\\n\n",
    b"content-length:3\n",
    b"content-length:0\n",
    b"content-length:12\n",
    b"content-length:+1\n",
    b"content-length:18446744073709551616\n",
    b"content-length",
    b"receipt-id:7\n\n\0",
    b"abc",
    b"\xc3\xa9",
    b"\xc3",
    b"\xff",
    b" ",
    b"SEND\n\nabc\0",
    b"SEND\n\nabcdefghijklm",
    b"MESSAGE\ncontent-length:12\n\nabcdef\0hijkl\0",
    b" a\t: b \n",
    b" \n",
    b"no colon\n",
    b":no name\n",
];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn decoding_agrees_with_the_reference(input in octets(), rules in rules(), chunks in chunking()) {
        let expected = reference::parse(&input, &rules, false);
        for chunks in [&[usize::MAX], &chunks[..], &[1]] {
            prop_assert_eq!(&frame_by_frame(&input, &rules, cycle(chunks)), &expected, "chunks {:?}", chunks);
        }
    }

    #[test]
    fn in_parts_too(input in octets(), rules in rules(), chunks in chunking()) {
        let expected = reference::parse(&input, &rules, true);
        let (whole, open) = part_by_part(&input, &rules, cycle(&[usize::MAX]));
        prop_assert_eq!(&whole, &expected);
        for chunks in [&chunks[..], &[1]] {
            let (result, prefix) = part_by_part(&input, &rules, cycle(chunks));
            prop_assert_eq!(&result, &expected, "chunks {:?}", chunks);
            prop_assert_eq!(&prefix, &open, "what came before the end, chunks {:?}", chunks);
        }
    }

    #[test]
    fn a_long_body_comes_in_parts_as_it_does_whole(
        body in vec(select(vec![0, b'\n', b'\r', b'x', 0xff]), 0..60),
        counted: bool,
        max_body in 0..40_usize,
        eols in 0..3_usize,
        chunks in chunking(),
    ) {
        let body: Vec<u8> = body.into_iter().filter(|octet| counted || *octet != 0).collect();
        let mut wire = b"MESSAGE\n".to_vec();
        if counted {
            wire.extend_from_slice(format!("content-length:{}\n", body.len()).as_bytes());
        }
        wire.push(b'\n');
        wire.extend_from_slice(&body);
        wire.push(0);
        wire.extend(std::iter::repeat_n(b'\n', eols));
        wire.extend_from_slice(b"RECEIPT\nreceipt-id:1\n\n\0");
        let rules = |max_body| Rules {
            version: Some(Version::V1_2),
            limits: Limits { max_body, ..Limits::default() },
            unescape_connect: false,
            lenience: Lenience::STRICT,
        };
        let whole = frame_by_frame(&wire, &rules(body.len()), cycle(&[usize::MAX]));
        prop_assert_eq!(whole.0.len(), 2);
        prop_assert_eq!(&whole.0[0].body, &body);
        prop_assert_eq!(part_by_part(&wire, &rules(max_body), cycle(&chunks)), (whole.clone(), None));
        for at in 0..=wire.len() {
            let split = part_by_part(&wire, &rules(max_body), cycle(&[at, usize::MAX]));
            prop_assert_eq!(split, (whole.clone(), None), "split at {}", at);
        }
    }

    #[test]
    fn a_frame_comes_back_as_it_went(
        frames in vec((frame(), 0..3_usize), 1..4),
        version in version(),
        escape_connect: bool,
        content_length in prop::bool::weighted(0.8),
        chunks in chunking(),
    ) {
        let encoder = Encoder::new(version)
            .with_escaped_connect(escape_connect)
            .with_content_length(content_length);
        let rules = Rules {
            version: Some(version),
            limits: Limits::default(),
            unescape_connect: escape_connect,
            lenience: Lenience::STRICT,
        };
        let mut wire = BytesMut::new();
        let mut expected = Vec::new();
        for (frame, eols) in &frames {
            let before = wire.clone();
            let result = encoder.encode(frame, &mut wire);
            prop_assert_eq!(result.is_ok(), can_be_encoded(frame, version, escape_connect, content_length), "{:?}", result);
            let mut outbox = Outbox::new();
            prop_assert_eq!(&encoder.enqueue(frame, &[], &mut outbox), &result);
            if result.is_err() {
                prop_assert_eq!(&wire, &before, "a refused frame leaves no octet");
                prop_assert!(outbox_octets(outbox).is_empty());
                continue;
            }
            prop_assert_eq!(outbox_octets(outbox), &wire[before.len()..]);
            prop_assert_eq!(&passed_on(&wire[before.len()..], &encoder, &rules), &wire[before.len()..]);
            wire.extend(std::iter::repeat_n(b'\n', *eols));
            expected.push(on_arrival(frame, content_length));
        }
        prop_assert_eq!(frame_by_frame(&wire, &rules, cycle(&chunks)), (expected, End::Left(0)));
    }

    #[test]
    fn no_limit_lets_more_be_held(input in octets(), rules in rules()) {
        let Limits { max_head, max_body, .. } = rules.limits;
        let mut decoder = decoder(&rules);
        let mut buffer = BytesMut::new();
        for octet in input {
            buffer.extend_from_slice(&[octet]);
            let before = buffer.len();
            match decoder.decode(&mut buffer) {
                // A frame that is not whole yet lacks an octet of its head or body, or the NUL.
                Ok(None) => prop_assert!(buffer.len() <= max_head + max_body, "{} octets are held", buffer.len()),
                Ok(Some(frame)) => {
                    prop_assert!(frame.body().len() <= max_body);
                    prop_assert!(frame.headers().len() <= rules.limits.max_headers);
                    prop_assert!(before <= max_head + max_body + 1, "a frame of {before} octets");
                    prop_assert_eq!(buffer.len(), 0);
                }
                Err(_) => break,
            }
        }
    }
}

/// Each limit with the octets of a peer that never stops, and how many of them the decoder may see before it says so.
#[test]
fn each_limit_is_noticed_at_its_octet() {
    let limits = Limits {
        max_line: 100,
        max_headers: 5,
        max_head: 300,
        max_body: 1000,
        max_long_body: 2000,
        max_eols: 50,
    };
    let long_header = [b"a:", &[b'x'; 90][..], b"\n"].concat();
    let long_header = std::str::from_utf8(&long_header).unwrap();
    let announced = "SEND\ncontent-length:1001\n\n";
    let table = [
        ("command", "", "A", DecodeError::LineTooLong { limit: 100 }, 101),
        ("line", "SEND\n", "a", DecodeError::LineTooLong { limit: 100 }, 5 + 101),
        ("headers", "SEND\n", "a:\n", DecodeError::TooManyHeaders { limit: 5 }, 5 + 6 * 3),
        ("head", "SEND\n", long_header, DecodeError::HeadTooLong { limit: 300 }, 300),
        ("body", "SEND\n\n", "x", DecodeError::BodyTooLong { limit: 1000 }, 6 + 1001),
        ("announced body", announced, "x", DecodeError::BodyTooLong { limit: 1000 }, announced.len()),
        ("end-of-lines", "", "\n", DecodeError::EolFlood { limit: 50 }, 51),
    ];
    for (name, start, repeated, error, at) in table {
        let mut decoder = Decoder::new(limits);
        let mut buffer = BytesMut::new();
        let endless = start.bytes().chain(repeated.bytes().cycle()).take(10_000);
        let mut fed = 0;
        let noticed = endless.map(|octet| {
            buffer.extend_from_slice(&[octet]);
            fed += 1;
            decoder.decode(&mut buffer)
        });
        let noticed = noticed.skip_while(|result| *result == Ok(None)).map(Result::unwrap_err).next();
        assert_eq!((noticed, fed), (Some(error), at), "{name}");
    }
}

/// Limits a caller might set to mean "none" must not make arithmetic overflow on what a peer announces.
#[test]
fn no_limit_at_all_is_safe() {
    let limits = Limits {
        max_line: usize::MAX,
        max_headers: usize::MAX,
        max_head: usize::MAX,
        max_body: usize::MAX,
        max_long_body: u64::MAX,
        max_eols: usize::MAX,
    };
    let mut decoder = Decoder::new(limits);
    let mut buffer = BytesMut::from("\nSEND\ncontent-length:18446744073709551615\n\nbody\0");
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
}

/// At least 2,000 cases; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(2000), failure_persistence: None, ..default }
}

/// Chunks of these sizes, over and over.
fn cycle(sizes: &[usize]) -> impl FnMut() -> usize {
    let mut sizes = sizes.iter().cycle();
    move || *sizes.next().expect("endless")
}

/// A frame as one receives it, written again.
fn passed_on(wire: &[u8], encoder: &Encoder, rules: &Rules) -> BytesMut {
    let received = decoder(rules).decode(&mut wire.into()).expect("well-formed").expect("whole");
    let mut again = BytesMut::new();
    encoder.encode(&received, &mut again).expect("it was encoded before");
    again
}

/// The frame as a receiver sees it.
fn on_arrival(frame: &Frame, content_length: bool) -> Parsed {
    let mut parsed = parsed(frame);
    let given = frame.header("content-length").is_some();
    if content_length && frame.command().may_have_body() && !given {
        parsed.headers.push(("content-length".into(), frame.body().len().to_string()));
    }
    parsed
}

/// The rules of item 13 and of bodies, in words as plain as can be.
fn can_be_encoded(frame: &Frame, version: Version, escape_connect: bool, content_length: bool) -> bool {
    let (command, body) = (frame.command(), frame.body());
    if !body.is_empty() && !command.may_have_body() {
        return false;
    }
    match frame.header("content-length") {
        Some(given) if given != body.len().to_string() => return false,
        None if !content_length && body.contains(&0) => return false,
        _ => {}
    }
    let (never_in_name, never_in_value) = match command {
        Command::Connect | Command::Stomp if escape_connect => ("\0", "\0"),
        Command::Connect | Command::Stomp | Command::Connected => ("\0\r\n:", "\0\r\n"),
        _ if version == Version::V1_0 => ("\0\n:", "\0\n"),
        _ => ("\0", "\0"),
    };
    frame.headers().iter().all(|(name, value)| {
        !name.is_empty()
            && !name.contains(|c| never_in_name.contains(c))
            && !value.contains(|c| never_in_value.contains(c))
    })
}

fn outbox_octets(mut outbox: Outbox) -> Bytes {
    use bytes::Buf;
    outbox.copy_to_bytes(outbox.remaining())
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => vec(any::<u8>(), 0..200),
        6 => vec(select(&PIECES[..]), 0..30).prop_map(|pieces| pieces.concat()),
        // A plausible frame, one octet of which may be anything.
        3 => (vec(select(&PIECES[24..28]), 0..4), vec(select(&PIECES[..]), 0..4), any::<(usize, u8)>(), any::<bool>())
            .prop_map(|(headers, tail, (at, octet), spoil)| {
                let mut frame = [b"MESSAGE\n", &headers.concat()[..], b"\nabc\0\n", &tail.concat()].concat();
                let at = at % frame.len();
                if spoil {
                    frame[at] = octet;
                }
                frame
            }),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let limits = prop_oneof![
        2 => Just(Limits::default()),
        1 => (0..24_usize, 0..4_usize, 1..40_usize, 0..8_usize, 0..16_u64, 0..4_usize).prop_map(
            |(max_line, max_headers, max_head, max_body, max_long_body, max_eols)| Limits {
                max_line, max_headers, max_head, max_body, max_long_body, max_eols
            }
        ),
        1 => (0..8_usize, 0..16_u64)
            .prop_map(|(max_body, max_long_body)| Limits { max_body, max_long_body, ..Limits::default() }),
    ];
    let lenience = [prop::bool::weighted(0.2), prop::bool::weighted(0.2), prop::bool::weighted(0.2)];
    let lenience = lenience.prop_map(|[skip_bad_headers, trim_headers, ignore_bodies]| {
        let mut lenience = Lenience::STRICT;
        (lenience.skip_bad_headers, lenience.trim_headers) = (skip_bad_headers, trim_headers);
        lenience.ignore_bodies = ignore_bodies;
        lenience
    });
    (prop::option::weighted(0.8, version()), limits, prop::bool::weighted(0.2), lenience).prop_map(
        |(version, limits, unescape_connect, lenience)| Rules { version, limits, unescape_connect, lenience },
    )
}

fn version() -> impl Strategy<Value = Version> {
    select(&Version::ALL[..])
}

fn chunking() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![Just(1), 1..5_usize, 1..60_usize], 1..8)
}

fn frame() -> impl Strategy<Value = Frame> {
    let text = prop_oneof![
        "[a-z/-]{1,12}",
        any::<String>(),
        vec(select(vec!["\r", "\n", ":", "\\", "a", "é", "\\n"]), 0..6).prop_map(|parts| parts.concat()),
    ];
    let header = (text.clone(), text);
    let body = prop_oneof![
        2 => Just(Vec::new()),
        2 => vec(any::<u8>(), 1..40),
        1 => vec(any::<u8>(), 4090..4200),
    ];
    (select(&Command::ALL[..]), vec(header, 0..6), body, prop::option::weighted(0.1, 0..50_usize)).prop_map(
        |(command, headers, body, given)| {
            let mut all: Headers = headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            if let Some(error) = given {
                // Right more often than not.
                all.push("content-length", &(body.len() + error.saturating_sub(40)).to_string());
            }
            Frame::from_parts(command, all, body.into())
        },
    )
}

#[test]
fn a_refusal_names_the_header() {
    let frame = Frame::new(Command::Connect).with_header("passcode", "secret\n");
    let refused = Encoder::new(Version::V1_2).encode(&frame, &mut BytesMut::new()).unwrap_err();
    let expected = EncodeError::Unencodable {
        name: "passcode".into(),
        command: Command::Connect,
        version: Version::V1_2,
    };
    assert_eq!(refused, expected);
    assert!(!refused.to_string().contains("secret"));
}
