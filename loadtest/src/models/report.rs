//! The result of `loadtest models`, for machines. The names of the JSON fields are those of the struct fields here. They are
//! stable: fields are added, not renamed. Rates are beacons per second.

use serde::Serialize;

use super::{
    Group, Model, Plan,
    death::Died,
    enclosure::MemoryLimit,
    probe::{Taken, Use},
    round::Searched,
    run::LIBRARIES,
};
use crate::{
    far_end::Verdict,
    machine::Machine,
    report::{LatencySummary, median, rounded},
};

pub use super::medians::{MedianLoad, MedianUse, Medians, Spread};

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `loadtest models`.
    pub tool: &'static str,
    /// Version of this program.
    pub version: &'static str,
    /// Whether the run was ended before its time; what was measured until then is here.
    pub interrupted: bool,
    /// Why the run could not go on, if it could not.
    pub failure: Option<String>,
    /// How long the run took, in seconds.
    pub elapsed_s: f64,
    /// What was asked for.
    pub settings: Settings,
    /// What it was measured on.
    pub machine: Machine,
    /// What came of `--memory`.
    pub memory_limit: Option<MemoryLimit>,
    /// The rate at which all models were compared.
    pub common_rate: Option<f64>,
    /// The models.
    pub models: Vec<Row>,
    /// The sustained rate of `edge-packed` ÷ that of `redis-front` in the same round.
    pub packed_to_front: Option<Spread>,
    /// What a reader of the numbers should know.
    pub notes: Vec<String>,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Rounds in which the models took turns.
    pub rounds: usize,
    /// Rates that a search could try.
    pub probes: u32,
    /// How long each was tried, in seconds.
    pub probe_s: f64,
    /// How long each measurement took, in seconds.
    pub duration_s: f64,
    /// How long load went on around a death, in seconds.
    pub death_duration_s: f64,
    /// Keep-alive connections of the load.
    pub connections: usize,
    /// Threads of the load.
    pub threads: usize,
    /// Whether they, and the servers' threads that took requests, were bound to cores.
    pub pinned: bool,
    /// Share of POSTs.
    pub post_percent: u8,
    /// Threads of each server that took requests.
    pub workers: usize,
    /// Pooled connections of the first and second model, at most.
    pub pool: usize,
    /// Connections to RabbitMQ of beacon-edge and the path.
    pub stomp_connections: usize,
    /// Messages without a receipt, per connection.
    pub window: usize,
    /// Beacons in a message, at most.
    pub pack: usize,
    /// How long the first beacon of a message waits for others, in ms.
    pub linger_ms: u64,
    /// Beacons in a message of the second model's agent, at most.
    pub chunk: usize,
    /// Messages of the agent without a confirm.
    pub chunks_in_flight: usize,
}

/// One model.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub model: &'static str,
    /// What it is.
    pub title: &'static str,
    /// `models`, or `path` for a step from "window 1" to beacon-edge.
    pub group: &'static str,
    /// What was measured, round by round.
    pub rounds: Vec<Round>,
    /// The medians.
    pub median: Option<Medians>,
    /// What the broker's deaths did.
    pub deaths: Vec<Death>,
    /// Why it was not measured any further.
    pub failure: Option<String>,
}

/// One round of a model.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Its number, from 1.
    pub round: usize,
    /// What a closed loop reached: answers per second, whether confirmed or not; `null` in a round whose search began with
    /// what an earlier one has found.
    pub closed_loop_rate: Option<f64>,
    /// The highest rate at which the backlog did not grow; `null` when none was found.
    pub sustained_rate: Option<f64>,
    /// The search ended at `--max-rate`: more may be possible.
    pub capped: bool,
    /// The search.
    pub probes: Vec<Probe>,
    /// Load at the sustained rate.
    pub at_sustained: Option<Load>,
    /// Load at the common rate.
    pub at_common: Option<Load>,
}

/// A rate that was tried.
#[derive(Debug, Clone, Serialize)]
pub struct Probe {
    /// Requests per second.
    pub rate: f64,
    /// Whether it can go on for ever.
    pub sustained: bool,
    /// Answers per second.
    pub answered_rate: f64,
    /// By how much the unconfirmed grew, per second.
    pub backlog_growth: f64,
    /// Requests answered otherwise than 2xx, or not at all.
    pub refused: u64,
    /// Whether everything was confirmed within 15 s after the load.
    pub drained: bool,
}

/// A load at a fixed rate.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    /// Requests per second that were asked for.
    pub rate: f64,
    /// Answers per second.
    pub answered_rate: f64,
    /// Beacons confirmed per second.
    pub confirmed_rate: f64,
    /// Requests answered otherwise than 2xx, or not at all.
    pub refused: u64,
    /// Whether everything was confirmed within 15 s after the load.
    pub drained: bool,
    /// Whether the rate was sustained in this measurement too.
    pub sustained: bool,
    /// Whether the load left on time: 99 % within 1 ms.
    pub generator_kept_up: bool,
    /// From the intended moment of sending to the answer.
    pub latency: LatencySummary,
    /// CPU of all processes together, per beacon, until all were confirmed.
    pub cpu_us_per_beacon: Option<f64>,
    /// Each process.
    pub processes: Vec<ProcessUse>,
}

/// What a process used.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessUse {
    /// `beacon-edge` or `server`, `redis`, `agent`, `rabbitmq`.
    pub name: String,
    /// User and system time per accepted beacon, until all were confirmed.
    pub cpu_us_per_beacon: Option<f64>,
    /// Largest resident memory during the load, in MiB.
    pub peak_mib: Option<f64>,
}

/// The broker killed in the middle.
#[derive(Debug, Clone, Serialize)]
pub struct Death {
    /// Requests per second.
    pub rate: f64,
    /// Requests sent.
    pub sent: u64,
    /// Requests answered otherwise than 2xx, or not at all: the client knows.
    pub refused: u64,
    /// From the kill until the broker took connections again, in seconds.
    pub away_s: f64,
    /// Whether the model had got rid of everything afterwards; `false` for one that cannot know.
    pub drained: bool,
    /// What was left in Redis.
    pub left_in_redis: Option<String>,
    /// Answered 2xx against what is in the queue; `missing` are lost.
    pub verdict: Verdict,
}

impl Settings {
    /// Who chose the threads' cores.
    pub(super) fn threads_placed(&self) -> &'static str {
        match self.pinned {
            true => {
                "pinned: those of the load from the first core on, the servers' that take requests from the last"
            }
            false => "left to the scheduler",
        }
    }

    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            rounds: plan.rounds,
            probes: plan.probes,
            probe_s: plan.probe.as_secs_f64(),
            duration_s: plan.duration.as_secs_f64(),
            death_duration_s: plan.death_duration.as_secs_f64(),
            connections: plan.connections,
            threads: plan.threads,
            pinned: plan.pin,
            post_percent: plan.post_percent,
            workers: plan.workers,
            pool: plan.pool,
            stomp_connections: plan.stomp_connections,
            window: plan.window,
            pack: plan.pack,
            linger_ms: plan.linger_ms,
            chunk: plan.chunk,
            chunks_in_flight: plan.chunks_in_flight,
        }
    }
}

impl Report {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            tool: "loadtest models",
            version: env!("CARGO_PKG_VERSION"),
            interrupted: false,
            failure: None,
            elapsed_s: 0.0,
            settings: Settings::new(plan),
            machine: Machine::read().with_libraries(LIBRARIES),
            memory_limit: None,
            common_rate: plan.common_rate,
            models: plan.models.iter().copied().map(Row::new).collect(),
            packed_to_front: None,
            notes: Vec::new(),
        }
    }

    /// Works out the medians anew, and what each row makes of the one before.
    pub(crate) fn summarise(&mut self) {
        self.models.iter_mut().for_each(Row::summarise);
        let row = |model: Model| self.models.iter().find(|row| row.model == model.key());
        self.packed_to_front = row(Model::EdgePacked)
            .zip(row(Model::RedisFront))
            .and_then(|(packed, front)| packed.times(front));
        for place in 0..self.models.len() {
            let (earlier, rest) = self.models.split_at_mut(place);
            let Some(row) = rest.first_mut() else { return };
            let group: Vec<&Row> = earlier.iter().filter(|other| other.group == row.group).collect();
            let times = |other: Option<&&Row>| row.times(other?);
            let (first, before) = (times(group.first()), times(group.last()));
            if let Some(median) = &mut row.median {
                median.times_first = first;
                median.times_before = before.filter(|_| row.group == "path");
            }
        }
    }
}

impl Row {
    pub(crate) fn new(model: Model) -> Self {
        let group = match model.group() {
            Group::Models => "models",
            Group::Path => "path",
        };
        Self {
            model: model.key(),
            title: model.title(),
            group,
            rounds: Vec::new(),
            median: None,
            deaths: Vec::new(),
            failure: None,
        }
    }

    /// Works out the medians anew.
    pub(crate) fn summarise(&mut self) {
        let loads = |of: fn(&Round) -> Option<&Load>| {
            MedianLoad::new(&self.rounds.iter().filter_map(of).collect::<Vec<_>>())
        };
        self.median = (!self.rounds.is_empty()).then(|| Medians {
            rounds: self.rounds.len(),
            sustained_rate: Spread::of(self.rounds.iter().filter_map(|round| round.sustained_rate)),
            times_before: None,
            times_first: None,
            at_sustained: loads(|round| round.at_sustained.as_ref()),
            at_common: loads(|round| round.at_common.as_ref()),
        });
    }
}

impl Row {
    /// The middle of what its earlier rounds have found.
    pub(crate) fn found_before(&self, round: usize) -> Option<f64> {
        let earlier = self.rounds.iter().filter(|earlier| earlier.round < round);
        median(&earlier.filter_map(|round| round.sustained_rate).collect::<Vec<_>>())
    }

    /// Its rate ÷ that of another, over the rounds in which both have one.
    fn times(&self, other: &Self) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| {
            let other = other.rounds.iter().find(|other| other.round == round.round)?;
            Some(rounded(round.sustained_rate? / other.sustained_rate?, 3))
        }))
    }
}

impl Round {
    pub(crate) fn new(number: usize, searched: &Searched) -> Self {
        Self {
            round: number,
            closed_loop_rate: searched
                .closed_loop
                .as_ref()
                .map(|taken| rounded(taken.phase.requests_per_second(), 1)),
            sustained_rate: searched.rate,
            capped: searched.capped,
            probes: searched.probes.iter().map(Probe::new).collect(),
            at_sustained: searched.at_rate.as_ref().map(Load::new),
            at_common: None,
        }
    }
}

impl Probe {
    fn new(taken: &Taken) -> Self {
        Self {
            rate: taken.rate.unwrap_or_default(),
            sustained: taken.is_sustained(),
            answered_rate: rounded(taken.phase.requests_per_second(), 1),
            backlog_growth: rounded(taken.growth_per_second(), 1),
            refused: taken.refused(),
            drained: taken.drained,
        }
    }
}

impl Load {
    pub(crate) fn new(taken: &Taken) -> Self {
        let stats = &taken.phase.stats;
        let each =
            |used: &Use| (taken.accepted > 0).then(|| used.cpu.as_secs_f64() * 1e6 / taken.accepted as f64);
        let processes = taken.uses.iter().map(|used| ProcessUse {
            name: used.name.clone(),
            cpu_us_per_beacon: each(used).map(|us| rounded(us, 3)),
            peak_mib: used.peak.map(|octets| rounded(octets as f64 / f64::from(1 << 20), 2)),
        });
        Self {
            rate: taken.rate.unwrap_or_default(),
            answered_rate: rounded(taken.phase.requests_per_second(), 1),
            confirmed_rate: rounded(taken.confirmed_per_second(), 1),
            refused: taken.refused(),
            drained: taken.drained,
            sustained: taken.is_sustained(),
            generator_kept_up: stats.send_delay.quantile_us(0.99) <= 1000.0 && stats.generator_busy <= 0.95,
            latency: stats.latency.summary(),
            cpu_us_per_beacon: taken.uses.iter().map(each).sum::<Option<f64>>().map(|us| rounded(us, 3)),
            processes: processes.collect(),
        }
    }
}

impl Death {
    pub(crate) fn new(died: Died) -> Self {
        Self {
            rate: died.rate,
            sent: died.sent,
            refused: died.refused,
            away_s: rounded(died.away.as_secs_f64(), 2),
            drained: died.drained,
            left_in_redis: died.left,
            verdict: died.verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_the_path_has_its_factor_round_by_round() {
        let round = |number, rate| Round {
            round: number,
            closed_loop_rate: None,
            sustained_rate: rate,
            capped: false,
            probes: Vec::new(),
            at_sustained: None,
            at_common: None,
        };
        let row = |model, rates: [Option<f64>; 3]| {
            let rounds = (1..).zip(rates).map(|(number, rate)| round(number, rate)).collect();
            Row { rounds, ..Row::new(model) }
        };
        let mut report = Report {
            models: vec![
                row(Model::StompDirect, [Some(10.0); 3]),
                row(Model::EdgePacked, [Some(50.0); 3]),
                row(Model::PathWindowOne, [Some(1.0), Some(2.0), None]),
                row(Model::PathPipelined, [Some(4.0), Some(4.0), Some(4.0)]),
                row(Model::PathPooled, [Some(8.0), Some(12.0), Some(4.0)]),
            ],
            ..Report::new(&Plan::for_tests())
        };
        report.summarise();
        let factors = |place: usize| {
            let median = report.models[place].median.as_ref().unwrap();
            [median.times_before, median.times_first].map(|spread| spread.map(|spread| spread.median))
        };
        let expected =
            [[None, None], [None, Some(5.0)], [None, None], [Some(3.0), Some(3.0)], [Some(2.0), Some(7.0)]];
        assert_eq!([0, 1, 2, 3, 4].map(factors), expected);
        for text in [report.table(), report.html()] {
            for part in ["× 5.00", "× 3.00", "× 2.00", "× 7.00"] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }

    #[test]
    fn a_spread_is_of_the_rounds_that_have_the_value() {
        assert_eq!(Spread::of([].into_iter()), None);
        let spread = Spread::of([3.0, 1.0, 2.0].into_iter()).unwrap();
        assert_eq!((spread.median, spread.low, spread.high), (2.0, 1.0, 3.0));
    }
}
