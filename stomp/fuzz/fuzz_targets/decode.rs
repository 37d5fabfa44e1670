#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/harness/decode.rs"]
mod harness;

fuzz_target!(|data: &[u8]| harness::run(data));
