//! The main job on a real RabbitMQ: beacons in over HTTP, every one of them accounted for in a queue.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use beacon_edge::{Edge, ledger::Snapshot};
use rabbitmq_node::{Node, QueueOptions, shared};
use support::{
    Browser, LIMIT, assert_conserved, brokers, config, consume, drive, drive_gently, scrape, until,
};

const QUEUE: &str = "beacons";
const DESTINATION: (&str, &str) = ("BEACON_EDGE__DESTINATIONS__MAIN__DESTINATION", "/amq/queue/beacons");
const QUIET: Duration = Duration::from_secs(2);

fn edge(url: &str, more: &[(&str, &str)]) -> Edge {
    let (name, value) = brokers(url);
    let overrides: Vec<(&str, &str)> =
        [DESTINATION, (name, &value)].into_iter().chain(more.iter().copied()).collect();
    Edge::start(&config(&overrides)).unwrap()
}

fn beacons(edge: &Edge) -> Snapshot {
    edge.read("main").unwrap().beacons
}

#[test]
fn two_hundred_thousand_beacons_arrive_exactly() {
    const COUNT: u64 = 200_000;
    let vhost = shared().new_vhost().unwrap();
    vhost.declare_queue(QUEUE, &QueueOptions::default()).unwrap();
    // A test build on a slow machine must not overflow: the subject here is exactness.
    let edge = edge(&vhost.stomp_url(), &[("BEACON_EDGE__DESTINATIONS__MAIN__RING__OVERFLOW", "reject")]);
    let (http, admin) = (edge.http_addr(), edge.admin_addr().unwrap());
    until("ready", || Browser::get(admin, "/readyz").unwrap().0 == 200);

    let done = AtomicBool::new(false);
    let answered = thread::scope(|scope| {
        let scraping = scope.spawn(|| {
            let mut scrapes = 0;
            while !done.load(Ordering::Relaxed) {
                assert_conserved(&scrape(admin));
                scrapes += 1;
                thread::sleep(Duration::from_millis(20));
            }
            scrapes
        });
        let answered = drive(http, COUNT, 16, &AtomicBool::new(false));
        done.store(true, Ordering::Relaxed);
        assert!(scraping.join().unwrap() > 5, "the metrics were not read under load");
        answered
    });
    assert_eq!(answered.len() as u64, COUNT);

    until("all confirmed", || beacons(&edge).confirmed == COUNT);
    let metrics = scrape(admin);
    assert_conserved(&metrics);
    let value = |name: &str| metrics[name] as u64;
    assert_eq!(value("beacon_edge_beacons_accepted_total{destination=\"main\"}"), COUNT);
    assert_eq!(value("beacon_edge_beacons_confirmed_total{destination=\"main\"}"), COUNT);
    assert_eq!(value("beacon_edge_batch_beacons_sum{destination=\"main\"}"), COUNT);
    let posts = COUNT.div_ceil(3);
    assert_eq!(value("beacon_edge_http_responses_total{status=\"204\"}"), posts);
    assert_eq!(value("beacon_edge_http_responses_total{status=\"200\"}"), COUNT - posts);
    let batches = value("beacon_edge_batches_confirmed_total{destination=\"main\"}");
    assert_eq!(value("beacon_edge_batch_beacons_count{destination=\"main\"}"), batches);
    assert_eq!(vhost.queue_depth(QUEUE).unwrap(), batches);

    let consumed = consume(&vhost.stomp_url(), QUEUE, QUIET);
    assert_eq!(consumed.numbers(), answered);
    assert_eq!(consumed.duplicates(), 0);
    assert_eq!(consumed.batches.len() as u64, batches);
    assert!(batches * 2 < COUNT, "nothing was packed: {batches} batches");
    let report = edge.shutdown(LIMIT);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn one_beacon_a_message_when_asked_for() {
    let vhost = shared().new_vhost().unwrap();
    vhost.declare_queue(QUEUE, &QueueOptions::default()).unwrap();
    let edge = edge(&vhost.stomp_url(), &[("BEACON_EDGE__DESTINATIONS__MAIN__BATCH__MAX_BEACONS", "1")]);
    let answered = drive(edge.http_addr(), 2000, 8, &AtomicBool::new(false));
    until("all confirmed", || beacons(&edge).confirmed == 2000);
    assert_eq!(vhost.queue_depth(QUEUE).unwrap(), 2000);
    assert_eq!(consume(&vhost.stomp_url(), QUEUE, QUIET).numbers(), answered);
    assert!(edge.shutdown(LIMIT).is_clean());
}

#[test]
fn the_default_destination_declares_its_own_durable_queue() {
    let vhost = shared().new_vhost().unwrap();
    let (name, value) = brokers(&vhost.stomp_url());
    let edge = Edge::start(&config(&[(name, &value)])).unwrap();
    let answered = drive(edge.http_addr(), 100, 4, &AtomicBool::new(false));
    until("all confirmed", || beacons(&edge).confirmed == 100);
    // Declaring it again as durable would fail if it were anything else.
    vhost.declare_queue(QUEUE, &QueueOptions::default()).unwrap();
    assert_eq!(consume(&vhost.stomp_url(), QUEUE, QUIET).numbers(), answered);
    assert!(edge.shutdown(LIMIT).is_clean());
}

#[test]
fn a_broker_killed_and_restarted_in_the_middle_loses_nothing() {
    kill_and_restart(&[], 500);
}

#[test]
fn with_a_spool_an_outage_may_be_longer_than_the_ring() {
    const RING: u64 = 8_000;
    let dir = tempfile::tempdir().unwrap();
    let ring = RING.to_string();
    let spool = [
        ("BEACON_EDGE__SPOOL__DIR", dir.path().to_str().unwrap()),
        ("BEACON_EDGE__SPOOL__MIN_FREE_BYTES", "0"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__RING__OVERFLOW", "spool"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__RING__MAX_BEACONS", &ring),
        ("BEACON_EDGE__DESTINATIONS__MAIN__SPOOL__AFTER", "50ms"),
    ];
    kill_and_restart(&spool, 2 * RING);
}

/// Kills RabbitMQ under load and starts it again when so many beacons more have been answered.
fn kill_and_restart(more: &[(&str, &str)], meanwhile: u64) {
    let node = Node::start().unwrap();
    let vhost = node.new_vhost().unwrap();
    vhost.declare_queue(QUEUE, &QueueOptions::default()).unwrap();
    let edge = edge(&vhost.stomp_url(), more);
    let (http, admin) = (edge.http_addr(), edge.admin_addr().unwrap());
    until("ready", || Browser::get(admin, "/readyz").unwrap().0 == 200);

    let stop = AtomicBool::new(false);
    let answered = thread::scope(|scope| {
        let driving = scope.spawn(|| drive_gently(http, &stop));
        until("well under way", || beacons(&edge).confirmed > 2_000);
        node.kill().unwrap();
        until("noticed", || Browser::get(admin, "/readyz").unwrap().0 == 503);
        let before = beacons(&edge).accepted;
        until("answered meanwhile", || beacons(&edge).accepted > before + meanwhile);
        assert_eq!(beacons(&edge).spooled > 0, !more.is_empty());
        node.start_again().unwrap();
        let (again, confirmed) = (beacons(&edge).accepted, beacons(&edge).confirmed);
        until("delivering again", || beacons(&edge).confirmed > confirmed.max(again));
        stop.store(true, Ordering::Relaxed);
        driving.join().unwrap()
    });
    until("all confirmed", || {
        let seen = beacons(&edge);
        seen.confirmed + seen.dropped_total() == seen.accepted
    });
    assert_conserved(&scrape(admin));
    let read = edge.read("main").unwrap();
    assert_eq!(read.beacons.spooled, 0);
    assert_eq!(read.beacons.dropped_total(), 0, "the ring overflowed: {:?}", read.beacons);
    assert_eq!(read.beacons.accepted, answered.len() as u64);

    let consumed = consume(&vhost.stomp_url(), QUEUE, QUIET);
    let missing: Vec<_> = answered.difference(&consumed.numbers()).copied().collect();
    assert!(missing.is_empty(), "{} accepted beacons are missing, {:?} …", missing.len(), missing.first());
    assert_eq!(consumed.numbers(), answered);
    // Duplicates carry the same id, so that a consumer can drop them; their batches do too.
    assert!(consumed.beacons.values().all(|ids| ids.len() == 1));
    let repeated: u64 = consumed.batches.values().map(|times| times - 1).sum();
    assert!(
        repeated <= read.totals.resent,
        "{repeated} batches came twice, {} were sent twice",
        read.totals.resent
    );
    println!(
        "{} beacons through a SIGKILL of the broker: {} duplicates in {repeated} batches; {} batches sent again",
        answered.len(),
        consumed.duplicates(),
        read.totals.resent
    );
    assert!(edge.shutdown(LIMIT).is_clean());
}

#[test]
fn an_absent_broker_delays_and_a_late_one_is_found() {
    let node = Node::start().unwrap();
    let vhost = node.new_vhost().unwrap();
    vhost.declare_queue(QUEUE, &QueueOptions::default()).unwrap();
    // In good order: the subject is its absence, not what a crash does to a queue that was just declared.
    node.stop().unwrap();

    let edge = edge(&vhost.stomp_url(), &[]);
    let (http, admin) = (edge.http_addr(), edge.admin_addr().unwrap());
    let answered = drive(http, 300, 4, &AtomicBool::new(false));
    assert_eq!(answered.len(), 300);
    assert_eq!(Browser::get(admin, "/healthz").unwrap(), (200, "alive\n".to_owned()));
    until("the reason is told", || {
        let (status, reasons) = Browser::get(admin, "/readyz").unwrap();
        assert_eq!(status, 503);
        reasons.contains("destination main has no broker that takes messages") && reasons.contains("refused")
    });
    assert_conserved(&scrape(admin));
    assert_eq!(beacons(&edge).pending(), 300);

    node.start_again().unwrap();
    until("ready by itself", || Browser::get(admin, "/readyz").unwrap().0 == 200);
    until("all confirmed", || beacons(&edge).confirmed == 300);
    assert_eq!(consume(&vhost.stomp_url(), QUEUE, QUIET).numbers(), answered);
    assert!(edge.shutdown(LIMIT).is_clean());
}
