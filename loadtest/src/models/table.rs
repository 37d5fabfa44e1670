//! The result for people.

use std::fmt::{self, Write as _};

use super::report::{MedianLoad, Report, Row, Spread};
use crate::report::{grouped, human_us};

impl Report {
    /// Tables of the models and of the path, with medians and their range.
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        self.write(&mut out).unwrap_or_default();
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let versions: Vec<String> =
            self.machine.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        writeln!(out, "loadtest models, {:.0} s; {}", self.elapsed_s, versions.join(", "))?;
        writeln!(out, "Threads: {}", self.settings.threads_placed())?;
        if let Some(limit) = &self.memory_limit {
            writeln!(out, "Memory of all servers together: {}", limit.describe())?;
        }
        for (group, title) in
            [("models", "The models"), ("path", "From \"window 1\" to packed, one change at a time")]
        {
            let rows: Vec<&Row> = self.models.iter().filter(|row| row.group == group).collect();
            if rows.iter().any(|row| row.median.is_some()) {
                writeln!(out, "\n{title}: sustained, all beacons confirmed")?;
                write_sustained(out, &rows)?;
                if let Some(rate) = self.common_rate {
                    writeln!(out, "\n{title}: all at {}/s", grouped(rate as u64))?;
                    write_loads(out, &rows, |row| row.median.as_ref()?.at_common.as_ref())?;
                }
            }
        }
        if self.models.iter().any(|row| !row.deaths.is_empty()) {
            writeln!(out, "\nThe broker killed in the middle")?;
            write_deaths(out, &self.models)?;
        }
        if !self.notes.is_empty() {
            writeln!(out)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))
    }
}

fn write_sustained(out: &mut String, rows: &[&Row]) -> fmt::Result {
    writeln!(
        out,
        "  {:<26} {:>10} {:>21} {:>12} {:>17}",
        "model", "beacons/s", "range of the rounds", "to the first", "to the one before"
    )?;
    let times =
        |spread: Option<Spread>| spread.map_or("-".to_owned(), |spread| format!("× {:.2}", spread.median));
    for row in rows {
        let median = row.median.as_ref();
        let Some((median, spread)) = median.and_then(|median| Some((median, median.sustained_rate?))) else {
            writeln!(out, "  {:<26} {:>10}", row.model, "-")?;
            continue;
        };
        let range = format!("{} … {}", grouped(spread.low as u64), grouped(spread.high as u64));
        writeln!(
            out,
            "  {:<26} {:>10} {range:>21} {:>12} {:>17}",
            row.model,
            grouped(spread.median.round() as u64),
            times(median.times_first),
            times(median.times_before),
        )?;
    }
    writeln!(out)?;
    write_loads(out, rows, |row| row.median.as_ref()?.at_sustained.as_ref())
}

fn write_loads<'a>(
    out: &mut String,
    rows: &[&'a Row],
    load: impl Fn(&'a Row) -> Option<&'a MedianLoad>,
) -> fmt::Result {
    writeln!(
        out,
        "  {:<26} {:>9} {:>9} {:>9} {:>13}  CPU µs a beacon, and peak MiB, by process",
        "model", "p50", "p99", "p99.9", "CPU µs/beacon"
    )?;
    for row in rows {
        let Some(load) = load(row) else { continue };
        let us = |spread: Spread| human_us(spread.median);
        let processes: Vec<String> = load
            .processes
            .iter()
            .map(|process| {
                let cpu = process
                    .cpu_us_per_beacon
                    .map_or("?".to_owned(), |spread| format!("{:.1}", spread.median));
                let peak = process.peak_mib.map_or("?".to_owned(), |spread| format!("{:.0}", spread.high));
                format!("{} {cpu} µs {peak} MiB", process.name)
            })
            .collect();
        writeln!(
            out,
            "  {:<26} {:>9} {:>9} {:>9} {:>13}  {}",
            row.model,
            us(load.p50_us),
            us(load.p99_us),
            us(load.p99_9_us),
            load.cpu_us_per_beacon.map_or("?".to_owned(), |spread| format!("{:.1}", spread.median)),
            processes.join(", "),
        )?;
    }
    Ok(())
}

fn write_deaths(out: &mut String, rows: &[Row]) -> fmt::Result {
    writeln!(
        out,
        "  {:<26} {:>9} {:>9} {:>9} {:>9} {:>10} {:>7}",
        "model", "sent", "refused", "answered", "lost", "duplicates", "away s"
    )?;
    for (row, death) in rows.iter().flat_map(|row| row.deaths.iter().map(move |death| (row, death))) {
        writeln!(
            out,
            "  {:<26} {:>9} {:>9} {:>9} {:>9} {:>10} {:>7.1}",
            row.model,
            grouped(death.sent),
            grouped(death.refused),
            grouped(death.verdict.answered),
            grouped(death.verdict.missing),
            grouped(death.verdict.duplicates),
            death.away_s,
        )?;
    }
    Ok(())
}
