//! The result of `loadtest broker` as CSV: a line for each round.
//!
//! The first columns are those of PerfTest's own CSV output, by name and unit, without `returned (msg/s)`: nothing is
//! published as mandatory, which STOMP does not have. What PerfTest does not have comes behind them.

use std::fmt::{self, Write};

use crate::broker::report::{Client, Point, Quantiles, Report, Round};

const PERF_TEST: &str = "id,time (s),published (msg/s),confirmed (msg/s),nacked (msg/s),received (msg/s),\
    min consumer latency (µs),median consumer latency (µs),75th p. consumer latency (µs),95th p. consumer latency (µs),\
    99th p. consumer latency (µs),min confirm latency (µs),median confirm latency (µs),75th p. confirm latency (µs),\
    95th p. confirm latency (µs),99th p. confirm latency (µs)";
const OURS: &str = "client,sweep,round,body (octets),beacons,window,connections,queue,beacons/s,MB/s,client CPU (µs/msg),\
    broker CPU (µs/msg),window full,sent (octets/msg),received (octets/msg),lost,duplicates,out of order,gaps,unconfirmed,failure";

pub(crate) fn write_report(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "{PERF_TEST},{OURS}")?;
    for point in &report.points {
        for client in &point.clients {
            client.rounds.iter().try_for_each(|round| write_round(out, point, client, round))?;
        }
    }
    Ok(())
}

fn write_round(out: &mut String, point: &Point, client: &Client, round: &Round) -> fmt::Result {
    let setting = &point.setting;
    let sweep = point.sweep.map_or("", |sweep| sweep.as_str());
    let each = |count: u64| (count as f64 / round.window_s).round();
    write!(
        out,
        "{},{:.1},{},{},{},{}",
        client.protocol.as_str(),
        round.began_s + round.window_s,
        each(round.published),
        each(round.confirmed),
        each(round.nacked),
        each(round.received),
    )?;
    for Quantiles { min_us, p50_us, p75_us, p95_us, p99_us } in [round.end_to_end, round.confirm] {
        for us in [min_us, p50_us, p75_us, p95_us, p99_us] {
            write!(out, ",{us:.0}")?;
        }
    }
    write!(
        out,
        ",{},{sweep},{},{},{},{},{},{},{:.0},{:.2}",
        client.protocol.as_str(),
        round.round,
        setting.body,
        setting.beacons,
        setting.window,
        setting.connections,
        setting.queue,
        round.messages_per_second * setting.beacons as f64,
        round.messages_per_second * setting.body as f64 / 1e6,
    )?;
    for figure in [
        round.client_cpu_us_per_message,
        round.broker_cpu_us_per_message,
        round.window_full,
        round.octets_sent_per_message,
        round.octets_received_per_message,
    ] {
        write!(out, ",{}", figure.map_or(String::new(), |figure| figure.to_string()))?;
    }
    for count in [
        round.integrity.map(|found| found.lost),
        round.integrity.map(|found| found.duplicates),
        round.integrity.map(|found| found.out_of_order),
        round.integrity.map(|found| found.gaps),
        Some(round.unconfirmed),
    ] {
        write!(out, ",{}", count.map_or(String::new(), |count| count.to_string()))?;
    }
    writeln!(out, ",{}", quoted(round.failure.as_deref().unwrap_or_default()))
}

/// A text as a field.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::report::tests::sample;

    #[test]
    fn every_line_has_every_column_perf_tests_first() {
        let csv = sample(None).csv();
        let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 1 + 2 * 5);
        assert!(lines.iter().all(|line| line.len() == 16 + 21), "{csv}");
        assert_eq!(lines[0][..4], ["id", "time (s)", "published (msg/s)", "confirmed (msg/s)"]);
        // The second round of the first client: 3000 in 2 s.
        assert_eq!(lines[2][..6], ["stomp", "3.0", "1503", "1500", "0", "750"]);
        assert_eq!(lines[2][16..24], ["stomp", "", "2", "256", "1", "1024", "1", "classic"]);
    }

    #[test]
    fn texts_with_commas_are_quoted() {
        assert_eq!(quoted("lost, \"gone\""), "\"lost, \"\"gone\"\"\"");
        assert_eq!(quoted("lost"), "lost");
    }
}
