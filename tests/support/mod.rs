//! What the end-to-end tests share: HTTP clients with a memory, a consumer with a judgement, readings of metrics.
#![allow(dead_code)] // each test binary uses its part

pub(crate) mod program;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use beacon_edge::Config;
use serde_json::Value;
use stompwire::{
    broker::{Admission, Broker},
    client::{Client, ConnectOptions, Subscribe},
};

/// Longer than any step of a test should take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A configuration with free ports and these overrides, as the environment would give them.
pub(crate) fn config(overrides: &[(&str, &str)]) -> Config {
    let always =
        [("BEACON_EDGE__HTTP__LISTEN", "127.0.0.1:0"), ("BEACON_EDGE__ADMIN__LISTEN", "127.0.0.1:0")];
    let env = always.iter().chain(overrides).map(|&(name, value)| (name.to_owned(), value.to_owned()));
    Config::load(None, env).unwrap()
}

/// The override that makes the edge publish to this broker. The destination has to exist.
pub(crate) fn brokers(url: &str) -> (&'static str, String) {
    ("BEACON_EDGE__DESTINATIONS__MAIN__BROKERS", format!("[{url:?}]"))
}

/// One keep-alive connection.
pub(crate) struct Browser {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
}

impl Browser {
    pub(crate) fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self { stream: BufReader::new(stream), address })
    }

    /// Sends the beacon of this sequence number, as GET, or as POST with the number in the body too. The status.
    pub(crate) fn beacon(&mut self, seq: u64, post: bool) -> std::io::Result<u16> {
        let common =
            "Host: edge\r\nUser-Agent: Mozilla/5.0 (test)\r\nReferer: https://shop.example/\u{fc}\r\n";
        let request = if post {
            let body = format!("{{\"seq\":{seq}}}");
            format!(
                "POST /b?seq={seq}&kind=post HTTP/1.1\r\n{common}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        } else {
            format!("GET /b.gif?seq={seq}&kind=get HTTP/1.1\r\n{common}\r\n")
        };
        self.stream.get_mut().write_all(request.as_bytes())?;
        Ok(self.answer()?.0)
    }

    /// A GET of any path. Status and body.
    pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
        let mut browser = Self::connect(address)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n");
        browser.stream.get_mut().write_all(request.as_bytes())?;
        browser.answer()
    }

    /// Any request. The head of its answer in lower case, and the body.
    pub(crate) fn ask(&mut self, request: &str) -> std::io::Result<(String, String)> {
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (_, head, body) = self.whole_answer()?;
        Ok((head, body))
    }

    fn answer(&mut self) -> std::io::Result<(u16, String)> {
        let (status, _, body) = self.whole_answer()?;
        Ok((status, body))
    }

    fn whole_answer(&mut self) -> std::io::Result<(u16, String, String)> {
        let mut head = String::new();
        if self.stream.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            head.push_str(&lower);
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, head, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// Sends `count` beacons over `connections` at full speed, every third one as POST; stops early when told to, or when a
/// connection is closed. The numbers answered with 2xx.
pub(crate) fn drive(address: SocketAddr, count: u64, connections: u64, stop: &AtomicBool) -> BTreeSet<u64> {
    thread::scope(|scope| {
        let drivers: Vec<_> = (0..connections)
            .map(|first| {
                scope.spawn(move || {
                    let mut answered = Vec::new();
                    let mut browser = Browser::connect(address).expect("the edge listens");
                    for seq in (first..count).step_by(connections as usize) {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        match browser.beacon(seq, seq % 3 == 0) {
                            Ok(200 | 204) => answered.push(seq),
                            Ok(status) => panic!("beacon {seq}: {status}"),
                            Err(_) => break,
                        }
                    }
                    answered
                })
            })
            .collect();
        drivers.into_iter().flat_map(|driver| driver.join().expect("a driver")).collect()
    })
}

/// What a consumer found.
#[derive(Debug, Default)]
pub(crate) struct Consumed {
    /// By sequence number: the ids of the beacons that carried it, with how often each came.
    pub(crate) beacons: BTreeMap<u64, BTreeMap<String, u64>>,
    /// By message id: how often each batch came.
    pub(crate) batches: BTreeMap<String, u64>,
}

impl Consumed {
    pub(crate) fn numbers(&self) -> BTreeSet<u64> {
        self.beacons.keys().copied().collect()
    }

    /// Beacons that came more than once.
    pub(crate) fn duplicates(&self) -> u64 {
        self.beacons.values().flat_map(BTreeMap::values).map(|times| times - 1).sum()
    }
}

/// Takes everything from the queue, acknowledging as it goes, until nothing has come for `quiet`. Judges each message.
pub(crate) fn consume(url: &str, queue: &str, quiet: Duration) -> Consumed {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&url.parse().unwrap(), ConnectOptions::default()).await.unwrap();
        let subscribe = Subscribe::to(format!("/amq/queue/{queue}")).with_prefetch(500);
        let mut messages = client.subscribe(subscribe).await.unwrap();
        let mut consumed = Consumed::default();
        while let Ok(message) = tokio::time::timeout(quiet, messages.next()).await {
            let message = message.expect("the connection lives").unwrap();
            judge(message.frame(), &mut consumed);
            messages.ack(&message).await.unwrap();
        }
        client.close(LIMIT).await.unwrap();
        consumed
    })
}

/// A broker in this process, with its faults. Beacons for `/queue/beacons` stay there.
pub(crate) struct TestBroker {
    runtime: tokio::runtime::Runtime,
    broker: Option<Broker>,
}

impl TestBroker {
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let broker = runtime.block_on(Broker::builder().start()).unwrap();
        Self { runtime, broker: Some(broker) }
    }

    /// Gone: connections are reset, new ones refused.
    pub(crate) fn go(&self) {
        self.faults().set_admission(Admission::PortClosed);
        self.faults().reset_connections();
    }

    /// Back, with what it had.
    pub(crate) fn come_back(&self) {
        self.faults().set_admission(Admission::Open);
    }

    /// What is in the queue, judged; and the numbers in the order in which they came.
    pub(crate) fn consumed(&self) -> (Consumed, Vec<u64>) {
        let (mut consumed, mut order) = (Consumed::default(), Vec::new());
        for message in self.peek("beacons", usize::MAX) {
            judge(&message, &mut consumed);
            let body = std::str::from_utf8(message.body()).unwrap();
            order.extend(body.lines().map(|line| judge_line(line).0));
        }
        (consumed, order)
    }
}

impl std::ops::Deref for TestBroker {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        self.broker.as_ref().expect("it runs until it is dropped")
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.shutdown());
        }
    }
}

fn judge(message: &stompwire::Frame, consumed: &mut Consumed) {
    let header = |name| message.header(name).unwrap_or_else(|| panic!("no {name} in {message:?}"));
    assert_eq!(header("content-type"), "application/x-ndjson");
    assert_eq!(header("persistent"), "true");
    // RabbitMQ hands amqp-message-id back under the same name.
    *consumed.batches.entry(header("amqp-message-id").to_owned()).or_default() += 1;
    let body = std::str::from_utf8(message.body()).expect("UTF-8");
    assert!(body.ends_with('\n'));
    assert_eq!(header("beacon-count"), body.lines().count().to_string());
    for line in body.lines() {
        let (seq, id) = judge_line(line);
        *consumed.beacons.entry(seq).or_default().entry(id).or_default() += 1;
    }
}

/// The line is what `docs/beacon.md` says. Its sequence number and id.
fn judge_line(line: &str) -> (u64, String) {
    let beacon: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let text = |name: &str| beacon[name].as_str().unwrap_or_else(|| panic!("no {name} in {line}"));
    assert_eq!(beacon["v"], 1);
    let id = uuid::Uuid::parse_str(text("id")).unwrap();
    assert_eq!(id.get_version_num(), 7);
    let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
    assert_eq!(beacon["ts"].as_u64().unwrap(), seconds * 1000 + u64::from(nanos) / 1_000_000);
    assert_eq!(text("ip"), "127.0.0.1");
    assert_eq!(text("ua"), "Mozilla/5.0 (test)");
    assert_eq!(text("referer"), "https://shop.example/\u{fc}");
    let (seq, kind) = text("query").strip_prefix("seq=").and_then(|rest| rest.split_once("&kind=")).unwrap();
    match kind {
        "get" => assert_eq!((text("method"), text("path"), text("route")), ("GET", "/b.gif", "pixel")),
        "post" => {
            assert_eq!((text("method"), text("path"), text("route")), ("POST", "/b", "beacon"));
            assert_eq!(text("body"), format!("{{\"seq\":{seq}}}"));
        }
        other => panic!("{other}"),
    }
    (seq.parse().unwrap(), id.to_string())
}

/// The metrics of one scrape: name with labels → value.
pub(crate) fn scrape(admin: SocketAddr) -> BTreeMap<String, f64> {
    let (status, text) = Browser::get(admin, "/metrics").expect("the admin listener answers");
    assert_eq!(status, 200);
    assert!(text.ends_with("# EOF\n"), "not OpenMetrics: {text}");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect()
}

/// `accepted + recovered = confirmed + on ring + in batch + spooled + in flight + dropped`, within one scrape.
pub(crate) fn assert_conserved(metrics: &BTreeMap<String, f64>) {
    let value = |name: &str| metrics[&format!("beacon_edge_beacons_{name}{{destination=\"main\"}}")];
    let dropped: f64 = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("beacon_edge_beacons_dropped_total{destination=\"main\""))
        .map(|(_, value)| value)
        .sum();
    let stages = ["confirmed_total", "on_ring", "in_batch", "spooled", "in_flight"];
    let parts = stages.map(value).iter().sum::<f64>() + dropped;
    assert_eq!(value("accepted_total") + value("recovered_total"), parts, "{metrics:?}");
}

/// Waits until `holds`; fails with `what` after [`LIMIT`].
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
