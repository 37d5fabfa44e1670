//! What can be configured, and the defaults. The reasons for them are in `docs/configuration.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::broker::{self, Broker, ManagementUrl, Secret};
use super::{address, duration, octets};
use crate::ring::{Limits, Overflow};
use crate::ticket::Ack;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The whole configuration. [`Config::default`] is what runs without a file: the embedded broker on loopback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP front.
    pub http: HttpConfig,
    /// Metrics and health.
    pub admin: AdminConfig,
    /// What is written to standard error.
    pub log: LogConfig,
    /// How the process ends.
    pub shutdown: ShutdownConfig,
    /// Where the spools of all destinations are.
    pub spool: SpoolDirConfig,
    /// Which paths take beacons, by the name of the route.
    pub routes: BTreeMap<String, RouteConfig>,
    /// Where beacons go, by the name of the destination.
    pub destinations: BTreeMap<String, DestinationConfig>,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one.
    #[serde(with = "address::one")]
    pub listen: SocketAddr,
    /// Worker threads; 0 is one per core. See [`HttpConfig::worker_count`].
    pub workers: usize,
    /// Whether each worker stays on a core of its own, from the last one down.
    pub pin_workers: bool,
    /// Whether another process may listen on the same port (rolling restart).
    pub share_port: bool,
    /// Most octets of a request line and its headers.
    #[serde(with = "octets")]
    pub max_head_bytes: usize,
    /// Most header lines of a request.
    pub max_headers: usize,
    /// Most octets of a request body.
    #[serde(with = "octets")]
    pub max_body_bytes: usize,
    /// From the first octet of a request (or the start of the connection) to the end of its head.
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// For the whole body to arrive, and then for the answer to leave.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// How long a connection may be idle between two requests.
    #[serde(with = "duration")]
    pub keep_alive_timeout: Duration,
    /// Most open connections, over all workers.
    pub max_connections: usize,
    /// Header with the client's address (its leftmost one), or empty for the peer's address.
    pub client_ip_header: String,
    /// Origins that may read answers with credentials; `"*"` is any.
    pub cors_origins: Vec<String>,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Address and port, or none (an empty string) for no admin listener.
    #[serde(with = "address::optional")]
    pub listen: Option<SocketAddr>,
    /// Whether `listen` may be other than loopback.
    pub allow_remote: bool,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Lines for people, or one JSON object a line.
    pub format: LogFormat,
    /// A level, or directives in the syntax of `tracing_subscriber::EnvFilter`.
    pub level: String,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// How long to wait for answers, rings and receipts after SIGTERM.
    #[serde(with = "duration")]
    pub deadline: Duration,
}

/// `[spool]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolDirConfig {
    /// The directory; each destination that has a spool has one file in it.
    pub dir: String,
    /// Nothing is appended when less is free on the directory's file system.
    #[serde(with = "octets")]
    pub min_free_bytes: usize,
}

/// `[routes.NAME]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteConfig {
    /// The path, matched exactly. In a file it is `/NAME` by default.
    pub path: String,
    /// What the client gets.
    pub reply: Reply,
    /// Names of the destinations that each get every beacon.
    pub destinations: Vec<String>,
    /// What the answer waits for, and so what it promises.
    pub ack: Ack,
    /// How long it waits at most.
    #[serde(with = "duration")]
    pub ack_timeout: Duration,
}

/// `routes.NAME.reply`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// 200 with a transparent GIF of one pixel.
    #[default]
    Gif,
    /// 204.
    Empty,
}

/// `[destinations.NAME]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationConfig {
    /// The brokers; connections are spread over them. Empty by default: a file has to say where beacons go.
    #[serde(with = "broker::list")]
    pub brokers: Vec<Broker>,
    /// The STOMP destination.
    pub destination: String,
    /// A file whose content is the password for every broker, or empty.
    pub password_file: String,
    /// The content of `password_file`.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// Certificates of the authorities to trust over TLS, in PEM, or empty for those of the system.
    pub ca_file: String,
    /// The certificate to show over TLS, in PEM, with those that lead to its authority; or empty.
    pub client_cert_file: String,
    /// The key of that certificate.
    pub client_key_file: String,
    /// Whether connections move back to a broker that has returned.
    pub rebalance: bool,
    /// Connections, over all brokers.
    pub connections: usize,
    /// Most frames without a receipt, a connection.
    pub window_frames: usize,
    /// Most octets of frames without a receipt, a connection.
    #[serde(with = "octets")]
    pub window_bytes: usize,
    /// The age of an unreceipted message at which the connection is looked at: given up, or found blocked.
    #[serde(with = "duration")]
    pub receipt_timeout: Duration,
    /// How long connecting may take, up to CONNECTED.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// The STOMP heart-beat asked for, both ways; `"0s"` for none.
    #[serde(with = "duration")]
    pub heart_beat: Duration,
    /// The first pause before connecting again.
    #[serde(with = "duration")]
    pub backoff_min: Duration,
    /// The longest pause before connecting again.
    #[serde(with = "duration")]
    pub backoff_max: Duration,
    /// After how many attempts a batch that costs the connection each time is set aside; 0 for never.
    pub max_attempts: u32,
    /// Where such batches go; see [`crate::dead_letter`].
    pub dead_letter_dir: String,
    /// Most octets of their file; 0 keeps none.
    #[serde(with = "octets")]
    pub dead_letter_max_bytes: usize,
    /// RabbitMQ's management API, for `beacon-edge check`; or empty.
    pub management_url: ManagementUrl,
    /// The ring in front of the broker.
    pub ring: RingConfig,
    /// The spool on disk, if the destination has one.
    pub spool: SpoolConfig,
    /// How beacons are packed.
    pub batch: BatchConfig,
}

/// `[destinations.NAME.ring]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RingConfig {
    /// Most beacons.
    pub max_beacons: usize,
    /// Most octets.
    #[serde(with = "octets")]
    pub max_bytes: usize,
    /// What happens at the bound.
    pub overflow: RingOverflow,
}

/// `destinations.NAME.ring.overflow`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RingOverflow {
    /// See [`Overflow::DropNewest`].
    #[default]
    DropNewest,
    /// See [`Overflow::DropOldest`].
    DropOldest,
    /// See [`Overflow::Reject`].
    Reject,
    /// What the broker does not take goes to the spool, so that the ring empties; when the spool takes nothing either,
    /// its own `overflow` decides.
    Spool,
}

/// `[destinations.NAME.spool]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// Most octets of batches in it.
    #[serde(with = "octets")]
    pub max_bytes: usize,
    /// Whether every write is on disk before it counts.
    pub synchronous: SpoolSynchronous,
    /// The share of the window that batches out of the spool may take, in frames and in octets.
    pub drain_share: f64,
    /// Octets a second that go from the spool to the brokers at most; 0 for no limit.
    #[serde(with = "octets")]
    pub drain_rate: usize,
    /// What a full ring does when the spool is at its bound or fails.
    pub overflow: Overflow,
    /// How long a batch waits for the broker before it goes to the spool.
    #[serde(with = "duration")]
    pub after: Duration,
}

/// `destinations.NAME.spool.synchronous`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpoolSynchronous {
    /// `Full` if a route with `ack = "spooled"` feeds the destination, else `Normal`.
    #[default]
    Auto,
    /// A batch is on disk when its append returns: it survives a power cut.
    Full,
    /// A batch is with the system when its append returns: it survives the end of the process.
    Normal,
}

/// `[destinations.NAME.batch]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Most beacons in a batch; 1 is one message per beacon.
    pub max_beacons: usize,
    /// A batch is closed before it grows beyond this; a longer beacon is a batch of its own.
    #[serde(with = "octets")]
    pub max_bytes: usize,
    /// How long the first beacon of a batch waits for others.
    #[serde(with = "duration")]
    pub linger: Duration,
}

impl Config {
    /// The configuration as TOML, every key with its value. Passwords are written as `***`.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("the model has string keys and values that TOML can hold")
    }
}

impl HttpConfig {
    /// How many workers there will be: `workers`, or one per core that this process may use.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            workers => workers,
        }
    }
}

impl RouteConfig {
    /// The defaults of a route that a file calls `name`.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { path: format!("/{name}"), ..Self::default() }
    }
}

impl DestinationConfig {
    /// What a full ring does.
    #[must_use]
    pub fn policy(&self) -> Overflow {
        match self.ring.overflow {
            RingOverflow::DropNewest => Overflow::DropNewest,
            RingOverflow::DropOldest => Overflow::DropOldest,
            RingOverflow::Reject => Overflow::Reject,
            RingOverflow::Spool => self.spool.overflow,
        }
    }
}

impl Config {
    /// Whether every batch of this destination is written to its spool before it is sent: a route promises so.
    #[must_use]
    pub fn writes_ahead(&self, destination: &str) -> bool {
        self.routes.values().any(|route| {
            route.ack == Ack::Spooled && route.destinations.iter().any(|name| name == destination)
        })
    }

    /// Whether this destination has a spool.
    #[must_use]
    pub fn has_spool(&self, destination: &str) -> bool {
        self.writes_ahead(destination)
            || self.destinations.get(destination).is_some_and(|it| it.ring.overflow == RingOverflow::Spool)
    }
}

impl RingConfig {
    /// The bounds, as the ring takes them.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { max_beacons: self.max_beacons, max_bytes: self.max_bytes }
    }
}

impl Default for Config {
    fn default() -> Self {
        let route = |path: &str, reply| RouteConfig { path: path.into(), reply, ..RouteConfig::default() };
        let embedded = DestinationConfig { brokers: vec![Broker::Embedded], ..DestinationConfig::default() };
        Self {
            http: HttpConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            shutdown: ShutdownConfig::default(),
            spool: SpoolDirConfig::default(),
            routes: [("pixel", route("/b.gif", Reply::Gif)), ("beacon", route("/b", Reply::Empty))]
                .map(|(name, route)| (name.to_owned(), route))
                .into(),
            destinations: [("main".to_owned(), embedded)].into(),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8080).into(),
            workers: 0,
            pin_workers: false,
            share_port: false,
            max_head_bytes: 16 * KIB,
            max_headers: 100,
            max_body_bytes: 64 * KIB,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(75),
            max_connections: 65_536,
            client_ip_header: String::new(),
            cors_origins: vec!["*".to_owned()],
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: Some(([127, 0, 0, 1], 9090).into()), allow_remote: false }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: "info".to_owned() }
    }
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(10) }
    }
}

impl Default for RouteConfig {
    fn default() -> Self {
        Self {
            path: String::new(),
            reply: Reply::default(),
            destinations: vec!["main".to_owned()],
            ack: Ack::default(),
            ack_timeout: Duration::from_secs(5),
        }
    }
}

impl Default for DestinationConfig {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            destination: "/queue/beacons".to_owned(),
            password_file: String::new(),
            password: None,
            ca_file: String::new(),
            client_cert_file: String::new(),
            client_key_file: String::new(),
            rebalance: true,
            connections: 2,
            window_frames: 1024,
            window_bytes: 16 * MIB,
            receipt_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            heart_beat: Duration::from_secs(10),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            max_attempts: 5,
            dead_letter_dir: "dead-letters".to_owned(),
            dead_letter_max_bytes: 64 * MIB,
            management_url: ManagementUrl::default(),
            ring: RingConfig::default(),
            spool: SpoolConfig::default(),
            batch: BatchConfig::default(),
        }
    }
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { max_beacons: 262_144, max_bytes: 128 * MIB, overflow: RingOverflow::default() }
    }
}

impl Default for SpoolDirConfig {
    fn default() -> Self {
        Self { dir: "spool".to_owned(), min_free_bytes: 256 * MIB }
    }
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            max_bytes: 1024 * MIB,
            synchronous: SpoolSynchronous::default(),
            drain_share: 0.5,
            drain_rate: 8 * MIB,
            overflow: Overflow::default(),
            after: Duration::from_millis(250),
        }
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_beacons: 1000, max_bytes: 64 * KIB, linger: Duration::from_millis(5) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_defaults_read_back_as_the_defaults() {
        let printed = Config::default().to_toml();
        assert_eq!(toml::from_str::<Config>(&printed).unwrap(), Config::default());
        for line in [
            "listen = \"127.0.0.1:8080\"",
            "max_body_bytes = \"64KiB\"",
            "keep_alive_timeout = \"75s\"",
            "brokers = [\"embedded\"]",
            "linger = \"5ms\"",
            "overflow = \"drop_newest\"",
        ] {
            assert!(printed.contains(line), "no `{line}` in:\n{printed}");
        }
    }

    #[test]
    fn the_documentation_has_every_key_with_its_default() {
        fn rows(table: &toml::Table) -> Vec<String> {
            let row = |(key, value): (&String, &toml::Value)| format!("| `{key}` | `{value}` |");
            let sections = table.values().filter_map(toml::Value::as_table);
            let leaves = table.iter().filter(|(_, value)| !value.is_table());
            leaves.map(row).chain(sections.flat_map(rows)).collect()
        }

        let config = Config {
            routes: [("NAME".to_owned(), RouteConfig::named("NAME"))].into(),
            destinations: [("NAME".to_owned(), DestinationConfig::default())].into(),
            ..Config::default()
        };
        let documented = include_str!("../../docs/configuration.md");
        let rows = rows(&toml::Table::try_from(config).unwrap());
        assert_eq!(rows.len(), 56);
        for row in rows {
            assert!(documented.contains(&row), "docs/configuration.md has no row that begins with {row}");
        }
    }

    #[test]
    fn no_workers_means_one_per_core() {
        assert!(HttpConfig::default().worker_count() >= 1);
        assert_eq!(HttpConfig { workers: 3, ..HttpConfig::default() }.worker_count(), 3);
    }
}
