#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use reference::{End, Parsed, Rules, variant};
use stompwire::proto::{Decoder, Limits, Version};

#[path = "../../tests/reference/mod.rs"]
mod reference;

const SMALL: Limits = Limits { max_line: 20, max_headers: 3, max_head: 50, max_body: 20, max_eols: 3 };

fuzz_target!(|data: &[u8]| {
    let [mode, seed, octets @ ..] = data else { return };
    let version =
        [None, Some(Version::V1_0), Some(Version::V1_1), Some(Version::V1_2)][usize::from(mode & 3)];
    let limits = if mode & 8 == 0 { Limits::default() } else { SMALL };
    let rules = Rules { version, limits, unescape_connect: mode & 4 != 0 };
    let expected = reference::parse(octets, &rules);
    assert_eq!(decode(octets, &rules, || usize::MAX), expected, "whole");
    let mut state = u32::from(*seed);
    let chunked = decode(octets, &rules, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 24) as usize % 17
    });
    assert_eq!(chunked, expected, "in chunks");
});

fn decode(mut octets: &[u8], rules: &Rules, mut size: impl FnMut() -> usize) -> (Vec<Parsed>, End) {
    let mut decoder = Decoder::new(rules.limits);
    decoder.set_unescape_connect(rules.unescape_connect);
    if let Some(version) = rules.version {
        decoder.set_version(version);
    }
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    loop {
        let size = size();
        let (chunk, rest) = octets.split_at(octets.len().min(size));
        buffer.extend_from_slice(chunk);
        octets = rest;
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
                    let headers = frame.headers().iter().map(pair).collect();
                    frames.push(Parsed { command: frame.command(), headers, body: frame.body().to_vec() });
                }
                Ok(None) => break,
                Err(error) => return (frames, End::Error(variant(&error))),
            }
        }
        assert!(
            buffer.len() <= rules.limits.max_head + rules.limits.max_body,
            "{} octets are held",
            buffer.len()
        );
        if octets.is_empty() {
            return (frames, End::Left(buffer.len()));
        }
    }
}
