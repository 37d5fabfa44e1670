//! The check of the command line into a plan that can be carried out.

use std::time::Duration;

use crate::{
    Error,
    broker::{
        args::Args,
        driver::Endpoints,
        payload::HEADER,
        setting::{BEACON, Mode, Protocol, QueueKind, Setting, Sweep},
    },
    cpu::Process,
};

/// What RabbitMQ takes in one STOMP frame from 3.12.2 on.
const LONGEST_BODY: usize = 4 << 20;
/// More than any sweep; what is in flight is bounded in octets too.
const WIDEST_WINDOW: usize = 65_536;

/// A run that can be carried out.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Brokers that are there; `None` for a private one.
    pub(crate) endpoints: Option<Endpoints>,
    pub(crate) broker: Option<Process>,
    /// Lines of `rabbitmq.conf` for a private one.
    pub(crate) broker_config: Vec<String>,
    /// Clients, in turns.
    pub protocols: Vec<Protocol>,
    /// What is done with the queue.
    pub mode: Mode,
    /// The points, each with the sweep that it belongs to.
    pub points: Vec<(Option<Sweep>, Setting)>,
    /// Connections that consume, if not as many as publish.
    pub consumers: Option<usize>,
    /// Messages a second.
    pub rate: Option<f64>,
    /// Whether messages are confirmed.
    pub confirms: bool,
    /// Whether messages are persistent.
    pub persistent: bool,
    /// Messages that a consumer may hold.
    pub prefetch: u16,
    /// Messages that are acknowledged at once.
    pub ack_every: usize,
    /// Messages in the queue beforehand, in mode consume.
    pub prefill: Option<u64>,
    /// Measured time of a round.
    pub time: Duration,
    /// Time before it.
    pub warmup: Duration,
    /// Rounds of each client at each point.
    pub rounds: usize,
    /// Threads for the connections.
    pub threads: usize,
    /// Whether to show progress on a terminal.
    pub progress: bool,
}

impl Plan {
    /// Checks the arguments.
    ///
    /// # Errors
    /// [`Error::Argument`] with the reason why something cannot be done; [`Error::Process`] for a `--broker-pid` that is
    /// not there.
    pub fn check(args: &Args) -> Result<Self, Error> {
        let endpoints = endpoints(&args.uris)?;
        let broker_config = args.broker_config.iter().map(|line| setting(line)).collect::<Result<_, _>>()?;
        let protocols = protocols(args, endpoints.as_ref())?;
        let base = base(args)?;
        queue_fits(args, base.queue)?;
        in_range("--rounds", args.rounds, 1, 1000)?;
        in_range("--threads", args.threads, 1, 64)?;
        in_range("--ack-every", args.ack_every, 1, 65_535)?;
        if args.prefetch == 0 {
            return refuse(
                "--prefetch 0: a consumer without a limit is sent the whole queue at once, and RabbitMQ lets nobody \
                 consume a stream so: between 1 and 65535",
            );
        }
        if args.ack_every > usize::from(args.prefetch) {
            return refuse(
                "--ack-every above --prefetch: the broker would wait for an acknowledgement for ever",
            );
        }
        if args.time.is_zero() {
            return refuse("--time 0: nothing would be measured");
        }
        if let Some(rate) = args.rate {
            if !(rate > 0.0 && rate.is_finite()) {
                return refuse("--rate: a rate is above 0 messages a second");
            }
            if rate > 5e6 {
                return refuse("--rate: beyond what this program can send");
            }
            if args.mode == Mode::Consume {
                return refuse("--rate with --mode consume: nothing is published while it is measured");
            }
        }
        let needs_consumers = args.mode != Mode::Publish;
        if args.consumers.is_some() && !needs_consumers {
            return refuse(
                "--consumers with --mode publish: nothing is consumed; say --mode both or consume",
            );
        }
        if let Some(consumers) = args.consumers {
            in_range("--consumers", consumers, 1, 64)?;
        }
        if args.prefill.is_some() && args.mode != Mode::Consume {
            return refuse("--prefill is for --mode consume");
        }
        if let Some(prefill) = args.prefill
            && !(1..=10_000_000).contains(&prefill)
        {
            return refuse("--prefill: between 1 and 10000000 messages");
        }
        let points = match args.sweep {
            None => vec![(None, base)],
            Some(sweep) => sweep
                .parts()
                .into_iter()
                .flat_map(|part| part.points(base).into_iter().map(move |point| (Some(part), point)))
                .collect(),
        };
        let broker = args.broker_pid.map(|pid| Process::attach(Some("broker"), pid)).transpose()?;
        Ok(Self {
            endpoints,
            broker,
            broker_config,
            protocols,
            mode: args.mode,
            points,
            consumers: args.consumers,
            rate: args.rate,
            confirms: !args.no_confirms,
            persistent: !args.transient,
            prefetch: args.prefetch,
            ack_every: args.ack_every,
            prefill: args.prefill,
            time: args.time,
            warmup: args.warmup,
            rounds: args.rounds,
            threads: args.threads,
            progress: true,
        })
    }
}

fn base(args: &Args) -> Result<Setting, Error> {
    for part in args.sweep.map(Sweep::parts).unwrap_or_default() {
        let given = match part {
            Sweep::Packing => args.beacons.is_some() || args.body.is_some(),
            Sweep::Bodies => args.body.is_some() || args.beacons.is_some(),
            Sweep::Window => args.window.is_some(),
            Sweep::Connections => args.connections.is_some(),
            Sweep::Queues => args.queue.is_some(),
            Sweep::Factors | Sweep::All => false,
        };
        // In a run of all sweeps it still says what the other sweeps are made around.
        if given && args.sweep != Some(Sweep::All) {
            let option = part.option().unwrap_or_default();
            return Err(Error::Argument(format!(
                "--sweep {} says itself what {option} is: leave it out",
                part.as_str()
            )));
        }
    }
    let body = args.body.unwrap_or(256);
    if body < HEADER {
        return Err(Error::Argument(format!(
            "--body {body}: the header that every message begins with has {HEADER} octets"
        )));
    }
    if body > LONGEST_BODY {
        return Err(Error::Argument(format!(
            "--body {body}: RabbitMQ takes STOMP frames of at most 4 MiB ({LONGEST_BODY} octets)"
        )));
    }
    if let Some(beacons) = args.beacons {
        in_range("--beacons", beacons, 1, (LONGEST_BODY - HEADER) / BEACON)?;
    }
    let window = args.window.unwrap_or(1024);
    if window == 0 {
        return refuse("--window 0: with nothing in flight nothing can be sent; 1 waits for each confirm");
    }
    in_range("--window", window, 1, WIDEST_WINDOW)?;
    let connections = args.connections.unwrap_or(1);
    in_range("--connections", connections, 1, 64)?;
    let queue = args.queue.unwrap_or_default();
    let base = Setting { body, beacons: 1, window, connections, queue };
    Ok(args.beacons.map_or(base, |beacons| base.packed(beacons)))
}

fn queue_fits(args: &Args, kind: QueueKind) -> Result<(), Error> {
    let kinds = match args.sweep {
        Some(Sweep::Queues | Sweep::All) => QueueKind::ALL.to_vec(),
        _ => vec![kind],
    };
    if args.transient && kinds.iter().any(|kind| *kind != QueueKind::Classic) {
        return refuse(
            "--transient: quorum queues and streams write every message to disk; use --queue classic",
        );
    }
    let stomp_only = endpoints(&args.uris)?.is_some_and(|endpoints| endpoints.amqp.is_none());
    if stomp_only && kinds.iter().any(|kind| *kind != QueueKind::Classic) {
        return refuse(
            "--queue: queues are declared over AMQP; with a STOMP URI alone only classic queues can be used",
        );
    }
    Ok(())
}

fn protocols(args: &Args, endpoints: Option<&Endpoints>) -> Result<Vec<Protocol>, Error> {
    let served = |protocol: &Protocol| endpoints.is_none_or(|endpoints| endpoints.serves(*protocol));
    if let Some(unserved) = args.protocols.iter().find(|protocol| !served(protocol)) {
        let scheme = if *unserved == Protocol::Stomp { "stomp" } else { "amqp" };
        return Err(Error::Argument(format!(
            "--protocols {}: no --uri {scheme}://… says where it is to go",
            unserved.as_str()
        )));
    }
    let mut protocols = args.protocols.clone();
    if protocols.is_empty() {
        protocols = Protocol::ALL.into_iter().filter(served).collect();
    }
    let mut seen = std::collections::HashSet::new();
    protocols.retain(|protocol| seen.insert(*protocol));
    if args.sweep == Some(Sweep::Factors) {
        if !protocols.contains(&Protocol::Stomp) {
            return refuse("--sweep factors measures STOMP: leave --protocols out, or add stomp");
        }
        protocols = vec![Protocol::Stomp];
    }
    Ok(protocols)
}

fn endpoints(uris: &[String]) -> Result<Option<Endpoints>, Error> {
    if uris.is_empty() {
        return Ok(None);
    }
    let mut endpoints = Endpoints::default();
    for uri in uris {
        // The URI may hold a password, and the terminal may be seen by others.
        let failed = |reason: String| Error::Argument(format!("--uri: {reason}"));
        let twice = match uri.split_once("://").map(|(scheme, _)| scheme) {
            Some("stomp") => {
                let url =
                    uri.parse().map_err(|error: stompwire::client::UrlError| failed(error.to_string()))?;
                endpoints.stomp.replace(url).is_some()
            }
            Some("amqp") => endpoints.amqp.replace(uri.parse().map_err(failed)?).is_some(),
            Some(other) => return Err(failed(format!("{other}:// is neither stomp:// nor amqp://"))),
            None => return Err(failed("not like stomp://user:password@host:port/ or amqp://…".to_owned())),
        };
        if twice {
            return refuse("--uri: at most one stomp:// and one amqp://");
        }
    }
    Ok(Some(endpoints))
}

/// A line of `rabbitmq.conf`. Whether there is such a key RabbitMQ knows, and says when it starts.
fn setting(line: &str) -> Result<String, Error> {
    let parts = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
    let fits = |key: &str| key.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._$-".contains(&octet));
    match parts {
        Some((key, value))
            if !key.is_empty() && fits(key) && !value.is_empty() && !value.contains(char::is_control) =>
        {
            Ok(format!("{key} = {value}"))
        }
        _ => {
            Err(Error::Argument(format!("--broker-config {line:?}: not like tcp_listen_options.backlog=128")))
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
        let words = ["broker"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        Plan::check(&line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_compare_all_clients_in_five_rounds() {
        let plan = check("").unwrap();
        assert_eq!(plan.protocols, Protocol::ALL);
        assert_eq!(
            (plan.rounds, plan.time, plan.warmup),
            (5, Duration::from_secs(5), Duration::from_secs(1))
        );
        let base = Setting { body: 256, beacons: 1, window: 1024, connections: 1, queue: QueueKind::Classic };
        assert_eq!(plan.points, [(None, base)]);
        assert!(plan.confirms && plan.persistent && plan.endpoints.is_none());
        assert_eq!(check("--beacons 100").unwrap().points[0].1.body, 50_012);
        assert_eq!(
            check("--protocols stomp,lapin,stomp").unwrap().protocols,
            [Protocol::Stomp, Protocol::Lapin]
        );
        assert_eq!(check("--sweep factors").unwrap().protocols, [Protocol::Stomp]);
        assert_eq!(check("--broker-config heartbeat=5").unwrap().broker_config, ["heartbeat = 5"]);
        let given = check("--uri stomp://127.0.0.1:1/").unwrap();
        assert_eq!(given.protocols, [Protocol::Stomp]);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_reason() {
        let cases = [
            ("--window 0", "with nothing in flight nothing can be sent"),
            ("--window 100000", "--window 100000: between 1 and 65536"),
            ("--body 11", "the header that every message begins with has 12 octets"),
            ("--body 5000000", "STOMP frames of at most 4 MiB"),
            ("--body 100 --beacons 5", "cannot be used with"),
            ("--beacons 0", "--beacons 0: between 1 and 8388"),
            ("--connections 0", "--connections 0: between 1 and 64"),
            ("--prefetch 0 --mode both --queue stream", "lets nobody consume a stream so"),
            ("--prefetch 70000", "70000"),
            ("--prefetch 10 --ack-every 20", "would wait for an acknowledgement for ever"),
            ("--ack-every 0", "--ack-every 0: between 1 and 65535"),
            ("--transient --queue quorum", "write every message to disk"),
            ("--transient --sweep queues", "write every message to disk"),
            ("--queue heap", "invalid value 'heap'"),
            ("--rate 0", "a rate is above 0"),
            ("--rate -5", "a rate is above 0"),
            ("--rate nan", "a rate is above 0"),
            ("--rate 1e9", "beyond what this program can send"),
            ("--rate 5 --mode consume", "nothing is published while it is measured"),
            ("--consumers 2", "nothing is consumed"),
            ("--consumers 0 --mode both", "--consumers 0: between 1 and 64"),
            ("--prefill 5", "is for --mode consume"),
            ("--prefill 0 --mode consume", "between 1 and 10000000"),
            ("--time 0", "nothing would be measured"),
            ("--rounds 0", "--rounds 0: between 1 and 1000"),
            ("--threads 0", "--threads 0: between 1 and 64"),
            ("--sweep window --window 5", "--sweep window says itself what --window is"),
            ("--sweep packing --body 500", "--sweep packing says itself what --beacons is"),
            ("--sweep everything", "invalid value 'everything'"),
            ("--sweep factors --protocols lapin", "measures STOMP"),
            ("--uri http://127.0.0.1/", "http:// is neither stomp:// nor amqp://"),
            ("--uri nothing", "not like stomp://"),
            ("--uri stomp://a/ --uri stomp://b/", "at most one stomp://"),
            ("--uri stomp://a/ --protocols lapin", "no --uri amqp://… says where"),
            ("--uri stomp://a/ --queue stream", "queues are declared over AMQP"),
            ("--uri stomp://a/ --broker-pid 2147483647", "no such process"),
            ("--broker-pid 5", "--uri"),
            ("--broker-config heartbeat", "\"heartbeat\": not like tcp_listen_options.backlog=128"),
            ("--broker-config heartbeat=", "not like"),
            ("--broker-config =5", "not like"),
            ("--broker-config #heartbeat=5", "not like"),
            ("--broker-config heartbeat=5 --uri stomp://a/", "cannot be used with"),
        ];
        for (line, reason) in cases {
            let error = check(line).expect_err(line);
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
