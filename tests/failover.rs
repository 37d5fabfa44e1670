//! Three RabbitMQ nodes and a quorum queue: what the loss of a node, and its silence, cost.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

#[allow(dead_code)] // this binary uses a part
#[path = "../stomp/tests/support/proxy.rs"]
mod proxy;
mod support;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use beacon_edge::{Edge, metrics::DestinationReading};
use proxy::{Down, Proxy, Up};
use rabbitmq_node::{Cluster, Node, QueueKind, QueueOptions};
use support::{Browser, Consumed, LIMIT, assert_conserved, config, consume, drive_gently, scrape, until};

const VHOST: &str = "failover";
const QUEUE: &str = "beacons";
const QUIET: Duration = Duration::from_secs(2);
/// A generous bound for what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(10);

/// The cluster, behind a proxy for each node.
struct Site {
    cluster: Cluster,
    proxies: Vec<Proxy>,
    _runtime: tokio::runtime::Runtime,
}

impl Site {
    fn start() -> Self {
        let cluster = Cluster::start(&Node::builder(), 3).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let start = |node: &Node| runtime.block_on(Proxy::start(node.stomp_addr()));
        let proxies = cluster.nodes().iter().map(start).collect();
        for node in cluster.nodes() {
            drop(node.vhost(VHOST).unwrap());
        }
        let vhost = cluster.nodes()[0].vhost(VHOST).unwrap();
        vhost.declare_queue(QUEUE, &QueueOptions::of_kind(QueueKind::Quorum)).unwrap();
        cluster.flush().unwrap();
        Self { cluster, proxies, _runtime: runtime }
    }

    /// An edge with a connection to each node.
    fn edge(&self) -> Edge {
        let url = |proxy: &Proxy| format!("stomp://guest:guest@{}/{VHOST}", proxy.address());
        let brokers = format!("{:?}", self.proxies.iter().map(url).collect::<Vec<_>>());
        let edge = Edge::start(&config(&[
            ("BEACON_EDGE__DESTINATIONS__MAIN__BROKERS", &*brokers),
            ("BEACON_EDGE__DESTINATIONS__MAIN__DESTINATION", "/amq/queue/beacons"),
            ("BEACON_EDGE__DESTINATIONS__MAIN__CONNECTIONS", "3"),
            ("BEACON_EDGE__DESTINATIONS__MAIN__HEART_BEAT", "1s"),
            // A test build on a slow machine must not overflow: the subject is what the brokers lose.
            ("BEACON_EDGE__DESTINATIONS__MAIN__RING__OVERFLOW", "reject"),
        ]))
        .unwrap();
        until("spread evenly", || self.spread(&edge) == [1, 1, 1]);
        edge
    }

    /// Connections by node.
    fn spread(&self, edge: &Edge) -> Vec<usize> {
        read(edge).brokers.iter().map(|broker| broker.connections).collect()
    }

    fn accepted(&self) -> Vec<u64> {
        self.proxies.iter().map(|proxy| proxy.counts().accepted).collect()
    }

    /// Everything in the queue.
    fn consume(&self) -> Consumed {
        let node = self.cluster.nodes().iter().find(|node| node.pid().is_some()).unwrap();
        consume(&node.vhost(VHOST).unwrap().stomp_url(), QUEUE, QUIET)
    }
}

fn read(edge: &Edge) -> DestinationReading {
    edge.read("main").unwrap()
}

/// Ends the driver when a test fails, which would wait for it otherwise.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for it and says how long that took.
fn time_to(what: &str, holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    until(what, holds);
    begun.elapsed()
}

/// What was answered arrived, each once or with its duplicates under one id.
fn judge(answered: &BTreeSet<u64>, consumed: &Consumed, read: &DestinationReading) {
    let missing: Vec<_> = answered.difference(&consumed.numbers()).copied().collect();
    assert!(missing.is_empty(), "{} accepted beacons are missing, {:?} …", missing.len(), missing.first());
    assert_eq!(&consumed.numbers(), answered);
    assert!(consumed.beacons.values().all(|ids| ids.len() == 1));
    assert_eq!(read.beacons.dropped_total(), 0);
    let repeated: u64 = consumed.batches.values().map(|times| times - 1).sum();
    assert!(
        repeated <= read.totals.resent,
        "{repeated} batches came twice, {} were resent",
        read.totals.resent
    );
    println!(
        "  {} beacons, none lost; {} batches sent again, {repeated} came twice",
        answered.len(),
        read.totals.resent
    );
}

/// One cluster for all of it: its start is what takes time.
#[test]
fn the_loss_and_the_silence_of_a_node_lose_nothing() {
    let site = Site::start();
    a_killed_leader(&site);
    a_black_hole(&site);
}

/// SIGKILL of the node that leads the queue, under load; and its return.
fn a_killed_leader(site: &Site) {
    let edge = site.edge();
    let admin = edge.admin_addr().unwrap();
    let leader = site.cluster.leader(VHOST, QUEUE).unwrap();
    let stop = AtomicBool::new(false);
    let answered = thread::scope(|scope| {
        let driving = scope.spawn(|| drive_gently(edge.http_addr(), &stop));
        let _stops = StopOnDrop(&stop);
        until("well under way", || read(&edge).beacons.confirmed > 2_000);
        let before = site.accepted();
        // What the edge sees of a host that dies: its connections end and new ones are refused.
        site.proxies[leader].refuse(true);
        site.cluster.nodes()[leader].kill().unwrap();
        let (killed, owed) = (Instant::now(), read(&edge).beacons.accepted);
        let moved = time_to("elsewhere", || {
            let spread = site.spread(&edge);
            spread[leader] == 0 && spread.iter().sum::<usize>() == 3
        });
        assert!(moved < SOON, "{moved:?}");
        // Until the queue has another leader RabbitMQ refuses what was on its way to the old one, and closes the
        // connections to the other nodes too, without a word: they are made anew.
        let flows = time_to("taken by the others", || {
            Browser::get(admin, "/readyz").unwrap().0 == 200 && read(&edge).beacons.confirmed > owed + 500
        });
        println!(
            "node {leader}, the leader, killed: connections elsewhere after {moved:.0?}, what was owed is confirmed {flows:.1?} later"
        );
        let other = (leader + 1) % 3;
        assert_ne!(site.cluster.leader(VHOST, QUEUE).unwrap(), leader);

        // No storm: the others take the connections, some of them twice; the dead one sees a probe now and then.
        while killed.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(50));
        }
        let extra: Vec<u64> = site.accepted().iter().zip(&before).map(|(now, then)| now - then).collect();
        assert!(extra[other] + extra[(leader + 2) % 3] <= 20, "{extra:?}");
        let tried = site.proxies[leader].counts().refused;
        assert!(tried <= 20, "{tried} attempts at the dead node in {:?}", killed.elapsed());

        site.cluster.nodes()[leader].start_again().unwrap();
        site.proxies[leader].refuse(false);
        let back = time_to("spread evenly again", || site.spread(&edge) == [1, 1, 1]);
        println!(
            "  {tried} attempts at it while it was dead, {extra:?} at all; spread evenly {back:.1?} after its return"
        );
        assert!(read(&edge).totals.rebalanced >= 1);
        let confirmed = read(&edge).beacons.confirmed;
        until("delivered over all", || read(&edge).beacons.confirmed > confirmed + 1_000);
        stop.store(true, Ordering::Relaxed);
        driving.join().unwrap()
    });
    finish(site, edge, &answered);
}

/// A node that neither answers nor closes: found out by its heart-beats.
fn a_black_hole(site: &Site) {
    site.cluster.wait_until_whole().unwrap();
    let edge = site.edge();
    let silent = 0;
    let stop = AtomicBool::new(false);
    let answered = thread::scope(|scope| {
        let driving = scope.spawn(|| drive_gently(edge.http_addr(), &stop));
        let _stops = StopOnDrop(&stop);
        until("well under way", || read(&edge).beacons.confirmed > 2_000);
        let before = site.accepted();
        for direction in [Up, Down] {
            site.proxies[silent].hole_for_all(direction, true);
        }
        let moved = time_to("elsewhere", || {
            let spread = site.spread(&edge);
            spread[silent] == 0 && spread.iter().sum::<usize>() == 3
        });
        println!("a black hole: left after {moved:.1?}, with heart-beats of 1 s");
        // Twice the period, and what a loaded machine adds.
        assert!(moved >= Duration::from_secs(1) && moved < SOON, "{moved:?}");
        let confirmed = read(&edge).beacons.confirmed;
        until("confirmed by the others", || read(&edge).beacons.confirmed > confirmed + 1_000);
        // Each attempt there takes until the connect timeout; there is one at a time.
        let tried = site.accepted()[silent] - before[silent];
        assert!(tried <= 5, "{tried} attempts at the silent node");
        site.proxies[silent].heal();
        let back = time_to("spread evenly again", || site.spread(&edge) == [1, 1, 1]);
        println!("  spread evenly {back:.1?} after it was healed");
        stop.store(true, Ordering::Relaxed);
        driving.join().unwrap()
    });
    finish(site, edge, &answered);
}

fn finish(site: &Site, edge: Edge, answered: &BTreeSet<u64>) {
    until("all confirmed", || {
        let seen = read(&edge).beacons;
        seen.confirmed == seen.accepted
    });
    assert_conserved(&scrape(edge.admin_addr().unwrap()));
    let last = read(&edge);
    assert!(edge.shutdown(LIMIT).is_clean());
    judge(answered, &site.consume(), &last);
}
