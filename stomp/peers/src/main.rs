//! `peers conformance` and `peers bench`; with `--write` the tables go into `BENCHMARKS.md`.

use std::process::ExitCode;

use stompwire_peers::{bench, conformance, peers, report, vectors};

const USAGE: &str = "peers conformance [--write] [--show PEER]   replay the vectors; show a peer's failures
peers others [--write] [--show PEER]        the same against those in other languages
peers bench [--write] [--rounds N] [--seconds N]   measure, N rounds of about that long";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let write = args.iter().any(|arg| arg == "--write");
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let command = args.first().map_or("", String::as_str);
    let peers = if command == "others" { peers::others::all() } else { peers::all() };
    let peers: &'static [peers::Peer] = peers.leak();
    match command {
        "conformance" | "others" => {
            let vectors = vectors::load();
            let judged: Vec<_> = peers.iter().map(|peer| conformance::judge(peer, &vectors)).collect();
            for (file, count) in &vectors.left_out {
                eprintln!("{file}: {count} entries are not vectors for a codec; left out");
            }
            for (peer, judged) in peers.iter().zip(&judged) {
                if option("--show").is_some_and(|name| name == peer.name) {
                    for verdict in judged.decode.iter().chain(&judged.encode) {
                        if let Some(failure) = verdict.failure {
                            println!("{}: {failure:?}: {}", verdict.id, verdict.detail);
                        }
                    }
                }
            }
            report::publish(command, &report::conformance(peers, &judged), write);
            if command == "others" {
                return ExitCode::SUCCESS;
            }
            // Ours must have full marks.
            let full =
                judged[0].decode.iter().chain(&judged[0].encode).all(|verdict| verdict.failure.is_none());
            if full { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        "bench" => {
            let rounds = option("--rounds").and_then(|rounds| rounds.parse().ok()).unwrap_or(9);
            let seconds = option("--seconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(8.0);
            report::publish("bench", &bench::table(peers, rounds, seconds), write);
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}
