//! The command line of `loadtest models`, and its check into a plan that can be carried out.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Model, redis};
use crate::{Error, http::args::parse_duration, report::JsonTo};

/// What `loadtest models` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
TIME is a number with ms, s or m (500ms, 10s, 2m); without a unit it is in seconds. SIZE is a number of octets, or one
with K, M or G (1G).

Everything runs on this machine, on loopback, in processes of its own that end with this one: leave the machine alone
meanwhile. Ctrl-C ends the run early with a report of what was measured.

Examples:
  All of it, as published:
    loadtest models --json models.json --html models.html
  A first look at three models:
    loadtest models --models stomp-direct,redis-agent,edge-packed --rounds 1 --probe 1s --duration 2s
  As on a small machine:
    loadtest models --memory 1G

Exit status: 0 when there is a report, even an interrupted one; 1 when the run could not be made or go on (what was
measured until then is written); 2 for wrong arguments.")]
pub struct Args {
    /// Which models, separated by commas [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = "What")]
    pub models: Vec<Model>,
    /// The beacon-edge to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE", help_heading = "What")]
    pub edge: Option<PathBuf>,
    /// The redis-server to use [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "What")]
    pub redis: Option<PathBuf>,
    /// Hold all servers together to this much memory, load excepted
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "What")]
    pub memory: Option<u64>,

    /// Rounds in which the models take turns; medians of them are compared
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Course")]
    pub rounds: usize,
    /// Rates that a search may try, two more in round 1
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = "Course")]
    pub probes: u32,
    /// How long each is tried
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration, help_heading = "Course")]
    pub probe: Duration,
    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = parse_duration, help_heading = "Course")]
    pub duration: Duration,
    /// Beacons per second at which all models are compared [default: half of what the slowest sustained in round 1]
    #[arg(long, value_name = "R", help_heading = "Course")]
    pub common_rate: Option<f64>,
    /// No rate above is tried
    #[arg(long, value_name = "R", default_value_t = 1_000_000.0, help_heading = "Course")]
    pub max_rate: f64,
    /// Times that the broker is killed under each model, 0 for never
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Course")]
    pub deaths: usize,
    /// How long load goes on around a death: it comes after a quarter of it
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = parse_duration, help_heading = "Course")]
    pub death_duration: Duration,

    /// Keep-alive connections of the load
    #[arg(long, short = 'c', value_name = "N", default_value_t = 64, help_heading = "Load")]
    pub connections: usize,
    /// Threads that make the load
    #[arg(long, short = 't', value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub threads: usize,
    /// Bind threads to cores, all models alike: thread n of the load to the n-th from the first of those that this program
    /// may use, thread n of each server that takes requests to the n-th from the last. Where there are more threads than
    /// cores counting goes around, and some share one. RabbitMQ, Redis, the agent and all other threads stay with the scheduler
    #[arg(long, help_heading = "Load")]
    pub pin: bool,
    /// Share of the beacons sent by POST
    #[arg(long, value_name = "PERCENT", default_value_t = 0, help_heading = "Load")]
    pub post: u8,

    /// Threads of each server that take requests
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Servers")]
    pub workers: usize,
    /// First and second model: pooled connections, to RabbitMQ or Redis, at most
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Servers")]
    pub pool: usize,
    /// beacon-edge and the path: connections to RabbitMQ
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "Servers")]
    pub stomp_connections: usize,
    /// beacon-edge and the path: messages without a receipt, per connection
    #[arg(long, value_name = "N", default_value_t = 1024, help_heading = "Servers")]
    pub window: usize,
    /// beacon-edge and the path: beacons in a message, at most; 64 KiB bound it too
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = "Servers")]
    pub pack: usize,
    /// beacon-edge and the path: how long the first beacon of a message waits for others, in ms
    #[arg(long, value_name = "MS", default_value_t = 5, help_heading = "Servers")]
    pub linger: u64,
    /// Second model: beacons that the agent joins into a message, at most; 100 are about 64 KiB
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = "Servers")]
    pub chunk: usize,
    /// Second model: messages of the agent without a confirm
    #[arg(long, value_name = "N", default_value_t = 32, help_heading = "Servers")]
    pub chunks_in_flight: usize,

    /// Write the result as JSON to FILE, or instead of the table to standard output (no FILE, or `-`)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", help_heading = "Output")]
    pub json: Option<JsonTo>,
    /// Write a line per model and round to FILE
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub csv: Option<PathBuf>,
    /// Write the result as a page with plots to FILE
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
}

/// A run that can be carried out.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) models: Vec<Model>,
    pub(crate) edge: Option<PathBuf>,
    pub(crate) redis: Option<PathBuf>,
    pub(crate) memory: Option<u64>,
    /// Redis refuses writes beyond.
    pub(crate) redis_octets: u64,
    pub(crate) rounds: usize,
    pub(crate) probes: u32,
    pub(crate) probe: Duration,
    pub(crate) duration: Duration,
    pub(crate) common_rate: Option<f64>,
    pub(crate) max_rate: f64,
    pub(crate) deaths: usize,
    pub(crate) death_duration: Duration,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) pin: bool,
    pub(crate) post_percent: u8,
    pub(crate) workers: usize,
    pub(crate) pool: usize,
    pub(crate) stomp_connections: usize,
    pub(crate) window: usize,
    pub(crate) pack: usize,
    pub(crate) linger_ms: u64,
    pub(crate) chunk: usize,
    pub(crate) chunks_in_flight: usize,
}

/// What Redis may hold when nothing else bounds it.
const REDIS_OCTETS: u64 = 512 << 20;

impl Plan {
    /// Checks the arguments.
    ///
    /// # Errors
    /// [`Error::Argument`] with the reason why something cannot be done.
    pub fn check(args: &Args) -> Result<Self, Error> {
        let numbers = [
            ("--rounds", args.rounds, 1, 1000),
            ("--probes", args.probes as usize, 1, 30),
            ("--deaths", args.deaths, 0, 100),
            ("--connections", args.connections, 1, 10_000),
            ("--threads", args.threads, 1, args.connections.min(64)),
            ("--post", args.post.into(), 0, 100),
            ("--workers", args.workers, 1, 256),
            ("--pool", args.pool, 1, 10_000),
            ("--stomp-connections", args.stomp_connections, 1, 64),
            ("--window", args.window, 1, 65_536),
            ("--pack", args.pack, 2, 100_000),
            ("--linger", usize::try_from(args.linger).unwrap_or(usize::MAX), 0, 10_000),
            ("--chunk", args.chunk, 1, 10_000),
            ("--chunks-in-flight", args.chunks_in_flight, 1, 10_000),
        ];
        for (name, value, low, high) in numbers {
            if !(low..=high).contains(&value) {
                return refuse(format!("{name} {value}: between {low} and {high}"));
            }
        }
        for (name, time, least) in [
            ("--probe", args.probe, 200),
            ("--duration", args.duration, 200),
            ("--death-duration", args.death_duration, 1000),
        ] {
            if time < Duration::from_millis(least) {
                return refuse(format!("{name}: at least {least} ms, or nothing is measured"));
            }
        }
        for (name, rate) in [("--common-rate", args.common_rate), ("--max-rate", Some(args.max_rate))] {
            if rate.is_some_and(|rate| !(1.0..=10_000_000.0).contains(&rate)) {
                return refuse(format!("{name}: between 1 and 10,000,000 beacons per second"));
            }
        }
        if args.memory.is_some_and(|octets| octets < 256 << 20) {
            return refuse("--memory: RabbitMQ alone needs more than 256M".to_owned());
        }
        let mut models = if args.models.is_empty() { Model::ALL.to_vec() } else { args.models.clone() };
        models.sort_unstable();
        models.dedup();
        let wants = |wanted: &[Model]| models.iter().any(|model| wanted.contains(model));
        let edge = wants(&[Model::EdgeOne, Model::EdgePacked, Model::EdgeConfirmed])
            .then(|| edge(args.edge.as_deref()))
            .transpose()?;
        let redis = wants(&[Model::RedisFront, Model::RedisAgent])
            .then(|| redis_server(args.redis.as_deref()))
            .transpose()?;
        Ok(Self {
            models,
            edge,
            redis,
            memory: args.memory,
            redis_octets: args.memory.map_or(REDIS_OCTETS, |octets| octets / 2),
            rounds: args.rounds,
            probes: args.probes,
            probe: args.probe,
            duration: args.duration,
            common_rate: args.common_rate,
            max_rate: args.max_rate,
            deaths: args.deaths,
            death_duration: args.death_duration,
            connections: args.connections,
            threads: args.threads,
            pin: args.pin,
            post_percent: args.post,
            workers: args.workers,
            pool: args.pool,
            stomp_connections: args.stomp_connections,
            window: args.window,
            pack: args.pack,
            linger_ms: args.linger,
            chunk: args.chunk,
            chunks_in_flight: args.chunks_in_flight,
        })
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        use clap::Parser as _;

        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let line = Line::try_parse_from(["models", "--models", "stomp-direct"]).unwrap();
        Self::check(&line.args).unwrap()
    }
}

fn refuse<T>(reason: String) -> Result<T, Error> {
    Err(Error::Argument(reason))
}

fn edge(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = given {
        return absolute(path, "--edge");
    }
    let own = env::current_exe().map_err(Error::io("path of this program"))?;
    let beside = own.with_file_name("beacon-edge");
    if beside.is_file() {
        return Ok(beside);
    }
    refuse(format!(
        "no beacon-edge at {}: build it (cargo build --release -p beacon-edge), name it with --edge, or leave it out with \
         --models",
        beside.display()
    ))
}

fn redis_server(given: Option<&Path>) -> Result<PathBuf, Error> {
    match (given, redis::find()) {
        (Some(path), _) => absolute(path, "--redis"),
        (None, Some(found)) => Ok(found),
        (None, None) => refuse(
            "no redis-server in PATH, /usr/bin or /usr/local/bin: install it (Debian, Ubuntu: apt install redis-server), name \
             it with --redis, or leave redis-front and redis-agent out with --models"
                .to_owned(),
        ),
    }
}

/// The servers run in folders of their own.
fn absolute(path: &Path, name: &str) -> Result<PathBuf, Error> {
    match path.canonicalize() {
        Ok(path) if path.is_file() => Ok(path),
        Ok(_) => refuse(format!("{name} {}: not a file", path.display())),
        Err(error) => refuse(format!("{name} {}: {error}", path.display())),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let upper = upper.strip_suffix("IB").or(upper.strip_suffix('B')).unwrap_or(&upper);
    let (number, shift) = match upper.as_bytes().last() {
        Some(b'K') => (&upper[..upper.len() - 1], 10),
        Some(b'M') => (&upper[..upper.len() - 1], 20),
        Some(b'G') => (&upper[..upper.len() - 1], 30),
        _ => (upper, 0),
    };
    let number: u64 = number.parse().map_err(|_| "not a size like 512M or 1G".to_owned())?;
    number.checked_shl(shift).filter(|octets| octets >> shift == number).ok_or_else(|| "too large".to_owned())
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
        let line = Line::try_parse_from(["models"].into_iter().chain(line.split_whitespace()))
            .map_err(|error| error.to_string())?;
        Plan::check(&line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_reason() {
        let cases = [
            ("--rounds 0", "--rounds 0: between 1 and 1000"),
            ("--rounds -1", "unexpected argument '-1'"),
            ("--probes 0", "--probes 0: between 1 and 30"),
            ("--deaths 101", "--deaths 101: between 0 and 100"),
            ("--connections 0", "--connections 0: between 1 and 10000"),
            ("--threads 0", "--threads 0: between 1 and 64"),
            ("--threads 3 --connections 2", "--threads 3: between 1 and 2"),
            ("--post 101", "--post 101: between 0 and 100"),
            ("--workers 0", "--workers 0: between 1 and 256"),
            ("--pool 0", "--pool 0: between 1 and 10000"),
            ("--stomp-connections 0", "--stomp-connections 0: between 1 and 64"),
            ("--window 0", "--window 0: between 1 and 65536"),
            ("--linger 10001", "--linger 10001: between 0 and 10000"),
            ("--chunk 0", "--chunk 0: between 1 and 10000"),
            ("--chunks-in-flight 0", "--chunks-in-flight 0: between 1 and 10000"),
            ("--duration 0", "--duration: at least 200 ms"),
            ("--duration soon", "invalid value 'soon'"),
            ("--death-duration 999ms", "--death-duration: at least 1000 ms"),
            ("--common-rate 1e9", "between 1 and 10,000,000"),
            ("--threads 65", "--threads 65: between 1 and 64"),
            ("--pack 1", "--pack 1: between 2"),
            ("--probe 10ms", "--probe: at least 200 ms"),
            ("--common-rate 0", "between 1 and 10,000,000"),
            ("--max-rate nan", "between 1 and 10,000,000"),
            ("--memory 10M", "RabbitMQ alone needs more"),
            ("--memory much", "not a size"),
            ("--models third", "invalid value 'third'"),
            ("--models edge-packed --edge /nonexistent", "--edge /nonexistent: No such file"),
            ("--models redis-agent --redis /", "--redis /: not a file"),
        ];
        for (line, reason) in cases {
            let error = check(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn models_come_in_the_order_of_the_report_and_once() {
        let plan = check("--models path-packed,stomp-direct,path-packed --memory 1G").unwrap();
        assert_eq!(plan.models, [Model::StompDirect, Model::PathPacked]);
        assert_eq!((plan.memory, plan.redis_octets), (Some(1 << 30), 1 << 29));
    }

    #[test]
    fn sizes_have_units() {
        for (text, octets) in
            [("7", 7), ("1k", 1024), ("512M", 512 << 20), ("1GiB", 1 << 30), ("2gb", 2 << 30)]
        {
            assert_eq!(parse_size(text), Ok(octets), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "99999999999G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
