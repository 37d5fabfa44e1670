//! Answer times of live traffic while a spooled backlog drains, against those without one, in alternating rounds.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    Error,
    faults::{
        measure::{
            carry_out,
            stand::{Stand, Wish},
        },
        mode::Mode,
    },
    http::stats::Stats,
    interrupt::Interrupt,
    report::{JsonTo, LatencyHistogram, LatencySummary, human_us, median, publish, rounded},
};

/// What `loadtest faults drain` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Megabytes in the spool before the broker comes back
    #[arg(long, value_name = "MB", default_value_t = 1000)]
    pub backlog: u64,
    /// Rounds; each has a turn with a backlog, and one without of which half comes before and half after it
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rounds: usize,
    /// How long each half of a turn without a backlog takes, in seconds
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub reference: u64,
    /// Live beacons a second [default: half of what the edge answers here at full load]
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// Megabytes a second that the edge may drain at most (its `drain_rate`) [default: the edge's own default]
    #[arg(long, value_name = "MB")]
    pub drain_rate: Option<u64>,
    /// Bind the thread of load to the first core and the edge's workers to the last ones
    #[arg(long)]
    pub pin: bool,
    /// Connections that send
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub connections: usize,
    /// The program to measure [default: beacon-edge beside this one]
    #[arg(long, value_name = "FILE")]
    pub edge: Option<PathBuf>,
    /// Write the result as JSON to FILE, or instead of the table to standard output (`-`)
    #[arg(long, value_name = "FILE")]
    pub report: Option<JsonTo>,
}

/// A piece of live traffic, after which the backlog is looked at.
const PIECE: Duration = Duration::from_secs(PIECE_S);
const PIECE_S: u64 = 2;
/// Most pieces of a turn: a gigabyte that does not drain in half an hour is a finding.
const PIECES: usize = 900;
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// From the network's return to the connections'.
const RETURN_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Serialize)]
struct Turn {
    round: usize,
    /// In the spool at the start.
    backlog_mb: f64,
    /// How long it took to drain; of a turn without a backlog, how long it was.
    drain_s: f64,
    has_drained: bool,
    /// Times to the answer.
    answers: LatencySummary,
    /// The median of the p99 of each piece of two seconds: one bad moment is one piece.
    answers_p99_of_pieces_us: f64,
    /// Each of them, in order: the first ones are those after the broker's return.
    pieces_p99_us: Vec<f64>,
    /// From the edge's clock in a beacon to the consumer, for live beacons, to a millisecond.
    to_consumer: LatencySummary,
}

#[derive(Debug, Clone, Serialize)]
struct Report {
    broker: String,
    rate: f64,
    interrupted: bool,
    turns: Vec<Turn>,
    pinned: bool,
    answer_p99_ratio: Option<f64>,
    /// Of the medians of the pieces.
    answer_p99_of_pieces_ratio: Option<f64>,
    to_consumer_p99_ratio: Option<f64>,
}

/// Carries it out.
///
/// # Errors
/// Why there is no result.
pub fn command(args: &Args) -> Result<(), Error> {
    if !(1..=100_000).contains(&args.backlog) || !(1..=1000).contains(&args.rounds) {
        return Err(Error::Argument("--backlog: 1 to 100,000 MB; --rounds: 1 to 1000".into()));
    }
    if !(1..=10_000).contains(&args.connections) || args.rate.is_some_and(|rate| !(1.0..=1e6).contains(&rate))
    {
        return Err(Error::Argument("--connections: 1 to 10,000; --rate: 1 to 1,000,000".into()));
    }
    if !(PIECE_S..=3600).contains(&args.reference) {
        return Err(Error::Argument("--reference: 2 to 3600 seconds".into()));
    }
    if args.drain_rate.is_some_and(|rate| !(1..=100_000).contains(&rate)) {
        return Err(Error::Argument("--drain-rate: 1 to 100,000 MB a second".into()));
    }
    let report = carry_out(async |interrupt| measure(args, interrupt).await)?;
    publish(&report, &report.table(), args.report.as_ref())
}

async fn measure(args: &Args, interrupt: &Interrupt) -> Result<Report, Error> {
    let wish = Wish {
        edge: args.edge.as_deref(),
        mode: Mode::RingSpool,
        connections: args.connections,
        pin: args.pin,
        spool_bytes: args.backlog.saturating_mul(3_000_000),
        drain_rate: args.drain_rate.map(|rate| rate * 1_000_000),
    };
    let mut stand = Stand::start(wish, interrupt).await?;
    let rate = match args.rate {
        Some(rate) => rate,
        None => stand.half_load().await?,
    };
    let mut turns = Vec::new();
    let half = usize::try_from(args.reference / PIECE_S).unwrap_or(usize::MAX);
    for round in 0..args.rounds {
        // Half of it before and half after: what the machine does meanwhile is in both.
        let mut without = Gathered::default();
        if !without.live(&mut stand, rate, Some(half), interrupt).await? {
            break;
        }
        let Some(backlog_mb) = fill(&mut stand, args.backlog * 1_000_000, interrupt).await? else { break };
        let mut with = Gathered::default();
        if !with.live(&mut stand, rate, None, interrupt).await?
            || !without.live(&mut stand, rate, Some(half), interrupt).await?
        {
            break;
        }
        turns.extend([with.turn(round, backlog_mb), without.turn(round, 0.0)]);
    }
    let broker = format!("RabbitMQ {}", stand.node.version());
    stand.finish()?;
    let ratio = |value: fn(&Turn) -> f64| {
        let ratios: Vec<f64> =
            turns.chunks_exact(2).map(|pair| value(&pair[0]) / value(&pair[1]).max(1.0)).collect();
        median(&ratios).map(|ratio| rounded(ratio, 3))
    };
    let answer_p99_ratio = ratio(|turn| turn.answers.p99_us);
    let answer_p99_of_pieces_ratio = ratio(|turn| turn.answers_p99_of_pieces_us);
    let to_consumer_p99_ratio = ratio(|turn| turn.to_consumer.p99_us);
    let interrupted = interrupt.is_raised();
    Ok(Report {
        broker,
        rate,
        interrupted,
        turns,
        pinned: args.pin,
        answer_p99_ratio,
        answer_p99_of_pieces_ratio,
        to_consumer_p99_ratio,
    })
}

/// Cuts the network until there is such a backlog, and heals it. Says how many megabytes are in the spool when the broker
/// takes messages again; `None` when interrupted.
async fn fill(stand: &mut Stand, backlog: u64, interrupt: &Interrupt) -> Result<Option<f64>, Error> {
    if !stand.settled(SETTLE_LIMIT, interrupt).await? {
        return Ok(None);
    }
    stand.proxy.refuse();
    while stand.metric("beacon_edge_spool_bytes")? < backlog {
        stand.fill(PIECE, "backlog").await?;
        if interrupt.is_raised() {
            return Ok(None);
        }
    }
    stand.proxy.heal();
    let start = Instant::now();
    let before = stand.sink.messages();
    while stand.sink.messages() == before && start.elapsed() < RETURN_LIMIT {
        if !interrupt.sleep(Duration::from_millis(10)).await {
            return Ok(None);
        }
    }
    Ok(Some(rounded(stand.metric("beacon_edge_spool_bytes")? as f64 / 1e6, 1)))
}

/// What live traffic has met.
#[derive(Default)]
struct Gathered {
    stats: Stats,
    ages: LatencyHistogram,
    pieces_p99_us: Vec<f64>,
    took: Duration,
    has_drained: bool,
}

impl Gathered {
    /// Live traffic for so many pieces, or until the backlog is gone. False when interrupted.
    async fn live(
        &mut self,
        stand: &mut Stand,
        rate: f64,
        pieces: Option<usize>,
        interrupt: &Interrupt,
    ) -> Result<bool, Error> {
        if pieces.is_some() && !stand.settled(SETTLE_LIMIT, interrupt).await? {
            return Ok(false);
        }
        drop(stand.sink.take_ages());
        let label = if pieces.is_some() { "without" } else { "draining" };
        let start = Instant::now();
        for done in 0..pieces.unwrap_or(PIECES) {
            if pieces.is_none() && done > 0 && stand.metric("beacon_edge_beacons_spooled")? == 0 {
                break;
            }
            let phase = stand.send(Some(rate), PIECE, label).await?;
            if interrupt.is_raised() {
                return Ok(false);
            }
            self.pieces_p99_us.push(rounded(phase.stats.latency.quantile_us(0.99), 0));
            self.stats.merge(&phase.stats);
            self.ages.merge(&stand.sink.take_ages());
        }
        self.took += start.elapsed();
        self.has_drained = stand.metric("beacon_edge_beacons_spooled")? == 0;
        Ok(true)
    }

    fn turn(self, round: usize, backlog_mb: f64) -> Turn {
        Turn {
            round,
            backlog_mb,
            drain_s: rounded(self.took.as_secs_f64(), 1),
            has_drained: self.has_drained,
            answers: self.stats.latency.summary(),
            answers_p99_of_pieces_us: median(&self.pieces_p99_us).unwrap_or_default(),
            pieces_p99_us: self.pieces_p99_us,
            to_consumer: self.ages.summary(),
        }
    }
}

impl Report {
    fn table(&self) -> String {
        let mut text = format!(
            "live traffic at {:.0} beacons/s ({}{})\n{:<6} {:>12} {:>10} {:>11} {:>11} {:>14} {:>13} {:>13}\n",
            self.rate,
            self.broker,
            if self.pinned { ", load and workers pinned" } else { "" },
            "round",
            "backlog",
            "drained in",
            "answer p50",
            "answer p99",
            "median of 2 s",
            "consumer p50",
            "consumer p99"
        );
        for turn in &self.turns {
            writeln!(
                text,
                "{:<6} {:>9} MB {:>10} {:>11} {:>11} {:>14} {:>13} {:>13}",
                turn.round + 1,
                turn.backlog_mb,
                if turn.has_drained { format!("{:.1} s", turn.drain_s) } else { "not".into() },
                human_us(turn.answers.p50_us),
                human_us(turn.answers.p99_us),
                human_us(turn.answers_p99_of_pieces_us),
                human_us(turn.to_consumer.p50_us),
                human_us(turn.to_consumer.p99_us),
            )
            .ok();
        }
        if let (Some(answer), Some(pieces), Some(consumer)) =
            (self.answer_p99_ratio, self.answer_p99_of_pieces_ratio, self.to_consumer_p99_ratio)
        {
            writeln!(
                text,
                "p99 with ÷ without a backlog, medians of the rounds: answers {answer:.3}, medians of their 2 s pieces \
                 {pieces:.3}, to the consumer {consumer:.3}"
            )
            .ok();
        }
        if self.interrupted {
            text.push_str("interrupted\n");
        }
        text
    }
}
