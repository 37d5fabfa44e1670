//! What all subcommands report alike: latency figures, where JSON goes, numbers for people.

use std::{
    fs,
    io::{Write, stdout},
    path::PathBuf,
    str::FromStr,
};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Error;

/// The longest latency that is told apart, in nanoseconds: 60 s.
const LONGEST_NS: u64 = 60_000_000_000;

/// An HDR histogram of latencies from 1 µs to 60 s with three significant digits; longer ones count as 60 s.
#[derive(Debug, Clone)]
pub struct LatencyHistogram {
    counts: Histogram<u64>,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        let counts = Histogram::new_with_bounds(1_000, LONGEST_NS, 3)
            .expect("the bounds are constants: low ≥ 1, high ≥ 2 × low, at most 5 digits");
        Self { counts }
    }
}

impl LatencyHistogram {
    /// Counts one latency.
    pub fn record(&mut self, nanoseconds: u64) {
        self.counts.saturating_record(nanoseconds.min(LONGEST_NS));
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        // Cannot fail: both have the same bounds.
        if self.counts.add(&other.counts).is_err() {
            debug_assert!(false, "histograms of one kind have the same bounds");
        }
    }

    /// The latency in microseconds that `quantile` (0 to 1) of those counted did not exceed; 0 of none.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        // The histogram answers with the upper edge of a bucket, which may lie above the largest value.
        microseconds(self.counts.value_at_quantile(quantile).min(self.counts.max()))
    }

    /// The longest, in microseconds.
    pub fn max_us(&self) -> f64 {
        microseconds(self.counts.max())
    }

    /// The figures for a report.
    pub fn summary(&self) -> LatencySummary {
        LatencySummary {
            count: self.count(),
            p50_us: self.quantile_us(0.5),
            p90_us: self.quantile_us(0.9),
            p99_us: self.quantile_us(0.99),
            p99_9_us: self.quantile_us(0.999),
            p99_99_us: self.quantile_us(0.9999),
            max_us: self.max_us(),
            mean_us: rounded(self.counts.mean() / 1000.0, 3),
        }
    }
}

/// Latency figures in microseconds, all zero when `count` is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencySummary {
    /// How many were counted.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 90 % did not take longer.
    pub p90_us: f64,
    /// 99 % did not take longer.
    pub p99_us: f64,
    /// 99.9 % did not take longer.
    pub p99_9_us: f64,
    /// 99.99 % did not take longer.
    pub p99_99_us: f64,
    /// The longest.
    pub max_us: f64,
    /// Arithmetic mean.
    pub mean_us: f64,
}

/// Where machine-readable output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonTo {
    /// To standard output, in place of the table.
    Stdout,
    /// To a file, beside the table on standard output.
    File(PathBuf),
}

impl FromStr for JsonTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "-" => Ok(Self::Stdout),
            url if url.starts_with("http://") || url.starts_with("https://") => {
                Err("this is the URL: put it before --json, or write --json=- for standard output".to_owned())
            }
            path => Ok(Self::File(PathBuf::from(path))),
        }
    }
}

/// Writes a report: JSON where `json` says, and `table` to standard output unless JSON goes there.
///
/// # Errors
/// [`Error::Output`] when the file, or [`Error::Io`] when standard output cannot be written.
pub fn publish(report: &impl Serialize, table: &str, json: Option<&JsonTo>) -> Result<(), Error> {
    let encoded = |report| {
        serde_json::to_string_pretty(report)
            .map(|text| text + "\n")
            .map_err(|error| Error::Io { what: "JSON report", source: error.into() })
    };
    let on_stdout = match json {
        Some(JsonTo::Stdout) => encoded(report)?,
        Some(JsonTo::File(path)) => {
            fs::write(path, encoded(report)?)
                .map_err(|source| Error::Output { path: path.clone(), source })?;
            table.to_owned()
        }
        None => table.to_owned(),
    };
    stdout().write_all(on_stdout.as_bytes()).map_err(Error::io("standard output"))
}

/// The middle of `values`, the mean of the two middle ones for an even number; `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

/// `value` with `digits` after the point, so that reports do not pretend to more.
pub fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// A whole number in groups of three: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds as people read them: `850 µs`, `12.3 ms`, `1.50 s`.
pub fn human_us(microseconds: f64) -> String {
    match microseconds {
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.2} ms", us / 1e3),
        us if us < 1_000_000.0 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_three_significant_digits() {
        let mut histogram = LatencyHistogram::default();
        for ms in 1..=1000u64 {
            histogram.record(ms * 1_000_000);
        }
        let summary = histogram.summary();
        assert_eq!(summary.count, 1000);
        for (found, expected) in [
            (summary.p50_us, 500e3),
            (summary.p90_us, 900e3),
            (summary.p99_us, 990e3),
            (summary.p99_9_us, 999e3),
            (summary.p99_99_us, 1e6),
            (summary.max_us, 1e6),
            (summary.mean_us, 500.5e3),
        ] {
            assert!((found / expected - 1.0).abs() < 1.1e-3, "{found} for {expected}");
        }
    }

    #[test]
    fn latencies_outside_the_range_count_as_its_edge() {
        let mut histogram = LatencyHistogram::default();
        assert_eq!(histogram.summary().max_us, 0.0);
        histogram.record(u64::MAX);
        histogram.record(0);
        assert_eq!(histogram.count(), 2);
        assert!((histogram.max_us() / 60e6 - 1.0).abs() < 1.1e-3);
    }

    #[test]
    fn merging_adds() {
        let (mut a, mut b) = (LatencyHistogram::default(), LatencyHistogram::default());
        a.record(1_000_000);
        b.record(5_000_000);
        a.merge(&b);
        assert_eq!(a.count(), 2);
        assert!((a.max_us() / 5000.0 - 1.0).abs() < 1.1e-3);
    }

    #[test]
    fn medians_and_numbers_for_people() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123_456), "123,456");
        assert_eq!(human_us(850.4), "850 µs");
        assert_eq!(human_us(1_234.0), "1.23 ms");
        assert_eq!(human_us(12_345.0), "12.3 ms");
        assert_eq!(human_us(1_500_000.0), "1.50 s");
        assert_eq!(rounded(1.23456, 3), 1.235);
    }

    #[test]
    fn a_url_is_not_taken_for_the_json_file() {
        assert_eq!("-".parse(), Ok(JsonTo::Stdout));
        assert_eq!("out.json".parse(), Ok(JsonTo::File("out.json".into())));
        assert!("http://127.0.0.1/".parse::<JsonTo>().unwrap_err().contains("before --json"));
    }
}
