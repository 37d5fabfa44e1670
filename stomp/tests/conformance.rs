//! Replays `vectors/*.json` against the decoder and the encoder; `CONFORMANCE.md` says what the items are.
//!
//! A vector for the decoder is an object with these keys:
//!
//! | key | meaning |
//! |---|---|
//! | `id`, `item` | a unique name; the item of the list that it shows |
//! | `version` | `"1.0"`, `"1.1"`, `"1.2"`, `"handshake"` (none agreed yet), or a list of them |
//! | `role` | who reads: `"client"` or `"server"` |
//! | `in` or `hex` | the octets: a string of the characters U+0000 to U+00FF, or hexadecimal digits |
//! | `frames` | what comes out: `[command, [[name, value], …], body]`; the body as in `in`, left out if empty |
//! | `parts` | instead, what comes out of `decode_part`: `{"frame": …}` as in `frames`; `{"head": [command, [[name, value], …], length or null]}`; `{"body": …}` as in `in`, neighbours joined; `"end"` |
//! | `error` | the variant of `DecodeError` that follows them |
//! | `left` | without an error: how many octets stay in the buffer |
//! | `limits` | limits that differ from the default ones |
//! | `unescape_connect`, `lenience` | the switches of these names |
//! | `note` | why, or which implementation differs |
//!
//! Those of `encode.json` have `frame` and `out` (or `error`, a variant of `EncodeError`) instead.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use bytes::BytesMut;
use reference::{
    End, Parsed, Rules,
    feed::{decoder, frame_by_frame, parsed, part_by_part},
    variant,
};
use serde::Deserialize;
use stompwire::proto::{DecodeError, Encoder, Frame, Lenience, Limits, Outbox, Part, Version};
use vectors::{FrameText, LimitsText, Octets, OneOrMore, Role, items_of, load, variant_name};

mod reference;
mod vectors;

const DECODING: [&str; 9] =
    ["lines", "headers", "escapes", "bodies", "parts", "eols", "limits", "lenience", "samples"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecodeVector {
    id: String,
    item: u8,
    version: OneOrMore,
    role: Role,
    r#in: Option<Octets>,
    hex: Option<String>,
    frames: Option<Vec<FrameText>>,
    parts: Option<Vec<PartText>>,
    error: Option<String>,
    #[serde(default)]
    left: usize,
    #[serde(default)]
    limits: LimitsText,
    #[serde(default)]
    unescape_connect: bool,
    #[serde(default)]
    lenience: LenienceText,
    #[expect(dead_code, reason = "for readers")]
    note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodeVector {
    id: String,
    item: u8,
    version: OneOrMore,
    frame: FrameText,
    out: Option<Octets>,
    error: Option<String>,
    #[serde(default)]
    escape_connect: bool,
    #[serde(default = "yes")]
    content_length: bool,
    #[expect(dead_code, reason = "for readers")]
    note: Option<String>,
}

/// Of a vector of any kind.
#[derive(Deserialize)]
struct ItemOnly {
    item: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum PartText {
    Frame(FrameText),
    Head(String, Vec<(String, String)>, Option<u64>),
    Body(Octets),
    End,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct LenienceText {
    skip_bad_headers: bool,
    trim_headers: bool,
    ignore_bodies: bool,
}

#[test]
fn decoding() {
    for vector in decode_vectors().filter(|vector| vector.parts.is_none()) {
        let input = vector.input();
        let frames: Vec<Frame> = vector.frames.iter().flatten().map(FrameText::frame).collect();
        vector.check_role(frames.iter());
        let end = vector.error.as_ref().map_or(End::Left(vector.left), |error| End::Error(leaked(error)));
        let expected = (frames.iter().map(parsed).collect::<Vec<Parsed>>(), end);
        for version in vector.version.iter() {
            let rules = vector.rules(version);
            let show = format!("{} ({version})", vector.id);
            assert_eq!(reference::parse(&input, &rules, false), expected, "{show}, by the reference parser");
            every_chunking(input.len(), |how, sizes| {
                assert_eq!(frame_by_frame(&input, &rules, sizes), expected, "{show}, {how}");
            });
            // Short bodies come whole, however they are read; then they may come in parts as well.
            let longest = rules.limits.max_body;
            let thresholds = if vector.in_parts() { vec![0, 2.min(longest), longest] } else { vec![longest] };
            for max_body in thresholds {
                let limits = Limits { max_body, max_long_body: longest as u64, ..rules.limits };
                let rules = Rules { limits, ..rules };
                every_chunking(input.len(), |how, sizes| {
                    let (result, _) = part_by_part(&input, &rules, sizes);
                    assert_eq!(result, expected, "{show}, in parts over {max_body}, {how}");
                });
            }
        }
    }
}

#[test]
fn the_first_of_repeated_headers_counts() {
    for vector in decode_vectors() {
        for frame in vector.frames.iter().flatten().map(FrameText::frame) {
            for (name, _) in frame.headers().iter() {
                let first = frame.headers().iter().find(|(other, _)| *other == name);
                assert_eq!(frame.header(name), first.map(|(_, value)| value), "{}", vector.id);
            }
        }
    }
}

#[test]
fn decoding_in_parts() {
    let mut seen = 0;
    for vector in decode_vectors() {
        let Some(parts) = &vector.parts else { continue };
        seen += 1;
        let input = vector.input();
        let parts: Vec<Part> = parts.iter().map(PartText::part).collect();
        vector.check_role(parts.iter().filter_map(|part| match part {
            Part::Frame(frame) | Part::Head { frame, .. } => Some(frame),
            Part::Body(_) | Part::End => None,
        }));
        for version in vector.version.iter() {
            let rules = vector.rules(version);
            every_chunking(input.len(), |how, sizes| {
                let (result, error, left) = joined_parts(&input, &rules, sizes);
                let show = format!("{} ({version}), {how}", vector.id);
                assert_eq!(result, parts, "{show}");
                assert_eq!(error.as_ref().map(variant), vector.error.as_deref(), "{show}");
                assert!(error.is_some() || left == vector.left, "{show}: {left} octets are left");
            });
        }
    }
    assert!(seen > 0);
}

#[test]
fn encoding() {
    for vector in load::<EncodeVector>("encode") {
        let frame = vector.frame.frame();
        for version in vector.version.iter() {
            let show = format!("{} ({version})", vector.id);
            let encoder = Encoder::new(Version::parse(version).expect("a version"))
                .with_escaped_connect(vector.escape_connect)
                .with_content_length(vector.content_length);
            // Whatever is in the buffer already must survive, error or not.
            let mut dst = BytesMut::from("before");
            let result = encoder.encode(&frame, &mut dst);
            assert_eq!(&dst[..6], b"before", "{show}");
            let error = result.as_ref().err().map(variant_name);
            assert_eq!(error, vector.error, "{show}");
            let out = vector.out.as_ref().map_or(&[][..], |out| &out.0);
            assert_eq!(dst[6..].escape_ascii().to_string(), out.escape_ascii().to_string(), "{show}");

            let mut outbox = Outbox::new();
            assert_eq!(encoder.enqueue(&frame, &[], &mut outbox), result, "{show}");
            assert_eq!(drain(outbox), out, "{show}, enqueued");
        }
    }
}

#[test]
fn every_id_is_unique() {
    items_of(&decode_vectors().map(|vector| (vector.id, vector.item)).collect::<Vec<_>>());
    items_of(
        &load::<EncodeVector>("encode")
            .into_iter()
            .map(|vector| (vector.id, vector.item))
            .collect::<Vec<_>>(),
    );
}

/// The table of `CONFORMANCE.md` names each item's files, and each item has one.
#[test]
fn the_table_is_true() {
    let mut files: BTreeMap<u8, BTreeSet<&str>> = BTreeMap::new();
    for name in DECODING.into_iter().chain(["encode", "session"]) {
        for ItemOnly { item } in load(name) {
            files.entry(item).or_default().insert(name);
        }
    }
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("CONFORMANCE.md")).unwrap();
    let table: BTreeMap<u8, BTreeSet<&str>> = text
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let item = cells.next()?.parse().ok()?;
            Some((item, cells.nth(1)?.split(", ").collect()))
        })
        .collect();
    assert_eq!(table, files);
    assert!(table.keys().copied().eq(1..=40));
}

fn decode_vectors() -> impl Iterator<Item = DecodeVector> {
    DECODING.into_iter().flat_map(load::<DecodeVector>)
}

fn yes() -> bool {
    true
}

/// The reference names errors by constants; a test may keep a few strings for ever.
fn leaked(text: &str) -> &'static str {
    String::leak(text.to_owned())
}

/// Whole, octet by octet, and split at every offset. `check` gets a name for it and the sizes of the chunks.
fn every_chunking(len: usize, mut check: impl FnMut(&str, &mut dyn FnMut() -> usize)) {
    check("whole", &mut || usize::MAX);
    check("octet by octet", &mut || 1);
    for at in 1..len {
        let mut sizes = [at].into_iter();
        check(&format!("split at {at}"), &mut || sizes.next().unwrap_or(usize::MAX));
    }
}

/// The parts as they come, neighbouring pieces of a body joined; the error; what is left.
fn joined_parts(
    mut input: &[u8],
    rules: &Rules,
    sizes: &mut dyn FnMut() -> usize,
) -> (Vec<Part>, Option<DecodeError>, usize) {
    let mut decoder = decoder(rules);
    let mut buffer = BytesMut::new();
    let mut parts = Vec::new();
    while !input.is_empty() {
        let (chunk, rest) = input.split_at(input.len().min(sizes()));
        buffer.extend_from_slice(chunk);
        input = rest;
        loop {
            match (decoder.decode_part(&mut buffer), parts.last_mut()) {
                (Ok(Some(Part::Body(piece))), Some(Part::Body(before))) => {
                    *before = [&before[..], &piece].concat().into();
                }
                (Ok(Some(part)), _) => parts.push(part),
                (Ok(None), _) => break,
                (Err(error), _) => return (parts, Some(error), buffer.len()),
            }
        }
    }
    (parts, None, buffer.len())
}

fn drain(mut outbox: Outbox) -> Vec<u8> {
    use bytes::Buf;
    outbox.copy_to_bytes(outbox.remaining()).to_vec()
}

impl DecodeVector {
    fn input(&self) -> Vec<u8> {
        match (&self.r#in, &self.hex) {
            (Some(octets), None) => octets.0.clone(),
            (None, Some(hex)) => (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits"))
                .collect(),
            _ => panic!("{}: either `in` or `hex`", self.id),
        }
    }

    fn rules(&self, version: &str) -> Rules {
        let version = (version != "handshake").then(|| Version::parse(version).expect("a version"));
        let mut lenience = Lenience::STRICT;
        lenience.skip_bad_headers = self.lenience.skip_bad_headers;
        lenience.trim_headers = self.lenience.trim_headers;
        lenience.ignore_bodies = self.lenience.ignore_bodies;
        Rules { version, limits: self.limits.limits(), unescape_connect: self.unescape_connect, lenience }
    }

    fn check_role<'a>(&self, mut frames: impl Iterator<Item = &'a Frame>) {
        let wrong = frames.find(|frame| frame.command().is_from_server() != (self.role == Role::Client));
        assert!(wrong.is_none(), "{}: {wrong:?} is not read there", self.id);
    }

    /// Whether a smaller limit on whole frames changes nothing but how bodies come: frames that may not have a body,
    /// and have one, come whole or not at all.
    fn in_parts(&self) -> bool {
        let frames = self.frames.iter().flatten().map(FrameText::frame);
        let mut with_body = frames.filter(|frame| !frame.body().is_empty());
        let refused = self.error.as_deref() == Some("UnexpectedBody");
        !self.lenience.ignore_bodies && !refused && with_body.all(|frame| frame.command().may_have_body())
    }
}

impl PartText {
    fn part(&self) -> Part {
        match self {
            Self::Frame(frame) => Part::Frame(frame.frame()),
            Self::Head(word, headers, length) => Part::Head {
                frame: FrameText::WithoutBody(word.clone(), headers.clone()).frame(),
                length: *length,
            },
            Self::Body(octets) => Part::Body(octets.0.clone().into()),
            Self::End => Part::End,
        }
    }
}
