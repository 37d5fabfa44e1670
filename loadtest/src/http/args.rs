//! The command line of `loadtest http`, and its check into a plan that can be carried out.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, ValueEnum};
use stompwire::client::BrokerUrl;

use crate::{
    Error,
    cpu::Process,
    http::{
        Target,
        beacon::{Mix, VARIANTS, WARMUP_SEQ},
        fleet::{FleetOptions, Limit},
        tls::Tls,
    },
    report::JsonTo,
};

/// What `loadtest http` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
TIME is a number with ms, s or m (500ms, 10s, 2m); without a unit it is in seconds.

Examples:
  Full speed over 64 connections for 10 s:
    loadtest http http://127.0.0.1:8080/b.gif
  20,000/s, 30 % of them POSTs, latency as users would see it:
    loadtest http http://127.0.0.1:8080/b.gif --rate 20000 --post 30
  Exactly 200,000 beacons, the result as JSON:
    loadtest http http://127.0.0.1:8080/b.gif --requests 200000 --json
  CPU per beacon, compared with nginx:
    loadtest http http://127.0.0.1:8080/b.gif --pid edge=4711 --reference nginx
  Memory for 10,000 idle connections:
    loadtest http http://127.0.0.1:8080/b.gif --pid edge=4711 --idle 10000

  Are all beacons that were answered in the queue?
    loadtest http http://127.0.0.1:8080/b.gif --verify stomp://guest:guest@127.0.0.1:61613/

Exit status: 0 when there is a result, even an interrupted one; 1 when the run could not be
made; 2 for wrong arguments; 3 when --verify misses beacons.")]
pub struct Args {
    /// Where the beacons go: http or https, and only loopback unless --allow-remote is given
    #[arg(value_name = "URL")]
    pub url: String,

    /// Keep-alive connections, each with one request at a time [default: 64, or 0 with --idle]
    #[arg(long, short = 'c', value_name = "N", help_heading = "Load")]
    pub connections: Option<usize>,
    /// Requests per second over all connections (open loop); without it each connection sends its next request as soon
    /// as it has its answer (closed loop). From 40,000 a thread on, requests leave and answers are taken in ticks of
    /// 100 µs: either may add up to that much to the latency
    #[arg(long, short = 'r', value_name = "R", allow_negative_numbers = true, help_heading = "Load")]
    pub rate: Option<f64>,
    /// How long to send [default: 10s]
    #[arg(long, short = 'd', value_name = "TIME", value_parser = parse_duration, conflicts_with = "requests", help_heading = "Load")]
    pub duration: Option<Duration>,
    /// Send exactly N requests, however long it takes
    #[arg(long, short = 'n', value_name = "N", help_heading = "Load")]
    pub requests: Option<u64>,
    /// Send for this long before anything is counted; numbered from 900000000000 [default: 0s, or 1s with --reference]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Load")]
    pub warmup: Option<Duration>,
    /// Threads that make the load
    #[arg(long, short = 't', value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub threads: usize,
    /// Bind thread n of the load to the n-th core from the first of those that this program may use, and the nginx of
    /// --reference to the last of them; more threads than cores begin again at the first. The server at URL binds its own
    /// threads, so that both sides are treated alike: beacon-edge does with `http.pin_workers`, from the last core on
    #[arg(long, help_heading = "Load")]
    pub pin: bool,
    /// The longest wait for a connection or an answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration, help_heading = "Load")]
    pub timeout: Duration,
    /// Close each connection after N requests and open another for the next one, whose latency includes that; the last
    /// request of each says so
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub churn: Option<u64>,
    /// N more connections, each of which sends a request octet by octet and comes back when it is cut off
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub slow: Option<usize>,
    /// How long they wait between two octets
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_duration, requires = "slow", help_heading = "Load")]
    pub slow_pace: Duration,
    /// For https: trust the certificate authorities in this PEM file instead of the system's
    #[arg(long, value_name = "FILE", help_heading = "Load")]
    pub ca: Option<PathBuf>,
    /// Allow a target outside this machine
    #[arg(long, help_heading = "Load")]
    pub allow_remote: bool,

    /// Share of the beacons sent by POST, as navigator.sendBeacon does; the others are GETs
    #[arg(long, value_name = "PERCENT", default_value_t = 0, help_heading = "Beacons")]
    pub post: u8,
    /// Octets of the POSTs' bodies, in turn, separated by commas [default: about 400, as a page view takes]
    #[arg(long, value_name = "SIZES", value_delimiter = ',', requires = "post", help_heading = "Beacons")]
    pub post_octets: Vec<usize>,
    /// Different beacons of each kind; above 16 some of them are longer, up to 5,000 octets
    #[arg(long, value_name = "N", default_value_t = VARIANTS, help_heading = "Beacons")]
    pub corpus: usize,
    /// How much more common some beacons are than others: Zipf's exponent, 0 for all alike, about 1 for pages of a site
    #[arg(
        long,
        value_name = "EXPONENT",
        default_value_t = 0.0,
        allow_negative_numbers = true,
        help_heading = "Beacons"
    )]
    pub skew: f64,
    /// The first sequence number
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Beacons")]
    pub first_seq: u64,
    /// Write each sequence number that was answered with 2xx to FILE, one a line, in no order
    #[arg(long, value_name = "FILE", help_heading = "Beacons")]
    pub answered: Option<PathBuf>,

    /// Measure CPU per request and memory of this process; repeatable, the first is the server at URL
    #[arg(long = "pid", value_name = "[NAME=]PID", action = ArgAction::Append, value_parser = parse_process, help_heading = "Measurement")]
    pub pids: Vec<(Option<String>, i32)>,
    /// Count CPU for this much longer than requests are sent, so that what the server does afterwards with the beacons
    /// it has accepted is charged to them (with --pid)
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_duration, help_heading = "Measurement")]
    pub settle: Duration,
    /// Alternate with an nginx of our own that answers with a built-in GIF, and print the ratio of CPU per request; needs
    /// --pid. nginx is sent GETs only, whatever --post says
    #[arg(long, value_name = "nginx", hide_possible_values = true, help_heading = "Measurement")]
    pub reference: Option<Reference>,
    /// Rounds against the reference, each of --duration or --requests for either server
    #[arg(long, value_name = "N", default_value_t = 5, requires = "reference", help_heading = "Measurement")]
    pub rounds: usize,
    /// Open N more connections, send one request on each and keep them idle for --duration while memory of --pid is
    /// measured
    #[arg(long, value_name = "N", help_heading = "Measurement")]
    pub idle: Option<usize>,

    /// Take the beacons from the queue they end up in, and say whether all that were answered with 2xx are there: the
    /// broker, as stomp://user:password@host:port/vhost. The queue has to be empty before, and is afterwards
    #[arg(long, value_name = "URL", help_heading = "Verification")]
    pub verify: Option<String>,
    /// Where they are
    #[arg(
        long,
        value_name = "DESTINATION",
        default_value = "/queue/beacons",
        requires = "verify",
        help_heading = "Verification"
    )]
    pub verify_destination: String,
    /// What has not arrived is missing once nothing has arrived for this long
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration, requires = "verify", help_heading = "Verification")]
    pub verify_quiet: Duration,

    /// Write the result as JSON to FILE, or instead of the table to standard output (no FILE, or `-`)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", help_heading = "Output")]
    pub json: Option<JsonTo>,
}

/// Servers that a run can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reference {
    /// nginx that answers every request with its built-in GIF (`empty_gif`)
    Nginx,
}

/// A run that can be carried out: every number is within its range and they fit together.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the beacons go.
    pub target: Target,
    /// Connections under load, over all threads; 0 only with `idle`.
    pub connections: usize,
    /// Threads that make the load.
    pub threads: usize,
    /// Whether they, and the reference, are bound to cores.
    pub pin: bool,
    /// When the measurement, or a round of it, ends.
    pub limit: Limit,
    /// Requests per second of an open loop.
    pub rate: Option<f64>,
    /// Time before anything is counted.
    pub warmup: Duration,
    /// The longest wait for a connection or an answer.
    pub timeout: Duration,
    /// What the beacons are like.
    pub mix: Mix,
    /// Requests on a connection before it is closed.
    pub churn: Option<u64>,
    /// Slow clients, and how long they wait between two octets.
    pub slow: Option<(usize, Duration)>,
    /// How connections to an https URL are made.
    pub tls: Option<Tls>,
    /// Where the beacons end up.
    pub verify: Option<Verify>,
    /// The first sequence number.
    pub first_seq: u64,
    /// Where answered numbers are written.
    pub answered: Option<PathBuf>,
    /// Processes to measure; the first is the server.
    pub processes: Vec<Process>,
    /// How much longer than requests are sent CPU is counted.
    pub settle: Duration,
    /// Rounds against nginx.
    pub reference_rounds: Option<usize>,
    /// Connections to keep idle.
    pub idle: Option<usize>,
    /// Whether to show progress on a terminal.
    pub progress: bool,
}

/// Where beacons end up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// The broker.
    pub url: String,
    /// The queue.
    pub destination: String,
    /// How long nothing may arrive before what is missing is given up.
    pub quiet: Duration,
}

impl Plan {
    /// Checks the arguments.
    ///
    /// # Errors
    /// [`Error::Argument`] with the reason why something cannot be done; [`Error::Process`] for a `--pid` that is not
    /// there.
    pub fn check(args: &Args) -> Result<Self, Error> {
        let target = Target::parse(&args.url, args.allow_remote)?;
        let connections = args.connections.unwrap_or(if args.idle.is_some() { 0 } else { 64 });
        if connections == 0 && args.idle.is_none() {
            return refuse(
                "--connections 0: without connections nothing can be sent (only --idle goes without)",
            );
        }
        in_range("--connections", connections, 0, 100_000)?;
        in_range("--threads", args.threads, 1, 256)?;
        if args.threads > connections.max(1) && connections > 0 {
            return refuse("--threads: more threads than connections, some would have nothing to do");
        }
        if let Some(rate) = args.rate {
            if !rate.is_finite() || rate <= 0.0 {
                return refuse("--rate: a rate is above 0; leave it out to send as fast as answers come");
            }
            if rate > 10_000_000.0 {
                return refuse(
                    "--rate: over 10,000,000 requests per second is beyond what this program can send",
                );
            }
            if connections == 0 {
                return refuse("--rate with --idle needs --connections: idle connections carry no load");
            }
        }
        in_range("--post", usize::from(args.post), 0, 100)?;
        in_range("--corpus", args.corpus, 1, 100_000)?;
        if let Some(&octets) = args.post_octets.iter().find(|&&octets| octets > 512 * 1024) {
            return refuse(&format!(
                "--post-octets {octets}: at most 524288, the most that beacon-edge can be told to take"
            ));
        }
        in_range("--post-octets: sizes", args.post_octets.len(), 0, 100)?;
        if !(0.0..=10.0).contains(&args.skew) {
            return refuse("--skew: an exponent between 0 and 10");
        }
        if args.skew > 0.0 && args.corpus == 1 {
            return refuse("--skew: with --corpus 1 there is nothing to be more common than");
        }
        if args.churn == Some(0) {
            return refuse("--churn 0: a connection without a request is not opened");
        }
        if let Some(slow) = args.slow {
            in_range("--slow", slow, 1, 100_000)?;
            if args.slow_pace < Duration::from_millis(1) {
                return refuse("--slow-pace: at least 1ms");
            }
            if connections == 0 || args.reference.is_some() {
                return refuse("--slow goes with the load of --connections, and without --reference");
            }
        }
        if target.is_tls() && args.reference.is_some() {
            return refuse("--reference is spoken to without TLS: so has the URL to be");
        }
        if args.ca.is_some() && !target.is_tls() {
            return refuse("--ca: the URL is not https");
        }
        if let Some(url) = &args.verify
            && let Err(error) = url.parse::<BrokerUrl>()
        {
            return refuse(&format!("--verify {url}: {error}"));
        }
        if args.requests == Some(0) {
            return refuse("--requests 0: nothing would be measured");
        }
        if args.timeout.is_zero() || args.timeout > Duration::from_secs(60) {
            return refuse("--timeout: between 1ms and 60s, the longest latency that is told apart");
        }
        let limit = match (args.requests, args.duration) {
            (Some(requests), _) => Limit::Requests(requests),
            (None, duration) => Limit::Duration(duration.unwrap_or(Duration::from_secs(10))),
        };
        if limit == Limit::Duration(Duration::ZERO) {
            return refuse("--duration 0: nothing would be measured");
        }

        let rounds = args.reference.map(|Reference::Nginx| args.rounds);
        if let Some(rounds) = rounds {
            in_range("--rounds", rounds, 1, 1000)?;
            if args.pids.is_empty() {
                return refuse(
                    "--reference compares CPU per request: say with --pid which process serves the URL",
                );
            }
            if args.idle.is_some() {
                return refuse("--idle measures memory and --reference CPU: make two runs of it");
            }
        }
        if let Some(idle) = args.idle {
            in_range("--idle", idle, 1, 1_000_000)?;
            if args.pids.is_empty() {
                return refuse("--idle measures memory: say with --pid which process serves the URL");
            }
            if connections == 0 && args.requests.is_some() {
                return refuse(
                    "--requests with --idle needs --connections; use --duration for how long to stay idle",
                );
            }
        }
        let most = args.requests.unwrap_or(0).saturating_mul(rounds.unwrap_or(1) as u64);
        if args.first_seq.saturating_add(most).saturating_add(args.idle.unwrap_or(0) as u64) > WARMUP_SEQ {
            return refuse("--first-seq: numbers from 900000000000 on are those of the warm-up");
        }

        let tls = match target.is_tls() {
            true => Some(Tls::new(target.name(), args.ca.as_deref())?),
            false => None,
        };
        let processes = args.pids.iter().map(|(name, pid)| Process::attach(name.as_deref(), *pid));
        Ok(Self {
            target,
            connections,
            threads: args.threads,
            pin: args.pin,
            limit,
            rate: args.rate,
            warmup: args.warmup.unwrap_or(if rounds.is_some() {
                Duration::from_secs(1)
            } else {
                Duration::ZERO
            }),
            timeout: args.timeout,
            mix: Mix {
                post_percent: args.post,
                post_octets: args.post_octets.clone(),
                corpus: args.corpus,
                skew: args.skew,
            },
            churn: args.churn,
            slow: args.slow.map(|slow| (slow, args.slow_pace)),
            tls,
            verify: args.verify.as_ref().map(|url| Verify {
                url: url.clone(),
                destination: args.verify_destination.clone(),
                quiet: args.verify_quiet,
            }),
            first_seq: args.first_seq,
            answered: args.answered.clone(),
            processes: processes.collect::<Result<_, _>>()?,
            settle: args.settle,
            reference_rounds: rounds,
            idle: args.idle,
            progress: true,
        })
    }

    /// The fleet that makes the load.
    pub fn fleet(&self) -> FleetOptions {
        FleetOptions {
            address: self.target.address,
            connections: self.connections,
            threads: self.threads,
            timeout: self.timeout,
            tls: self.tls.clone(),
            churn: self.churn,
            pin: self.pin,
        }
    }
}

fn refuse<T>(reason: &str) -> Result<T, Error> {
    Err(Error::Argument(reason.to_owned()))
}

fn in_range(name: &str, value: usize, low: usize, high: usize) -> Result<(), Error> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::Argument(format!("{name} {value}: between {low} and {high}")))
}

/// A number with `ms`, `s` or `m`; seconds without.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit_s) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text, 1.0)
    };
    let seconds = number.parse::<f64>().map_err(|_| "not a time like 500ms, 10s or 2m".to_owned())? * unit_s;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err("a time is between 0 and one day".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// `PID` or `NAME=PID`.
fn parse_process(text: &str) -> Result<(Option<String>, i32), String> {
    let (name, pid) = match text.rsplit_once('=') {
        Some(("", _)) => return Err("the name before = is empty".to_owned()),
        Some((name, pid)) => (Some(name.to_owned()), pid),
        None => (None, text),
    };
    match pid.parse() {
        Ok(pid) if pid > 0 => Ok((name, pid)),
        _ => Err(format!("{pid} is not a process id")),
    }
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
        let words = ["http", "http://127.0.0.1:1/"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        Plan::check(&line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_a_closed_loop_of_64_connections_for_ten_seconds() {
        let plan = check("").unwrap();
        assert_eq!((plan.connections, plan.threads, plan.mix.post_percent, plan.first_seq), (64, 1, 0, 0));
        assert_eq!(plan.limit, Limit::Duration(Duration::from_secs(10)));
        assert_eq!((plan.rate, plan.warmup, plan.reference_rounds), (None, Duration::ZERO, None));
        let own = std::process::id();
        let plan = check(&format!("--reference nginx --pid edge={own}")).unwrap();
        assert_eq!((plan.warmup, plan.reference_rounds), (Duration::from_secs(1), Some(5)));
        assert_eq!((plan.processes[0].name(), plan.processes[0].pid()), ("edge", own as i32));
        assert_eq!(check(&format!("--idle 10 --pid {own}")).unwrap().connections, 0);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_reason() {
        let cases = [
            ("--rate 0", "a rate is above 0"),
            ("--rate -5", "a rate is above 0"),
            ("--rate nan", "a rate is above 0"),
            ("--rate 1e9", "beyond what this program can send"),
            ("--post 101", "--post 101: between 0 and 100"),
            ("--connections 0", "nothing can be sent"),
            ("--connections 2 --threads 3", "more threads than connections"),
            ("--threads 0", "--threads 0: between 1 and 256"),
            ("--requests 0", "nothing would be measured"),
            ("--duration 0", "nothing would be measured"),
            ("--duration ten", "not a time like"),
            ("--duration 3d", "not a time like"),
            ("--requests 5 --duration 5s", "cannot be used with"),
            ("--timeout 0", "between 1ms and 60s"),
            ("--timeout 2m", "between 1ms and 60s"),
            ("--pid edge", "edge is not a process id"),
            ("--pid =5", "the name before = is empty"),
            ("--pid edge=2147483647", "no such process"),
            ("--reference nginx", "say with --pid"),
            ("--reference apache", "invalid value 'apache'"),
            ("--rounds 3", "--reference"),
            ("--idle 5", "say with --pid"),
            ("--corpus 0", "--corpus 0: between 1 and 100000"),
            ("--skew -1", "between 0 and 10"),
            ("--skew 1 --corpus 1", "nothing to be more common than"),
            ("--post 10 --post-octets 1000000", "at most 524288"),
            ("--churn 0", "without a request"),
            ("--slow 0", "--slow 0: between 1"),
            ("--slow 5 --slow-pace 0", "at least 1ms"),
            ("--ca /nowhere", "the URL is not https"),
            ("--verify rabbit", "--verify rabbit: "),
            ("--verify-quiet 3", "--verify"),
            ("--first-seq 900000000001", "those of the warm-up"),
            ("--first-seq 899999999999 --requests 2", "those of the warm-up"),
        ];
        for (line, reason) in cases {
            let error = check(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
        let own = std::process::id();
        for (line, reason) in [
            ("--reference nginx --rounds 0", "--rounds 0: between 1 and 1000"),
            ("--reference nginx --idle 5", "make two runs"),
            ("--idle 5 --rate 5", "needs --connections"),
            ("--idle 5 --requests 5", "needs --connections"),
        ] {
            let error = check(&format!("--pid {own} {line}")).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("3", 3000), ("0.25", 250), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "1h", "inf", "nan", "1e9"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
