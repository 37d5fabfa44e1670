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
//! | `error` | the variant of `DecodeError` that follows them |
//! | `left` | without an error: how many octets stay in the buffer |
//! | `limits` | limits that differ from the default ones |
//! | `unescape_connect` | the switch of that name |
//! | `note` | why, or which implementation differs |
//!
//! Those of `encode.json` have `frame` and `out` (or `error`, a variant of `EncodeError`) instead.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::{collections::BTreeSet, path::Path};

use bytes::BytesMut;
use serde::{Deserialize, de::DeserializeOwned};
use stompwire::proto::{Command, DecodeError, Decoder, Encoder, Frame, Headers, Limits, Outbox, Version};

/// The items that the decoder and the encoder alone can show.
const ITEMS: [u8; 24] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 39, 40];
const DECODING: [&str; 7] = ["lines", "headers", "escapes", "bodies", "eols", "limits", "samples"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecodeVector {
    id: String,
    item: u8,
    version: OneOrMore,
    role: Role,
    r#in: Option<Octets>,
    hex: Option<String>,
    #[serde(default)]
    frames: Vec<FrameText>,
    error: Option<String>,
    #[serde(default)]
    left: usize,
    #[serde(default)]
    limits: LimitsText,
    #[serde(default)]
    unescape_connect: bool,
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

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Role {
    Client,
    Server,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FrameText {
    WithBody(String, Vec<(String, String)>, Octets),
    WithoutBody(String, Vec<(String, String)>),
}

/// Octets as the characters U+0000 to U+00FF.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Octets(Vec<u8>);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct LimitsText {
    max_line: Option<usize>,
    max_headers: Option<usize>,
    max_head: Option<usize>,
    max_body: Option<usize>,
    max_eols: Option<usize>,
}

/// What came out of a decoder that was fed some octets.
#[derive(Debug, PartialEq)]
struct Outcome {
    frames: Vec<Frame>,
    error: Option<String>,
    left: usize,
}

#[test]
fn decoding() {
    for vector in decode_vectors() {
        let input = vector.input();
        let frames: Vec<Frame> = vector.frames.iter().map(FrameText::frame).collect();
        for frame in &frames {
            let by_server = frame.command().is_from_server();
            assert_eq!(
                by_server,
                vector.role == Role::Client,
                "{}: {} is not read there",
                vector.id,
                frame.command()
            );
        }
        for version in vector.version.iter() {
            let whole = vector.outcome(version, [&input[..]]);
            let show = format!("{} ({version})", vector.id);
            assert_eq!(whole.frames, frames, "{show}");
            assert_eq!(whole.error, vector.error, "{show}");
            if vector.error.is_none() {
                assert_eq!(whole.left, vector.left, "{show}: octets left");
            }
            for frame in &whole.frames {
                for (name, _) in frame.headers().iter() {
                    let first = frame.headers().iter().find(|(other, _)| *other == name);
                    assert_eq!(frame.header(name), first.map(|(_, value)| value), "{show}: the first counts");
                }
            }
            // After an error the buffer's state means nothing.
            let same = |outcome: &Outcome| {
                (&outcome.frames, &outcome.error) == (&whole.frames, &whole.error)
                    && (whole.error.is_some() || outcome.left == whole.left)
            };
            let by_octet = vector.outcome(version, input.chunks(1));
            assert!(same(&by_octet), "{show}, octet by octet: {by_octet:?}");
            for at in 0..=input.len() {
                let split = vector.outcome(version, [&input[..at], &input[at..]]);
                assert!(same(&split), "{show}, split at {at}: {split:?}");
            }
        }
    }
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
            let error = result.as_ref().err().map(variant);
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
fn every_item_has_a_vector_and_every_id_is_unique() {
    let decode = decode_vectors().map(|vector| (vector.id, vector.item)).collect::<Vec<_>>();
    let encode = load::<EncodeVector>("encode").into_iter().map(|vector| (vector.id, vector.item)).collect();
    for list in [&decode, &encode] {
        let ids: BTreeSet<&str> = list.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids.len(), list.len(), "an id occurs twice");
        for (id, item) in list {
            assert!(id.starts_with(&format!("{item}-")), "{id}: the id starts with the item");
        }
    }
    let shown: BTreeSet<u8> = decode.iter().chain(&encode).map(|(_, item)| *item).collect();
    assert_eq!(shown, BTreeSet::from(ITEMS));
}

fn decode_vectors() -> impl Iterator<Item = DecodeVector> {
    DECODING.into_iter().flat_map(load::<DecodeVector>)
}

fn load<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{name}.json"));
    let text = std::fs::read_to_string(&path).expect("the file is part of the repository");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yes() -> bool {
    true
}

/// The name of an error's variant.
fn variant(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
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

    fn outcome<'a>(&self, version: &str, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        let mut decoder = Decoder::new(self.limits.limits());
        decoder.set_unescape_connect(self.unescape_connect);
        if version != "handshake" {
            decoder.set_version(Version::parse(version).expect("a version"));
        }
        let mut outcome = Outcome { frames: Vec::new(), error: None, left: 0 };
        let mut buffer = BytesMut::new();
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => outcome.frames.push(frame),
                    Ok(None) => break,
                    Err(error) => {
                        let again: Result<_, DecodeError> = decoder.decode(&mut buffer);
                        assert_eq!(again, Err(error.clone()), "{}: an error is final", self.id);
                        outcome.error = Some(variant(&error));
                        return outcome;
                    }
                }
            }
        }
        outcome.left = buffer.len();
        outcome
    }
}

impl OneOrMore {
    fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => &more[..],
        }
        .iter()
        .map(String::as_str)
    }
}

impl FrameText {
    fn frame(&self) -> Frame {
        let (word, headers, body) = match self {
            Self::WithBody(word, headers, body) => (word, headers, &body.0[..]),
            Self::WithoutBody(word, headers) => (word, headers, &[][..]),
        };
        let command = Command::parse(word.as_bytes()).expect("a command");
        let headers: Headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Frame::from_parts(command, headers, body.to_vec().into())
    }
}

impl TryFrom<String> for Octets {
    type Error = std::char::TryFromCharError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.chars().map(u8::try_from).collect::<Result<_, _>>().map(Self)
    }
}

impl LimitsText {
    fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            max_line: self.max_line.unwrap_or(default.max_line),
            max_headers: self.max_headers.unwrap_or(default.max_headers),
            max_head: self.max_head.unwrap_or(default.max_head),
            max_body: self.max_body.unwrap_or(default.max_body),
            max_eols: self.max_eols.unwrap_or(default.max_eols),
        }
    }
}
