//! Replays the kept inputs of the fuzz targets, seeds and findings, without a fuzzer.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::{fs, path::Path};

use arbitrary::{Arbitrary, Unstructured};

mod harness;

#[test]
fn decode() {
    replay("decode", harness::decode::run);
}

#[test]
fn round_trip() {
    replay("round_trip", |data| harness::round_trip::run(&input(data)));
}

#[test]
fn session_ops() {
    replay("session_ops", |data| harness::session_ops::run(&input(data)));
}

/// As libFuzzer's own glue makes an input of octets.
fn input<'a, T: Arbitrary<'a>>(data: &'a [u8]) -> T {
    T::arbitrary_take_rest(Unstructured::new(data)).unwrap()
}

fn replay(target: &str, run: impl Fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut seeds = 0;
    for kind in ["seeds", "regressions"] {
        // There may be no regressions yet, and a packaged crate has neither.
        let Ok(files) = fs::read_dir(fuzz.join(kind).join(target)) else { continue };
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display());
            run(&fs::read(&path).unwrap());
            seeds += usize::from(kind == "seeds");
        }
    }
    assert!(seeds > 0 || !fuzz.exists(), "no seeds");
}
