//! Figures over the rounds: medians with their spread.

use serde::Serialize;

use crate::{
    broker::{report::Round, setting::Setting},
    report::{LatencyHistogram, median, rounded},
};

/// The quantiles that PerfTest reports, in µs; all zero of nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// The shortest.
    pub min_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 75 % did not take longer.
    pub p75_us: f64,
    /// 95 % did not take longer.
    pub p95_us: f64,
    /// 99 % did not take longer.
    pub p99_us: f64,
}

/// A figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Medians of the rounds, with their spread; `null` where it was not measured.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Summary {
    /// Rounds that were finished.
    pub rounds: usize,
    /// Messages a second.
    pub messages_per_second: Option<Spread>,
    /// Beacons a second.
    pub beacons_per_second: Option<Spread>,
    /// Octets of bodies, in MB/s.
    pub megabytes_per_second: Option<Spread>,
    /// Messages that arrived, a second.
    pub received_per_second: Option<Spread>,
    /// Share of the time during which a message was due and the window was full.
    pub window_full: Option<Spread>,
    /// CPU of this program per message, in µs.
    pub client_cpu_us_per_message: Option<Spread>,
    /// CPU of the broker's process per message, in µs.
    pub broker_cpu_us_per_message: Option<Spread>,
    /// CPU of the broker's process per beacon, in µs.
    pub broker_cpu_us_per_beacon: Option<Spread>,
    /// Octets of TCP's payload to the broker, per message.
    pub octets_sent_per_message: Option<Spread>,
    /// Octets of TCP's payload from the broker, per message.
    pub octets_received_per_message: Option<Spread>,
    /// Median latency of the confirms, in µs.
    pub confirm_p50_us: Option<Spread>,
    /// 99 % of the confirms did not take longer, in µs.
    pub confirm_p99_us: Option<Spread>,
    /// Messages a second ÷ those of the first AMQP client in the same round.
    pub ratio_to_amqp: Option<Spread>,
}

impl Quantiles {
    pub(super) fn of(histogram: &LatencyHistogram) -> Self {
        if histogram.count() == 0 {
            return Self::default();
        }
        Self {
            min_us: histogram.quantile_us(0.0),
            p50_us: histogram.quantile_us(0.5),
            p75_us: histogram.quantile_us(0.75),
            p95_us: histogram.quantile_us(0.95),
            p99_us: histogram.quantile_us(0.99),
        }
    }
}

impl Spread {
    /// Of figures that were measured; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            median: rounded(median(values)?, 3),
            min: rounded(values.iter().copied().fold(f64::INFINITY, f64::min), 3),
            max: rounded(values.iter().copied().fold(f64::NEG_INFINITY, f64::max), 3),
        })
    }
}

impl Summary {
    pub(super) fn of(rounds: &[Round], setting: &Setting, amqp: Option<&[Round]>) -> Self {
        let finished = || rounds.iter().filter(|round| round.failure.is_none());
        let spread = |figure: &dyn Fn(&Round) -> Option<f64>| {
            Spread::of(&finished().filter_map(figure).collect::<Vec<_>>())
        };
        let (beacons, body) = (setting.beacons as f64, setting.body as f64);
        let ratio = |round: &Round| {
            let other = amqp?.iter().find(|other| other.round == round.round && other.failure.is_none())?;
            (other.messages_per_second > 0.0).then(|| round.messages_per_second / other.messages_per_second)
        };
        Self {
            rounds: finished().count(),
            messages_per_second: spread(&|round| Some(round.messages_per_second)),
            beacons_per_second: spread(&|round| Some(round.messages_per_second * beacons)),
            megabytes_per_second: spread(&|round| Some(round.messages_per_second * body / 1e6)),
            received_per_second: spread(&|round| {
                round.integrity.is_some().then_some(round.received_per_second)
            }),
            window_full: spread(&|round| round.window_full),
            client_cpu_us_per_message: spread(&|round| round.client_cpu_us_per_message),
            broker_cpu_us_per_message: spread(&|round| round.broker_cpu_us_per_message),
            broker_cpu_us_per_beacon: spread(&|round| round.broker_cpu_us_per_message.map(|us| us / beacons)),
            octets_sent_per_message: spread(&|round| round.octets_sent_per_message),
            octets_received_per_message: spread(&|round| round.octets_received_per_message),
            confirm_p50_us: spread(&|round| (round.confirm.p50_us > 0.0).then_some(round.confirm.p50_us)),
            confirm_p99_us: spread(&|round| (round.confirm.p99_us > 0.0).then_some(round.confirm.p99_us)),
            ratio_to_amqp: spread(&ratio),
        }
    }
}
