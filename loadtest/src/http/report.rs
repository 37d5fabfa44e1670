//! The result of `loadtest http`, for machines and for people.
//!
//! The names of the JSON fields are those of the struct fields here. They are stable: fields are added, not renamed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    far_end::Verdict,
    http::{
        args::Plan,
        fleet::Limit,
        idle::{IdleFigures, mib},
        reference::Comparison,
        run::{Measured, per_request_us},
        slow::SlowFigures,
        stats::{Connects, Failures},
        table,
    },
    report::{LatencySummary, grouped, human_us, rounded},
};

/// A generator's thread that is busy for a greater share of its time may be what limits the rate.
const BUSY_LIMIT: f64 = 0.95;

/// A generator that sends later than this in one of a hundred cases does not keep its schedule, in microseconds.
const SEND_DELAY_LIMIT_US: f64 = 1000.0;

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `loadtest http`.
    pub tool: &'static str,
    /// Version of this program.
    pub version: &'static str,
    /// Where the beacons went.
    pub url: String,
    /// `closed`, `open`, or `idle` when there was no load beside idle connections.
    pub mode: &'static str,
    /// Connections under load.
    pub connections: usize,
    /// Threads that made the load.
    pub threads: usize,
    /// Whether they were bound to cores, and the reference too.
    pub pinned: bool,
    /// Share of POSTs that was asked for.
    pub post_percent: u8,
    /// Time before anything was counted, in seconds.
    pub warmup_s: f64,
    /// Whether the run was ended before its time.
    pub interrupted: bool,
    /// The first sequence number.
    pub first_seq: u64,
    /// The first sequence number that was not sent: all from `first_seq` up to here were.
    pub next_seq: u64,
    /// What was measured; with a reference, the URL's server over all rounds.
    #[serde(flatten)]
    pub figures: Figures,
    /// Memory for idle connections, with `--idle`.
    pub idle: Option<IdleFigures>,
    /// Clients that sent slowly, with `--slow`.
    pub slow: Option<SlowFigures>,
    /// Whether everything that was answered is at the far end, with `--verify`.
    pub verify: Option<Verdict>,
    /// The comparison, with `--reference`.
    pub reference: Option<Comparison>,
    /// What a reader of the numbers should know.
    pub notes: Vec<String>,
}

/// What was measured on the URL's server.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Measured time in seconds: until sending stopped, or until the last of `--requests` was answered.
    pub window_s: f64,
    /// Requests sent.
    pub requests_sent: u64,
    /// Requests with a whole answer, whatever its status.
    pub requests_answered: u64,
    /// Requests answered with 2xx.
    pub requests_succeeded: u64,
    /// Answers per second within the measured time.
    pub requests_per_second: f64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer, by reason.
    pub failures: Failures,
    /// What it took to stay connected.
    pub connects: Connects,
    /// Octets sent.
    pub octets_sent: u64,
    /// Octets received.
    pub octets_received: u64,
    /// Latency of the answers: from sending, or in an open loop from the intended moment of sending.
    pub latency: LatencySummary,
    /// How the schedule was kept, in an open loop.
    pub open_loop: Option<OpenLoop>,
    /// What the load cost on this side.
    pub generator: Generator,
    /// What each process given by `--pid` used.
    pub processes: Vec<ProcessFigures>,
}

/// How the schedule of an open loop was kept.
#[derive(Debug, Clone, Serialize)]
pub struct OpenLoop {
    /// Requests per second that were asked for.
    pub asked_rate: f64,
    /// Requests per second that were answered.
    pub achieved_rate: f64,
    /// Requests that were due in the measured time.
    pub requests_due: u64,
    /// Of these, those that were not sent before its end.
    pub requests_unsent: u64,
    /// Requests sent late because their connection still awaited an answer, or had to be opened again.
    pub requests_behind_schedule: u64,
    /// How late the generator itself sent on free connections: median, in microseconds.
    pub send_delay_p50_us: f64,
    /// The same: 99 % were not later.
    pub send_delay_p99_us: f64,
    /// The same: the latest.
    pub send_delay_max_us: f64,
    /// Whether the generator kept up: 99 % sent within 1 ms, and no thread busy for over 95 % of its time.
    pub generator_kept_up: bool,
}

/// What the load cost on this side.
#[derive(Debug, Clone, Serialize)]
pub struct Generator {
    /// CPU of its threads in microseconds per answer.
    pub cpu_us_per_request: Option<f64>,
    /// How busy its busiest thread was.
    pub busy_percent: f64,
}

/// What a process used; `null` after it has ended.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessFigures {
    /// Its label.
    pub name: String,
    /// Its process id.
    pub pid: i32,
    /// User and system time in milliseconds, the settling included.
    pub cpu_ms: Option<f64>,
    /// User and system time in microseconds per answer, the settling included.
    pub cpu_us_per_request: Option<f64>,
    /// Share of one core, over the measured time and the settling.
    pub cpu_percent: Option<f64>,
    /// Resident memory before the first counted request, in MiB.
    pub rss_start_mib: Option<f64>,
    /// Resident memory at the end, in MiB.
    pub rss_end_mib: Option<f64>,
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        measured: Measured,
        idle: Option<IdleFigures>,
        reference: Option<Comparison>,
        interrupted: bool,
    ) -> Self {
        let mode = match (plan.connections, plan.rate) {
            (0, _) => "idle",
            (_, None) => "closed",
            (_, Some(_)) => "open",
        };
        let mut report = Self {
            tool: "loadtest http",
            version: env!("CARGO_PKG_VERSION"),
            url: plan.target.to_string(),
            mode,
            connections: plan.connections,
            threads: plan.threads,
            pinned: plan.pin,
            post_percent: plan.mix.post_percent,
            warmup_s: plan.warmup.as_secs_f64(),
            interrupted,
            first_seq: plan.first_seq,
            next_seq: measured.phase.next_seq,
            figures: Figures::new(plan, &measured),
            idle,
            slow: None,
            verify: None,
            reference,
            notes: Vec::new(),
        };
        report.notes = report.observations(plan);
        report
    }

    /// The result for people.
    pub fn table(&self) -> String {
        let mut table = String::new();
        // Writing to a String cannot fail.
        table::write_report(&mut table, self).unwrap_or_default();
        table
    }

    fn observations(&self, plan: &Plan) -> Vec<String> {
        let figures = &self.figures;
        let mut notes = Vec::new();
        if self.interrupted {
            notes.push("interrupted: this is what was measured until then".to_owned());
        }
        if figures.requests_answered > figures.requests_succeeded {
            let others = figures.requests_answered - figures.requests_succeeded;
            notes.push(format!("{} answers were not 2xx; latency counts them as well", grouped(others)));
        }
        if figures.requests_sent > figures.requests_answered {
            let missing = figures.requests_sent - figures.requests_answered;
            notes.push(format!(
                "{} requests have no answer and are not in the latency figures",
                grouped(missing)
            ));
        }
        if figures.connects.given_up > 0 {
            notes.push(format!(
                "{} connections were given up after 10 s without a server",
                figures.connects.given_up
            ));
        }
        if let Limit::Requests(requests) = plan.limit
            && !self.interrupted
            && figures.requests_sent < requests.saturating_mul(plan.reference_rounds.unwrap_or(1) as u64)
        {
            notes.push("fewer requests were sent than asked for".to_owned());
        }
        let busy = figures.generator.busy_percent > BUSY_LIMIT * 100.0;
        if let Some(open) = &figures.open_loop {
            if !open.generator_kept_up {
                notes.push(format!(
                    "THE GENERATOR DID NOT KEEP UP: one in a hundred requests left over {} late, busiest thread {:.0} %; \
                     latencies include that. Lower --rate, add --threads if there are cores for them, or quiet the machine",
                    human_us(open.send_delay_p99_us),
                    figures.generator.busy_percent,
                ));
            }
            if open.requests_unsent > 0 {
                notes.push(format!(
                    "{} of {} due requests were not sent before the end: their connections were still waiting for \
                     answers. Real latency is higher than shown",
                    grouped(open.requests_unsent),
                    grouped(open.requests_due),
                ));
            }
        } else if busy {
            notes.push(format!(
                "the generator was busy for {:.0} % of the time and may be what limits the rate; more --threads, if \
                 there are cores for them, tell",
                figures.generator.busy_percent,
            ));
        }
        for process in figures.processes.iter().filter(|process| process.cpu_ms.is_none()) {
            // Without load nothing was measured, which is no sign of its end.
            if self.mode != "idle" {
                notes.push(format!("process {} (pid {}) ended during the run", process.name, process.pid));
            }
        }
        if let Some(idle) = &self.idle
            && idle.open_at_end < idle.connections
        {
            notes.push(format!(
                "only {} of {} idle connections were open at the end; the memory figures are for those",
                idle.open_at_end, idle.connections,
            ));
        }
        if let Some(comparison) = &self.reference {
            if plan.mix.post_percent > 0 {
                notes.push("the reference was sent GETs only".to_owned());
            }
            if comparison.rounds.iter().any(|round| round.url.failed + round.reference.failed > 0) {
                notes.push("requests failed in some rounds, which makes their ratio doubtful".to_owned());
            }
        }
        notes
    }
}

impl Figures {
    fn new(plan: &Plan, measured: &Measured) -> Self {
        let (phase, stats) = (&measured.phase, &measured.phase.stats);
        let requests_per_second = rounded(phase.requests_per_second(), 1);
        let open_loop = plan.rate.map(|asked_rate| {
            let send_delay_p99_us = stats.send_delay.quantile_us(0.99);
            OpenLoop {
                asked_rate,
                achieved_rate: requests_per_second,
                requests_due: phase.due,
                requests_unsent: phase.due.saturating_sub(stats.sent),
                requests_behind_schedule: stats.sent_behind_schedule,
                send_delay_p50_us: stats.send_delay.quantile_us(0.5),
                send_delay_p99_us,
                send_delay_max_us: stats.send_delay.max_us(),
                generator_kept_up: send_delay_p99_us <= SEND_DELAY_LIMIT_US
                    && stats.generator_busy <= BUSY_LIMIT,
            }
        });
        let processes = plan.processes.iter().enumerate().map(|(place, process)| {
            let used = measured.processes.get(place).copied().flatten();
            ProcessFigures {
                name: process.name().to_owned(),
                pid: process.pid(),
                cpu_ms: used.map(|used| rounded(used.cpu.as_secs_f64() * 1e3, 3)),
                cpu_us_per_request: used
                    .and_then(|used| per_request_us(used.cpu, stats.answered))
                    .map(|us| rounded(us, 3)),
                cpu_percent: used.map(|used| {
                    rounded(used.cpu.as_secs_f64() / used.wall.as_secs_f64().max(1e-9) * 100.0, 1)
                }),
                rss_start_mib: used.map(|used| mib(used.resident_before)),
                rss_end_mib: used.map(|used| mib(used.resident_after)),
            }
        });
        Self {
            window_s: rounded(phase.window.as_secs_f64(), 6),
            requests_sent: stats.sent,
            requests_answered: stats.answered,
            requests_succeeded: stats.succeeded,
            requests_per_second,
            statuses: stats.statuses(),
            failures: stats.failures,
            connects: stats.connects,
            octets_sent: stats.octets_sent,
            octets_received: stats.octets_received,
            latency: stats.latency.summary(),
            open_loop,
            generator: Generator {
                cpu_us_per_request: per_request_us(stats.generator_cpu, stats.answered)
                    .map(|us| rounded(us, 3)),
                busy_percent: rounded(stats.generator_busy * 100.0, 1),
            },
            processes: processes.collect(),
        }
    }
}
