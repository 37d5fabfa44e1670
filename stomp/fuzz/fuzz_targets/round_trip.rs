#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/harness/round_trip.rs"]
mod harness;

fuzz_target!(|input: harness::Input| harness::run(&input));
