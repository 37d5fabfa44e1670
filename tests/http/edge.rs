//! The server and the client of these tests.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use beacon_edge::config::{HttpConfig, Reply};
use beacon_edge::http::{HttpServer, HttpStatsSnapshot, Route, STATUSES};
use beacon_edge::ledger::Ledger;
use beacon_edge::ring::{Limits, Overflow, Ring};
use beacon_edge::ticket::Ack;
use serde_json::Value;

/// No test waits longer than this for an octet.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const GIF: &[u8] =
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xFF\xFF\xFF\x21\xF9\x04\x01\0\0\0\0\x2C\0\0\0\0\x01\0\x01\0\0\
                     \x02\x02\x44\x01\0\x3B";

/// A server on a free port, with the default routes on one ring each.
pub(crate) struct Edge {
    pub(crate) server: HttpServer,
    pub(crate) pixel: Arc<Ring>,
    pub(crate) beacon: Arc<Ring>,
}

impl Edge {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut HttpConfig)) -> Self {
        let mut config = config();
        change(&mut config);
        let (pixel, beacon) = (ring(1000, Overflow::DropNewest), ring(1000, Overflow::DropNewest));
        let routes = vec![
            route("pixel", "/b.gif", Reply::Gif, &[&pixel]),
            route("beacon", "/b", Reply::Empty, &[&beacon]),
        ];
        Self { server: HttpServer::start(&config, routes).unwrap(), pixel, beacon }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.server.local_addr())
    }

    /// One request on a connection of its own, and its answer.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    /// Another client is answered at once.
    pub(crate) fn is_alive(&self) {
        let began = Instant::now();
        let answer = self.ask("GET /b.gif?alive HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!((answer.status, &answer.body[..]), (200, GIF));
        assert!(began.elapsed() < Duration::from_secs(2), "another client waited for {:?}", began.elapsed());
        assert_eq!(beacons(&self.pixel).last().unwrap()["query"], "alive");
    }

    pub(crate) fn stats(&self) -> HttpStatsSnapshot {
        self.server.stats().snapshot()
    }

    /// So many answers had this status. A refusal by hyper is counted just after the client has it.
    pub(crate) fn counts(&self, status: u16, times: u64) {
        let index = STATUSES.iter().position(|known| *known == status).unwrap();
        wait_until(&format!("{times} answers with {status}"), || self.stats().responses[index] >= times);
        assert_eq!(self.stats().responses[index], times, "{status}");
    }
}

pub(crate) fn config() -> HttpConfig {
    HttpConfig { listen: ([127, 0, 0, 1], 0).into(), workers: 2, ..HttpConfig::default() }
}

pub(crate) fn ring(max_beacons: usize, overflow: Overflow) -> Arc<Ring> {
    Arc::new(Ring::new(Limits { max_beacons, max_bytes: 1 << 28 }, overflow, Arc::new(Ledger::new(2))))
}

pub(crate) fn route(name: &str, path: &str, reply: Reply, rings: &[&Arc<Ring>]) -> Route {
    let rings = rings.iter().map(|ring| Arc::clone(ring)).collect();
    let (ack, ack_timeout) = (Ack::Accepted, PATIENCE);
    Route { name: name.into(), path: path.into(), reply, rings, ack, ack_timeout }
}

/// The lines on a ring, each checked to be one line.
pub(crate) fn beacons(ring: &Ring) -> Vec<Value> {
    std::iter::from_fn(|| ring.try_take().ok())
        .map(|line| {
            ring.release(1, line.len());
            assert_eq!(line.iter().position(|octet| *octet == b'\n'), Some(line.len() - 1), "one line");
            serde_json::from_slice(&line).unwrap()
        })
        .collect()
}

pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let find = |line: &'_ str| line.split_once(": ").is_some_and(|(key, _)| key == name);
        self.head.lines().find(|line| find(line)).map(|line| line.split_once(": ").unwrap().1)
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, read: Vec::new() }
    }

    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.socket.write_all(octets.as_ref()).unwrap();
    }

    /// The next answer to a request other than HEAD.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.more().unwrap() > 0, "the connection ended within a body: {answer:?}");
        }
        answer.body = self.read.drain(..length).collect();
        answer
    }

    pub(crate) fn head(&mut self) -> Answer {
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
    pub(crate) fn is_closed(&mut self) {
        assert_eq!(self.rest(), b"", "octets instead of the end");
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more().expect("the end of the connection within the time") > 0 {}
        std::mem::take(&mut self.read)
    }

    pub(crate) fn more(&mut self) -> io::Result<usize> {
        let mut buf = [0; 4096];
        let n = self.socket.read(&mut buf)?;
        self.read.extend_from_slice(&buf[..n]);
        Ok(n)
    }
}

pub(crate) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn hasty(http: &mut HttpConfig) {
    http.head_timeout = Duration::from_millis(300);
    http.body_timeout = Duration::from_millis(300);
    http.keep_alive_timeout = Duration::from_millis(800);
}
