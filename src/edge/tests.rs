//! The whole edge with a disk that hangs, which only a test of the library can make it do.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
};

use stompwire::broker::Broker;

use super::*;
use crate::spool::State;

/// Longer than any step takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Two routes, `/plain` and `/spooled`, to one destination, which therefore writes ahead.
fn edge(url: &str, dir: &Path) -> Edge {
    let text = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [spool]\ndir = {dir:?}\nmin_free_bytes = 0\n\
         [routes.plain]\npath = \"/plain\"\nreply = \"empty\"\n\
         [routes.spooled]\npath = \"/spooled\"\nreply = \"empty\"\nack = \"spooled\"\nack_timeout = \"100ms\"\n\
         [destinations.main]\nbrokers = [{url:?}]\nbatch.max_beacons = 1\ndead_letter_dir = {dir:?}\n"
    );
    let file = dir.join("edge.toml");
    std::fs::write(&file, text).unwrap();
    Edge::start(&Config::load(Some(&file), std::iter::empty()).unwrap()).unwrap()
}

/// The head of the answer to one beacon.
fn send(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: edge\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.to_ascii_lowercase()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn while_the_disk_hangs_the_edge_answers_and_what_it_waited_for_goes_to_the_broker() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = runtime.block_on(Broker::builder().start()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(&broker.url(), dir.path());
    let http = edge.http_addr();
    let beacons = || edge.read("main").unwrap().beacons;
    let state = || edge.read("main").unwrap().spool.unwrap().state;
    let spool = edge.destinations[0].spool.clone().unwrap();
    let spooled = |answer: &str| answer.contains("x-beacon-status: spooled");
    // The first connection may take longer than an answer waits.
    // What is answered may be in the spool alone still, which is not pending.
    let all_is_confirmed = || {
        let seen = beacons();
        seen.confirmed == seen.accepted
    };
    until("all is well", || spooled(&send(http, "/spooled")));
    until("and all of it is at the broker", all_is_confirmed);
    let before = beacons().confirmed;

    let disk = spool.hang();
    // More than are in hand at once.
    for _ in 0..100 {
        assert!(send(http, "/plain").starts_with("http/1.1 204"));
    }
    assert!(send(http, "/spooled").starts_with("http/1.1 503"), "not promised, at its timeout");
    assert_eq!(beacons().confirmed, before, "all wait for the disk");
    // Ten seconds: after that the broker is no longer kept waiting.
    until("at the broker", || beacons().confirmed == before + 101);
    assert!(matches!(state(), State::Failing(reason) if reason.contains("does not answer")));
    assert!(send(http, "/spooled").starts_with("http/1.1 503"));
    for _ in 0..100 {
        assert!(send(http, "/plain").starts_with("http/1.1 204"));
    }
    // But for the one with which the disk is asked.
    until("at the broker without waiting", || beacons().confirmed >= before + 201);

    drop(disk);
    until("the disk answers", || state() == State::Working && spooled(&send(http, "/spooled")));
    until("all is confirmed", || all_is_confirmed() && spool.level().batches == 0);
    let seen = beacons();
    assert_eq!((seen.confirmed, seen.dropped_total()), (seen.accepted, 0), "{seen:?}");
    drop(spool);
    assert!(edge.shutdown(LIMIT).is_clean());
    runtime.block_on(broker.shutdown());
}
