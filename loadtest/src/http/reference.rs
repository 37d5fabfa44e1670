//! Rounds that alternate between the URL's server and an nginx of our own, so that both see the same machine.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::{
    Error,
    cpu::Process,
    http::{
        Target,
        answered::AnsweredLog,
        beacon::{Beacons, Mix},
        fleet::Fleet,
        report::Report,
        run::{Measured, Run, Side, fleet_to},
    },
    nginx::Nginx,
    report::{median, rounded},
};

/// A comparison with a reference server.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The reference, for example `nginx/1.22.1`.
    pub server: String,
    /// Rounds that were completed.
    pub rounds: Vec<Round>,
    /// The medians over the rounds; `null` when none was completed.
    pub median: Option<Medians>,
}

/// One round: the URL's server and the reference, one right after the other.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Its number, from 1.
    pub round: usize,
    /// The URL's server.
    pub url: RoundFigures,
    /// The reference.
    pub reference: RoundFigures,
    /// CPU per request of the URL's server ÷ that of the reference; `null` when one of them is not known.
    pub cpu_ratio: Option<f64>,
}

/// One server in one round.
#[derive(Debug, Clone, Serialize)]
pub struct RoundFigures {
    /// Answers per second.
    pub requests_per_second: f64,
    /// CPU of its process in microseconds per answer, the settling included.
    pub cpu_us_per_request: Option<f64>,
    /// 99 % of its answers did not take longer, in microseconds.
    pub p99_us: f64,
    /// Requests without an answer, or with another status than 2xx.
    pub failed: u64,
}

/// Medians over the rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Medians {
    /// Answers per second of the URL's server.
    pub url_requests_per_second: f64,
    /// Answers per second of the reference.
    pub reference_requests_per_second: f64,
    /// CPU per answer of the URL's server, in microseconds.
    pub url_cpu_us_per_request: Option<f64>,
    /// CPU per answer of the reference, in microseconds.
    pub reference_cpu_us_per_request: Option<f64>,
    /// The median of the rounds' ratios (not the ratio of the medians).
    pub cpu_ratio: Option<f64>,
    /// The lowest ratio of a round.
    pub cpu_ratio_min: Option<f64>,
    /// The highest ratio of a round.
    pub cpu_ratio_max: Option<f64>,
}

/// Runs the plan's rounds. An interrupt ends them; the round that it breaks is not reported, except that its beacons
/// count in the totals.
pub(crate) async fn compare(run: &Run<'_>, rounds: usize) -> Result<Report, Error> {
    let plan = run.plan;
    let nginx = Nginx::start(plan.connections)?;
    if plan.pin {
        nginx.pin()?;
    }
    let nginx_target = Target::parse(&format!("http://{}/b.gif", nginx.address()), false)?;
    let url = Contender {
        target: &plan.target,
        beacons: Arc::new(Beacons::new(&plan.target, &plan.mix)),
        processes: &plan.processes,
        settle: plan.settle,
    };
    let reference = Contender {
        // empty_gif takes no POST, and the ratio is against its GET in any case.
        beacons: Arc::new(Beacons::new(&nginx_target, &Mix { post_percent: 0, ..plan.mix.clone() })),
        target: &nginx_target,
        processes: std::slice::from_ref(nginx.process()),
        // nginx has nothing left to do once it has answered.
        settle: Duration::ZERO,
    };

    let mut total = Measured::default();
    total.phase.next_seq = plan.first_seq;
    let mut reference_seq = 0;
    let mut completed = Vec::with_capacity(rounds);
    for round in 1..=rounds {
        let warm_up = round == 1;
        let (ours, theirs);
        // Which goes first changes from round to round, so that a drift of the machine favours neither.
        if round % 2 == 1 {
            ours = url
                .measure(run, total.phase.next_seq, run.answered, warm_up, &format!("{round} url"))
                .await?;
            theirs = reference.measure(run, reference_seq, None, warm_up, &format!("{round} nginx")).await?;
        } else {
            theirs = reference.measure(run, reference_seq, None, warm_up, &format!("{round} nginx")).await?;
            ours = url
                .measure(run, total.phase.next_seq, run.answered, warm_up, &format!("{round} url"))
                .await?;
        }
        total.merge(&ours);
        reference_seq = theirs.phase.next_seq;
        if run.interrupt.is_raised() {
            break;
        }
        completed.push(Round::new(round, &ours, &theirs));
    }
    let comparison = Comparison::new(nginx.version(), completed);
    drop(nginx);
    Ok(Report::new(plan, total, None, Some(comparison), run.interrupt.is_raised()))
}

/// One of the two servers.
struct Contender<'a> {
    target: &'a Target,
    beacons: Arc<Beacons>,
    processes: &'a [Process],
    settle: Duration,
}

impl Contender<'_> {
    /// One server's half of a round, over connections of its own that are opened before and closed after what is
    /// measured.
    async fn measure(
        &self,
        run: &Run<'_>,
        first_seq: u64,
        answered: Option<&AnsweredLog>,
        warm_up: bool,
        label: &str,
    ) -> Result<Measured, Error> {
        if run.interrupt.is_raised() {
            let mut nothing = Measured::default();
            nothing.phase.next_seq = first_seq;
            return Ok(nothing);
        }
        let fleet = Fleet::connect(fleet_to(run.plan, self.target), run.interrupt).await?;
        let side = Side {
            fleet: &fleet,
            beacons: self.beacons.clone(),
            processes: self.processes,
            settle: self.settle,
        };
        if warm_up {
            side.warm_up(run).await?;
        }
        let measured = side.measure(run, first_seq, answered, label).await;
        fleet.close();
        measured
    }
}

impl Round {
    fn new(round: usize, url: &Measured, reference: &Measured) -> Self {
        let ratio = url.cpu_us_per_request().zip(reference.cpu_us_per_request());
        Self {
            round,
            url: RoundFigures::new(url),
            reference: RoundFigures::new(reference),
            cpu_ratio: ratio.map(|(ours, theirs)| rounded(ours / theirs, 4)),
        }
    }
}

impl RoundFigures {
    fn new(measured: &Measured) -> Self {
        let stats = &measured.phase.stats;
        Self {
            requests_per_second: rounded(measured.phase.requests_per_second(), 1),
            cpu_us_per_request: measured.cpu_us_per_request().map(|us| rounded(us, 3)),
            p99_us: stats.latency.quantile_us(0.99),
            failed: stats.sent - stats.succeeded,
        }
    }
}

impl Comparison {
    fn new(server: &str, rounds: Vec<Round>) -> Self {
        Self { server: server.to_owned(), median: Medians::of(&rounds), rounds }
    }
}

impl Medians {
    fn of(rounds: &[Round]) -> Option<Self> {
        let column = |value: fn(&Round) -> Option<f64>| rounds.iter().filter_map(value).collect::<Vec<f64>>();
        let ratios = column(|round| round.cpu_ratio);
        Some(Self {
            url_requests_per_second: median(&column(|round| Some(round.url.requests_per_second)))?,
            reference_requests_per_second: median(&column(|round| {
                Some(round.reference.requests_per_second)
            }))?,
            url_cpu_us_per_request: median(&column(|round| round.url.cpu_us_per_request)),
            reference_cpu_us_per_request: median(&column(|round| round.reference.cpu_us_per_request)),
            cpu_ratio: median(&ratios),
            cpu_ratio_min: ratios.iter().copied().reduce(f64::min),
            cpu_ratio_max: ratios.iter().copied().reduce(f64::max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(round: usize, url_us: f64, reference_us: f64) -> Round {
        let figures = |us: f64| RoundFigures {
            requests_per_second: 1e6 / us,
            cpu_us_per_request: Some(us),
            p99_us: 1.0,
            failed: 0,
        };
        Round {
            round,
            url: figures(url_us),
            reference: figures(reference_us),
            cpu_ratio: Some(url_us / reference_us),
        }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_ratios() {
        // Medians of the columns: 8 and 10, ratio 0.8; ratios of the rounds: 0.5, 0.4, 2.
        let rounds = [round(1, 5.0, 10.0), round(2, 8.0, 20.0), round(3, 10.0, 5.0)];
        let medians = Medians::of(&rounds).unwrap();
        assert_eq!(medians.url_cpu_us_per_request, Some(8.0));
        assert_eq!(medians.reference_cpu_us_per_request, Some(10.0));
        assert_eq!(medians.cpu_ratio, Some(0.5));
        assert_eq!((medians.cpu_ratio_min, medians.cpu_ratio_max), (Some(0.4), Some(2.0)));
        assert!(Medians::of(&[]).is_none());
    }
}
