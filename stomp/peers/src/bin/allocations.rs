//! Allocations a frame, of each peer. A program of its own: counting them costs time.

use std::{alloc::System, fmt::Write as _};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use stompwire_peers::{
    bench::{FRAMES, messages},
    peers::{self, Run},
    report,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let wire = messages(FRAMES);
    let mut text = String::from(
        "Allocations a frame (new ones and those that grow) in the runs measured above:\n\n| | decode | encode |\n|---|---|---|\n",
    );
    for peer in peers::all() {
        let decode = count((peer.decode_run)(&wire, usize::MAX));
        let encode = count((peer.encode_run)(FRAMES));
        _ = writeln!(text, "| {} | {decode} | {encode} |", peer.name);
    }
    report::publish("allocations", &text, std::env::args().any(|arg| arg == "--write"));
}

fn count(run: Option<Run>) -> String {
    let Some(mut run) = run else { return "–".to_owned() };
    let region = Region::new(ALLOCATOR);
    run();
    let stats = region.change();
    format!("{:.2}", (stats.allocations + stats.reallocations) as f64 / FRAMES as f64)
}
