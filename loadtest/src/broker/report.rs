//! The result of `loadtest broker`, for machines and for people.
//!
//! The names of the JSON fields are those of the struct fields here. They are stable: fields are added, not renamed.

use std::time::Duration;

use serde::Serialize;

use crate::{
    broker::{
        Plan, csv, page,
        round::Measured,
        seen::Integrity,
        setting::{Mode, Protocol, Setting, Sweep},
        steps::{self, Step},
        table,
    },
    machine::Machine,
    plot::Page,
    report::{LatencyHistogram, LatencySummary, rounded},
};

pub use super::summary::{Quantiles, Spread, Summary};

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `loadtest broker`.
    pub tool: &'static str,
    /// Version of this program.
    pub version: &'static str,
    /// When the run began, in seconds since 1970.
    pub began_unix_s: u64,
    /// What it was made on.
    pub machine: Machine,
    /// What is known of the broker: names and values.
    pub broker: Vec<(String, String)>,
    /// What is done with the queue.
    pub mode: Mode,
    /// Clients, in turns.
    pub protocols: Vec<Protocol>,
    /// Whether messages were confirmed. Otherwise they count when they are written.
    pub confirms: bool,
    /// Whether messages were persistent.
    pub persistent: bool,
    /// Messages a second that were asked for; `null`: as many as the window lets through.
    pub rate: Option<f64>,
    /// Messages that a consumer could hold unacknowledged.
    pub prefetch: u16,
    /// Messages acknowledged at once.
    pub ack_every: usize,
    /// Rounds of each client at each point that were asked for.
    pub rounds: usize,
    /// Measured time of a round, in seconds.
    pub time_s: f64,
    /// Time before it, in seconds.
    pub warmup_s: f64,
    /// Threads that the connections shared.
    pub threads: usize,
    /// Whether the run was ended before its time.
    pub interrupted: bool,
    /// Why the run could not go on, if it could not.
    pub failure: Option<String>,
    /// What was measured, in the order of measuring.
    pub points: Vec<Point>,
    /// The path of the sweep over factors, if there was one.
    pub steps: Vec<Step>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// What was measured at one setting.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// The sweep it belongs to.
    pub sweep: Option<Sweep>,
    /// The setting.
    #[serde(flatten)]
    pub setting: Setting,
    /// Connections that consumed.
    pub consumers: usize,
    /// For each client that finished a round.
    pub clients: Vec<Client>,
}

/// What was measured with one client at one setting.
#[derive(Debug, Clone, Serialize)]
pub struct Client {
    /// The client.
    pub protocol: Protocol,
    /// Its rounds, in order.
    pub rounds: Vec<Round>,
    /// Medians of the rounds, with their spread.
    pub summary: Summary,
    /// From sending, or at a fixed rate from when it was due, to the confirm; over all rounds.
    pub confirm_latency: LatencySummary,
    /// From there to the consumer; over all rounds.
    pub end_to_end_latency: LatencySummary,
    /// At a fixed rate: how late messages left.
    pub send_delay: LatencySummary,
}

/// A round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Its number, from 1.
    pub round: usize,
    /// Seconds since the run's start.
    pub began_s: f64,
    /// Measured time, in seconds.
    pub window_s: f64,
    /// Messages handed to the client library in the measured time.
    pub published: u64,
    /// Messages confirmed in it.
    pub confirmed: u64,
    /// Messages that the broker refused.
    pub nacked: u64,
    /// Messages that arrived in it.
    pub received: u64,
    /// Messages without a confirm at the end of the round.
    pub unconfirmed: u64,
    /// What a message is counted by: confirmed, or received in mode consume; a second.
    pub messages_per_second: f64,
    /// Messages that arrived, a second.
    pub received_per_second: f64,
    /// Share of the measured time during which a message was due and the window was full, on average over the connections;
    /// `null` in mode consume.
    pub window_full: Option<f64>,
    /// CPU of this program per message, in µs.
    pub client_cpu_us_per_message: Option<f64>,
    /// CPU of the broker's process per message, in µs.
    pub broker_cpu_us_per_message: Option<f64>,
    /// Octets of TCP's payload to the broker, per message.
    pub octets_sent_per_message: Option<f64>,
    /// Octets of TCP's payload from the broker, per message.
    pub octets_received_per_message: Option<f64>,
    /// Latency of the confirms.
    pub confirm: Quantiles,
    /// Latency to the consumer.
    pub end_to_end: Quantiles,
    /// What is wrong with what arrived, if anything was to arrive.
    pub integrity: Option<Integrity>,
    /// Why the round could not be finished.
    pub failure: Option<String>,
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        machine: Machine,
        broker: Vec<(String, String)>,
        began_unix_s: u64,
    ) -> Self {
        Self {
            tool: "loadtest broker",
            version: env!("CARGO_PKG_VERSION"),
            began_unix_s,
            machine,
            broker,
            mode: plan.mode,
            protocols: plan.protocols.clone(),
            confirms: plan.confirms,
            persistent: plan.persistent,
            rate: plan.rate,
            prefetch: plan.prefetch,
            ack_every: plan.ack_every,
            rounds: plan.rounds,
            time_s: plan.time.as_secs_f64(),
            warmup_s: plan.warmup.as_secs_f64(),
            threads: plan.threads,
            interrupted: false,
            failure: None,
            points: Vec::new(),
            steps: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The result for people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        table::write_report(&mut out, self).unwrap_or_default();
        out
    }

    /// A line for each round, PerfTest's columns first.
    pub fn csv(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        csv::write_report(&mut out, self).unwrap_or_default();
        out
    }

    /// The result as a page with plots.
    pub fn page(&self) -> Page {
        page::of(self)
    }

    /// What follows from the figures: the path, and what a reader should know.
    pub(crate) fn observe(&mut self) {
        self.steps = steps::of(&self.points);
        let mut notes = Vec::new();
        if self.interrupted {
            notes.push("Interrupted: this is what was measured until then.".to_owned());
        }
        if let Some(failure) = &self.failure {
            notes.push(format!("The run could not go on: {failure}"));
        }
        let rounds = || self.points.iter().flat_map(|point| &point.clients).flat_map(|client| &client.rounds);
        if self.rounds < 5 {
            notes.push("Fewer than five rounds: a median says little.".to_owned());
        }
        if !self.confirms {
            notes.push(
                "Without confirms a message counts when the client library says that it has it or has written it, which is \
                 not the same in each (amqprs keeps up to 8192 messages); the broker may have lost it, and may be far \
                 behind."
                    .to_owned(),
            );
        }
        let sum = |of: fn(&Integrity) -> u64| {
            rounds().filter_map(|round| round.integrity.as_ref()).map(of).sum::<u64>()
        };
        for (count, what) in [
            (sum(|found| found.lost), "messages were lost"),
            (sum(|found| found.duplicates), "messages arrived twice"),
            (sum(|found| found.out_of_order), "messages arrived out of order"),
            (sum(|found| found.foreign), "messages were none of this run's"),
            (rounds().map(|round| round.nacked).sum(), "messages were refused by the broker"),
            (
                rounds().map(|round| round.unconfirmed).sum(),
                "messages had no confirm at the end of their round",
            ),
        ] {
            if count > 0 {
                notes.push(format!("{count} {what}."));
            }
        }
        if let Some(rate) = self.rate
            && rounds().any(|round| (round.published as f64) < 0.99 * rate * round.window_s)
        {
            notes.push(
                "In some rounds the asked rate was not reached; latency counts from when messages were due."
                    .to_owned(),
            );
        }
        self.notes.splice(0..0, notes);
    }
}

/// The rounds of one client at one setting, while they are being measured.
#[derive(Debug)]
pub(crate) struct Gathering {
    pub(crate) protocol: Protocol,
    pub(crate) rounds: Vec<Round>,
    confirm: LatencyHistogram,
    end_to_end: LatencyHistogram,
    delay: LatencyHistogram,
}

impl Gathering {
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            rounds: Vec::new(),
            confirm: LatencyHistogram::default(),
            end_to_end: LatencyHistogram::default(),
            delay: LatencyHistogram::default(),
        }
    }

    /// Adds a round.
    pub(crate) fn add(
        &mut self,
        number: usize,
        began: Duration,
        (mode, connections): (Mode, usize),
        measured: &Measured,
    ) {
        self.confirm.merge(&measured.confirm_latency);
        self.end_to_end.merge(&measured.end_to_end_latency);
        self.delay.merge(&measured.send_delay);
        let seconds = measured.window.as_secs_f64().max(1e-9);
        let units = if mode == Mode::Consume { measured.received } else { measured.confirmed };
        let each = |total: f64| (units > 0).then(|| rounded(total / units as f64, 3));
        let micros = |cpu: Duration| each(cpu.as_secs_f64() * 1e6);
        self.rounds.push(Round {
            round: number,
            began_s: rounded(began.as_secs_f64(), 3),
            window_s: rounded(seconds, 6),
            published: measured.published,
            confirmed: measured.confirmed,
            nacked: measured.refused,
            received: measured.received,
            unconfirmed: measured.unconfirmed,
            messages_per_second: rounded(units as f64 / seconds, 1),
            received_per_second: rounded(measured.received as f64 / seconds, 1),
            window_full: (mode != Mode::Consume).then(|| {
                let share = measured.waited.as_secs_f64() / (seconds * connections as f64);
                rounded(share.min(1.0), 4)
            }),
            client_cpu_us_per_message: micros(measured.client_cpu),
            broker_cpu_us_per_message: measured.broker_cpu.and_then(micros),
            octets_sent_per_message: measured.traffic.and_then(|traffic| each(traffic.sent as f64)),
            octets_received_per_message: measured.traffic.and_then(|traffic| each(traffic.received as f64)),
            confirm: Quantiles::of(&measured.confirm_latency),
            end_to_end: Quantiles::of(&measured.end_to_end_latency),
            integrity: measured.integrity,
            failure: measured.failure.clone(),
        });
    }

    /// The figures; `amqp` are the rounds of the client to compare with.
    pub(crate) fn finish(&self, setting: &Setting, amqp: Option<&[Round]>) -> Client {
        Client {
            protocol: self.protocol,
            summary: Summary::of(&self.rounds, setting, amqp),
            rounds: self.rounds.clone(),
            confirm_latency: self.confirm.summary(),
            end_to_end_latency: self.end_to_end.summary(),
            send_delay: self.delay.summary(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::broker::setting::QueueKind;

    pub(crate) fn measured(confirmed: u64) -> Measured {
        let mut measured = Measured {
            window: Duration::from_secs(2),
            published: confirmed + 5,
            confirmed,
            received: confirmed / 2,
            waited: Duration::from_secs(1),
            client_cpu: Duration::from_millis(500),
            broker_cpu: Some(Duration::from_secs(1)),
            ..Measured::default()
        };
        (1..=100).for_each(|ms| measured.confirm_latency.record(ms * 1_000_000));
        measured
    }

    /// A report of two clients at each point of `sweep`.
    pub(crate) fn sample(sweep: Option<Sweep>) -> Report {
        let line = ["broker", "--protocols", "stomp,lapin"].into_iter().map(str::to_owned);
        let line =
            line.chain(sweep.iter().flat_map(|sweep| ["--sweep".to_owned(), sweep.as_str().to_owned()]));
        let plan = Plan::check(&crate::broker::tests::parse(line)).unwrap();
        let mut report = Report::new(&plan, Machine::read(), vec![("Broker".into(), "a <b>".into())], 1);
        for (place, (sweep, setting)) in plan.points.iter().enumerate() {
            let gatherings: Vec<Gathering> = plan
                .protocols
                .iter()
                .enumerate()
                .map(|(client, protocol)| {
                    let mut gathering = Gathering::new(*protocol);
                    for round in 1..=5 {
                        let confirmed = 1000 * (1 + place + client + round) as u64;
                        gathering.add(round, Duration::from_secs(1), (plan.mode, 2), &measured(confirmed));
                    }
                    gathering
                })
                .collect();
            let amqp = gatherings.iter().find(|one| one.protocol != Protocol::Stomp).map(|one| &*one.rounds);
            let clients = gatherings.iter().map(|one| one.finish(setting, amqp)).collect();
            report.points.push(Point { sweep: *sweep, setting: *setting, consumers: 0, clients });
        }
        report.observe();
        report
    }

    #[test]
    fn medians_are_of_the_rounds_that_were_finished() {
        let setting =
            Setting { body: 1_000_000, beacons: 10, window: 1, connections: 1, queue: QueueKind::Classic };
        let gather = |counts: &[u64]| {
            let mut gathering = Gathering::new(Protocol::Stomp);
            for (round, confirmed) in counts.iter().enumerate() {
                gathering.add(round + 1, Duration::ZERO, (Mode::Publish, 2), &measured(*confirmed));
            }
            gathering
        };
        let (mut stomp, amqp) = (gather(&[2000, 4000, 8000, 2]), gather(&[1000, 4000, 16_000, 7]));
        stomp.rounds[3].failure = Some("lost".to_owned());
        let summary = stomp.finish(&setting, Some(&amqp.rounds)).summary;
        assert_eq!(summary.rounds, 3);
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(summary.messages_per_second, spread(2000.0, 1000.0, 4000.0));
        assert_eq!(summary.beacons_per_second, spread(20_000.0, 10_000.0, 40_000.0));
        assert_eq!(summary.megabytes_per_second, spread(2000.0, 1000.0, 4000.0));
        assert_eq!(summary.broker_cpu_us_per_message, spread(250.0, 125.0, 500.0));
        assert_eq!(summary.broker_cpu_us_per_beacon, spread(25.0, 12.5, 50.0));
        // One second of two connections' two.
        assert_eq!(summary.window_full, spread(0.25, 0.25, 0.25));
        // Round by round: 2, 1, 0.5.
        assert_eq!(summary.ratio_to_amqp, spread(1.0, 0.5, 2.0));
        assert_eq!(summary.received_per_second, None);
    }

    #[test]
    fn what_a_reader_should_know_is_said() {
        let mut report = sample(None);
        assert_eq!(report.notes, Vec::<String>::new());
        report.interrupted = true;
        report.confirms = false;
        report.failure = Some("the broker went away".to_owned());
        report.points[0].clients[0].rounds[0].integrity = Some(Integrity { lost: 3, ..Integrity::default() });
        report.observe();
        let notes = report.notes.join("\n");
        for part in [
            "Interrupted",
            "could not go on: the broker went away",
            "Without confirms",
            "3 messages were lost",
        ] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
    }
}
