//! Any octets: none are lost, none kill a worker.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::Shutdown;

use base64::Engine as _;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::edge::{Edge, beacons, hasty, wait_until};

fn cases(n: u32) -> TestRunner {
    TestRunner::new(Config { cases: n, failure_persistence: None, ..Config::default() })
}

#[test]
fn any_body_comes_back_from_its_line() {
    let edge = Edge::start();
    let client = RefCell::new(edge.connect());
    let octets =
        prop_oneof![proptest::collection::vec(any::<u8>(), 0..3000), any::<String>().prop_map(String::into)];
    let ua = proptest::collection::vec(prop_oneof![0x20_u8..0x7F, 0x80_u8..], 0..100);
    cases(300)
        .run(&(octets, ua), |(body, ua)| {
            let head = format!("POST /b HTTP/1.1\r\ncontent-length: {}\r\nuser-agent: ", body.len());
            let mut client = client.borrow_mut();
            client.send([head.as_bytes(), &ua, b"\r\n\r\n", &body].concat());
            assert_eq!(client.answer().status, 204);
            let [seen] = &beacons(&edge.beacon)[..] else { panic!("not one beacon") };
            let octets = |key: &str| {
                let text = seen.get(key).map_or("", |text| text.as_str().unwrap());
                if seen.get(format!("{key}_b64")).is_some() {
                    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
                } else {
                    text.as_bytes().to_vec()
                }
            };
            prop_assert_eq!(octets("body"), body);
            // Blanks around a header's value are not part of it.
            prop_assert_eq!(octets("ua"), ua.trim_ascii());
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_octets_leave_the_workers_alive() {
    let edge = Edge::with(|http| {
        hasty(http);
        http.workers = 1;
    });
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::sample::select(vec![
            "GET /b HTTP/1.1\r\n",
            "POST /b HTTP/1.1\r\n",
            "host: x\r\n",
            "content-length: 5\r\n",
            "content-length: 0\r\n",
            "transfer-encoding: chunked\r\n",
            "expect: 100-continue\r\n",
            "connection: close\r\n",
            "upgrade: x\r\n",
            "\r\n",
            "\n",
            "5\r\nabcde\r\n",
            "0\r\n\r\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    cases(400)
        .run(&(proptest::collection::vec(piece, 0..12), any::<bool>()), |(pieces, is_abrupt)| {
            let mut client = edge.connect();
            for piece in &pieces {
                // It may have been refused already.
                if client.socket.write_all(piece).is_err() {
                    break;
                }
            }
            if !is_abrupt && client.socket.shutdown(Shutdown::Write).is_ok() {
                // Answers and the end, or a reset if it sent on after a refusal.
                while client.more().is_ok_and(|n| n > 0) {}
            }
            for seen in beacons(&edge.beacon) {
                prop_assert_eq!(&seen["route"], "beacon");
            }
            Ok(())
        })
        .unwrap();
    edge.is_alive();
    wait_until("all others are gone", || edge.stats().connections_open == 0);
}
