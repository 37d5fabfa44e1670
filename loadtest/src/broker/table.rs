//! The result of `loadtest broker` as a table for people.

use std::fmt::{self, Write};

use crate::{
    broker::{
        report::{Client, Point, Report, Spread},
        steps::{self, Step},
    },
    plot::Table,
    report::{grouped, human_us},
};

/// Writes the whole table.
pub(crate) fn write_report(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(
        out,
        "loadtest broker: {}; {} rounds of {} s, {} s warm-up, medians (smallest … largest)",
        report.what(),
        report.rounds,
        report.time_s,
        report.warmup_s
    )?;
    for (name, value) in report.broker.iter().chain(&report.machine.facts()) {
        writeln!(out, "  {name}: {value}")?;
    }
    let mut sweep = None;
    for point in &report.points {
        if sweep != Some(point.sweep) {
            sweep = Some(point.sweep);
            if let Some(part) = point.sweep {
                writeln!(out, "\nsweep over {}", part.as_str())?;
            }
        }
        write_point(out, point)?;
    }
    if !report.steps.is_empty() {
        write_steps(out, &report.steps)?;
    }
    if !report.notes.is_empty() {
        writeln!(out)?;
    }
    report.notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))
}

fn write_steps(out: &mut String, steps: &[Step]) -> fmt::Result {
    let Table { head, rows } = steps::table(steps);
    writeln!(out)?;
    for row in [head].iter().chain(&rows) {
        if let [change, rate, range, before, first] = &row[..] {
            writeln!(out, "  {change:<44} {rate:>11} {range:>25} {before:>18} {first:>12}")?;
        }
    }
    writeln!(out, "  {}", steps::ELSEWHERE.replace('`', ""))
}

fn write_point(out: &mut String, point: &Point) -> fmt::Result {
    writeln!(out, "\n{}", point.setting)?;
    writeln!(
        out,
        "  {:<20} {:>26} {:>11} {:>9} {:>10} {:>10} {:>10} {:>10} {:>7} {:>8} {:>8} {:>7}",
        "",
        "messages/s",
        "beacons/s",
        "MB/s",
        "confirm",
        "confirm",
        "broker",
        "client",
        "window",
        "octets",
        "octets",
        "÷ AMQP"
    )?;
    writeln!(
        out,
        "  {:<20} {:>26} {:>11} {:>9} {:>10} {:>10} {:>10} {:>10} {:>7} {:>8} {:>8} {:>7}",
        "", "", "", "", "p50", "p99", "µs/message", "µs/message", "full", "sent", "received", ""
    )?;
    point.clients.iter().try_for_each(|client| write_client(out, client))
}

fn write_client(out: &mut String, client: &Client) -> fmt::Result {
    let summary = &client.summary;
    let whole = |figure: Option<Spread>| {
        figure.map_or("–".to_owned(), |figure| grouped(figure.median.round() as u64))
    };
    let digits = |figure: Option<Spread>, digits: usize| {
        figure.map_or("–".to_owned(), |figure| format!("{:.digits$}", figure.median))
    };
    let time = |figure: Option<Spread>| figure.map_or("–".to_owned(), |figure| human_us(figure.median));
    let rate = summary.messages_per_second.map_or("–".to_owned(), |figure| {
        let [median, min, max] = [figure.median, figure.min, figure.max].map(|rate| grouped(rate as u64));
        format!("{median} ({min} … {max})")
    });
    writeln!(
        out,
        "  {:<20} {rate:>26} {:>11} {:>9} {:>10} {:>10} {:>10} {:>10} {:>7} {:>8} {:>8} {:>7}",
        client.protocol.title(),
        whole(summary.beacons_per_second),
        digits(summary.megabytes_per_second, 1),
        time(summary.confirm_p50_us),
        time(summary.confirm_p99_us),
        digits(summary.broker_cpu_us_per_message, 1),
        digits(summary.client_cpu_us_per_message, 1),
        summary.window_full.map_or("–".to_owned(), |share| format!("{:.0} %", share.median * 100.0)),
        digits(summary.octets_sent_per_message, 0),
        digits(summary.octets_received_per_message, 0),
        digits(summary.ratio_to_amqp, 2),
    )?;
    if let Some(received) = summary.received_per_second {
        let latency = &client.end_to_end_latency;
        let sum = |of: fn(&crate::broker::report::Round) -> u64| client.rounds.iter().map(of).sum::<u64>();
        writeln!(
            out,
            "  {:<20} {} messages/s arrived; end to end p50 {}, p99 {}, p99.9 {}, p99.99 {}; {} lost, {} twice, {} out of \
             order, {} gaps",
            "",
            grouped(received.median as u64),
            human_us(latency.p50_us),
            human_us(latency.p99_us),
            human_us(latency.p99_9_us),
            human_us(latency.p99_99_us),
            sum(|round| round.integrity.map_or(0, |found| found.lost)),
            sum(|round| round.integrity.map_or(0, |found| found.duplicates)),
            sum(|round| round.integrity.map_or(0, |found| found.out_of_order)),
            sum(|round| round.integrity.map_or(0, |found| found.gaps)),
        )?;
    }
    for round in client.rounds.iter().filter(|round| round.failure.is_some()) {
        let reason = round.failure.as_deref().unwrap_or_default();
        writeln!(out, "  {:<20} round {} not finished: {reason}", "", round.round)?;
    }
    Ok(())
}

impl Report {
    /// What was done, in a few words.
    pub(crate) fn what(&self) -> String {
        let what = match self.mode {
            crate::broker::setting::Mode::Publish => "publish only",
            crate::broker::setting::Mode::Both => "publish and consume",
            crate::broker::setting::Mode::Consume => "consume only",
        };
        let persistent = if self.persistent { "persistent" } else { "transient" };
        let confirms = if self.confirms { "each message confirmed" } else { "without confirms" };
        let rate = self.rate.map_or(String::new(), |rate| format!(", {rate} messages/s"));
        format!("{what}, {persistent}, {confirms}{rate}")
    }
}

#[cfg(test)]
mod tests {
    use crate::broker::report::tests::sample;

    #[test]
    fn the_table_has_each_client_with_its_spread() {
        let table = sample(None).table();
        for part in [
            "STOMP (stompwire)",
            "AMQP 0.9.1 (lapin)",
            "2,000 (1,000 … 3,000)",
            "256 octets, window 1024",
            "a <b>",
        ] {
            assert!(table.contains(part), "{part}: {table}");
        }
    }
}
