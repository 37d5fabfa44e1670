//! The processes of one model, started for it and ended after it.

use std::{env, net::SocketAddr, path::PathBuf};

use tokio::task::spawn_blocking;

use super::{
    Failure, Model, Plan,
    baseline::Redis,
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

    /// What is measured: the server first, the broker last.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mut processes = self.own_processes();
        processes.push(self.broker.process());
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

    /// What is left in Redis' list, for a model that has one.
    pub(crate) async fn left_in_redis(&self) -> Option<String> {
        let address = self.redis.as_ref()?.address();
        let mut redis = Redis::connect(address).await.ok()?;
        let reply = redis.command(&[b"LLEN", b"beacons"]).await.ok()?;
        Some(format!("{reply:?}"))
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
            Model::RedisAgent => Self::redis(plan, queue, addresses),
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
        let main = "DESTINATIONS__MAIN__";
        let environment = [
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
        ]
        .map(|(key, value)| (format!("BEACON_EDGE__{key}"), value));
        let front = Supervised::start("beacon-edge", program, &[], &environment, EDGE_SERVES)?;
        let (http, admin) = (front.address("http")?, front.address("admin")?);
        Ok(Self { front, http, redis: None, agent: None, source: Source::Edge(admin) })
    }

    fn redis(plan: &Plan, queue: &str, addresses: &Addresses) -> Result<Self, Failure> {
        let Some(program) = &plan.redis else {
            return Err(Failure::Start { name: "redis", reason: "no program".to_owned() });
        };
        let redis = RedisServer::start(program, plan.redis_octets)?;
        let at = redis.address().to_string();
        let line = ["model-agent", "--redis", &at, "--amqp", &addresses.amqp, "--queue", queue];
        let mut arguments: Vec<String> = line.map(str::to_owned).into();
        arguments.extend(["--chunk".to_owned(), plan.chunk.to_string()]);
        arguments.extend(["--in-flight".to_owned(), plan.chunks_in_flight.to_string()]);
        let agent = Supervised::start("agent", &own_program()?, &arguments, &[], LISTENING)?;
        let front = Self::server(plan, &["--sink".to_owned(), "redis".to_owned(), "--redis".to_owned(), at])?;
        let source = Source::Both { server: front.address("counts")?, agent: agent.address("counts")? };
        let http = front.address("http")?;
        Ok(Self { front, http, redis: Some(redis), agent: Some(agent), source })
    }

    fn server(plan: &Plan, arguments: &[String]) -> Result<Supervised, Failure> {
        let workers = plan.workers.to_string();
        let pool = plan.pool.div_ceil(plan.workers).to_string();
        let mut line: Vec<String> =
            ["model-server", "--workers", &workers, "--pool", &pool].map(str::to_owned).into();
        line.extend_from_slice(arguments);
        Supervised::start("server", &own_program()?, &line, &[], LISTENING)
    }
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
}
