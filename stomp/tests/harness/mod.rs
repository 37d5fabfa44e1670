//! What the fuzz targets do with an input. Each file is one target; `../fuzz_inputs.rs` replays the kept inputs without
//! a fuzzer, and `fuzz/fuzz_targets` hands the files to libFuzzer.

pub(crate) mod decode;
pub(crate) mod round_trip;
pub(crate) mod session_ops;
