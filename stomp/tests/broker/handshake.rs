//! CONNECT, versions, credentials, heart-beats, DISCONNECT.

use std::time::Duration;

use stompwire::{Version, broker::Broker, proto::HeartBeat};
use tokio::time::{Instant, sleep};

use crate::raw::{Raw, broker};

const SERVER: &str = concat!("stompwire/", env!("CARGO_PKG_VERSION"));

#[tokio::test]
async fn the_greatest_common_version_is_chosen() {
    let broker = broker().await;
    let of = |version: &str| format!("version:{version}\nheart-beat:10000,10000\nserver:{SERVER}\n");
    let table = [
        ("CONNECT\n\n\0", "CONNECTED\nsession:session-1\n\n".into(), Version::V1_0),
        ("CONNECT\naccept-version:1.0\n\n\0", "CONNECTED\nsession:session-2\n\n".into(), Version::V1_0),
        (
            "CONNECT\naccept-version:1.0,1.1\nhost:any\n\n\0",
            format!("CONNECTED\nsession:session-3\n{}\n", of("1.1")),
            Version::V1_1,
        ),
        (
            "STOMP\r\naccept-version:1.2,1.0,3.1\r\nhost:/\r\n\r\n\0",
            format!("CONNECTED\nsession:session-4\n{}\n", of("1.2")),
            Version::V1_2,
        ),
    ];
    for (connect, connected, version) in table {
        let mut raw = Raw::open(&broker).await;
        raw.write(connect).await;
        assert_eq!(raw.frame().await, connected);
        let info = broker.connections().pop().unwrap();
        assert_eq!(info.version, Some(version));
        assert_eq!(info.peer, raw.stream().local_addr().unwrap());
    }
}

#[tokio::test]
async fn a_bad_handshake_is_an_error_then_the_end() {
    let broker = Broker::builder().credentials("me", "a:b\\c").start().await.unwrap();
    let table = [
        (
            "CONNECT\naccept-version:1.9\nhost:/\n\n\0",
            "the client offers no version this server speaks: \"1.9\"",
        ),
        ("CONNECT\naccept-version:1.2\n\n\0", "the peer sent a CONNECT frame without the header \"host\""),
        ("SEND\ndestination:/queue/a\n\n\0", "the peer sent a SEND frame that has no place at this point"),
        ("GET / HTTP/1.1\n\n\0", "the peer sent an unknown command \"GET / HTTP/1.1\""),
        ("CONNECT\naccept-version:1.2\nhost:/\n\n\0", "access refused: login or passcode is wrong"),
        (
            "CONNECT\naccept-version:1.2\nhost:/\nlogin:me\npasscode:a:b\\\\c\n\n\0",
            "access refused: login or passcode is wrong",
        ),
    ];
    for (connect, message) in table {
        let mut raw = Raw::open(&broker).await;
        raw.write(connect).await;
        raw.expect_refusal(message).await;
    }
    let mut raw = Raw::open(&broker).await;
    raw.write("CONNECT\naccept-version:1.2\nhost:/\nlogin:me\npasscode:a:b\\c\n\n\0").await;
    assert!(raw.frame().await.starts_with("CONNECTED\n"));
    assert_eq!(broker.url(), format!("stomp://me:a%3Ab%5Cc@{}/%2F", broker.local_addr()));
}

#[tokio::test]
async fn whoever_does_not_connect_in_time_is_sent_away() {
    let broker = Broker::builder().connect_timeout(Duration::from_millis(50)).start().await.unwrap();
    let raw = Raw::open(&broker).await;
    raw.expect_refusal("no answer to the handshake within 50ms").await;
}

#[tokio::test]
async fn disconnect_is_receipted_before_the_end() {
    let broker = broker().await;
    for (disconnect, receipt) in
        [("DISCONNECT\nreceipt:77\n\n\0", "RECEIPT\nreceipt-id:77\n\n\0"), ("DISCONNECT\n\n\0", "")]
    {
        let mut raw = Raw::connected(&broker, "1.2").await;
        raw.write(disconnect).await;
        // Nothing may follow it.
        raw.write("SEND\ndestination:/queue/late\n\nx\0").await;
        assert_eq!(raw.rest().await.unwrap(), receipt);
        assert_eq!(broker.connections(), []);
    }
    assert_eq!(broker.queue("late"), None);
}

#[tokio::test]
async fn a_half_closed_client_still_gets_its_receipts() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write("SEND\ndestination:/queue/a\nreceipt:1\n\nx\0SEND\ndestination:/queue/a\n\nunfinished").await;
    raw.shut_down_writing().await;
    assert_eq!(raw.rest().await.unwrap(), "RECEIPT\nreceipt-id:1\n\n\0");
    assert_eq!(broker.queue("a").unwrap().messages, 1);
}

#[tokio::test]
async fn heart_beats_are_sent_at_half_the_agreed_period() {
    let period = HeartBeat { send: Duration::from_millis(10), receive: Duration::ZERO };
    let broker = Broker::builder().heart_beat(period).start().await.unwrap();
    let mut raw = Raw::open(&broker).await;
    raw.write("CONNECT\naccept-version:1.2\nhost:/\nheart-beat:0,100\n\n\0").await;
    raw.frame().await;
    let start = Instant::now();
    assert_eq!(raw.octets(4).await, b"\n\n\n\n");
    // Four times 50 ms, plus what a busy machine adds.
    let elapsed = start.elapsed();
    assert!((Duration::from_millis(190)..Duration::from_secs(1)).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test]
async fn a_silent_client_is_cut_and_a_living_one_is_not() {
    let period = HeartBeat { send: Duration::ZERO, receive: Duration::from_millis(200) };
    let broker = Broker::builder().heart_beat(period).heart_beat_grace(1.5).start().await.unwrap();
    let mut raw = Raw::open(&broker).await;
    raw.write("CONNECT\naccept-version:1.1\nhost:/\nheart-beat:100,0\n\n\0").await;
    raw.frame().await;
    for _ in 0..6 {
        sleep(Duration::from_millis(80)).await;
        raw.write("\n").await;
    }
    let start = Instant::now();
    assert_eq!(broker.connections().len(), 1);
    raw.expect_reset().await;
    let elapsed = start.elapsed();
    assert!((Duration::from_millis(290)..Duration::from_secs(2)).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test]
async fn unagreed_heart_beats_are_not_sent_and_malformed_ones_are_an_error() {
    let broker =
        Broker::builder().heart_beat(HeartBeat::every(Duration::from_millis(20))).start().await.unwrap();
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.expect_nothing().await;
    assert_eq!(broker.connections().len(), 1);
    let mut raw = Raw::open(&broker).await;
    raw.write("CONNECT\naccept-version:1.2\nhost:/\nheart-beat:+1,0\n\n\0").await;
    raw.expect_refusal("the peer sent the malformed heart-beat header \"+1,0\"").await;
}
