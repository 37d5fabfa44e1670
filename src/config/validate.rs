//! What the types of the model cannot say. Each problem is a key and a sentence: what is wrong, what would be right.

use std::fs::File;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use tracing_subscriber::EnvFilter;

use super::broker::Broker;
use super::model::{Config, DestinationConfig, HttpConfig, RouteConfig};
use crate::beacon;
use crate::ring;
use crate::ticket::Ack;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// RabbitMQ closes a STOMP connection on a frame of more than 4 MiB; the frame's head needs some of it.
const MAX_MESSAGE: usize = 4 * MIB - 64 * KIB;
const MAX_NAME: usize = 64;
/// Clients and proxies give up long before.
const MAX_ACK_TIMEOUT: Duration = Duration::from_secs(300);

/// All that is wrong with `config`.
pub(super) fn problems(config: &Config) -> Vec<(String, String)> {
    let mut found = Problems(Vec::new());
    http(&config.http, &mut found);
    admin_log_shutdown(config, &mut found);
    if config.routes.is_empty() {
        found.add("routes", "there is none; write for example [routes.pixel] with path = \"/b.gif\"".into());
    }
    for (name, route) in &config.routes {
        found.name("routes", name);
        self::route(name, route, config, &mut found);
    }
    for (name, destination) in &config.destinations {
        found.name("destinations", name);
        self::destination(name, destination, &config.http, &mut found);
    }
    found.0
}

struct Problems(Vec<(String, String)>);

impl Problems {
    fn add(&mut self, key: &str, what: String) {
        self.0.push((key.to_owned(), what));
    }

    fn within<T: PartialOrd>(
        &mut self,
        key: &str,
        value: T,
        (least, most): (T, T),
        shown: impl Fn(&T) -> String,
    ) {
        if !(&least..=&most).contains(&&value) {
            let what =
                format!("is {}; it has to be from {} to {}", shown(&value), shown(&least), shown(&most));
            self.add(key, what);
        }
    }

    fn count(&mut self, key: &str, value: usize, least: usize, most: usize) {
        self.within(key, value, (least, most), usize::to_string);
    }

    fn octets(&mut self, key: &str, value: usize, least: usize, most: usize) {
        self.within(key, value, (least, most), |octets| format!("{octets} octets"));
    }

    fn time(&mut self, key: &str, value: Duration, least: Duration, most: Duration) {
        self.within(key, value, (least, most), |time| format!("{time:?}"));
    }

    /// Names become labels of metrics and parts of environment variables.
    fn name(&mut self, section: &str, name: &str) {
        let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !is_plain || name.is_empty() || name.len() > MAX_NAME || name.contains("__") {
            let what = format!(
                "the name {name:?} will not do; use 1 to {MAX_NAME} letters, digits, `-` and `_`, without `__`"
            );
            self.add(&format!("{section}.{name}"), what);
        }
    }
}

fn http(http: &HttpConfig, found: &mut Problems) {
    found.count("http.workers", http.workers, 0, 1024);
    // hyper needs a buffer of 8 KiB; the upper bounds keep every beacon within MAX_MESSAGE.
    found.octets("http.max_head_bytes", http.max_head_bytes, 8 * KIB, 64 * KIB);
    found.octets("http.max_body_bytes", http.max_body_bytes, 0, 512 * KIB);
    found.count("http.max_headers", http.max_headers, 1, 10_000);
    found.count("http.max_connections", http.max_connections, 1, 10_000_000);
    let least = Duration::from_millis(10);
    found.time("http.head_timeout", http.head_timeout, least, HOUR);
    found.time("http.body_timeout", http.body_timeout, least, HOUR);
    found.time("http.keep_alive_timeout", http.keep_alive_timeout, least, HOUR);
    let header = &http.client_ip_header;
    if !header.is_empty() && HeaderName::from_bytes(header.as_bytes()).is_err() {
        found.add(
            "http.client_ip_header",
            format!("{header:?} is not the name of a header; write for example \"x-forwarded-for\""),
        );
    }
    for origin in &http.cors_origins {
        if origin != "*" && !is_origin(origin) {
            found.add(
                "http.cors_origins",
                format!(
                    "{origin:?} is not an origin; write \"*\", or for example \"https://www.example.com\""
                ),
            );
        }
    }
}

/// Scheme, host and perhaps a port, as browsers send it: no path, no slash at the end.
fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains('/') && HeaderValue::from_str(text).is_ok()
    })
}

fn admin_log_shutdown(config: &Config, found: &mut Problems) {
    if let Some(listen) = config.admin.listen {
        if !listen.ip().to_canonical().is_loopback() && !config.admin.allow_remote {
            found.add(
                "admin.listen",
                format!(
                    "{listen} is not loopback; write 127.0.0.1, or admin.allow_remote = true if it is guarded"
                ),
            );
        }
        if listen == config.http.listen && listen.port() != 0 {
            found.add("admin.listen", format!("{listen} is http.listen too; write another port"));
        }
    }
    let level = &config.log.level;
    if level.trim().is_empty() {
        found.add("log.level", "is empty; write for example \"info\"".into());
    } else if let Err(error) = EnvFilter::builder().parse(level) {
        found.add("log.level", format!("{error}; write for example \"info\" or \"warn,beacon_edge=debug\""));
    }
    found.time("shutdown.deadline", config.shutdown.deadline, Duration::ZERO, HOUR);
    if config.spool.dir.is_empty() {
        found.add("spool.dir", "is empty; write for example \"spool\" or \"/var/lib/beacon-edge\"".into());
    }
    found.octets("spool.min_free_bytes", config.spool.min_free_bytes, 0, 1 << 44);
}

fn route(name: &str, route: &RouteConfig, config: &Config, found: &mut Problems) {
    let key = |key: &str| format!("routes.{name}.{key}");
    let path = &route.path;
    if !path.starts_with('/') || path.contains(['?', '#']) || !path.chars().all(|c| c.is_ascii_graphic()) {
        let what = "is not a path: it starts with `/`, has no blank, `?` or `#`, and other letters as %XX";
        found.add(&key("path"), format!("{path:?} {what}"));
    }
    let earlier = config.routes.iter().take_while(|(other, _)| *other != name);
    for (other, _) in earlier.filter(|(_, other)| other.path == *path) {
        found.add(&key("path"), format!("{path:?} is the path of [routes.{other}] too"));
    }
    if route.destinations.is_empty() {
        found.add(&key("destinations"), "is empty; name at least one of [destinations]".into());
    }
    found.time(&key("ack_timeout"), route.ack_timeout, Duration::from_millis(10), MAX_ACK_TIMEOUT);
    let embedded = |name: &&String| {
        config.destinations.get(*name).is_some_and(|it| it.brokers.contains(&Broker::Embedded))
    };
    if let Some(name) = route.destinations.iter().find(embedded).filter(|_| route.ack == Ack::Spooled) {
        let what = format!(
            "\"spooled\" cannot be kept with [destinations.{name}]: its broker is the embedded one, which has \
             beacons in memory only; name a RabbitMQ there, or write \"accepted\" or \"confirmed\""
        );
        found.add(&key("ack"), what);
    }
    for (index, destination) in route.destinations.iter().enumerate() {
        if !config.destinations.contains_key(destination) {
            let names = config.destinations.keys().map(|name| format!("{name:?}")).collect::<Vec<_>>();
            let what = format!("there is no [destinations.{destination}]; there is {}", names.join(", "));
            found.add(&key("destinations"), what);
        } else if route.destinations[..index].contains(destination) {
            found.add(&key("destinations"), format!("{destination:?} is named twice"));
        }
    }
}

fn destination(name: &str, destination: &DestinationConfig, http: &HttpConfig, found: &mut Problems) {
    let key = |key: &str| format!("destinations.{name}.{key}");
    brokers(&key("brokers"), &destination.brokers, found);
    tls(name, destination, found);
    let management = destination.management_url.reveal();
    if !management.is_empty() && management.strip_prefix("http://").is_none_or(str::is_empty) {
        let what = "is not the URL of a management API; write \"http://user:password@host:15672\" (https is not supported)";
        found.add(&key("management_url"), what.into());
    }
    let to = &destination.destination;
    if !to.starts_with('/') || to.len() < 2 || to.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let what = format!("{to:?} is not a STOMP destination; write for example \"/queue/beacons\"");
        found.add(&key("destination"), what);
    }
    found.count(&key("connections"), destination.connections, 1, 64);
    found.count(&key("window_frames"), destination.window_frames, 1, 65_536);
    found.time(&key("receipt_timeout"), destination.receipt_timeout, SECOND, HOUR);
    found.time(&key("connect_timeout"), destination.connect_timeout, Duration::from_millis(10), HOUR);
    // RabbitMQ cuts heart-beats to whole seconds.
    if !destination.heart_beat.is_zero() {
        found.time(&key("heart_beat"), destination.heart_beat, SECOND, HOUR);
    }
    found.time(&key("backoff_min"), destination.backoff_min, Duration::from_millis(1), HOUR);
    if destination.backoff_max < destination.backoff_min || destination.backoff_max > HOUR {
        let what = format!(
            "is {:?}; it has to be from backoff_min ({:?}) to {HOUR:?}",
            destination.backoff_max, destination.backoff_min
        );
        found.add(&key("backoff_max"), what);
    }
    // The publisher needs three to tell a batch that is at fault from those that were only near it.
    if destination.max_attempts != 0 {
        found.within(&key("max_attempts"), destination.max_attempts, (3, 1000), u32::to_string);
    }
    if destination.dead_letter_dir.is_empty() {
        found.add(&key("dead_letter_dir"), "is empty; write a folder such as \"dead-letters\"".into());
    }
    found.octets(&key("dead_letter_max_bytes"), destination.dead_letter_max_bytes, 0, 1 << 40);

    let longest = beacon::max_line(http.max_head_bytes, http.max_body_bytes);
    let (ring, batch) = (&destination.ring, &destination.batch);
    found.count(&key("ring.max_beacons"), ring.max_beacons, 1, ring::MAX_BEACONS);
    found.octets(&key("ring.max_bytes"), ring.max_bytes, 1, ring::MAX_BYTES);
    found.count(&key("batch.max_beacons"), batch.max_beacons, 1, 1_000_000);
    found.octets(&key("batch.max_bytes"), batch.max_bytes, 1, MAX_MESSAGE);
    found.time(&key("batch.linger"), batch.linger, Duration::ZERO, Duration::from_secs(60));
    let spool = &destination.spool;
    // Less than a few batches would be full at once.
    found.octets(&key("spool.max_bytes"), spool.max_bytes, MIB.max(4 * batch.max_bytes), 1 << 44);
    found.within(&key("spool.drain_share"), spool.drain_share, (0.01, 1.0), f64::to_string);
    if spool.drain_rate > 0 {
        found.octets(&key("spool.drain_rate"), spool.drain_rate, 64 * KIB, 1 << 40);
    }
    found.time(&key("spool.after"), spool.after, Duration::ZERO, Duration::from_secs(60));
    for (bound, octets) in [("ring.max_bytes", ring.max_bytes), ("window_bytes", destination.window_bytes)] {
        if (1..longest).contains(&octets) {
            let what = format!(
                "is {octets} octets, but a beacon can take {longest} (six times http.max_head_bytes and \
                 http.max_body_bytes when every octet is escaped); raise it or lower those"
            );
            found.add(&key(bound), what);
        }
    }
    found.octets(&key("window_bytes"), destination.window_bytes, batch.max_bytes, 1 << 40);
}

fn brokers(key: &str, brokers: &[Broker], found: &mut Problems) {
    if brokers.is_empty() {
        let what = "is empty; write a URL such as \"stomp://user:password@host:61613/vhost\", or \"embedded\" for \
                    the broker inside this process";
        found.add(key, what.into());
    }
    if brokers.contains(&Broker::Embedded) && brokers.len() > 1 {
        found.add(key, "\"embedded\" stands alone; remove it or the others".into());
    }
}

fn tls(name: &str, destination: &DestinationConfig, found: &mut Problems) {
    let key = |key: &str| format!("destinations.{name}.{key}");
    let is_tls = |broker: &Broker| matches!(broker, Broker::Url(url) if url.is_tls());
    let reached_by_tls = destination.brokers.iter().any(is_tls);
    let (certificate, private) = (&destination.client_cert_file, &destination.client_key_file);
    let files =
        [("ca_file", &destination.ca_file), ("client_cert_file", certificate), ("client_key_file", private)];
    for (name, file) in files {
        if file.is_empty() {
            continue;
        }
        if let Err(error) = File::open(file) {
            found.add(&key(name), format!("cannot read {file}: {error}"));
        } else if !reached_by_tls {
            found.add(&key(name), "is of no use: no broker has a URL that begins with stomp+ssl://".into());
        }
    }
    for (name, file, other) in
        [("client_cert_file", certificate, private), ("client_key_file", private, certificate)]
    {
        if file.is_empty() && !other.is_empty() {
            found.add(&key(name), "is empty; a certificate and its key go together".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{MAX_BEACONS, MAX_BYTES};

    /// What is said about the defaults after `change`.
    fn after(change: impl FnOnce(&mut Config)) -> Vec<(String, String)> {
        let mut config = Config::default();
        change(&mut config);
        problems(&config)
    }

    fn main(config: &mut Config) -> &mut DestinationConfig {
        config.destinations.get_mut("main").unwrap()
    }

    fn pixel(config: &mut Config) -> &mut RouteConfig {
        config.routes.get_mut("pixel").unwrap()
    }

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(after(|_| {}), []);
    }

    #[test]
    fn each_problem_has_its_key_and_says_what_would_be_right() {
        type Case = (fn(&mut Config), &'static str, &'static str);
        let cases: [Case; 46] = [
            (|c| c.http.workers = 2000, "http.workers", "is 2000; it has to be from 0 to 1024"),
            (
                |c| c.http.max_head_bytes = 100,
                "http.max_head_bytes",
                "is 100 octets; it has to be from 8192 octets",
            ),
            (|c| c.http.max_body_bytes = MIB, "http.max_body_bytes", "to 524288 octets"),
            (|c| c.http.max_headers = 0, "http.max_headers", "from 1"),
            (|c| c.http.max_connections = 0, "http.max_connections", "from 1"),
            (|c| c.http.head_timeout = Duration::ZERO, "http.head_timeout", "is 0ns; it has to be from 10ms"),
            (|c| c.http.body_timeout = 2 * HOUR, "http.body_timeout", "to 3600s"),
            (|c| c.http.keep_alive_timeout = Duration::ZERO, "http.keep_alive_timeout", "from 10ms"),
            (|c| c.http.client_ip_header = "x y".into(), "http.client_ip_header", "\"x-forwarded-for\""),
            (|c| c.http.cors_origins = vec!["a.example".into()], "http.cors_origins", "not an origin"),
            (|c| c.http.cors_origins = vec!["https://a/".into()], "http.cors_origins", "not an origin"),
            (|c| c.admin.listen = "0.0.0.0:9090".parse().ok(), "admin.listen", "admin.allow_remote = true"),
            (|c| c.admin.listen = Some(c.http.listen), "admin.listen", "write another port"),
            (|c| c.log.level = " ".into(), "log.level", "is empty"),
            (|c| c.log.level = "a=b=c".into(), "log.level", "write for example"),
            (|c| c.shutdown.deadline = 2 * HOUR, "shutdown.deadline", "to 3600s"),
            (|c| c.routes.clear(), "routes", "[routes.pixel]"),
            (|c| pixel(c).path = "b.gif".into(), "routes.pixel.path", "starts with `/`"),
            (|c| pixel(c).path = "/b?x".into(), "routes.pixel.path", "no blank, `?` or `#`"),
            (|c| pixel(c).path = "/b".into(), "routes.pixel.path", "is the path of [routes.beacon] too"),
            (|c| pixel(c).destinations.clear(), "routes.pixel.destinations", "is empty"),
            (|c| pixel(c).destinations.push("b".into()), "routes.pixel.destinations", "there is \"main\""),
            (|c| pixel(c).destinations.push("main".into()), "routes.pixel.destinations", "twice"),
            (|c| main(c).brokers.push(Broker::Embedded), "destinations.main.brokers", "stands alone"),
            (|c| main(c).destination = "beacons".into(), "destinations.main.destination", "/queue/beacons"),
            (|c| main(c).ca_file = "/nowhere".into(), "destinations.main.ca_file", "cannot read /nowhere: "),
            (|c| main(c).ca_file = "Cargo.toml".into(), "destinations.main.ca_file", "stomp+ssl://"),
            (
                |c| main(c).client_cert_file = "Cargo.toml".into(),
                "destinations.main.client_key_file",
                "go together",
            ),
            (
                |c| main(c).management_url = "https://rabbit".to_owned().into(),
                "destinations.main.management_url",
                "https is not supported",
            ),
            (|c| main(c).connections = 0, "destinations.main.connections", "from 1 to 64"),
            (|c| main(c).window_bytes = 60 * KIB, "destinations.main.window_bytes", "a beacon can take"),
            (
                |c| main(c).max_attempts = 2,
                "destinations.main.max_attempts",
                "is 2; it has to be from 3 to 1000",
            ),
            (|c| main(c).dead_letter_dir.clear(), "destinations.main.dead_letter_dir", "\"dead-letters\""),
            (
                |c| main(c).dead_letter_max_bytes = usize::MAX,
                "destinations.main.dead_letter_max_bytes",
                "from 0 octets",
            ),
            (|c| main(c).heart_beat = SECOND / 2, "destinations.main.heart_beat", "from 1s"),
            (
                |c| main(c).backoff_max = Duration::ZERO,
                "destinations.main.backoff_max",
                "from backoff_min (100ms)",
            ),
            (
                |c| main(c).ring.max_beacons = MAX_BEACONS + 1,
                "destinations.main.ring.max_beacons",
                "to 16711680",
            ),
            (|c| main(c).ring.max_bytes = MAX_BYTES + 1, "destinations.main.ring.max_bytes", "octets"),
            (
                |c| main(c).ring.max_bytes = 1000,
                "destinations.main.ring.max_bytes",
                "raise it or lower those",
            ),
            (|c| c.spool.dir.clear(), "spool.dir", "is empty"),
            (|c| pixel(c).ack = Ack::Spooled, "routes.pixel.ack", "in memory only"),
            (|c| pixel(c).ack_timeout = HOUR, "routes.pixel.ack_timeout", "to 300s"),
            (|c| main(c).spool.max_bytes = 0, "destinations.main.spool.max_bytes", "from 1048576 octets"),
            (|c| main(c).spool.drain_share = 1.5, "destinations.main.spool.drain_share", "from 0.01 to 1"),
            (|c| main(c).spool.drain_rate = 1, "destinations.main.spool.drain_rate", "from 65536 octets"),
            (|c| main(c).batch.max_bytes = 0, "destinations.main.batch.max_bytes", "from 1 octets"),
        ];
        for (change, key, says) in cases {
            let found = after(change);
            assert!(
                found.iter().any(|(at, what)| at == key && what.contains(says)),
                "no `{key}: …{says}…` in {found:#?}"
            );
        }
    }

    #[test]
    fn names_fit_labels_and_variables() {
        for name in ["", "a b", "a__b", "ä", "a.b"] {
            let found = after(|c| {
                let copy = main(c).clone();
                c.destinations.insert(name.into(), copy);
            });
            assert!(found[0].1.contains("letters, digits"), "{name:?}: {found:?}");
        }
    }

    #[test]
    fn a_remote_admin_listener_has_to_be_meant() {
        let found = after(|c| {
            c.admin.listen = "0.0.0.0:9090".parse().ok();
            c.admin.allow_remote = true;
        });
        assert_eq!(found, []);
    }

    #[test]
    fn the_longest_beacon_fits_a_message() {
        assert!(beacon::max_line(64 * KIB, 512 * KIB) <= MAX_MESSAGE);
    }
}
