//! What happens at the bound of the ring, with a broker that takes nothing. The account must hold in each policy.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use std::sync::atomic::AtomicBool;

use beacon_edge::{Edge, ledger::DropReason};
use support::{Browser, LIMIT, assert_conserved, config, drive, scrape, until};

const RING: u64 = 500;
const SENT: u64 = 5_000;

fn edge(overflow: &str) -> Edge {
    let ring = RING.to_string();
    Edge::start(&config(&[
        // The port of tcpmux: nobody is there.
        ("BEACON_EDGE__DESTINATIONS__MAIN__BROKERS", "[\"stomp://127.0.0.1:1/\"]"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__WINDOW_FRAMES", "1"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__CONNECTIONS", "1"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__BATCH__MAX_BEACONS", "10"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__RING__MAX_BEACONS", &ring),
        ("BEACON_EDGE__DESTINATIONS__MAIN__RING__OVERFLOW", overflow),
    ]))
    .unwrap()
}

#[test]
fn dropping_answers_everybody_and_counts_every_drop() {
    for (overflow, reason) in [("drop_newest", DropReason::RingFull), ("drop_oldest", DropReason::Evicted)] {
        let edge = edge(overflow);
        let answered = drive(edge.http_addr(), SENT, 8, &AtomicBool::new(false));
        assert_eq!(answered.len() as u64, SENT, "{overflow}: everybody gets the usual answer");
        let read = edge.read("main").unwrap();
        let dropped = read.beacons.dropped_for(reason);
        assert_eq!(read.beacons.accepted, SENT);
        assert_eq!(dropped, read.beacons.dropped_total(), "{overflow}: another reason was counted");
        // Ring, the batcher's hands, the short channel and the window: that is all there is.
        assert!(dropped >= SENT - RING - 5 * 10, "{overflow}: {:?}", read.beacons);
        assert!(read.beacons.on_ring <= RING, "{overflow}: {:?}", read.beacons);
        assert_conserved(&scrape(edge.admin_addr().unwrap()));
        let report = edge.shutdown(std::time::Duration::from_millis(200));
        assert!(!report.is_clean());
        let (_, last) = &report.destinations[0];
        assert_eq!((last.pending(), last.accepted, last.dropped_total()), (0, SENT, SENT), "{report}");
    }
}

#[test]
fn rejecting_tells_the_client_and_drops_nothing() {
    let edge = edge("reject");
    let (http, admin) = (edge.http_addr(), edge.admin_addr().unwrap());
    let mut browser = Browser::connect(http).unwrap();
    let statuses: Vec<u16> = (0..1_000).map(|seq| browser.beacon(seq, seq % 2 == 0).unwrap()).collect();
    let refused = statuses.iter().filter(|&&status| status == 503).count() as u64;
    // Five batches are beyond the ring: in the window, before it, two between, one in the batcher's hands.
    assert!((1_000 - RING - 5 * 10..1_000).contains(&refused), "{refused}");
    assert!(statuses.iter().all(|status| [200, 204, 503].contains(status)));
    let beacons = edge.read("main").unwrap().beacons;
    assert_eq!((beacons.rejected, beacons.accepted, beacons.dropped_total()), (refused, 1_000 - refused, 0));
    assert_conserved(&scrape(admin));
    edge.shutdown(std::time::Duration::from_millis(200));
}

#[test]
fn room_comes_back_when_the_broker_does() {
    use stompwire::broker::Broker;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = runtime.block_on(Broker::builder().start()).unwrap();
    broker.faults().stop_reading(true);
    let url = format!("[{:?}]", broker.url());
    let edge = Edge::start(&config(&[
        ("BEACON_EDGE__DESTINATIONS__MAIN__BROKERS", &url),
        ("BEACON_EDGE__DESTINATIONS__MAIN__WINDOW_FRAMES", "1"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__BATCH__MAX_BEACONS", "10"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__RING__MAX_BEACONS", "100"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__RING__OVERFLOW", "reject"),
    ]))
    .unwrap();
    let mut browser = Browser::connect(edge.http_addr()).unwrap();
    let mut seq = 0;
    until("full", || {
        seq += 1;
        browser.beacon(seq, false).unwrap() == 503
    });
    broker.faults().stop_reading(false);
    until("taking again", || {
        seq += 1;
        browser.beacon(seq, false).unwrap() == 200
    });
    let report = edge.shutdown(LIMIT);
    assert!(report.is_clean(), "{report}");
    runtime.block_on(broker.shutdown());
}
