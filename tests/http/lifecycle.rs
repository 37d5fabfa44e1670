//! Starting, stopping, and how many connections there may be.

use std::io;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use beacon_edge::config::{HttpConfig, Reply};
use beacon_edge::http::{HttpError, HttpServer};
use beacon_edge::ring::Overflow;
use serde_json::Value;

use crate::edge::{Client, Edge, PATIENCE, beacons, config, ring, route, wait_until};

#[test]
fn a_second_server_on_the_port_is_refused_unless_both_share_it() {
    let edge = Edge::start();
    let address = edge.server.local_addr();
    let again = |share_port| HttpConfig { listen: address, share_port, ..config() };
    let refused = HttpServer::start(&again(false), Vec::new()).unwrap_err();
    assert!(
        matches!(&refused, HttpError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    );
    let text = refused.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("http.share_port = true"), "{text}");
    edge.is_alive();
    let other = HttpServer::start(&again(true), Vec::new()).unwrap();
    assert_eq!(other.local_addr(), address);
}

/// No other test of this program binds its workers.
#[cfg(target_os = "linux")]
#[test]
fn workers_that_are_pinned_stay_on_one_core_each() {
    let edge = Edge::with(|http| (http.workers, http.pin_workers) = (2, true));
    edge.is_alive();
    let allowed = |name: &str| -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let named = tasks.filter_map(|task| {
            // A thread of another test may end at any moment.
            let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let field = |key| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
            (field("Name:")? == name).then(|| field("Cpus_allowed_list:").unwrap().to_owned())
        });
        named.collect()
    };
    for worker in ["http-0", "http-1"] {
        let cores = allowed(worker);
        assert!(cores.iter().any(|list| list.parse::<usize>().is_ok()), "{worker}: {cores:?}");
    }
}

#[test]
fn a_ledger_with_too_few_lanes_is_refused() {
    let ring = ring(1, Overflow::DropNewest);
    let routes = vec![route("b", "/b", Reply::Empty, &[&ring])];
    let error = HttpServer::start(&HttpConfig { workers: 3, ..config() }, routes).unwrap_err();
    assert!(matches!(error, HttpError::Lanes { lanes: 2, workers: 3 }), "{error}");
}

#[test]
fn connections_beyond_the_bound_are_closed_and_counted() {
    let edge = Edge::with(|http| (http.workers, http.max_connections) = (1, 3));
    // Busy ones: they keep their places.
    let mut busy = [(); 3].map(|()| edge.connect());
    for client in &mut busy {
        client.send("POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n");
    }
    wait_until("three are open", || {
        edge.stats().connections_open == 3 && edge.stats().connections_parked == 0
    });
    edge.connect().rest();
    assert_eq!((edge.stats().connections_refused, edge.stats().connections_open), (1, 3));
    for client in &mut busy {
        client.send("x");
        assert_eq!(client.answer().status, 204);
    }
}

#[test]
fn idle_connections_make_room_for_new_ones() {
    let edge = Edge::with(|http| (http.workers, http.max_connections) = (1, 3));
    let mut idle = [(); 3].map(|()| edge.connect());
    wait_until("three are parked", || edge.stats().connections_parked == 3);
    edge.is_alive();
    assert_eq!((edge.stats().connections_evicted, edge.stats().connections_refused), (1, 0));
    idle[0].is_closed();
    idle[1].send("GET /b HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(idle[1].answer().status, 204);
}

#[test]
fn shutdown_answers_what_is_in_flight_and_closes_the_idle() {
    let edge = Edge::start();
    let address = edge.server.local_addr();
    let mut parked = edge.connect();
    let mut warm = edge.connect();
    warm.send("GET /b HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(warm.answer().status, 204);
    let mut held = edge.connect();
    held.send("POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nab");
    let mut halfway = edge.connect();
    halfway.send("GET /b?halfway HT");
    wait_until("all are there", || edge.stats().connections == 4 && edge.stats().connections_parked == 1);

    let server = edge.server;
    let stopping = thread::spawn(move || {
        let began = Instant::now();
        (server.shutdown(PATIENCE), began.elapsed())
    });
    parked.is_closed();
    warm.is_closed();
    wait_until("nobody listens", || TcpStream::connect(address).is_err());
    held.send("c");
    halfway.send("TP/1.1\r\nhost: x\r\n\r\n");
    for client in [&mut held, &mut halfway] {
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (204, true));
        client.is_closed();
    }
    let (report, took) = stopping.join().unwrap();
    assert_eq!(report.cut, 0);
    assert!(took < PATIENCE / 2, "{took:?}");
    assert_eq!(beacons(&edge.beacon).len(), 3, "all that was answered is on the ring");
}

#[test]
fn shutdown_cuts_what_is_left_at_the_deadline() {
    let edge = Edge::start();
    let mut held = edge.connect();
    held.send("POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nab");
    let mut idle = edge.connect();
    wait_until("both are there", || edge.stats().connections == 2 && edge.stats().connections_parked == 1);
    let began = Instant::now();
    assert_eq!(edge.server.shutdown(Duration::from_millis(300)).cut, 1);
    assert!((300..2000).contains(&(began.elapsed().as_millis() as u64)), "{:?}", began.elapsed());
    held.is_closed();
    idle.is_closed();
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new());
}

#[test]
fn no_request_is_reset_by_a_shutdown_under_load() {
    let edge = Edge::with(|http| http.max_connections = 100);
    let address = edge.server.local_addr();
    let clients = (0..8).map(|_| {
        thread::spawn(move || {
            let (mut client, mut answered) = (Client::connect(address), 0_u64);
            loop {
                client.send("GET /b HTTP/1.1\r\nhost: x\r\n\r\n");
                let answer = client.answer();
                assert_eq!(answer.status, 204);
                answered += 1;
                if answer.closes() {
                    client.is_closed();
                    return answered;
                }
            }
        })
    });
    let clients = clients.collect::<Vec<_>>();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(edge.server.shutdown(PATIENCE).cut, 0);
    let answered = clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>();
    assert_eq!(edge.beacon.ledger().snapshot().accepted, answered);
    assert!(answered > 100, "{answered}");
}
