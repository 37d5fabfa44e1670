//! Answer times with the broker dead, blocked or far away, against those with it well, in alternating rounds.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use serde::Serialize;

use crate::{
    Error,
    faults::{
        measure::{
            carry_out,
            stand::{Stand, Wish},
        },
        mode::Mode,
    },
    interrupt::Interrupt,
    report::{JsonTo, LatencySummary, human_us, median, publish, rounded},
};

/// What `loadtest faults latency` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Rounds; each has a turn of every condition
    #[arg(long, value_name = "N", default_value_t = 25)]
    pub rounds: usize,
    /// Seconds of each turn: many short ones, so that a moment at which the machine stands still spoils one of them
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    pub duration: u64,
    /// Beacons a second [default: half of what the edge answers here at full load]
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// Bind the thread of load to the first core and the edge's workers to the last ones
    #[arg(long)]
    pub pin: bool,
    /// Connections that send
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub connections: usize,
    /// With a spool or without
    #[arg(long, value_name = "MODE", default_value = "ring")]
    pub mode: Mode,
    /// The program to measure [default: beacon-edge beside this one]
    #[arg(long, value_name = "FILE")]
    pub edge: Option<PathBuf>,
    /// Write the result as JSON to FILE, or instead of the table to standard output (`-`)
    #[arg(long, value_name = "FILE")]
    pub report: Option<JsonTo>,
}

/// How the broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Condition {
    Well,
    /// Connections are reset, new ones too.
    Dead,
    /// The memory alarm is on.
    Blocked,
    /// 40 ms each way.
    Far,
}

const CONDITIONS: [Condition; 4] = [Condition::Well, Condition::Dead, Condition::Blocked, Condition::Far];
const ONE_WAY: Duration = Duration::from_millis(40);
/// After a change, before it is measured.
const SETTLE: Duration = Duration::from_millis(500);
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// One turn.
#[derive(Debug, Clone, Serialize)]
struct Turn {
    round: usize,
    condition: Condition,
    answered: u64,
    failed: u64,
    latency: LatencySummary,
    /// How late the generator itself was, for nine hundred ninety-nine of a thousand.
    send_delay_p99_9_us: f64,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
struct Report {
    mode: Mode,
    broker: String,
    rate: f64,
    pinned: bool,
    interrupted: bool,
    turns: Vec<Turn>,
    /// Medians over the rounds.
    conditions: Vec<Row>,
}

#[derive(Debug, Clone, Serialize)]
struct Row {
    condition: Condition,
    p50_us: f64,
    p99_us: f64,
    p99_9_us: f64,
    /// The median of each round's quotient by its own turn with the broker well.
    p99_9_ratio: f64,
    /// Between these lies the middle half of those quotients.
    p99_9_ratio_quartiles: [f64; 2],
}

/// Carries it out.
///
/// # Errors
/// Why there is no result.
pub fn command(args: &Args) -> Result<(), Error> {
    if args.rounds == 0 || args.rounds > 1000 || args.duration == 0 || args.duration > 3600 {
        return Err(Error::Argument("--rounds: 1 to 1000; --duration: 1 to 3600 s".into()));
    }
    if args.connections == 0
        || args.connections > 10_000
        || args.rate.is_some_and(|rate| !(1.0..=1e6).contains(&rate))
    {
        return Err(Error::Argument("--connections: 1 to 10,000; --rate: 1 to 1,000,000".into()));
    }
    let report = carry_out(async |interrupt| measure(args, interrupt).await)?;
    publish(&report, &report.table(), args.report.as_ref())
}

async fn measure(args: &Args, interrupt: &Interrupt) -> Result<Report, Error> {
    let wish = Wish {
        edge: args.edge.as_deref(),
        mode: args.mode,
        connections: args.connections,
        pin: args.pin,
        spool_bytes: 4 << 30,
        drain_rate: None,
    };
    let mut stand = Stand::start(wish, interrupt).await?;
    let rate = match args.rate {
        Some(rate) => rate,
        None => stand.half_load().await?,
    };
    let mut turns = Vec::new();
    'rounds: for round in 0..args.rounds {
        for place in 0..CONDITIONS.len() {
            // Each condition comes at each place of a round in its turn.
            let condition = CONDITIONS[(place + round) % CONDITIONS.len()];
            if !stand.settled(DRAIN_LIMIT, interrupt).await? {
                break 'rounds;
            }
            stand.set(condition, true)?;
            if !interrupt.sleep(SETTLE).await {
                break 'rounds;
            }
            let label = format!("{condition:?} {}", round + 1);
            let phase = stand.send(Some(rate), Duration::from_secs(args.duration), &label).await?;
            stand.set(condition, false)?;
            if interrupt.is_raised() {
                break 'rounds;
            }
            turns.push(Turn {
                round,
                condition,
                answered: phase.stats.answered,
                failed: phase.stats.failures.total(),
                latency: phase.stats.latency.summary(),
                send_delay_p99_9_us: phase.stats.send_delay.quantile_us(0.999),
            });
        }
    }
    let broker = format!("RabbitMQ {}", stand.node.version());
    stand.finish()?;
    let conditions = CONDITIONS.iter().filter_map(|&condition| Row::of(condition, &turns)).collect();
    Ok(Report {
        mode: args.mode,
        broker,
        rate,
        pinned: args.pin,
        interrupted: interrupt.is_raised(),
        turns,
        conditions,
    })
}

impl Stand {
    fn set(&self, condition: Condition, on: bool) -> Result<(), Error> {
        match condition {
            Condition::Well => Ok(()),
            Condition::Blocked => self.node.set_memory_alarm(on).map_err(Error::broker),
            _ if !on => {
                self.proxy.heal();
                Ok(())
            }
            Condition::Dead => {
                self.proxy.refuse();
                Ok(())
            }
            Condition::Far => {
                self.proxy.delay(ONE_WAY);
                Ok(())
            }
        }
    }
}

impl Row {
    fn of(condition: Condition, turns: &[Turn]) -> Option<Self> {
        let of = |condition: Condition| turns.iter().filter(move |turn| turn.condition == condition);
        let middle = |value: fn(&Turn) -> f64| median(&of(condition).map(value).collect::<Vec<_>>());
        let ratios: Vec<f64> = of(condition)
            .filter_map(|turn| {
                let well = of(Condition::Well).find(|well| well.round == turn.round)?;
                Some(turn.latency.p99_9_us / well.latency.p99_9_us.max(1.0))
            })
            .collect();
        Some(Self {
            condition,
            p50_us: middle(|turn| turn.latency.p50_us)?,
            p99_us: middle(|turn| turn.latency.p99_us)?,
            p99_9_us: middle(|turn| turn.latency.p99_9_us)?,
            p99_9_ratio: rounded(median(&ratios)?, 3),
            p99_9_ratio_quartiles: quartiles(&ratios)?.map(|ratio| rounded(ratio, 3)),
        })
    }
}

/// The values a quarter of the way from either end.
fn quartiles(values: &[f64]) -> Option<[f64; 2]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len() / 4;
    Some([*sorted.get(quarter)?, *sorted.get(sorted.len().checked_sub(1 + quarter)?)?])
}

impl Report {
    fn table(&self) -> String {
        let mut text = format!(
            "answers at {:.0} beacons/s ({}, {}{}); medians over the rounds\n\
             {:<8} {:>10} {:>10} {:>10}  p99.9 ÷ well (half of the rounds between)\n",
            self.rate,
            self.mode.name(),
            self.broker,
            if self.pinned { ", load and workers pinned" } else { "" },
            "broker",
            "p50",
            "p99",
            "p99.9"
        );
        for row in &self.conditions {
            let name = format!("{:?}", row.condition).to_lowercase();
            writeln!(
                text,
                "{name:<8} {:>10} {:>10} {:>10}  {:.3} ({:.2} … {:.2})",
                human_us(row.p50_us),
                human_us(row.p99_us),
                human_us(row.p99_9_us),
                row.p99_9_ratio,
                row.p99_9_ratio_quartiles[0],
                row.p99_9_ratio_quartiles[1],
            )
            .ok();
        }
        if self.interrupted {
            text.push_str("interrupted\n");
        }
        text
    }
}
