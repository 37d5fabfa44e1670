//! The result as comma-separated values: a line per model, round and load.

use std::fmt::Write as _;

use super::report::{Load, Report};

const HEAD: &str = "model,group,round,load,rate,answered_rate,confirmed_rate,sustained,refused,p50_us,p99_us,p99_9_us,\
                    cpu_us_per_beacon,process,process_cpu_us_per_beacon,process_peak_mib\n";

/// A line for each process of each load of each round; names have no comma in them.
pub(crate) fn csv(report: &Report) -> String {
    let mut out = HEAD.to_owned();
    for row in &report.models {
        for round in &row.rounds {
            for (kind, load) in [("sustained", &round.at_sustained), ("common", &round.at_common)] {
                if let Some(load) = load {
                    let before = format!("{},{},{},{kind}", row.model, row.group, round.round);
                    write_load(&mut out, &before, load);
                }
            }
        }
    }
    out
}

fn write_load(out: &mut String, before: &str, load: &Load) {
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for process in &load.processes {
        // Writing to a String cannot fail.
        writeln!(
            out,
            "{before},{},{},{},{},{},{},{},{},{},{},{},{}",
            load.rate,
            load.answered_rate,
            load.confirmed_rate,
            load.sustained,
            load.refused,
            load.latency.p50_us,
            load.latency.p99_us,
            load.latency.p99_9_us,
            number(load.cpu_us_per_beacon),
            process.name,
            number(process.cpu_us_per_beacon),
            number(process.peak_mib),
        )
        .unwrap_or_default();
    }
}
