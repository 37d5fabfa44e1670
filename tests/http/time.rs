//! Every wait has a limit, and idle connections go on.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::edge::{Edge, GIF, PATIENCE, beacons, hasty, wait_until};

/// Runs `wait` and checks that it took about as long as a limit.
fn takes(limit_millis: u64, wait: impl FnOnce()) {
    let began = Instant::now();
    wait();
    let took = began.elapsed().as_millis() as u64;
    assert!(
        (limit_millis * 9 / 10..limit_millis + 2000).contains(&took),
        "{took} ms for a limit of {limit_millis}"
    );
}

#[test]
fn a_slow_head_is_408_in_time_however_it_trickles() {
    let edge = Edge::with(hasty);
    let mut client = edge.connect();
    takes(300, || {
        client.send("GET /b HT");
        edge.is_alive();
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (408, true));
        assert_eq!(answer.text(), "the request's head did not arrive in time\n");
        client.is_closed();
    });
    // One octet now and then does not stretch the limit; neither does a first request that was in order.
    let mut client = edge.connect();
    client.send("GET /b HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(client.answer().status, 204);
    let mut socket = client.socket.try_clone().unwrap();
    let trickle = thread::spawn(move || {
        for octet in b"GET /b HTTP/1.1\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy" {
            if socket.write_all(&[*octet]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    takes(300, || {
        assert_eq!(client.answer().status, 408);
        client.is_closed();
    });
    client.socket.shutdown(Shutdown::Both).unwrap();
    trickle.join().unwrap();
    edge.counts(408, 2);
    assert_eq!(edge.stats().timeouts, 2);
}

#[test]
fn a_silent_connection_is_closed_in_time() {
    let edge = Edge::with(hasty);
    takes(300, || edge.connect().is_closed());
    // After an answer it is the idle time that counts.
    let mut client = edge.connect();
    client.send("GET /b HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(client.answer().status, 204);
    takes(800, || {
        edge.is_alive();
        client.is_closed();
    });
    edge.counts(408, 0);
}

#[test]
fn a_slow_body_is_408_in_time_however_it_trickles() {
    let edge = Edge::with(hasty);
    let chunked = "POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffff\r\na";
    for request in ["POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\na", chunked] {
        let mut client = edge.connect();
        let mut socket = client.socket.try_clone().unwrap();
        takes(300, || {
            client.send(request);
            edge.is_alive();
            let trickle = thread::spawn(move || {
                while socket.write_all(b"b").is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let answer = client.answer();
            assert_eq!((answer.status, answer.text()), (408, "the body did not arrive in time\n"));
            assert!(answer.closes());
            client.is_closed();
            client.socket.shutdown(Shutdown::Both).unwrap();
            trickle.join().unwrap();
        });
    }
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new());
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let edge = Edge::with(|http| http.body_timeout = Duration::from_secs(1));
    let mut client = edge.connect();
    client.socket.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    // Answers pile up in the sockets until the server can write no more, and so reads no more.
    let requests = "GET /b.gif HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    let (began, mut stalled) = (Instant::now(), None);
    loop {
        match client.socket.write(requests.as_bytes()) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stalled.get_or_insert_with(Instant::now);
            }
            Err(_) => break,
        }
        assert!(began.elapsed() < PATIENCE, "it is still connected");
    }
    let stalled: Instant = stalled.expect("the server read without end");
    assert!(stalled.elapsed() < Duration::from_secs(2), "cut after {:?}", stalled.elapsed());
    assert_eq!(edge.stats().timeouts, 1);
    beacons(&edge.pixel);
    edge.is_alive();
}

#[test]
fn a_connection_that_was_idle_goes_on() {
    // Half of the idle time is when hyper's connection is taken apart: before, between, and with half a request.
    let edge = Edge::with(|http| http.keep_alive_timeout = Duration::from_millis(400));
    let mut client = edge.connect();
    for (pause, requests) in [(0, 1), (250, 2), (100, 1), (250, 1)] {
        thread::sleep(Duration::from_millis(pause));
        for _ in 0..requests {
            client.send("GET /b.gif HTTP/1.1\r\nhost: x\r\n\r\n");
            assert_eq!(client.answer().body, GIF);
        }
    }
    assert_eq!(edge.stats().connections_parked, 0);
    client.send("GET /b.gif HTTP/1.1\r\nhost: x\r\n\r\nGET /b.gif?half HT");
    assert_eq!(client.answer().status, 200);
    thread::sleep(Duration::from_millis(250));
    client.send("TP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    assert_eq!(beacons(&edge.pixel).last().unwrap()["query"], "half");
    thread::sleep(Duration::from_millis(300));
    assert_eq!((edge.stats().connections_parked, edge.stats().connections_open), (1, 1));
}

#[test]
fn a_crowd_is_parked_at_once_and_served_all_the_same() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    if open_files.and_then(|soft| soft.parse::<u64>().ok()).is_none_or(|soft| soft < 4096) {
        eprintln!("skipped: needs 1200 open files and those of the tests beside it; raise ulimit -n");
        return;
    }
    // More than 512 warm connections a worker are parked without waiting for the idle time.
    let edge = Edge::with(|http| http.workers = 1);
    let mut crowd = (0..600).map(|_| edge.connect()).collect::<Vec<_>>();
    for _ in 0..2 {
        for client in &mut crowd {
            client.send("GET /b HTTP/1.1\r\nhost: x\r\n\r\n");
        }
        for client in &mut crowd {
            assert_eq!(client.answer().status, 204);
        }
    }
    wait_until("the crowd beyond 512 is parked", || edge.stats().connections_parked >= 88);
    assert_eq!(edge.stats().connections_open, 600);
    edge.counts(204, 1200);
}
