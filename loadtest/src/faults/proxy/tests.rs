//! Each fault, over loopback, as both peers see it.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream as Stream,
    time::Instant as Now,
};

use super::*;

const SOON: Duration = Duration::from_secs(10);
/// How long to look whether nothing comes; a fault that lets something pass would do so within microseconds.
const SILENCE: Duration = Duration::from_millis(100);

/// A server that has accepted nothing yet, and the proxy before it.
struct Pair {
    proxy: Proxy,
    listener: StdListener,
}

impl Pair {
    fn new() -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
        Self { proxy, listener }
    }

    /// Both ends of a connection that has carried something.
    fn connect(&self) -> (Stream, Stream) {
        let mut client = Stream::connect(self.proxy.address()).unwrap();
        let (mut server, _) = self.listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        client.write_all(b"hello").unwrap();
        assert_eq!(read(&mut server, 5), b"hello");
        (client, server)
    }
}

fn read(stream: &mut Stream, count: usize) -> Vec<u8> {
    let mut octets = vec![0; count];
    stream.read_exact(&mut octets).unwrap();
    octets
}

/// What ends the stream, after how many octets.
fn end(stream: &mut Stream) -> (usize, Option<ErrorKind>) {
    let mut octets = Vec::new();
    let error = stream.read_to_end(&mut octets).err().map(|error| error.kind());
    (octets.len(), error)
}

fn assert_silent(stream: &mut Stream) {
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let error = stream.read(&mut [0]).unwrap_err().kind();
    assert!(matches!(error, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    stream.set_read_timeout(Some(SOON)).unwrap();
}

#[test]
fn good_weather_relays_every_octet_both_ways_and_the_end() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    let sent: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    let echoed = thread::scope(|scope| {
        scope.spawn(|| {
            let octets = read(&mut server, sent.len());
            server.write_all(&octets).unwrap();
        });
        let (mut sender, sent) = (client.try_clone().unwrap(), &sent);
        scope.spawn(move || sender.write_all(sent).unwrap());
        read(&mut client, sent.len())
    });
    assert_eq!(echoed, sent);
    drop(client);
    assert_eq!(end(&mut server), (0, None));
}

#[test]
fn refusing_resets_what_is_there_and_what_comes_until_it_heals() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.refuse();
    assert_eq!(end(&mut client), (0, Some(ErrorKind::ConnectionReset)));
    assert_eq!(end(&mut server), (0, Some(ErrorKind::ConnectionReset)));
    // The reset may come before the connection is seen.
    if let Ok(mut refused) = Stream::connect(pair.proxy.address()) {
        refused.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(end(&mut refused), (0, Some(ErrorKind::ConnectionReset)));
    }
    pair.proxy.heal();
    pair.connect();
}

#[test]
fn a_reset_is_for_those_that_are_there() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.reset();
    assert_eq!(end(&mut client).1, Some(ErrorKind::ConnectionReset));
    assert_eq!(end(&mut server).1, Some(ErrorKind::ConnectionReset));
    pair.connect();
}

#[test]
fn a_cut_lets_half_of_the_next_pass() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.cut();
    // What comes down is not cut.
    server.write_all(b"down").unwrap();
    assert_eq!(read(&mut client, 4), b"down");
    client.write_all(&[7; 1000]).unwrap();
    let (octets, _) = end(&mut server);
    assert!((1..1000).contains(&octets), "{octets}");
    pair.connect();
}

#[test]
fn a_black_hole_swallows_and_ends_with_a_reset() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.black_hole();
    client.write_all(b"up").unwrap();
    server.write_all(b"down").unwrap();
    assert_silent(&mut client);
    assert_silent(&mut server);
    pair.proxy.heal();
    assert_eq!(end(&mut client), (0, Some(ErrorKind::ConnectionReset)));
    assert_eq!(end(&mut server), (0, Some(ErrorKind::ConnectionReset)));
    pair.connect();
}

#[test]
fn a_delay_holds_back_and_loses_nothing() {
    let delay = Duration::from_millis(30);
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.delay(delay);
    let start = Now::now();
    client.write_all(b"up").unwrap();
    assert_eq!(read(&mut server, 2), b"up");
    assert!(start.elapsed() >= delay);
    server.write_all(b"down").unwrap();
    assert_eq!(read(&mut client, 4), b"down");
    assert!(start.elapsed() >= 2 * delay);
}

#[test]
fn a_throttle_slows_down_and_loses_nothing() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.throttle(1_000_000);
    let start = Now::now();
    let sent = vec![9; 100_000];
    client.write_all(&sent).unwrap();
    assert_eq!(read(&mut server, sent.len()), sent);
    // The pause after the last piece is not waited for.
    assert!(start.elapsed() >= Duration::from_millis(85), "{:?}", start.elapsed());
}
