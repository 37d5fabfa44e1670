//! Heart-beats: long silences are survived, a dead peer is found in the agreed time, and not later.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use std::time::Duration;

use rabbitmq_node::{QueueOptions, Vhost, shared};
use stompwire::{
    Backoff, Frame,
    client::{Client, ConnectOptions, ConnectionError, Reconnect, State, Unconfirmed},
    proto::{HeartBeat, SessionError},
};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep, timeout},
};

use support::{
    LIMIT, options, pair,
    proxy::{Down, Proxy, Up},
    until,
};

const MINUTE: Duration = Duration::from_secs(60);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn beating(heart_beat: HeartBeat) -> ConnectOptions {
    let mut options = options();
    options.session.heart_beat = heart_beat;
    options
}

fn is_silent(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::Session(SessionError::PeerSilent(_)))
}

#[tokio::test(start_paused = true)]
async fn a_minute_of_silence_is_survived_with_an_end_of_line_each_half_period() {
    let both = HeartBeat::every(secs(10));
    let (client, mut peer) = pair(beating(both), 1 << 16, "version:1.2\nheart-beat:10000,10000\n").await;
    let start = Instant::now();
    let mut heard = Vec::new();
    let mut next_word = start + secs(10);
    while start.elapsed() < MINUTE {
        tokio::select! {
            octet = peer.transport.read_u8() => {
                assert_eq!(octet.unwrap(), b'\n');
                heard.push(start.elapsed().as_secs());
            }
            () = tokio::time::sleep_until(next_word) => {
                peer.say("\n").await;
                next_word += secs(10);
            }
        }
    }
    // Early enough for a peer that insists on 10 s, and no oftener than need be.
    let each_half_period: Vec<u64> = (1..=heard.len() as u64).map(|n| 5 * n).collect();
    assert_eq!(heard, each_half_period);
    assert!((11..=12).contains(&heard.len()), "{heard:?}");
    let sent = client.send_with_receipt(Frame::send("q", "x")).await.unwrap();
    let mut rest = Vec::new();
    while !rest.ends_with(b"\0") {
        rest.push(timeout(LIMIT, peer.transport.read_u8()).await.unwrap().unwrap());
    }
    let rest = String::from_utf8(rest).unwrap();
    assert_eq!(rest.trim_start(), "SEND\ndestination:q\nreceipt:1\ncontent-length:1\n\nx\0");
    peer.receipt(1).await;
    timeout(LIMIT, sent).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_heart_beats_a_connection_ends_in_the_agreed_time_or_never() {
    let table = [
        // What we offer, what the server answers, when the silent server counts as dead, octets it heard by then.
        (HeartBeat::every(secs(10)), "10000,10000", Some(20), 3),
        (HeartBeat::every(secs(10)), "25000,0", Some(50), 0),
        (HeartBeat::every(secs(10)), "0,10000", None, 12),
        (HeartBeat { send: secs(10), receive: secs(0) }, "1000,1000", None, 12),
        (HeartBeat::NONE, "1000,1000", None, 0),
        (HeartBeat::every(secs(10)), "0,0", None, 0),
    ];
    for (ours, theirs, dies_after, beats) in table {
        let answer = format!("version:1.2\nheart-beat:{theirs}\n");
        let (client, mut peer) = pair(beating(ours), 1 << 16, &answer).await;
        let start = Instant::now();
        let end = timeout(MINUTE + Duration::from_millis(1), client.ended()).await;
        let elapsed = start.elapsed();
        match (&end, dies_after) {
            (Ok(error), Some(after)) => {
                assert!(is_silent(error), "{ours} {theirs}: {error}");
                let limit = secs(after);
                assert!(
                    (limit..limit + Duration::from_millis(10)).contains(&elapsed),
                    "{ours} {theirs}: {elapsed:?}"
                );
            }
            (Err(_), None) => assert!(client.state().borrow().is_connected(), "{ours} {theirs}"),
            _ => panic!("{ours} {theirs}: {end:?} after {elapsed:?}"),
        }
        let mut heard = vec![0; 64];
        let read = timeout(Duration::from_millis(1), peer.transport.read(&mut heard)).await;
        heard.truncate(read.map_or(0, Result::unwrap));
        assert_eq!(heard.len(), beats, "{ours} {theirs}");
        assert!(heard.iter().all(|&octet| octet == b'\n'), "{ours} {theirs}: {heard:?}");
    }
}

/// A virtual host of its own, with the queue `q`, behind a proxy.
async fn behind_a_proxy() -> (Vhost, Proxy, String) {
    let vhost = tokio::task::spawn_blocking(|| {
        let vhost = shared().new_vhost().unwrap();
        vhost.declare_queue("q", &QueueOptions::default()).unwrap();
        vhost
    });
    let vhost = vhost.await.unwrap();
    let proxy = Proxy::start(vhost.stomp_addr()).await;
    let url = format!("stomp://guest:guest@{}/{}", proxy.address(), vhost.name());
    (vhost, proxy, url)
}

async fn confirmed(client: &Client, body: &'static str) {
    let sent = client.send_with_receipt(Frame::send("/amq/queue/q", body)).await.unwrap();
    timeout(LIMIT, sent).await.expect("in time").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_hears_and_sends_end_of_lines_for_as_long_as_it_takes() {
    let (vhost, proxy, url) = behind_a_proxy().await;
    let options = beating(HeartBeat::every(secs(2)));
    let client = Client::connect(&url.parse().unwrap(), options).await.unwrap();
    let agreed = client.connected().unwrap();
    assert_eq!((agreed.sends_every, agreed.server_patience), (Some(secs(2)), Some(secs(4))));
    confirmed(&client, "before").await;
    // RabbitMQ ends every frame with a line feed of its own.
    sleep(Duration::from_millis(200)).await;
    let connection = proxy.connections().remove(0);
    let before = [Up, Down].map(|direction| connection.relayed(direction));
    let silence = secs(15);
    let ended = timeout(silence, client.ended()).await;
    assert!(ended.is_err(), "an idle connection ended: {ended:?}");
    let after = [Up, Down].map(|direction| connection.relayed(direction));
    for ((direction, before), after) in [Up, Down].into_iter().zip(before).zip(after) {
        let (octets, line_feeds) = (after.0 - before.0, after.1 - before.1);
        assert_eq!(octets, line_feeds, "{direction:?}: something else than end-of-lines");
        // One each half period; half of them could be late on a busy machine.
        assert!((7..=16).contains(&octets), "{direction:?}: {octets} end-of-lines in {silence:?}");
    }
    confirmed(&client, "after").await;
    assert_eq!(proxy.counts().accepted, 1);
    client.close(LIMIT).await.unwrap();
    let bodies: Vec<_> =
        vhost.get_messages("q", 3).unwrap().into_iter().map(|message| message.payload).collect();
    assert_eq!(bodies, [&b"before"[..], b"after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_is_found_in_the_agreed_time_and_left_when_it_is_gone() {
    let (vhost, proxy, url) = behind_a_proxy().await;
    let mut options = beating(HeartBeat::every(secs(2)));
    options.session.connect_timeout = secs(1);
    let pauses = Backoff { min: Duration::from_millis(100), max: Duration::from_millis(500) };
    let client = Client::builder()
        .brokers([url.parse().unwrap()])
        .options(options)
        .reconnect(Reconnect::default().with_backoff(pauses))
        .connect()
        .await
        .unwrap();
    confirmed(&client, "before").await;

    proxy.hole_for_all(Down, true);
    let start = Instant::now();
    let pending = client.send_with_receipt(Frame::send("/amq/queue/q", "swallowed")).await.unwrap();
    let waiting = until(&client, "waiting", |state| matches!(state, State::Waiting { .. })).await;
    let elapsed = start.elapsed();
    // Two periods from the last octet that came, which was within the half period before the hole.
    assert!((2900..5500).contains(&elapsed.as_millis()), "{elapsed:?}");
    let State::Waiting { failures: 1, cause, .. } = waiting else { panic!("{waiting:?}") };
    assert!(is_silent(&cause), "{cause}");
    let lost = timeout(LIMIT, pending).await.expect("resolved");
    let Err(Unconfirmed::ConnectionLost(cause)) = &lost else { panic!("{lost:?}") };
    assert!(is_silent(cause), "{cause}");
    // What was confirmed by a RECEIPT that never came is in the queue all the same.
    vhost.wait_for_depth("q", 2, LIMIT).unwrap();

    // CONNECTED is swallowed too.
    let waiting =
        until(&client, "in vain", |state| matches!(state, State::Waiting { failures: 2.., .. })).await;
    let State::Waiting { cause, .. } = waiting else { panic!("{waiting:?}") };
    assert!(matches!(cause, ConnectionError::Session(SessionError::HandshakeTimeout(_))), "{cause}");
    proxy.hole_for_all(Down, false);
    let back = until(&client, "back", State::is_connected).await;
    assert!(matches!(back, State::Connected { number: 2, .. }), "{back:?}");
    confirmed(&client, "after").await;
    assert!(proxy.counts().swallowed > 0);
    client.close(LIMIT).await.unwrap();
    vhost.wait_for_depth("q", 3, LIMIT).unwrap();
}
