//! Trouble with brokers, on a real RabbitMQ where it can be had there: it is recognised, told once in words, does not
//! become a storm of connections, and when it is over everything accepted arrives.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

#[path = "../stomp/tests/pki/mod.rs"]
mod pki;
mod support;

use std::{
    net::SocketAddr,
    sync::{LazyLock, OnceLock, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use rabbitmq_node::{Node, QueueOptions, Tls, Vhost};
use serde_json::json;
use support::{Browser, assert_conserved, consume, drive, program::Program, scrape, until};

const QUEUE: &str = "beacons";
const QUIET: Duration = Duration::from_secs(1);
/// For how long a trouble is watched.
const WATCHED: Duration = Duration::from_secs(4);

static AUTHORITY: LazyLock<pki::Authority> =
    LazyLock::new(|| pki::Authority::new("the edge's test authority"));

/// The node of all tests but those with alarms. It demands client certificates over TLS.
fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| {
        let server = AUTHORITY.server(&["localhost", "127.0.0.1"]);
        let tls = Tls::new(server.certificate, server.key).require_client_certificate(AUTHORITY.pem());
        Node::builder().tls(tls).start().unwrap()
    })
}

fn vhost() -> Vhost {
    node().new_vhost().unwrap()
}

/// The edge as a process of its own, publishing to one broker.
struct Edge {
    program: Program,
    http: SocketAddr,
    admin: SocketAddr,
}

impl Edge {
    fn start(url: &str, destination: &str, more: &[(&str, &str)]) -> Self {
        let brokers = format!("[{url:?}]");
        let always = [
            ("BEACON_EDGE__DESTINATIONS__MAIN__BROKERS", &*brokers),
            ("BEACON_EDGE__DESTINATIONS__MAIN__DESTINATION", destination),
            ("BEACON_EDGE__DESTINATIONS__MAIN__HEART_BEAT", "1s"),
            ("BEACON_EDGE__SHUTDOWN__DEADLINE", "30s"),
        ];
        let env: Vec<_> = always.into_iter().chain(more.iter().copied()).collect();
        let mut program = Program::start(&env);
        let (http, admin) = program.addresses();
        Self { program, http, admin }
    }

    fn readiness(&self) -> (u16, String) {
        Browser::get(self.admin, "/readyz").unwrap()
    }

    fn value(&self, name: &str) -> u64 {
        scrape(self.admin)[&format!("beacon_edge_{name}{{destination=\"main\"}}")] as u64
    }

    /// Connections made and attempts that failed.
    fn attempts(&self) -> u64 {
        self.value("connections_made_total") + self.value("connection_failures_total")
    }

    fn send(&self, count: u64) {
        assert_eq!(drive(self.http, count, 4, &AtomicBool::new(false)).len() as u64, count);
    }

    fn until_confirmed(&self, count: u64) {
        until("all confirmed", || self.value("beacons_confirmed_total") == count);
        assert_conserved(&scrape(self.admin));
    }

    /// Ends it in good order. Its log.
    fn end(self) -> String {
        self.program.signal("TERM");
        let (status, log) = self.program.end();
        assert_eq!(status, 0, "{log}");
        log
    }
}

fn lines<'a>(log: &'a str, what: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(what)).collect()
}

struct Case {
    name: &'static str,
    destination: &'static str,
    /// Makes the trouble, and returns the URL.
    cause: fn(&Vhost) -> String,
    /// What is told of it.
    says: &'static str,
    /// What the operator does.
    cure: fn(&Vhost),
}

/// Permissions belong to the virtual host, users to the node.
fn user(vhost: &Vhost) -> String {
    format!("edge-{}", vhost.name())
}

fn declare(vhost: &Vhost) {
    vhost.declare_queue(QUEUE, &QueueOptions::default()).unwrap();
}

const CASES: [Case; 6] = [
    Case {
        name: "wrong password",
        destination: "/amq/queue/beacons",
        cause: |vhost| {
            declare(vhost);
            vhost.add_user(&user(vhost), "old").unwrap();
            vhost.set_permissions(&user(vhost), "", ".*", "").unwrap();
            vhost.stomp_url_as(&user(vhost), "hunter2")
        },
        says: "the user or the password is wrong",
        cure: |vhost| vhost.add_user(&user(vhost), "hunter2").unwrap(),
    },
    Case {
        name: "no permission on the virtual host",
        destination: "/amq/queue/beacons",
        cause: |vhost| {
            declare(vhost);
            vhost.add_user(&user(vhost), "hunter2").unwrap();
            vhost.stomp_url_as(&user(vhost), "hunter2")
        },
        says: "there is no such virtual host, or the user may not use it",
        cure: |vhost| vhost.set_permissions(&user(vhost), "", ".*", "").unwrap(),
    },
    Case {
        name: "missing exchange",
        destination: "/exchange/web/key",
        cause: |vhost| {
            declare(vhost);
            vhost.stomp_url()
        },
        says: "the exchange of `destination` does not exist",
        cure: |vhost| {
            vhost.declare_exchange("web", "topic").unwrap();
            vhost.bind("web", QUEUE, "#").unwrap();
        },
    },
    Case {
        name: "no permission to write",
        destination: "/amq/queue/beacons",
        cause: |vhost| {
            declare(vhost);
            vhost.add_user(&user(vhost), "hunter2").unwrap();
            vhost.set_permissions(&user(vhost), "", "", "").unwrap();
            vhost.stomp_url_as(&user(vhost), "hunter2")
        },
        says: "the user may not publish there",
        cure: |vhost| vhost.set_permissions(&user(vhost), "", "^amq\\.default$", "").unwrap(),
    },
    Case {
        name: "a queue that rejects",
        destination: "/amq/queue/beacons",
        cause: |vhost| {
            declare(vhost);
            let full = json!({ "max-length": 1, "overflow": "reject-publish" });
            vhost.set_policy("full", "^beacons$", &full).unwrap();
            assert!(vhost.publish("amq.default", QUEUE, b"it is full", &json!({})).unwrap());
            vhost.stomp_url()
        },
        says: "it closes the connection without a word",
        cure: |vhost| {
            vhost.delete_policy("full").unwrap();
            assert_eq!(vhost.get_messages(QUEUE, 1).unwrap()[0].payload, b"it is full");
        },
    },
    Case {
        name: "a queue with other properties",
        destination: "/queue/beacons",
        cause: |vhost| {
            let transient = QueueOptions { durable: false, ..QueueOptions::default() };
            vhost.declare_queue(QUEUE, &transient).unwrap();
            vhost.stomp_url()
        },
        says: "the queue exists with other properties",
        cure: |vhost| vhost.delete_queue(QUEUE).unwrap(),
    },
];

#[test]
fn each_refusal_is_told_once_without_a_storm_and_healed_by_its_remedy() {
    thread::scope(|scope| {
        let running: Vec<_> = CASES.iter().map(|case| (case.name, scope.spawn(|| suffer(case)))).collect();
        for (name, case) in running {
            assert!(case.join().is_ok(), "{name}");
        }
    });
}

fn suffer(case: &Case) {
    const COUNT: u64 = 300;
    let vhost = vhost();
    let url = (case.cause)(&vhost);
    let edge = Edge::start(&url, case.destination, &[]);
    let begun = Instant::now();
    edge.send(COUNT);
    until(case.name, || {
        let (status, reasons) = edge.readiness();
        status == 503 && reasons.contains(case.says)
    });
    let seen = begun.elapsed();
    while begun.elapsed() < WATCHED {
        let (status, reasons) = edge.readiness();
        assert_eq!(status, 503, "{}: ready for a moment", case.name);
        assert!(!reasons.contains("hunter2"), "{reasons}");
        thread::sleep(Duration::from_millis(20));
    }
    let attempts = edge.attempts();
    println!("{}: in /readyz after {seen:.1?}; {attempts} attempts in {:.1?}", case.name, begun.elapsed());
    // Each attempt is followed by a longer pause, and a connection that is made and lost counts twice.
    assert!((1..=40).contains(&attempts), "{}: {attempts} attempts", case.name);
    assert_eq!(edge.value("beacons_confirmed_total"), 0);

    (case.cure)(&vhost);
    edge.until_confirmed(COUNT);
    until("ready", || edge.readiness().0 == 200);
    assert_eq!(consume(&vhost.stomp_url(), QUEUE, QUIET).numbers(), (0..COUNT).collect());
    let log = edge.end();
    assert_eq!(lines(&log, "the broker: ").len(), 1, "{}: {log}", case.name);
    let told = lines(&log, case.says);
    assert_eq!(told.len(), 1, "{}: {log}", case.name);
    assert!(told[0].contains("ERROR") && told[0].contains("brokers_taking=\"0 of 1\""), "{}", told[0]);
    assert!(lines(&log, "the broker takes messages").len() <= 1, "{log}");
    assert!(!log.contains("hunter2"), "{log}");
    assert!(log.lines().count() < 12, "{log}");
}

#[test]
fn a_virtual_host_that_goes_and_comes_back_costs_what_was_in_it_and_no_more() {
    let vhost = vhost();
    declare(&vhost);
    let name = vhost.name().to_owned();
    let mut edge = Edge::start(&vhost.stomp_url(), "/amq/queue/beacons", &[]);
    edge.send(100);
    edge.until_confirmed(100);
    drop(vhost);
    edge.send(200);
    edge.program.line_with("there is no such virtual host");
    assert_eq!(edge.readiness().0, 503);
    assert!(edge.attempts() < 30, "{}", edge.attempts());
    let vhost = node().vhost(&name).unwrap();
    declare(&vhost);
    // A message that comes between the virtual host and its queue is unroutable: confirmed, and gone.
    edge.until_confirmed(300);
    let log = edge.end();
    assert!((1..=3).contains(&lines(&log, "the broker: ").len()), "{log}");
}

#[test]
fn an_unroutable_beacon_is_confirmed_and_gone_unless_there_is_an_alternate_exchange() {
    let vhost = vhost();
    declare(&vhost);
    vhost.declare_exchange("web", "direct").unwrap();
    vhost.declare_exchange("unrouted", "fanout").unwrap();
    vhost.declare_queue("unrouted", &QueueOptions::default()).unwrap();
    vhost.bind("unrouted", "unrouted", "").unwrap();
    let edge = Edge::start(&vhost.stomp_url(), "/exchange/web/nobody", &[]);
    edge.send(50);
    edge.until_confirmed(50);
    assert_eq!((vhost.queue_depth(QUEUE).unwrap(), vhost.queue_depth("unrouted").unwrap()), (0, 0));
    assert_eq!(edge.readiness().0, 200, "the protocol does not tell");
    edge.end();

    vhost.set_exchange_policy("ae", "^web$", &json!({ "alternate-exchange": "unrouted" })).unwrap();
    let edge = Edge::start(&vhost.stomp_url(), "/exchange/web/nobody", &[]);
    edge.send(50);
    edge.until_confirmed(50);
    assert_eq!(consume(&vhost.stomp_url(), "unrouted", QUIET).numbers(), (0..50).collect());
    edge.end();
}

#[test]
fn beacons_go_over_tls_with_a_certificate_of_our_own() {
    let vhost = vhost();
    declare(&vhost);
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(files.path().join(name), text).unwrap();
        files.path().join(name).display().to_string()
    };
    let client = AUTHORITY.client();
    let [ca, certificate, key] =
        [("ca", &*AUTHORITY.pem()), ("cert", &client.certificate), ("key", &client.key)]
            .map(|(name, pem)| file(name, pem));
    let trusting = [("BEACON_EDGE__DESTINATIONS__MAIN__CA_FILE", &*ca)];
    let edge = Edge::start(&vhost.stomp_tls_url(), "/amq/queue/beacons", &trusting);
    until("no certificate", || edge.readiness().1.contains("TLS did not come about (TLS: the server"));
    drop(edge);
    let identified = [
        trusting[0],
        ("BEACON_EDGE__DESTINATIONS__MAIN__CLIENT_CERT_FILE", &certificate),
        ("BEACON_EDGE__DESTINATIONS__MAIN__CLIENT_KEY_FILE", &key),
    ];
    let edge = Edge::start(&vhost.stomp_tls_url(), "/amq/queue/beacons", &identified);
    edge.send(100);
    edge.until_confirmed(100);
    assert_eq!(consume(&vhost.stomp_url(), QUEUE, QUIET).numbers(), (0..100).collect());
    edge.end();
}

#[test]
fn an_alarm_is_seen_within_two_heart_beats_waited_for_and_over_at_once() {
    const HEART_BEAT: Duration = Duration::from_secs(1);
    let node = Node::start().unwrap();
    let vhost = node.new_vhost().unwrap();
    declare(&vhost);
    let mut edge = Edge::start(&vhost.stomp_url(), "/amq/queue/beacons", &[]);
    let http = edge.http;
    let mut sent = 0;
    let mut send = |count: u64| {
        let mut browser = Browser::connect(http).unwrap();
        for _ in 0..count {
            assert!(matches!(browser.beacon(sent, false).unwrap(), 200));
            sent += 1;
            // Apart, so that they do not travel in the one read that the broker may still do.
            thread::sleep(Duration::from_millis(5));
        }
        sent
    };
    let total = send(50);
    edge.until_confirmed(total);
    edge.program.line_with("the broker takes messages");
    let made = edge.value("connections_made_total");
    type Alarm = fn(&Node, bool) -> Result<(), rabbitmq_node::Error>;
    let alarms: [(&str, Alarm); 2] = [("memory", Node::set_memory_alarm), ("disk", Node::set_disk_alarm)];
    for (name, alarm) in alarms {
        alarm(&node, true).unwrap();
        let begun = Instant::now();
        send(200);
        until("told", || {
            let (status, reasons) = edge.readiness();
            status == 503 && reasons.contains("a memory or disk alarm")
        });
        let seen = begun.elapsed();
        // Beacons are taken meanwhile, and several heart-beats later the connections are the same.
        let total = send(200);
        thread::sleep(HEART_BEAT * 3);
        assert_eq!(edge.readiness().0, 503);
        assert_eq!(edge.value("connections_made_total"), made, "{name}: reconnected into an alarm");
        assert_conserved(&scrape(edge.admin));
        alarm(&node, false).unwrap();
        let cleared = Instant::now();
        edge.until_confirmed(total);
        println!(
            "{name} alarm: seen {seen:.1?} after it was raised, all confirmed {:.1?} after",
            cleared.elapsed()
        );
        until("ready", || edge.readiness().0 == 200);
        edge.program.line_with("the broker takes messages");
    }
    assert_eq!(edge.value("connection_failures_total"), 0);
    assert_eq!(consume(&vhost.stomp_url(), QUEUE, QUIET).numbers(), (0..sent).collect());
    let log = edge.end();
    assert_eq!(lines(&log, "it takes nothing: a memory or disk alarm").len(), 2, "{log}");
    assert_eq!(lines(&log, "the broker takes messages").len(), 3, "{log}");
}
