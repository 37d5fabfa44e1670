//! A destination with a spool: outages, restarts, shutdowns, a full spool, a disk that fails. The account must hold in each,
//! and every accepted beacon must be at the broker in the end, from the disk if need be.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use std::{collections::BTreeSet, fs, path::Path, sync::atomic::AtomicBool, time::Duration};

use beacon_edge::{
    Edge,
    ledger::{DropReason, Snapshot},
    spool::State,
};
use stompwire::broker::Which;
use support::{
    Browser, LIMIT, TestBroker, assert_conserved, brokers, config, drive, program::Program, scrape, until,
};

const RING: u64 = 1_000;
/// For a shutdown that has nothing to wait for.
const SHORT: Duration = Duration::from_secs(2);

fn edge(broker: &TestBroker, dir: &Path, more: &[(&str, &str)]) -> Edge {
    let ((name, url), ring) = (brokers(&broker.url()), RING.to_string());
    let dir = dir.to_str().unwrap();
    let mut overrides = vec![
        (name, url.as_str()),
        ("BEACON_EDGE__SPOOL__DIR", dir),
        ("BEACON_EDGE__SPOOL__MIN_FREE_BYTES", "0"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__DEAD_LETTER_DIR", dir),
        ("BEACON_EDGE__DESTINATIONS__MAIN__RING__OVERFLOW", "spool"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__RING__MAX_BEACONS", &ring),
        ("BEACON_EDGE__DESTINATIONS__MAIN__SPOOL__AFTER", "20ms"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__BATCH__MAX_BEACONS", "10"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__CONNECTIONS", "1"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__BACKOFF_MAX", "100ms"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__HEART_BEAT", "1s"),
    ];
    overrides.extend(more);
    Edge::start(&config(&overrides)).unwrap()
}

fn beacons(edge: &Edge) -> Snapshot {
    edge.read("main").unwrap().beacons
}

fn is_ready(edge: &Edge) -> bool {
    Browser::get(edge.admin_addr().unwrap(), "/readyz").unwrap().0 == 200
}

/// Numbers from `first`, over one connection, all taken.
fn send(edge: &Edge, first: u64, count: u64) {
    let mut browser = Browser::connect(edge.http_addr()).unwrap();
    for seq in first..first + count {
        assert!([200, 204].contains(&browser.beacon(seq, seq % 3 == 0).unwrap()));
    }
}

fn numbers(first: u64, count: u64) -> BTreeSet<u64> {
    (first..first + count).collect()
}

/// All is confirmed and nothing is left in the spool's file.
fn is_drained(edge: &Edge) -> bool {
    let read = edge.read("main").unwrap();
    let seen = read.beacons;
    seen.confirmed == seen.accepted + seen.recovered && read.spool.unwrap().level.batches == 0
}

#[test]
fn an_outage_drains_the_ring_to_disk_and_all_of_it_arrives_afterwards_oldest_first() {
    const COUNT: u64 = 5_000;
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    let edge = edge(&broker, dir.path(), &[]);
    let admin = edge.admin_addr().unwrap();
    until("ready", || is_ready(&edge));
    send(&edge, 0, 100);
    until("confirmed", || beacons(&edge).confirmed == 100);

    broker.go();
    until("the broker is missed", || !is_ready(&edge));
    // Ten times the ring: what does not overflow must be on disk.
    for first in (100..COUNT).step_by(100) {
        send(&edge, first, 100);
        until("the ring is empty", || beacons(&edge).on_ring == 0);
    }
    until("all on disk", || beacons(&edge).spooled == COUNT - 100);
    assert_conserved(&scrape(admin));
    let level = edge.read("main").unwrap().spool.unwrap().level;
    assert_eq!(level.beacons, COUNT - 100);
    assert!(Browser::get(admin, "/").unwrap().1.contains("<h2>Spools</h2>"));

    broker.come_back();
    until("drained", || is_drained(&edge));
    let metrics = scrape(admin);
    assert_conserved(&metrics);
    assert_eq!(metrics["beacon_edge_spool_appends_total{destination=\"main\"}"] as u64, level.batches);
    let (consumed, order) = broker.consumed();
    assert_eq!(consumed.numbers(), numbers(0, COUNT));
    assert_eq!(consumed.duplicates(), 0, "nothing was in flight");
    assert!(order.is_sorted(), "not oldest first: {order:?}");
    assert!(edge.shutdown(LIMIT).is_clean());
}

#[test]
fn what_was_in_flight_when_the_broker_went_may_come_twice_and_is_never_lost() {
    const COUNT: u64 = 20_000;
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    let bounds = [
        ("BEACON_EDGE__DESTINATIONS__MAIN__WINDOW_FRAMES", "16"),
        // The subject is the broker: this ring never overflows.
        ("BEACON_EDGE__DESTINATIONS__MAIN__RING__MAX_BEACONS", "20000"),
    ];
    let edge = edge(&broker, dir.path(), &bounds);
    until("ready", || is_ready(&edge));
    let stop = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let driving = scope.spawn(|| drive(edge.http_addr(), COUNT, 4, &stop));
        for part in 1..4 {
            until("some more", || beacons(&edge).accepted > part * COUNT / 5);
            broker.go();
            until("it goes to disk", || beacons(&edge).spooled > 0);
            assert_conserved(&scrape(edge.admin_addr().unwrap()));
            broker.come_back();
        }
        driving.join().unwrap()
    });
    assert_eq!(answered.len() as u64, COUNT);
    until("drained", || is_drained(&edge) || beacons(&edge).dropped_total() > 0);
    let read = edge.read("main").unwrap();
    assert_eq!(read.beacons.dropped_total(), 0, "{:?}", read.beacons);
    let (consumed, _) = broker.consumed();
    assert_eq!(consumed.numbers(), answered);
    let resent = read.totals.resent;
    assert!(consumed.duplicates() <= resent * 10, "{} of {resent} batches", consumed.duplicates());
    assert!(edge.shutdown(LIMIT).is_clean());
}

#[test]
fn a_shutdown_without_a_broker_puts_everything_away_and_the_next_run_sends_it() {
    const COUNT: u64 = 400;
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    broker.go();
    // Longer than the test: nothing is on disk before the shutdown.
    let patient = [("BEACON_EDGE__DESTINATIONS__MAIN__SPOOL__AFTER", "60s")];
    let first = edge(&broker, dir.path(), &patient);
    send(&first, 0, COUNT);
    assert_eq!(beacons(&first).spooled, 0);
    let report = first.shutdown(SHORT);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.in_spool(), COUNT, "{report}");
    assert!(report.took < SHORT, "{:?}", report.took);

    let second = edge(&broker, dir.path(), &[]);
    assert_conserved(&scrape(second.admin_addr().unwrap()));
    assert_eq!((beacons(&second).recovered, beacons(&second).spooled), (COUNT, COUNT));
    broker.come_back();
    until("drained", || is_drained(&second));
    let (consumed, order) = broker.consumed();
    assert_eq!((consumed.numbers(), consumed.duplicates()), (numbers(0, COUNT), 0));
    assert!(order.is_sorted(), "not oldest first: {order:?}");
    let report = second.shutdown(LIMIT);
    assert!(report.is_clean() && report.in_spool() == 0, "{report}");
}

#[test]
fn what_was_sent_and_not_receipted_at_the_shutdown_is_put_away_too() {
    const COUNT: u64 = 100;
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    broker.faults().withhold_receipts(Which::All);
    let first = edge(&broker, dir.path(), &[]);
    send(&first, 0, COUNT);
    until("it is at the broker", || broker.consumed().1.len() as u64 == COUNT);
    let report = first.shutdown(SHORT);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.in_spool(), COUNT, "{report}");

    broker.faults().clear();
    let second = edge(&broker, dir.path(), &[]);
    until("drained", || is_drained(&second));
    let (consumed, _) = broker.consumed();
    assert_eq!(consumed.numbers(), numbers(0, COUNT));
    assert_eq!(consumed.duplicates(), COUNT, "the same ids, so that consumers can tell");
    assert!(second.shutdown(LIMIT).is_clean());
}

#[test]
fn what_is_in_flight_without_a_broker_is_on_disk_as_well_until_it_is_confirmed() {
    const COUNT: u64 = 100;
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    broker.faults().withhold_receipts(Which::All);
    let edge = edge(&broker, dir.path(), &[]);
    let admin = edge.admin_addr().unwrap();
    until("ready", || is_ready(&edge));
    send(&edge, 0, COUNT);
    until("it is at the broker", || broker.consumed().1.len() as u64 == COUNT);
    broker.go();
    let in_file = || edge.read("main").unwrap().spool.unwrap().level.beacons;
    until("it is in the file", || in_file() == COUNT);
    let seen = beacons(&edge);
    assert_eq!((seen.in_flight, seen.spooled), (COUNT, 0), "the publisher sends it, not the spool");
    assert_conserved(&scrape(admin));
    // What is fresh goes there too, and is sent from there.
    send(&edge, COUNT, COUNT);
    until("all in the file", || in_file() == 2 * COUNT && beacons(&edge).spooled == COUNT);
    assert_conserved(&scrape(admin));

    broker.faults().clear();
    until("drained", || is_drained(&edge));
    let metrics = scrape(admin);
    assert_conserved(&metrics);
    let total = |what| metrics[&format!("beacon_edge_spool_{what}_total{{destination=\"main\"}}")];
    assert_eq!(total("appends"), total("removes"));
    let (consumed, _) = broker.consumed();
    assert_eq!(consumed.numbers(), numbers(0, 2 * COUNT));
    assert_eq!(consumed.duplicates(), COUNT, "what was in flight, once more with the same ids");
    let report = edge.shutdown(LIMIT);
    assert!(report.is_clean() && report.in_spool() == 0, "{report}");
}

#[test]
fn fresh_batches_go_before_the_backlog() {
    const COUNT: u64 = 1_000;
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    broker.go();
    let share = [
        ("BEACON_EDGE__DESTINATIONS__MAIN__SPOOL__DRAIN_SHARE", "0.05"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__WINDOW_FRAMES", "20"),
    ];
    let edge = edge(&broker, dir.path(), &share);
    for first in (0..COUNT).step_by(100) {
        send(&edge, first, 100);
        until("on disk", || beacons(&edge).spooled == first + 100);
    }
    // One message of the backlog at a time, and each takes a while: draining needs more than 100 of them.
    broker.faults().delay_receipts(Duration::from_millis(10));
    broker.come_back();
    until("draining", || (1..COUNT / 2).contains(&beacons(&edge).confirmed));
    let read = edge.read("main").unwrap();
    assert!(read.lanes[0].in_flight <= 1, "more than the share: {:?}", read.lanes);
    send(&edge, COUNT, 1);
    until("drained", || is_drained(&edge));
    let (consumed, order) = broker.consumed();
    assert_eq!(consumed.numbers(), numbers(0, COUNT + 1));
    let at = order.iter().position(|&seq| seq == COUNT).unwrap();
    assert!(at < COUNT as usize - 10, "the fresh beacon came {at}th");
    assert!(edge.shutdown(LIMIT).is_clean());
}

#[test]
fn a_full_spool_leaves_the_ring_to_its_policy_and_takes_again_when_there_is_room() {
    for (overflow, reason) in [("drop_newest", Some(DropReason::RingFull)), ("reject", None)] {
        let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
        broker.go();
        let bounds = [
            ("BEACON_EDGE__DESTINATIONS__MAIN__SPOOL__MAX_BYTES", "1MiB"),
            ("BEACON_EDGE__DESTINATIONS__MAIN__SPOOL__OVERFLOW", overflow),
        ];
        let edge = edge(&broker, dir.path(), &bounds);
        let mut browser = Browser::connect(edge.http_addr()).unwrap();
        let (mut taken, mut seq) = (BTreeSet::new(), 0);
        until("the bound", || {
            for seq in seq..seq + 100 {
                if browser.beacon(seq, false).unwrap() == 200 {
                    taken.insert(seq);
                }
            }
            seq += 100;
            let seen = beacons(&edge);
            seen.rejected + seen.dropped_total() > 100
        });
        let read = edge.read("main").unwrap();
        assert_eq!(read.spool.as_ref().unwrap().state, State::Full, "{overflow}");
        assert!(read.spool.as_ref().unwrap().level.octets <= 1 << 20);
        assert!(read.beacons.spooled > 0 && read.beacons.on_ring <= RING);
        let dropped = reason.map_or(0, |reason| read.beacons.dropped_for(reason));
        assert_eq!(read.beacons.dropped_total(), dropped, "{overflow}: {:?}", read.beacons);
        let metrics = scrape(edge.admin_addr().unwrap());
        assert_conserved(&metrics);
        assert_eq!(metrics["beacon_edge_spool_state{destination=\"main\",state=\"full\"}"], 1.0);

        broker.come_back();
        until("all that was kept arrives", || {
            let read = edge.read("main").unwrap();
            let (seen, spool) = (read.beacons, read.spool.unwrap());
            seen.confirmed + seen.dropped_total() == seen.accepted && spool.state == State::Working
        });
        let (consumed, _) = broker.consumed();
        let lost = beacons(&edge).dropped_total();
        assert_eq!(consumed.beacons.len() as u64, taken.len() as u64 - lost, "{overflow}");
        assert!(consumed.numbers().is_subset(&taken));
        assert_eq!(consumed.duplicates(), 0);
        assert!(edge.shutdown(LIMIT).is_clean());
    }
}

#[test]
fn a_directory_that_cannot_be_used_leaves_an_edge_that_works_without_a_spool() {
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    let file = dir.path().join("a file, not a directory");
    fs::write(&file, "x").unwrap();
    let edge = edge(&broker, &file, &[]);
    until("ready", || is_ready(&edge));
    until("the spool fails", || matches!(edge.read("main").unwrap().spool.unwrap().state, State::Failing(_)));
    send(&edge, 0, 100);
    until("confirmed", || beacons(&edge).confirmed == 100);
    broker.go();
    until("the broker is missed", || !is_ready(&edge));
    send(&edge, 100, 5 * RING);
    let seen = beacons(&edge);
    assert!(seen.dropped_for(DropReason::RingFull) > 0, "the ring's policy: {seen:?}");
    assert_eq!(seen.dropped_for(DropReason::RingFull), seen.dropped_total());
    assert_conserved(&scrape(edge.admin_addr().unwrap()));
    broker.come_back();
    until("confirmed", || beacons(&edge).pending() == 0);
    let seen = beacons(&edge);
    assert_eq!(seen.confirmed + seen.dropped_total(), seen.accepted);
    assert_eq!(broker.consumed().0.beacons.len() as u64, seen.confirmed);
    assert!(edge.shutdown(LIMIT).is_clean());
}

#[test]
fn a_poisoned_batch_becomes_a_dead_letter_and_leaves_the_spool() {
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    broker.faults().poison(Some(b"seq=13&"));
    let one_by_one = [
        ("BEACON_EDGE__DESTINATIONS__MAIN__BATCH__MAX_BEACONS", "1"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__MAX_ATTEMPTS", "3"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__BACKOFF_MIN", "1ms"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__BACKOFF_MAX", "10ms"),
    ];
    let edge = edge(&broker, dir.path(), &one_by_one);
    let mut browser = Browser::connect(edge.http_addr()).unwrap();
    let mut seq = 0;
    // Others go on being confirmed, so it is not the broker that is at fault.
    until("it is given up", || {
        assert_eq!(browser.beacon(seq, false).unwrap(), 200);
        seq += 1;
        seq > 20 && beacons(&edge).dropped_for(DropReason::DeadLettered) == 1
    });
    until("the others arrive", || {
        let read = edge.read("main").unwrap();
        read.beacons.confirmed == seq - 1 && read.spool.unwrap().level.batches == 0
    });
    assert_conserved(&scrape(edge.admin_addr().unwrap()));
    let letters = fs::read_to_string(dir.path().join("main.ndjson")).unwrap();
    assert_eq!(letters.matches("seq=13&").count(), 1, "{letters}");
    let mut expected = numbers(0, seq);
    expected.remove(&13);
    assert_eq!(broker.consumed().0.numbers(), expected);
    assert!(edge.shutdown(LIMIT).is_clean());
}

/// The program with this broker and a spool in `dir`.
fn program(broker: &TestBroker, dir: &Path, key: (&str, &str)) -> Program {
    let (name, url) = brokers(&broker.url());
    Program::start(&[
        (name, &url),
        ("BEACON_EDGE__SPOOL__DIR", dir.to_str().unwrap()),
        ("BEACON_EDGE__SPOOL__MIN_FREE_BYTES", "0"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__SPOOL__AFTER", "20ms"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__BACKOFF_MAX", "100ms"),
        key,
    ])
}

#[test]
fn the_log_tells_when_spooling_begins_what_is_left_and_when_all_is_sent() {
    const COUNT: u64 = 50;
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    broker.go();
    let overflow = ("BEACON_EDGE__DESTINATIONS__MAIN__RING__OVERFLOW", "spool");
    let mut first = program(&broker, dir.path(), overflow);
    let (http, _) = first.addresses();
    assert_eq!(drive(http, COUNT, 1, &AtomicBool::new(false)).len() as u64, COUNT);
    first.line_with("no broker takes messages: beacons go to the spool until one does");
    first.signal("TERM");
    let (code, log) = first.end();
    assert!(code == 0 && log.contains("nothing was lost: 50 beacons are in the spool"), "{code}: {log}");
    assert_eq!(log.matches("go to the spool").count(), 1, "{log}");

    broker.come_back();
    let mut second = program(&broker, dir.path(), overflow);
    assert!(second.line_with("the spool holds beacons of an earlier run").contains("beacons=50"));
    assert!(second.line_with("the spool is drained").contains("beacons=50"));
    second.signal("TERM");
    let (code, log) = second.end();
    assert!(code == 0 && log.contains("50 recovered, 50 confirmed"), "{code}: {log}");
    assert_eq!(broker.consumed().0.numbers(), numbers(0, COUNT));
}

#[test]
fn what_was_answered_as_spooled_survives_kill_9() {
    const COUNT: u64 = 50;
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    broker.go();
    let promise = ("BEACON_EDGE__ROUTES__BEACON__ACK", "spooled");
    let mut first = program(&broker, dir.path(), promise);
    let mut browser = Browser::connect(first.addresses().0).unwrap();
    for seq in 0..COUNT {
        assert_eq!(browser.beacon(seq, true).unwrap(), 204);
    }
    // SIGKILL, the moment after the last answer.
    drop(first);

    let second = program(&broker, dir.path(), promise);
    broker.come_back();
    until("all are there", || broker.consumed().0.beacons.len() as u64 == COUNT);
    let (consumed, _) = broker.consumed();
    assert_eq!((consumed.numbers(), consumed.duplicates()), (numbers(0, COUNT), 0));
    second.signal("TERM");
    let (code, log) = second.end();
    assert_eq!(code, 0, "{log}");
}

#[test]
fn what_was_in_flight_survives_kill_9_once_it_is_copied() {
    const COUNT: u64 = 500;
    // A broker that has gone, and one that is there and confirms nothing.
    for goes in [true, false] {
        let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
        broker.faults().withhold_receipts(Which::All);
        let overflow = ("BEACON_EDGE__DESTINATIONS__MAIN__RING__OVERFLOW", "spool");
        let mut first = program(&broker, dir.path(), overflow);
        let (http, admin) = first.addresses();
        assert_eq!(drive(http, COUNT, 4, &AtomicBool::new(false)).len() as u64, COUNT);
        until("it is at the broker", || broker.consumed().1.len() as u64 == COUNT);
        let batches = broker.peek("beacons", usize::MAX).len() as f64;
        if goes {
            broker.go();
        }
        let appends = "beacon_edge_spool_appends_total{destination=\"main\"}";
        until("it is on disk", || scrape(admin)[appends] == batches);
        // SIGKILL. And the broker has lost what it had not confirmed.
        drop(first);
        broker.faults().clear();
        broker.purge("beacons");

        let second = program(&broker, dir.path(), overflow);
        until("all are there", || broker.consumed().0.beacons.len() as u64 == COUNT);
        assert_eq!(broker.consumed().0.numbers(), numbers(0, COUNT));
        second.signal("TERM");
        let (code, log) = second.end();
        assert!(code == 0 && log.contains("500 recovered, 500 confirmed"), "{code}: {log}");
    }
}
