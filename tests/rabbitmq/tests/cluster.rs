//! Three nodes, a quorum queue with a member on each, and what is left of it without its leader.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::time::{Duration, Instant};

use rabbitmq_node::{Cluster, Node, QueueKind, QueueOptions};
use support::Stomp;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_quorum_queue_outlives_its_leader() {
    let begun = Instant::now();
    let cluster = Cluster::start(&Node::builder(), 3).unwrap();
    println!("three nodes: {:?}", begun.elapsed());
    let vhosts: Vec<_> = cluster.nodes().iter().map(|node| node.vhost("c").unwrap()).collect();
    vhosts[0].declare_queue("q", &QueueOptions::of_kind(QueueKind::Quorum)).unwrap();
    cluster.flush().unwrap();
    for vhost in &vhosts {
        Stomp::connect(vhost).send_and_await_receipt("/amq/queue/q", "x");
    }
    let leader = cluster.leader("c", "q").unwrap();
    cluster.nodes()[leader].kill().unwrap();
    let other = (leader + 1) % 3;
    let next = cluster.leader("c", "q").unwrap();
    assert_ne!(next, leader);
    vhosts[other].wait_for_depth("q", 3, SOON).unwrap();
    Stomp::connect(&vhosts[other]).send_and_await_receipt("/amq/queue/q", "y");

    let begun = Instant::now();
    cluster.nodes()[leader].start_again().unwrap();
    cluster.wait_until_whole().unwrap();
    println!("one of them again: {:?}", begun.elapsed());
    vhosts[leader].wait_for_depth("q", 4, SOON).unwrap();
    let pids: Vec<u32> = cluster.nodes().iter().flat_map(Node::processes).collect();
    assert!(pids.len() >= 12, "{pids:?}");
    drop(cluster);
    assert!(pids.iter().all(|pid| !support::is_running(*pid)), "{pids:?}");
}
