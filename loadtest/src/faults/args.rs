//! The command line of `loadtest faults`, and its check into a plan that can be carried out.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use clap::ValueEnum;

use crate::{
    Error,
    faults::{fault::Fault, mark, measure::Measure, mode::Mode, rig, trial::Trial},
    report::JsonTo,
};

/// What `loadtest faults` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
It starts a RabbitMQ of its own and the program beacon-edge that lies beside it, on loopback, and leaves
nothing behind.

Examples:
  Every mode under every fault, three schedules each:
    loadtest faults
  One cell of the table of docs/guarantees.md:
    loadtest faults --mode spooled --fault sigkill --seeds 1..25
  A schedule that failed, once more:
    loadtest faults --mode spooled --fault sigkill --seed 17
  What trouble costs (see --help of each):
    loadtest faults latency | outage | drain

Exit status: 0 when every promise was kept, even when interrupted; 1 when one was broken or a run could
not be made; 2 for wrong arguments."
)]
pub struct Args {
    /// A measurement in place of the schedules
    #[command(subcommand)]
    pub measure: Option<Measure>,
    /// Modes of the edge; several with commas [default: all]
    #[arg(long, value_name = "MODE", value_delimiter = ',', help_heading = "Schedules")]
    pub mode: Vec<Mode>,
    /// Kinds of faults; several with commas [default: all]
    #[arg(long, value_name = "FAULT", value_delimiter = ',', help_heading = "Schedules")]
    pub fault: Vec<Fault>,
    /// Seeds, first and last: each mode is put under each fault with each of them
    #[arg(long, value_name = "A..B", default_value = "1..3", help_heading = "Schedules")]
    pub seeds: String,
    /// One seed, to see its schedule again
    #[arg(long, value_name = "N", conflicts_with = "seeds", help_heading = "Schedules")]
    pub seed: Option<u64>,
    /// Beacons of each schedule
    #[arg(long, value_name = "N", default_value_t = 100_000, help_heading = "Schedules")]
    pub beacons: u64,
    /// Beacons a second
    #[arg(
        long,
        value_name = "R",
        default_value_t = 20_000.0,
        allow_negative_numbers = true,
        help_heading = "Schedules"
    )]
    pub rate: f64,
    /// Connections that send [default: 64, or 512 in modes whose answers wait]
    #[arg(long, value_name = "N", help_heading = "Schedules")]
    pub connections: Option<u32>,
    /// How long after the last fault everything has to be confirmed
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Schedules")]
    pub settle: u64,
    /// The program to judge [default: beacon-edge beside this one]
    #[arg(long, value_name = "FILE", help_heading = "Schedules")]
    pub edge: Option<PathBuf>,

    /// Write the result as JSON to FILE, or instead of the table to standard output (`-`)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<JsonTo>,
    /// Write the table into FILE, between its markers
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub markdown: Option<PathBuf>,
}

/// Runs that can be made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In the order in which they are made.
    pub trials: Vec<Trial>,
    /// How long after the last fault everything has to be confirmed.
    pub settle: Duration,
    /// The program to judge.
    pub program: PathBuf,
    /// Whether progress is shown.
    pub progress: bool,
}

impl Plan {
    /// Checks the arguments.
    ///
    /// # Errors
    /// [`Error::Argument`] with the reason why something cannot be done.
    pub fn check(args: &Args) -> Result<Self, Error> {
        let (first, last) = seeds(args)?;
        in_range("--beacons", args.beacons, 100, 50_000_000)?;
        if !args.rate.is_finite() || !(1.0..=1e6).contains(&args.rate) {
            return refuse("--rate: between 1 and 1,000,000 beacons a second".into());
        }
        in_range("--settle", args.settle, 1, 3600)?;
        if let Some(connections) = args.connections {
            in_range("--connections", u64::from(connections), 1, u64::from(mark::CONNECTIONS).min(10_000))?;
        }
        let modes = chosen(&args.mode);
        let faults = chosen(&args.fault);
        let mut trials = Vec::new();
        // Seed by seed, so that what is there after an interrupt is something of everything.
        for seed in first..=last {
            for &mode in &modes {
                for &fault in &faults {
                    let waits = matches!(mode, Mode::Spooled | Mode::Confirmed);
                    let usual = if waits { 512 } else { 64 };
                    let connections = args.connections.unwrap_or(usual);
                    if u64::from(connections) > args.beacons {
                        return refuse(format!(
                            "--beacons {}: fewer than the {connections} connections",
                            args.beacons
                        ));
                    }
                    let Args { beacons, rate, .. } = *args;
                    trials.push(Trial { mode, fault, seed, beacons, rate, connections });
                }
            }
        }
        let program = rig::program(args.edge.as_deref())?;
        Ok(Self { trials, settle: Duration::from_secs(args.settle), program, progress: true })
    }
}

/// Those given, each once, in the order of the table; all if none is given.
fn chosen<T: ValueEnum + Copy + Ord>(given: &[T]) -> Vec<T> {
    if given.is_empty() {
        return T::value_variants().to_vec();
    }
    given.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

fn seeds(args: &Args) -> Result<(u64, u64), Error> {
    if let Some(seed) = args.seed {
        in_range("--seed", seed, 0, u64::from(u32::MAX))?;
        return Ok((seed, seed));
    }
    let range = args.seeds.split_once("..").and_then(|(first, last)| {
        Some((first.parse::<u64>().ok()?, last.trim_start_matches('=').parse::<u64>().ok()?))
    });
    match range {
        Some((first, last)) if first <= last && last - first < 10_000 && last <= u64::from(u32::MAX) => {
            Ok((first, last))
        }
        _ => refuse(format!("--seeds {}: first and last, such as 1..25; at most 10,000 of them", args.seeds)),
    }
}

fn refuse<T>(reason: String) -> Result<T, Error> {
    Err(Error::Argument(reason))
}

fn in_range(name: &str, value: u64, low: u64, high: u64) -> Result<(), Error> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    refuse(format!("{name} {value}: between {low} and {high}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn check(line: &str) -> Result<Plan, String> {
        // Any file will do as the program.
        let words = ["faults", "--edge", "/bin/sh"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        Plan::check(&line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn without_arguments_everything_is_tried_with_three_seeds() {
        let plan = check("").unwrap();
        assert_eq!(plan.trials.len(), 3 * Mode::value_variants().len() * Fault::value_variants().len());
        let first = plan.trials[0];
        assert_eq!((first.mode, first.fault, first.seed), (Mode::Ring, Fault::Sigterm, 1));
        assert_eq!((first.beacons, first.connections), (100_000, 64));
    }

    #[test]
    fn a_cell_and_a_seed_can_be_chosen() {
        let plan = check("--mode spooled,ring --fault sigkill --seed 17 --beacons 1000").unwrap();
        let trials: Vec<_> = plan.trials.iter().map(|trial| (trial.mode, trial.fault, trial.seed)).collect();
        assert_eq!(trials, [(Mode::Ring, Fault::Sigkill, 17), (Mode::Spooled, Fault::Sigkill, 17)]);
        assert_eq!(plan.trials[1].connections, 512);
        assert_eq!(check("--mode ring --fault alarm --seeds 5..9").unwrap().trials.len(), 5);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_reason() {
        let cases = [
            ("--mode disk", "invalid value 'disk'"),
            ("--fault fire", "invalid value 'fire'"),
            ("--seeds 3", "first and last, such as 1..25"),
            ("--seeds 9..3", "first and last, such as 1..25"),
            ("--seeds 1..20000", "at most 10,000"),
            ("--seeds 1..2 --seed 3", "cannot be used with"),
            ("--seed 99999999999", "--seed 99999999999: between 0 and 4294967295"),
            ("--beacons 0", "--beacons 0: between 100 and 50000000"),
            ("--beacons 300 --mode confirmed", "fewer than the 512 connections"),
            ("--rate 0", "between 1 and 1,000,000"),
            ("--rate nan", "between 1 and 1,000,000"),
            ("--rate -5", "between 1 and 1,000,000"),
            ("--connections 0", "--connections 0: between 1 and 10000"),
            ("--settle 0", "--settle 0: between 1 and 3600"),
            ("--edge /nonexistent/edge", "cannot be used multiple times"),
        ];
        for (line, reason) in cases {
            let error = check(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
        let line = Line::parse_from(["faults", "--edge", "/nonexistent/edge"]);
        let error = Plan::check(&line.args).unwrap_err().to_string();
        assert!(error.contains("there is no such file"), "{error}");
    }
}
