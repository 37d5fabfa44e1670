//! What an answer promises, and what it says when that cannot be kept.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use beacon_edge::{Config, Edge, ledger::Snapshot};
use support::{Browser, LIMIT, TestBroker, assert_conserved, scrape, until};

/// Long enough that no answer comes by it.
const NEVER: &str = "120s";
const SOON: &str = "150ms";

/// The default routes with this `ack` each (the pixel, the other), on destinations at these brokers.
struct Setup<'a> {
    acks: [&'a str; 2],
    timeout: &'a str,
    brokers: &'a [(&'a str, &'a TestBroker)],
    /// Lines for every destination.
    more: &'a str,
    dir: &'a Path,
}

impl Setup<'_> {
    fn start(&self) -> Edge {
        let names: Vec<String> = self.brokers.iter().map(|(name, _)| format!("{name:?}")).collect();
        let route = |name: &str, path: &str, reply: &str, ack: &str| {
            format!(
                "[routes.{name}]\npath = {path:?}\nreply = {reply:?}\nack = {ack:?}\nack_timeout = {:?}\n\
                 destinations = [{}]\n",
                self.timeout,
                names.join(", ")
            )
        };
        let destination = |(name, broker): &(&str, &TestBroker)| {
            format!(
                "[destinations.{name}]\nbrokers = [{:?}]\nbackoff_max = \"100ms\"\nheart_beat = \"1s\"\n\
                 spool.after = \"20ms\"\n{}\n",
                broker.url(),
                self.more
            )
        };
        let mut text = format!(
            "[http]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [spool]\ndir = {:?}\nmin_free_bytes = 0\n",
            self.dir.join("spool")
        );
        text.push_str(&route("pixel", "/b.gif", "gif", self.acks[0]));
        text.push_str(&route("beacon", "/b", "empty", self.acks[1]));
        text.push_str(&route("plain", "/plain", "empty", "accepted"));
        text.extend(self.brokers.iter().map(destination));
        let file = self.dir.join("edge.toml");
        fs::write(&file, text).unwrap();
        Edge::start(&Config::load(Some(&file), std::iter::empty()).unwrap()).unwrap()
    }
}

/// An answer: status, `X-Beacon-Status`, `Retry-After`, head, body.
#[derive(Debug)]
struct Answer {
    status: u16,
    beacon: Option<String>,
    retry_after: Option<String>,
    head: String,
    body: String,
}

fn ask(edge: &Edge, request: &str) -> Answer {
    let (head, body) = Browser::connect(edge.http_addr()).unwrap().ask(request).unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(ToOwned::to_owned)
    };
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        beacon: header("x-beacon-status"),
        retry_after: header("retry-after"),
        head,
        body,
    }
}

const COMMON: &str = "host: edge\r\nuser-agent: Mozilla/5.0 (test)\r\nreferer: https://shop.example/\u{fc}\r\norigin: https://shop.example\r\n";

fn get(seq: u64) -> String {
    format!("GET /b.gif?seq={seq}&kind=get HTTP/1.1\r\n{COMMON}\r\n")
}

fn post(seq: u64) -> String {
    let body = format!("{{\"seq\":{seq}}}");
    format!("POST /b?seq={seq}&kind=post HTTP/1.1\r\n{COMMON}content-length: {}\r\n\r\n{body}", body.len())
}

fn beacons(edge: &Edge, name: &str) -> Snapshot {
    edge.read(name).unwrap().beacons
}

fn is_ready(edge: &Edge) -> bool {
    Browser::get(edge.admin_addr().unwrap(), "/readyz").unwrap().0 == 200
}

/// Answers of this level, by outcome: kept, lost, timed out.
fn acks(edge: &Edge, level: &str) -> [u64; 3] {
    let metrics = scrape(edge.admin_addr().unwrap());
    let outcomes = ["kept", "lost", "timed_out"].map(|outcome| {
        metrics[&format!("beacon_edge_acks_total{{level={level:?},outcome={outcome:?}}}")] as u64
    });
    let waited = metrics[&format!("beacon_edge_ack_seconds_count{{level={level:?}}}")] as u64;
    assert_eq!(waited, outcomes.iter().sum::<u64>());
    outcomes
}

fn assert_kept(answer: &Answer, status: u16, level: &str) {
    assert_eq!((answer.status, answer.beacon.as_deref()), (status, Some(level)), "{answer:?}");
    assert!(answer.head.contains("access-control-expose-headers: x-beacon-status, retry-after\r\n"));
    assert!(answer.head.contains("cache-control: no-store"), "{answer:?}");
    assert_eq!(answer.retry_after, None);
}

/// A POST is told to come again, an image is not.
fn assert_not_kept(post: &Answer, get: &Answer) {
    let says = |answer: &Answer| (answer.status, answer.beacon.clone(), answer.retry_after.clone());
    let unconfirmed = Some("unconfirmed".to_owned());
    assert_eq!(says(post), (503, unconfirmed.clone(), Some("1".to_owned())), "{post:?}");
    assert_eq!(says(get), (200, unconfirmed, None), "{get:?}");
    assert!(get.body.starts_with("GIF89a") && get.head.contains("content-length: 43\r\n"), "{get:?}");
}

#[test]
fn an_answer_is_given_when_what_it_promises_is_so() {
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    let brokers = [("main", &broker)];
    for level in ["spooled", "confirmed"] {
        let dir = dir.path().join(level);
        fs::create_dir(&dir).unwrap();
        let edge = Setup { acks: [level; 2], timeout: NEVER, brokers: &brokers, more: "", dir: &dir }.start();
        until("ready", || is_ready(&edge));
        broker.purge("beacons");
        let head = get(0).replace("GET", "HEAD").replace("b.gif?seq=0", "b?seq=0");
        let chunked = "POST /b?seq=4&kind=post HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\n\
                       transfer-encoding: chunked\r\n\r\n9\r\n{\"seq\":4}\r\n0\r\n\r\n";
        for (n, (request, status)) in
            [(get(1), 200), (post(2), 204), (head, 204), (chunked.to_owned(), 204)].into_iter().enumerate()
        {
            let answer = ask(&edge, &request);
            assert_kept(&answer, status, level);
            // By the time of the answer, not some time later.
            if level == "confirmed" {
                assert_eq!(broker.peek("beacons", 10).len(), n + 1);
            } else {
                let read = edge.read("main").unwrap();
                assert_eq!(read.spool.unwrap().appends, n as u64 + 1);
            }
        }
        let plain = ask(&edge, &post(5).replace("/b?", "/plain?"));
        assert_eq!((plain.status, plain.beacon), (204, None), "this route does not wait");
        assert!(!plain.head.contains("expose-headers"));
        assert_eq!(acks(&edge, level), [4, 0, 0]);
        until("all confirmed", || beacons(&edge, "main").confirmed == 5);
        assert!(edge.shutdown(LIMIT).is_clean());
    }
}

#[test]
fn without_a_broker_spooled_is_kept_and_confirmed_is_not() {
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    broker.go();
    let brokers = [("main", &broker)];
    let setup =
        Setup { acks: ["confirmed", "spooled"], timeout: SOON, brokers: &brokers, more: "", dir: dir.path() };
    let edge = setup.start();
    assert_kept(&ask(&edge, &post(0)), 204, "spooled");
    let began = Instant::now();
    let image = ask(&edge, &get(1));
    assert!(began.elapsed() >= Duration::from_millis(150));
    assert_not_kept(&ask(&edge, &post(2).replace("/b?", "/b.gif?")), &image);
    assert_eq!((acks(&edge, "spooled"), acks(&edge, "confirmed")), ([1, 0, 0], [0, 0, 2]));
    assert_conserved(&scrape(edge.admin_addr().unwrap()));
    // They arrive nevertheless.
    broker.come_back();
    until("all confirmed", || beacons(&edge, "main").confirmed == 3);
    assert_eq!(broker.peek("beacons", 10).len(), 3);
    assert!(edge.shutdown(LIMIT).is_clean());
}

#[test]
fn an_outage_shorter_than_the_timeout_is_only_waited_for_with_a_spool_or_without() {
    for more in ["", "ring.overflow = \"spool\""] {
        let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
        broker.go();
        let brokers = [("main", &broker)];
        let setup =
            Setup { acks: ["confirmed"; 2], timeout: NEVER, brokers: &brokers, more, dir: dir.path() };
        let edge = setup.start();
        thread::scope(|scope| {
            let waiting = [post(0), get(1)].map(|request| {
                let edge = &edge;
                scope.spawn(move || ask(edge, &request))
            });
            until("they wait", || {
                let seen = beacons(&edge, "main");
                seen.accepted == 2 && (more.is_empty() || seen.spooled == 2)
            });
            assert_eq!(acks(&edge, "confirmed"), [0; 3]);
            broker.come_back();
            let [posted, got] = waiting.map(|waiting| waiting.join().unwrap());
            assert_kept(&posted, 204, "confirmed");
            assert_kept(&got, 200, "confirmed");
        });
        assert!(edge.shutdown(LIMIT).is_clean());
    }
}

#[test]
fn what_is_dropped_is_told_at_once() {
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    broker.go();
    let brokers = [("main", &broker)];
    let more = "ring.max_beacons = 1\nbatch.max_beacons = 1\nwindow_frames = 1\nconnections = 1";
    let edge =
        Setup { acks: ["confirmed"; 2], timeout: NEVER, brokers: &brokers, more, dir: dir.path() }.start();
    let mut seq = 0;
    until("the ring is full", || {
        seq += 1;
        ask(&edge, &post(seq).replace("/b?", "/plain?"));
        beacons(&edge, "main").dropped_total() > 0
    });
    let began = Instant::now();
    assert_not_kept(&ask(&edge, &post(1000)), &ask(&edge, &get(1001)));
    assert!(began.elapsed() < LIMIT, "not by the timeout");
    assert_eq!(acks(&edge, "confirmed"), [0, 2, 0]);
    edge.shutdown(Duration::from_millis(100));
}

#[test]
fn a_spool_that_takes_nothing_breaks_its_promise_and_not_the_delivery() {
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("spool"), "a file, where the directory should be").unwrap();
    let brokers = [("main", &broker)];
    let edge =
        Setup { acks: ["spooled"; 2], timeout: NEVER, brokers: &brokers, more: "", dir: dir.path() }.start();
    until("only the spool speaks against it", || {
        let (status, reasons) = Browser::get(edge.admin_addr().unwrap(), "/readyz").unwrap();
        status == 503
            && reasons.contains("its spool takes nothing: Not a directory")
            && !reasons.contains("no broker")
    });
    assert_not_kept(&ask(&edge, &post(0)), &ask(&edge, &get(1)));
    assert_eq!(acks(&edge, "spooled"), [0, 2, 0]);
    until("confirmed", || beacons(&edge, "main").confirmed == 2);
    assert_eq!(broker.peek("beacons", 10).len(), 2);
    assert_conserved(&scrape(edge.admin_addr().unwrap()));
    assert!(edge.shutdown(LIMIT).is_clean());
}

#[test]
fn a_full_spool_answers_503_until_there_is_room() {
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    broker.go();
    let brokers = [("main", &broker)];
    let more = "spool.max_bytes = \"1MiB\"";
    let edge =
        Setup { acks: ["spooled"; 2], timeout: NEVER, brokers: &brokers, more, dir: dir.path() }.start();
    let body = "x".repeat(60_000);
    let long = format!("POST /b HTTP/1.1\r\n{COMMON}content-length: {}\r\n\r\n{body}", body.len());
    let mut kept = 0;
    until("the bound", || {
        let answer = ask(&edge, &long);
        kept += u64::from(answer.status == 204);
        answer.status == 503
    });
    assert!(kept > 3, "{kept}");
    assert_eq!(acks(&edge, "spooled")[0], kept);
    assert_eq!(acks(&edge, "spooled")[2], 0, "not by the timeout");
    broker.come_back();
    until("kept again", || ask(&edge, &long).status == 204);
    until("all arrives", || beacons(&edge, "main").confirmed == beacons(&edge, "main").accepted);
    assert!(edge.shutdown(LIMIT).is_clean());
}

#[test]
fn the_answer_waits_for_every_destination() {
    let (near, far, dir) = (TestBroker::start(), TestBroker::start(), tempfile::tempdir().unwrap());
    far.go();
    let brokers = [("near", &near), ("far", &far)];
    let setup = Setup { acks: ["confirmed"; 2], timeout: "1s", brokers: &brokers, more: "", dir: dir.path() };
    let edge = setup.start();
    assert_not_kept(&ask(&edge, &post(0)), &ask(&edge, &get(1)));
    assert_eq!((beacons(&edge, "near").confirmed, beacons(&edge, "far").confirmed), (2, 0));
    far.come_back();
    until("both", || beacons(&edge, "far").confirmed == 2);
    assert_kept(&ask(&edge, &post(2)), 204, "confirmed");
    assert!(edge.shutdown(LIMIT).is_clean());
}

#[test]
fn waiting_holds_up_nobody_and_a_shutdown_answers_in_time() {
    const WAITING: u64 = 50;
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    broker.go();
    let brokers = [("main", &broker)];
    // One worker for all of them.
    let setup =
        Setup { acks: ["confirmed"; 2], timeout: NEVER, brokers: &brokers, more: "", dir: dir.path() };
    let edge = setup.start();
    let address = edge.http_addr();
    thread::scope(|scope| {
        let wait = |seq| Browser::connect(address).unwrap().ask(&post(seq)).unwrap();
        let waiting: Vec<_> = (0..WAITING).map(|seq| scope.spawn(move || wait(seq))).collect();
        until("they wait", || beacons(&edge, "main").accepted == WAITING);
        assert_eq!(ask(&edge, &post(1000).replace("/b?", "/plain?")).status, 204, "meanwhile");
        let report = edge.shutdown(Duration::from_secs(4));
        assert_eq!(report.connections_cut, 0);
        for waiting in waiting {
            let (head, _) = waiting.join().unwrap();
            assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("connection: close"), "{head}");
            assert!(head.contains("x-beacon-status: unconfirmed"), "{head}");
        }
    });
}
