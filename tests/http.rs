//! The HTTP front over real sockets, octet by octet: what it answers, what it records, what it refuses, and that it
//! keeps answering others meanwhile. No broker: lines are read back from the rings.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "clippy.toml allows unwrap in tests, but not in their helpers; threads of tests need no names"
)]

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use beacon_edge::config::{HttpConfig, Reply};
use beacon_edge::http::{HttpError, HttpServer, HttpStatsSnapshot, Route, STATUSES};
use beacon_edge::ledger::Ledger;
use beacon_edge::ring::{Limits, Overflow, Ring};
use proptest::prelude::*;
use proptest::test_runner::{Config as ProptestConfig, TestRunner};
use serde_json::{Value, json};

/// No test waits longer than this for an octet.
const PATIENCE: Duration = Duration::from_secs(10);
const GIF: &[u8] =
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xFF\xFF\xFF\x21\xF9\x04\x01\0\0\0\0\x2C\0\0\0\0\x01\0\x01\0\0\
                     \x02\x02\x44\x01\0\x3B";

/// A server on a free port, with the default routes on one ring each.
struct Edge {
    server: HttpServer,
    pixel: Arc<Ring>,
    beacon: Arc<Ring>,
}

impl Edge {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut HttpConfig)) -> Self {
        let mut config = config();
        change(&mut config);
        let (pixel, beacon) = (ring(1000, Overflow::DropNewest), ring(1000, Overflow::DropNewest));
        let routes = vec![
            route("pixel", "/b.gif", Reply::Gif, &[&pixel]),
            route("beacon", "/b", Reply::Empty, &[&beacon]),
        ];
        Self { server: HttpServer::start(&config, routes).unwrap(), pixel, beacon }
    }

    fn connect(&self) -> Client {
        Client::connect(self.server.local_addr())
    }

    /// One request on a connection of its own, and its answer.
    fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    /// Another client is answered at once.
    fn is_alive(&self) {
        let began = Instant::now();
        let answer = self.ask("GET /b.gif?alive HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!((answer.status, &answer.body[..]), (200, GIF));
        assert!(began.elapsed() < Duration::from_secs(2), "another client waited for {:?}", began.elapsed());
        assert_eq!(beacons(&self.pixel).last().unwrap()["query"], "alive");
    }

    fn stats(&self) -> HttpStatsSnapshot {
        self.server.stats().snapshot()
    }

    /// So many answers had this status. A refusal by hyper is counted just after the client has it.
    fn counts(&self, status: u16, times: u64) {
        let index = STATUSES.iter().position(|known| *known == status).unwrap();
        wait_until(&format!("{times} answers with {status}"), || self.stats().responses[index] >= times);
        assert_eq!(self.stats().responses[index], times, "{status}");
    }
}

fn config() -> HttpConfig {
    HttpConfig { listen: ([127, 0, 0, 1], 0).into(), workers: 2, ..HttpConfig::default() }
}

fn ring(max_beacons: usize, overflow: Overflow) -> Arc<Ring> {
    Arc::new(Ring::new(Limits { max_beacons, max_bytes: 1 << 28 }, overflow, Arc::new(Ledger::new(2))))
}

fn route(name: &str, path: &str, reply: Reply, rings: &[&Arc<Ring>]) -> Route {
    let rings = rings.iter().map(|ring| Arc::clone(ring)).collect();
    Route { name: name.into(), path: path.into(), reply, rings }
}

/// The lines on a ring, each checked to be one line.
fn beacons(ring: &Ring) -> Vec<Value> {
    std::iter::from_fn(|| ring.try_take().ok())
        .map(|line| {
            ring.release(1, line.len());
            assert_eq!(line.iter().position(|octet| *octet == b'\n'), Some(line.len() - 1), "one line");
            serde_json::from_slice(&line).unwrap()
        })
        .collect()
}

struct Client {
    socket: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let find = |line: &'_ str| line.split_once(": ").is_some_and(|(key, _)| key == name);
        self.head.lines().find(|line| find(line)).map(|line| line.split_once(": ").unwrap().1)
    }

    fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, read: Vec::new() }
    }

    fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.socket.write_all(octets.as_ref()).unwrap();
    }

    /// The next answer to a request other than HEAD.
    fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.more().unwrap() > 0, "the connection ended within a body: {answer:?}");
        }
        answer.body = self.read.drain(..length).collect();
        answer
    }

    fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            let n = self.more().expect("an answer within the time");
            assert!(
                n > 0,
                "the connection ended before an answer; read: {:?}",
                String::from_utf8_lossy(&self.read)
            );
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).unwrap().parse().unwrap();
        Answer { status, head, body: Vec::new() }
    }

    /// The server closes, without another octet.
    fn is_closed(&mut self) {
        assert_eq!(self.rest(), b"", "octets instead of the end");
    }

    /// Everything up to the end of the connection.
    fn rest(&mut self) -> Vec<u8> {
        while self.more().expect("the end of the connection within the time") > 0 {}
        std::mem::take(&mut self.read)
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut buf = [0; 4096];
        let n = self.socket.read(&mut buf)?;
        self.read.extend_from_slice(&buf[..n]);
        Ok(n)
    }
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

// ---- what it answers and records

#[test]
fn a_get_is_answered_with_the_gif_and_recorded() {
    let edge = Edge::start();
    let answer = edge.ask(
        "GET /b.gif?e=view&p=%2Fx HTTP/1.1\r\nhost: x\r\nuser-agent: Mozilla/5.0\r\nreferer: https://a.example/\r\n\r\n",
    );
    assert_eq!((answer.status, &answer.body[..]), (200, GIF));
    for (name, value) in [
        ("content-type", "image/gif"),
        ("content-length", "43"),
        ("cache-control", "no-store, no-cache, private, max-age=0"),
        ("pragma", "no-cache"),
        ("expires", "0"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name} in {}", answer.head);
    }
    assert!(answer.header("date").is_some());
    assert_eq!(answer.header("access-control-allow-origin"), None, "there was no origin");
    assert!(!answer.closes());

    let [seen] = &beacons(&edge.pixel)[..] else { panic!("not one beacon") };
    let (id, ts) = (seen["id"].as_str().unwrap().to_owned(), seen["ts"].as_u64().unwrap());
    assert_eq!(
        seen,
        &json!({
            "v": 1, "id": id, "ts": ts, "route": "pixel", "method": "GET", "path": "/b.gif",
            "query": "e=view&p=%2Fx", "ip": "127.0.0.1", "ua": "Mozilla/5.0", "referer": "https://a.example/",
        })
    );
    let millis = u64::from_str_radix(&id.replace('-', "")[..12], 16).unwrap();
    assert_eq!((millis, &id[14..15]), (ts, "7"), "UUIDv7 of the same millisecond: {id}");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    assert!((now - 10_000..=now).contains(&ts));
    edge.counts(200, 1);
    assert_eq!(edge.stats().connections, 1);
}

#[test]
fn a_post_is_answered_with_204_and_its_body_recorded() {
    let edge = Edge::start();
    let answer = edge.ask(post("/b?x", b"{\"e\":\"click\"}"));
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
    assert!(answer.header("cache-control").unwrap().starts_with("no-store"));
    let [seen] = &beacons(&edge.beacon)[..] else { panic!("not one beacon") };
    assert_eq!(
        (&seen["method"], &seen["query"], &seen["body"], seen.get("body_b64"), seen.get("ua")),
        (&json!("POST"), &json!("x"), &json!("{\"e\":\"click\"}"), None, None)
    );
    edge.counts(204, 1);
    assert_eq!(edge.stats().body_octets, 13);
}

#[test]
fn head_is_a_beacon_too_and_is_answered_without_a_body() {
    let edge = Edge::start();
    let mut client = edge.connect();
    client.send(
        "HEAD /b.gif HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    let answer = client.head();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("43")));
    assert_eq!(client.answer().status, 204, "the next answer follows the head");
    client.is_closed();
    assert_eq!(beacons(&edge.pixel)[0]["method"], "HEAD");
}

#[test]
fn a_get_with_a_body_is_recorded_with_it() {
    let edge = Edge::start();
    let mut client = edge.connect();
    client
        .send("GET /b HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhiGET /b HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!([client.answer().status, client.answer().status], [204, 204]);
    let seen = beacons(&edge.beacon);
    assert_eq!((&seen[0]["body"], seen[1].get("body"), seen.len()), (&json!("hi"), None, 2));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let edge = Edge::start();
    let mut client = edge.connect();
    let requests = (0..200).map(|n| match n % 3 {
        0 => format!("GET /b.gif?{n} HTTP/1.1\r\nhost: x\r\n\r\n"),
        1 => format!("GET /b?{n} HTTP/1.1\r\nhost: x\r\n\r\n"),
        _ => format!("POST /b?{n} HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"),
    });
    client.send(requests.collect::<String>());
    for n in 0..200 {
        assert_eq!(client.answer().status, if n % 3 == 0 { 200 } else { 204 }, "request {n}");
    }
    let queries =
        |ring| beacons(ring).iter().map(|seen| seen["query"].as_str().unwrap().parse().unwrap()).collect();
    let (pixels, others): (Vec<u32>, Vec<u32>) = (queries(&edge.pixel), queries(&edge.beacon));
    assert_eq!(pixels, (0..200).filter(|n| n % 3 == 0).collect::<Vec<_>>());
    assert_eq!(others, (0..200).filter(|n| n % 3 != 0).collect::<Vec<_>>());
}

#[test]
fn a_request_may_come_octet_by_octet() {
    let edge = Edge::start();
    let mut client = edge.connect();
    for _ in 0..2 {
        for octet in post("/b", b"abc") {
            client.send([octet]);
        }
        assert_eq!(client.answer().status, 204);
    }
    assert_eq!(beacons(&edge.beacon).len(), 2);
}

#[test]
fn http_1_0_is_answered_and_closed_unless_it_asks_otherwise() {
    let edge = Edge::start();
    let mut client = edge.connect();
    client.send("GET /b.gif HTTP/1.0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, &answer.head[..9]), (200, "HTTP/1.0 "));
    client.is_closed();

    let mut client = edge.connect();
    for _ in 0..2 {
        client.send("GET /b.gif HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn an_absolute_target_and_an_upgrade_are_ordinary_requests() {
    let edge = Edge::start();
    let mut client = edge.connect();
    client.send("GET http://edge.example/b?a#f HTTP/1.1\r\nhost: x\r\n\r\n");
    client.send("GET /b?b HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n");
    client.send("GET /b?c HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!([(); 3].map(|()| client.answer().status), [204; 3]);
    let queries = beacons(&edge.beacon).iter().map(|seen| seen["query"].clone()).collect::<Vec<_>>();
    assert_eq!(queries, ["a", "b", "c"]);
}

#[test]
fn expect_100_continue_gets_its_go_ahead() {
    let edge = Edge::start();
    let mut client = edge.connect();
    client.send("POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    client.send("abc");
    assert_eq!(client.answer().status, 204);
    assert_eq!(beacons(&edge.beacon)[0]["body"], "abc");

    let mut client = edge.connect();
    client.send("POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 65537\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().status, 413, "no go-ahead for what will not be taken");
    client.is_closed();
}

#[test]
fn cors_lets_sendbeacon_through_with_credentials() {
    let edge = Edge::start();
    let preflight = edge.ask(
        "OPTIONS /b HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: content-type, x-a\r\n\r\n",
    );
    assert_eq!(preflight.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://a.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, HEAD, POST"),
        ("access-control-allow-headers", "content-type, x-a"),
        ("access-control-max-age", "86400"),
        ("vary", "origin"),
        ("allow", "GET, HEAD, POST, OPTIONS"),
    ] {
        assert_eq!(preflight.header(name), Some(value), "{name} in {}", preflight.head);
    }
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new(), "a preflight is no beacon");

    for request in [
        "GET /b.gif HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\n\r\n",
        "POST /b HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\ncontent-length: 1\r\n\r\nx",
        "POST /b HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\ncontent-length: 99999\r\n\r\n",
    ] {
        let answer = edge.ask(request);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"), "{request}");
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"), "{request}");
    }

    let strict = Edge::with(|http| http.cors_origins = vec!["https://a.example".into()]);
    for request in ["OPTIONS /b HTTP/1.1\r\n", "GET /b HTTP/1.1\r\n"] {
        let answer = strict.ask(format!("{request}host: x\r\norigin: https://b.example\r\n\r\n"));
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, None));
    }
}

#[test]
fn a_trusted_header_gives_the_clients_address() {
    let edge = Edge::with(|http| http.client_ip_header = "x-forwarded-for".into());
    edge.ask("GET /b HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 2001:db8::7, 10.0.0.1\r\n\r\n");
    edge.ask("GET /b HTTP/1.1\r\nhost: x\r\nx-forwarded-for: nobody\r\n\r\n");
    edge.ask("GET /b HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut seen = beacons(&edge.beacon).iter().map(|seen| seen["ip"].to_string()).collect::<Vec<_>>();
    seen.sort();
    assert_eq!(seen, ["\"127.0.0.1\"", "\"127.0.0.1\"", "\"2001:db8::7\""]);
}

#[test]
fn a_full_ring_that_may_not_drop_answers_503() {
    let (keeps, refuses) = (ring(1000, Overflow::DropNewest), ring(1, Overflow::Reject));
    let routes = vec![route("both", "/b", Reply::Empty, &[&keeps, &refuses])];
    let server = HttpServer::start(&config(), routes).unwrap();
    let mut client = Client::connect(server.local_addr());
    client.send(post("/b", b"1"));
    assert_eq!(client.answer().status, 204);
    client.send(post("/b", b"2"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("retry-after"), answer.closes()), (503, Some("1"), false));
    assert_eq!((keeps.level().beacons, refuses.level().beacons), (1, 1), "none of them got the second");
    let counts =
        [&keeps, &refuses].map(|ring| ring.ledger().snapshot()).map(|seen| (seen.accepted, seen.rejected));
    assert_eq!(counts, [(1, 0), (1, 1)]);

    assert_eq!(beacons(&refuses).len(), 1);
    client.send(post("/b", b"3"));
    assert_eq!(client.answer().status, 204, "there is room again, on the same connection");
}

// ---- what it refuses

#[test]
fn an_oversized_head_is_431() {
    let edge = Edge::start();
    let filler = "x".repeat(20 * 1024);
    for request in [
        format!("GET /b?{filler} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET /b HTTP/1.1\r\nhost: x\r\ncookie: {filler}\r\n\r\n"),
        format!("GET /b HTTP/1.1\r\nhost: x\r\ncookie: {filler}"),
    ] {
        let mut client = edge.connect();
        client.send(request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (431, true));
        client.is_closed();
    }
    edge.counts(431, 3);
    // The bound is the head's alone, not a read's.
    let fits = "x".repeat(16 * 1024 - 100);
    assert_eq!(edge.ask(format!("GET /b HTTP/1.1\r\nhost: x\r\ncookie: {fits}\r\n\r\n")).status, 204);
    edge.is_alive();
}

#[test]
fn too_many_header_lines_are_431() {
    let edge = Edge::with(|http| http.max_headers = 20);
    for (lines, status) in [(19, 204), (20, 431)] {
        let headers = (0..lines).map(|n| format!("h{n}: x\r\n")).collect::<String>();
        assert_eq!(edge.ask(format!("GET /b HTTP/1.1\r\nhost: x\r\n{headers}\r\n")).status, status);
    }
    let edge = Edge::start();
    for (lines, status) in [(99, 204), (100, 431), (10_000, 431)] {
        let headers = "a:b\r\n".repeat(lines);
        let mut client = edge.connect();
        client.send(format!("GET /b HTTP/1.1\r\nhost: x\r\n{headers}\r\n"));
        assert_eq!(client.answer().status, status, "{lines} lines");
    }
    edge.is_alive();
}

#[test]
fn a_body_at_the_limit_is_taken_and_one_octet_more_is_413() {
    let edge = Edge::start();
    let body = "x".repeat(64 * 1024);
    assert_eq!(edge.ask(post("/b", body.as_bytes())).status, 204);
    assert_eq!(beacons(&edge.beacon)[0]["body"], body);
    let chunked = format!("10000\r\n{body}\r\n0\r\n\r\n");
    let head = "POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(edge.ask(format!("{head}{chunked}")).status, 204);
    assert_eq!(beacons(&edge.beacon)[0]["body"], body);

    for request in [
        // By what it announces, before and although it sends nothing; then with all of it.
        "POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 65537\r\n\r\n".to_owned(),
        "POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999999999999\r\n\r\n".to_owned(),
        String::from_utf8(post("/b", format!("{body}x").as_bytes())).unwrap(),
        String::from_utf8(post("/b", body.repeat(30).as_bytes())).unwrap(),
        // By counting.
        format!("{head}10000\r\n{body}\r\n1\r\nx\r\n0\r\n\r\n"),
        format!("{head}{}", chunked.replace("10000\r\n", "20000\r\n") + &body.repeat(20)),
    ] {
        let mut client = edge.connect();
        client.send(&request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (413, true), "{}", &request[..100.min(request.len())]);
        assert_eq!(answer.text(), "the body is longer than 65536 octets\n");
        client.is_closed();
    }
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new());
    edge.counts(413, 6);
    edge.is_alive();
}

#[test]
fn other_methods_are_405_and_other_paths_404() {
    let edge = Edge::start();
    let mut client = edge.connect();
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "get", "ANYTHING"] {
        client.send(format!("{method} /b HTTP/1.1\r\nhost: x\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD, POST, OPTIONS")),
            "{method}"
        );
        assert_eq!(answer.text(), "this path takes GET, HEAD, POST and OPTIONS only\n");
    }
    for path in ["/", "/b.gif/", "/B.GIF", "/b%2Egif", "//b", "/b.gif.php", "*", "b", "http://x"] {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (404, "no route has this path\n"), "{path}");
    }
    client.send("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(client.answer().status, 404);
    client.send("PUT /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc");
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (405, true), "its body is not read");
    client.is_closed();
    edge.counts(404, 10);
    edge.counts(405, 7);
    assert_eq!((beacons(&edge.pixel).len(), beacons(&edge.beacon).len()), (0, 0));

    let mut client = edge.connect();
    client.send("CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(client.answer().status, 404);
    edge.is_alive();
}

#[test]
fn malformed_heads_are_400_and_closed() {
    let edge = Edge::start();
    let cases: [&[u8]; 15] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /b\r\n\r\n",
        b"GET /b HTTP/2.0\r\n\r\n",
        b"GET /b HTTX/1.1\r\n\r\n",
        b"G{}T /b HTTP/1.1\r\n\r\n",
        b"GET ?x HTTP/1.1\r\n\r\n",
        b"GET /b\x01 HTTP/1.1\r\n\r\n",
        b"GET /b?\xFF\xFE HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /b HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /b HTTP/1.1\r\nbad name: x\r\n\r\n",
        b"GET /b HTTP/1.1\r\nhost: a\0b\r\n\r\n",
        b"POST /b HTTP/1.1\r\ncontent-length: ten\r\n\r\n",
        b"POST /b HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"POST /b HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for request in cases {
        let mut client = edge.connect();
        client.send(request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (400, true), "{}", request.escape_ascii());
        client.is_closed();
    }
    edge.counts(400, cases.len() as u64);
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new());
    // The start of an HTTP/2 connection and of a TLS one.
    for hello in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03"] {
        let mut client = edge.connect();
        client.send(hello);
        client.rest();
    }
    edge.is_alive();
}

#[test]
fn a_broken_body_is_400_and_closed() {
    let edge = Edge::start();
    let head = "POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in ["zz\r\n", "3\r\nabcdef\r\n", "ffffffffffffffffff\r\n"] {
        let mut client = edge.connect();
        client.send(format!("{head}{body}"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (400, true), "{body:?}");
        client.is_closed();
    }
    // A client that leaves in the middle of a body.
    let mut client = edge.connect();
    client.send("POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc");
    client.socket.shutdown(Shutdown::Write).unwrap();
    client.rest();
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new());
    edge.is_alive();
}

#[test]
fn octets_after_a_request_with_transfer_encoding_are_no_request() {
    let edge = Edge::start();
    let smuggled = "GET /b?smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    for headers in [
        "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
        "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        "content-length: 44\r\ntransfer-encoding: chunked\r\ncontent-length: 44\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let mut client = edge.connect();
        client.send(format!("POST /b?first HTTP/1.1\r\nhost: x\r\n{headers}\r\n0\r\n\r\n{smuggled}"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (204, true), "{headers:?}");
        client.is_closed();
        let seen = beacons(&edge.beacon);
        assert_eq!((seen.len(), &seen[0]["query"]), (1, &json!("first")), "{headers:?}");
    }
    for refused in ["transfer-encoding: gzip\r\n", "transfer-encoding: chunked, gzip\r\n"] {
        let mut client = edge.connect();
        client.send(format!("POST /b HTTP/1.1\r\nhost: x\r\n{refused}\r\n0\r\n\r\n{smuggled}"));
        assert_eq!(client.answer().status, 400, "{refused:?}");
        client.is_closed();
    }
    // The same on a path and with a method that take no body.
    for request in ["POST /nowhere", "PUT /b"] {
        let mut client = edge.connect();
        client.send(format!(
            "{request} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ));
        assert!(client.answer().closes(), "{request}");
        client.is_closed();
    }
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new());
    edge.is_alive();
}

#[test]
fn octets_that_are_no_utf8_are_recorded_as_they_came() {
    let edge = Edge::start();
    let mut request =
        b"POST /b?caf\xC3\xA9 HTTP/1.1\r\nuser-agent: \xE9\r\nreferer: caf\xC3\xA9\r\n".to_vec();
    request.extend_from_slice(b"content-length: 4\r\n\r\n\xFF\0\xFE\n");
    request.extend_from_slice(&post("/b", b"a\0b\0"));
    let mut client = edge.connect();
    client.send(request);
    assert_eq!([client.answer().status, client.answer().status], [204, 204]);
    let [octets, nuls] = &beacons(&edge.beacon)[..] else { panic!("not two beacons") };
    assert_eq!(octets["query"], "café");
    assert_eq!((&octets["ua"], &octets["ua_b64"]), (&json!("6Q=="), &json!(true)));
    assert_eq!((&octets["referer"], octets.get("referer_b64")), (&json!("café"), None));
    assert_eq!((&octets["body"], &octets["body_b64"]), (&json!("/wD+Cg=="), &json!(true)));
    assert_eq!((&nuls["body"], nuls.get("body_b64")), (&json!("a\0b\0"), None));
}

// ---- time

fn hasty(http: &mut HttpConfig) {
    http.head_timeout = Duration::from_millis(300);
    http.body_timeout = Duration::from_millis(300);
    http.keep_alive_timeout = Duration::from_millis(800);
}

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

// ---- starting, stopping, bounds

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

fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

// ---- anything

fn cases(n: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases: n, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn any_body_comes_back_from_its_line() {
    use base64::Engine as _;

    let edge = Edge::start();
    let client = std::cell::RefCell::new(edge.connect());
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
