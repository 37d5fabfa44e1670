//! The processes of one model, started for it and ended after it.

use std::{env, net::SocketAddr, path::PathBuf};

use tokio::task::spawn_blocking;

use super::{
    Failure, Model, Plan,
    broker::{Addresses, Broker},
    child::Supervised,
    counts::{self, Counts},
    enclosure::Enclosure,
    redis::RedisServer,
};
use crate::cpu::Process;

/// What the edge logs when it takes connections, and what the baselines print.
const EDGE_SERVES: &str = " serves ";
const LISTENING: &str = "listening ";

/// A model's processes, ready for load.
#[derive(Debug)]
pub(crate) struct Cast {
    front: Supervised,
    http: SocketAddr,
    redis: Option<RedisServer>,
    agent: Option<Supervised>,
    source: Source,
    broker: Broker,
}

/// Who knows what is accepted and confirmed.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// beacon-edge's metrics.
    Edge(SocketAddr),
    /// The server.
    Server(SocketAddr),
    /// The server, which counts what Redis has replied to: nobody confirms anything beyond.
    Front(SocketAddr),
    /// The server accepts, the agent confirms.
    Both { server: SocketAddr, agent: SocketAddr },
    /// The server accepts, the broker says what it has received, from a number on: without receipts nobody else knows.
    Broker { server: SocketAddr, from: u64 },
}

impl Cast {
    /// Starts what `model` needs, publishing to `queue`.
    pub(crate) async fn start(
        model: Model,
        plan: &Plan,
        broker: &Broker,
        queue: &'static str,
        addresses: &Addresses,
        enclosure: Option<&Enclosure>,
    ) -> Result<Self, Failure> {
        let (plan_, addresses) = (plan.clone(), addresses.clone());
        let started = spawn_blocking(move || Processes::start(model, &plan_, queue, &addresses)).await;
        let Processes { front, http, redis, agent, source } =
            started.map_err(|error| Failure::Start { name: "model", reason: error.to_string() })??;
        let source = match (source, model) {
            (Source::Server(server), Model::StompDirectUnconfirmed) => {
                Source::Broker { server, from: broker.received().await? }
            }
            (source, _) => source,
        };
        let cast = Self { front, http, redis, agent, source, broker: broker.clone() };
        if let Some(enclosure) = enclosure {
            for process in cast.own_processes() {
                let pid = u32::try_from(process.pid()).unwrap_or_default();
                enclosure.admit(pid).map_err(|reason| Failure::Start { name: "cgroup", reason })?;
            }
        }
        Ok(cast)
    }

    /// Where it takes beacons.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// What is measured: the server first, the broker last if beacons reach it.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mut processes = self.own_processes();
        if !self.keeps_its_beacons() {
            processes.push(self.broker.process());
        }
        processes
    }

    fn own_processes(&self) -> Vec<Process> {
        let redis = self.redis.as_ref().map(RedisServer::process);
        let agent = self.agent.as_ref().map(Supervised::process);
        [Some(self.front.process()), redis, agent].into_iter().flatten().cloned().collect()
    }

    /// What was accepted and confirmed since the start.
    pub(crate) async fn counts(&self) -> Result<Counts, Failure> {
        let of = |name, read: fn(SocketAddr) -> std::io::Result<Counts>, address| async move {
            match spawn_blocking(move || read(address)).await {
                Ok(counts) => counts.map_err(|source| Failure::Counts { name, source }),
                Err(error) => Err(Failure::Counts { name, source: std::io::Error::other(error) }),
            }
        };
        match self.source {
            Source::Edge(admin) => of("beacon-edge", counts::of_edge, admin).await,
            Source::Server(server) => of("server", counts::of_baseline, server).await,
            Source::Front(server) => {
                let accepted = of("server", counts::of_baseline, server).await?.accepted;
                Ok(Counts { accepted, confirmed: accepted })
            }
            Source::Both { server, agent } => {
                // Confirmed first: a backlog is never negative.
                let confirmed = of("agent", counts::of_baseline, agent).await?.confirmed;
                let accepted = of("server", counts::of_baseline, server).await?.accepted;
                Ok(Counts { accepted, confirmed })
            }
            Source::Broker { server, from } => {
                // After a death the broker counts from zero.
                let confirmed = self.broker.received().await?.saturating_sub(from);
                let accepted = of("server", counts::of_baseline, server).await?.accepted;
                Ok(Counts { accepted, confirmed })
            }
        }
    }

    /// Whether its counts survive the broker's death.
    pub(crate) fn counts_outlive_the_broker(&self) -> bool {
        !matches!(self.source, Source::Broker { .. })
    }

    /// Whether what it accepts stays in Redis, which nobody else empties.
    fn keeps_its_beacons(&self) -> bool {
        matches!(self.source, Source::Front(_))
    }

    /// The Redis that nobody else empties.
    fn kept_in(&self) -> Option<&RedisServer> {
        self.redis.as_ref().filter(|_| self.keeps_its_beacons())
    }

    /// Empties Redis' list before a load, for a model that lets it grow.
    pub(crate) async fn forget(&self) -> Result<(), Failure> {
        match self.kept_in() {
            Some(redis) => redis.forget().await,
            None => Ok(()),
        }
    }

    /// Sees to it that Redis' list holds what was accepted since it was emptied, for a model that lets it grow.
    pub(crate) async fn check_list(&self, accepted: u64, refused: u64) -> Result<(), Failure> {
        match self.kept_in() {
            Some(redis) => redis.check(accepted, refused).await,
            None => Ok(()),
        }
    }

    /// What is left in Redis' list, for a model that has one.
    pub(crate) async fn left_in_redis(&self) -> Option<String> {
        let length = self.redis.as_ref()?.length().await.ok()?;
        Some(format!("{length:?}"))
    }

    /// Ends the processes in good order, or else by force.
    pub(crate) async fn stop(self) {
        let stop = move || {
            self.front.stop();
            self.agent.map(Supervised::stop).unwrap_or_default();
            self.redis.map(RedisServer::stop).unwrap_or_default();
        };
        spawn_blocking(stop).await.unwrap_or_default();
    }
}

/// What was started.
struct Processes {
    front: Supervised,
    http: SocketAddr,
    redis: Option<RedisServer>,
    agent: Option<Supervised>,
    source: Source,
}

impl Processes {
    /// Blocks until all of them serve.
    fn start(model: Model, plan: &Plan, queue: &str, addresses: &Addresses) -> Result<Self, Failure> {
        match model {
            Model::EdgeOne => Self::edge(plan, queue, addresses, 1, "accepted"),
            Model::EdgePacked => Self::edge(plan, queue, addresses, plan.pack, "accepted"),
            Model::EdgeConfirmed => Self::edge(plan, queue, addresses, plan.pack, "confirmed"),
            Model::RedisFront => Self::redis_front(plan),
            Model::RedisAgent => Self::redis_agent(plan, queue, addresses),
            _ => {
                let front = Self::server(plan, &stomp_arguments(model, plan, queue, addresses))?;
                let (http, counts) = (front.address("http")?, front.address("counts")?);
                Ok(Self { front, http, redis: None, agent: None, source: Source::Server(counts) })
            }
        }
    }

    fn edge(
        plan: &Plan,
        queue: &str,
        addresses: &Addresses,
        pack: usize,
        ack: &str,
    ) -> Result<Self, Failure> {
        let Some(program) = &plan.edge else {
            return Err(Failure::Start { name: "beacon-edge", reason: "no program".to_owned() });
        };
        let environment = edge_environment(plan, queue, addresses, pack, ack);
        let front = Supervised::start("beacon-edge", program, &[], &environment, EDGE_SERVES)?;
        let (http, admin) = (front.address("http")?, front.address("admin")?);
        Ok(Self { front, http, redis: None, agent: None, source: Source::Edge(admin) })
    }

    fn redis_front(plan: &Plan) -> Result<Self, Failure> {
        let redis = redis_server(plan)?;
        let front = Self::server(plan, &redis_arguments(&redis))?;
        let (http, counts) = (front.address("http")?, front.address("counts")?);
        Ok(Self { front, http, redis: Some(redis), agent: None, source: Source::Front(counts) })
    }

    fn redis_agent(plan: &Plan, queue: &str, addresses: &Addresses) -> Result<Self, Failure> {
        let redis = redis_server(plan)?;
        let at = redis.address().to_string();
        let line = ["model-agent", "--redis", &at, "--amqp", &addresses.amqp, "--queue", queue];
        let mut arguments: Vec<String> = line.map(str::to_owned).into();
        arguments.extend(["--chunk".to_owned(), plan.chunk.to_string()]);
        arguments.extend(["--in-flight".to_owned(), plan.chunks_in_flight.to_string()]);
        let agent = Supervised::start("agent", &own_program()?, &arguments, &[], LISTENING)?;
        let front = Self::server(plan, &redis_arguments(&redis))?;
        let source = Source::Both { server: front.address("counts")?, agent: agent.address("counts")? };
        let http = front.address("http")?;
        Ok(Self { front, http, redis: Some(redis), agent: Some(agent), source })
    }

    fn server(plan: &Plan, arguments: &[String]) -> Result<Supervised, Failure> {
        let workers = plan.workers.to_string();
        let pool = plan.pool.div_ceil(plan.workers).to_string();
        let mut line: Vec<String> =
            ["model-server", "--workers", &workers, "--pool", &pool].map(str::to_owned).into();
        if plan.pin {
            line.push("--pin".to_owned());
        }
        line.extend_from_slice(arguments);
        Supervised::start("server", &own_program()?, &line, &[], LISTENING)
    }
}

fn redis_server(plan: &Plan) -> Result<RedisServer, Failure> {
    let Some(program) = &plan.redis else {
        return Err(Failure::Start { name: "redis", reason: "no program".to_owned() });
    };
    RedisServer::start(program, plan.redis_octets)
}

/// The arguments of a baseline server that pushes to Redis.
fn redis_arguments(redis: &RedisServer) -> [String; 4] {
    ["--sink", "redis", "--redis", &redis.address().to_string()].map(str::to_owned)
}

/// What makes beacon-edge what is measured.
fn edge_environment(
    plan: &Plan,
    queue: &str,
    addresses: &Addresses,
    pack: usize,
    ack: &str,
) -> Vec<(String, String)> {
    let main = "DESTINATIONS__MAIN__";
    let settings = [
        ("HTTP__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        ("ADMIN__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        ("HTTP__WORKERS".to_owned(), plan.workers.to_string()),
        // GET and POST both go to `/b.gif`.
        ("ROUTES__PIXEL__ACK".to_owned(), ack.to_owned()),
        (format!("{main}BROKERS"), format!("[\"{}\"]", addresses.stomp)),
        (format!("{main}DESTINATION"), format!("/amq/queue/{queue}")),
        (format!("{main}CONNECTIONS"), plan.stomp_connections.to_string()),
        (format!("{main}WINDOW_FRAMES"), plan.window.to_string()),
        (format!("{main}BACKOFF_MAX"), "1s".to_owned()),
        (format!("{main}BATCH__MAX_BEACONS"), pack.to_string()),
        (format!("{main}BATCH__LINGER"), format!("{}ms", plan.linger_ms)),
    ];
    // Not set at all otherwise: an edge of before does not know it.
    let pin = plan.pin.then(|| ("HTTP__PIN_WORKERS".to_owned(), "true".to_owned()));
    settings.into_iter().chain(pin).map(|(key, value)| (format!("BEACON_EDGE__{key}"), value)).collect()
}

/// The arguments of a baseline server that speaks STOMP. Each step of the path has one more than the one before.
fn stomp_arguments(model: Model, plan: &Plan, queue: &str, addresses: &Addresses) -> Vec<String> {
    let sink = match model {
        Model::StompDirect => "direct",
        Model::StompDirectUnconfirmed => "direct-unconfirmed",
        _ => "ring",
    };
    let destination = format!("/amq/queue/{queue}");
    let mut line: Vec<String> = ["--sink", sink, "--stomp", &addresses.stomp, "--destination", &destination]
        .map(str::to_owned)
        .into();
    let steps: [(Model, Vec<String>); 4] = [
        (Model::PathPipelined, vec!["--window".to_owned(), plan.window.to_string()]),
        (Model::PathPooled, vec!["--connections".to_owned(), plan.stomp_connections.to_string()]),
        (Model::PathOffRequest, vec!["--answer-at-once".to_owned()]),
        (Model::PathPacked, {
            let linger = plan.linger_ms.to_string();
            vec!["--pack".to_owned(), plan.pack.to_string(), "--linger-ms".to_owned(), linger]
        }),
    ];
    for (step, arguments) in steps {
        if model >= step {
            line.extend(arguments);
        }
    }
    line
}

fn own_program() -> Result<PathBuf, Failure> {
    env::current_exe().map_err(|error| Failure::Start { name: "server", reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_the_path_switches_one_thing() {
        let plan = Plan::for_tests();
        let addresses = Addresses { stomp: "stomp://b/".to_owned(), amqp: String::new() };
        let path: Vec<Vec<String>> = Model::ALL
            .into_iter()
            .filter(|model| model.group() == super::super::Group::Path)
            .map(|model| stomp_arguments(model, &plan, "q", &addresses))
            .collect();
        assert_eq!(path.len(), 5);
        for pair in path.windows(2) {
            assert_eq!(pair[1][..pair[0].len()], pair[0][..], "the later step begins with the earlier");
            let added = pair[1][pair[0].len()..].iter().filter(|word| word.starts_with("--")).count();
            // Packing is one thing with two numbers.
            assert!(added == 1 || pair[1].ends_with(&["--linger-ms".to_owned(), plan.linger_ms.to_string()]));
        }
        let direct = stomp_arguments(Model::StompDirect, &plan, "q", &addresses);
        assert!(!direct.iter().any(|word| word == "--window"));
    }

    #[test]
    fn the_edge_is_told_to_pin_its_workers_with_pin_alone() {
        let addresses = Addresses { stomp: "stomp://b/".to_owned(), amqp: String::new() };
        let told = |pin| {
            let plan = Plan { pin, ..Plan::for_tests() };
            edge_environment(&plan, "q", &addresses, 1, "accepted")
        };
        let (without, with) = (told(false), told(true));
        assert!(!without.iter().any(|(key, _)| key.contains("PIN")), "{without:?}");
        assert_eq!(with[..without.len()], without[..]);
        let more = [("BEACON_EDGE__HTTP__PIN_WORKERS".to_owned(), "true".to_owned())];
        assert_eq!(with[without.len()..], more);
    }
}
