//! The medians of a model over its rounds.

use serde::Serialize;

use super::report::{Load, ProcessUse};
use crate::report::{median, rounded};

/// Median, smallest and largest of the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle.
    pub median: f64,
    /// The smallest.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

/// The medians of a model.
#[derive(Debug, Clone, Serialize)]
pub struct Medians {
    /// Rounds that they are of.
    pub rounds: usize,
    /// The highest rate at which the backlog did not grow.
    pub sustained_rate: Option<Spread>,
    /// That rate ÷ the rate of the row before in the same round; of a step of the path only.
    pub times_before: Option<Spread>,
    /// That rate ÷ the rate of the group's first row in the same round.
    pub times_first: Option<Spread>,
    /// At that rate.
    pub at_sustained: Option<MedianLoad>,
    /// At the common rate.
    pub at_common: Option<MedianLoad>,
}

/// The medians of several loads.
#[derive(Debug, Clone, Serialize)]
pub struct MedianLoad {
    /// Half of the answers took no longer, in µs.
    pub p50_us: Spread,
    /// 99 % took no longer.
    pub p99_us: Spread,
    /// 99.9 % took no longer.
    pub p99_9_us: Spread,
    /// CPU of all processes together per beacon.
    pub cpu_us_per_beacon: Option<Spread>,
    /// Each process.
    pub processes: Vec<MedianUse>,
}

/// The medians of a process.
#[derive(Debug, Clone, Serialize)]
pub struct MedianUse {
    /// Which.
    pub name: String,
    /// CPU per beacon.
    pub cpu_us_per_beacon: Option<Spread>,
    /// Largest resident memory, in MiB.
    pub peak_mib: Option<Spread>,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.collect();
        Some(Self {
            median: rounded(median(&values)?, 3),
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

impl MedianLoad {
    pub(super) fn new(loads: &[&Load]) -> Option<Self> {
        let spread = |of: &dyn Fn(&Load) -> Option<f64>| Spread::of(loads.iter().filter_map(|load| of(load)));
        let names = loads.first()?.processes.iter().map(|process| process.name.clone());
        let processes = names.map(|name| {
            let of = |value: fn(&ProcessUse) -> Option<f64>| {
                spread(&|load| value(load.processes.iter().find(|process| process.name == name)?))
            };
            MedianUse {
                cpu_us_per_beacon: of(|process| process.cpu_us_per_beacon),
                peak_mib: of(|process| process.peak_mib),
                name: name.clone(),
            }
        });
        Some(Self {
            p50_us: spread(&|load| Some(load.latency.p50_us))?,
            p99_us: spread(&|load| Some(load.latency.p99_us))?,
            p99_9_us: spread(&|load| Some(load.latency.p99_9_us))?,
            cpu_us_per_beacon: spread(&|load| load.cpu_us_per_beacon),
            processes: processes.collect(),
        })
    }
}
