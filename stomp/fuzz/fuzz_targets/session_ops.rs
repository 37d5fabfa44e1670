#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/harness/session_ops.rs"]
mod harness;

fuzz_target!(|input: harness::Input| harness::run(&input));
