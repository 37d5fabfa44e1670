//! The client against a peer that plays a script (octets asserted) and against the broker of this crate (faults).
#![cfg(all(feature = "tokio", feature = "broker"))]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use std::time::Duration;

use stompwire::{
    Frame, Version,
    broker::{Broker, ReceiptId, Which},
    client::{AckMode, Client, ConnectOptions, ConnectionError, SendError, Subscribe, Unconfirmed, Window},
    proto::{HeartBeat, SessionError},
};
use tokio::{
    io::duplex,
    time::{Instant, timeout},
};

use support::{LIMIT, options, pair};

async fn broker() -> Broker {
    Broker::builder().start().await.unwrap()
}

async fn connect(broker: &Broker, options: ConnectOptions) -> Client {
    timeout(LIMIT, Client::connect(&broker.url().parse().unwrap(), options)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_batch_is_one_piece_on_the_wire_and_receipts_resolve_by_their_own_id() {
    let (client, mut peer) = pair(options(), 1 << 20, "version:1.2\nserver:script\n").await;
    assert_eq!(client.version(), Some(Version::V1_2));
    assert_eq!(client.connected().unwrap().server.as_deref(), Some("script"));
    let frames = ["a", "b", "c"].map(|body| Frame::send("/queue/q", body).with_header("x", "1:2"));
    let mut receipts = client.send_batch(frames).await.unwrap();
    let send = |id: u32, body: &str| {
        format!("SEND\ndestination:/queue/q\nx:1\\c2\nreceipt:{id}\ncontent-length:1\n\n{body}\0")
    };
    peer.expect(&[send(1, "a"), send(2, "b"), send(3, "c")].concat()).await;
    peer.say("RECEIPT\nreceipt-id:3\n\n\0\nRECEIPT\nreceipt-id:nonsense\n\n\0RECEIPT\nreceipt-id:3\n\n\0")
        .await;
    timeout(LIMIT, receipts.pop().unwrap()).await.unwrap().unwrap();
    // A RECEIPT says nothing of earlier frames.
    let first = receipts.remove(0);
    assert!(timeout(Duration::from_millis(50), first).await.is_err());
    peer.say("RECEIPT\nreceipt-id:2\n\n\0").await;
    timeout(LIMIT, receipts.pop().unwrap()).await.unwrap().unwrap();
}

#[tokio::test]
async fn closing_waits_for_every_receipt_before_disconnect() {
    let (client, mut peer) = pair(options(), 1 << 16, "version:1.1\n").await;
    let receipt = client.send_with_receipt(Frame::send("q", "")).await.unwrap();
    let closing = tokio::spawn(client.close(LIMIT));
    peer.expect("SEND\ndestination:q\nreceipt:1\ncontent-length:0\n\n\0").await;
    peer.expect_nothing().await;
    peer.say("RECEIPT\nreceipt-id:1\n\n\0").await;
    peer.expect("DISCONNECT\nreceipt:2\n\n\0").await;
    receipt.await.unwrap();
    assert!(!closing.is_finished());
    peer.say("RECEIPT\nreceipt-id:2\n\n\0").await;
    timeout(LIMIT, closing).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn dropping_the_last_handle_disconnects() {
    let (client, mut peer) = pair(options(), 1 << 16, "version:1.2\n").await;
    let receipt = client.send_with_receipt(Frame::send("q", "")).await.unwrap();
    drop(client);
    peer.expect("SEND\ndestination:q\nreceipt:1\ncontent-length:0\n\n\0").await;
    peer.say("RECEIPT\nreceipt-id:1\n\n\0").await;
    receipt.await.unwrap();
    peer.expect("DISCONNECT\nreceipt:2\n\n\0").await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_still_read_from() {
    let (client, mut peer) = pair(options(), 4096, "version:1.2\n").await;
    let small = client.send_with_receipt(Frame::send("q", "small")).await.unwrap();
    let large = client.send_with_receipt(Frame::send("q", vec![b'x'; 1 << 20])).await.unwrap();
    peer.expect("SEND\ndestination:q\nreceipt:1\ncontent-length:5\n\nsmall\0").await;
    // Nothing more is read, so the large frame is stuck half-way; the receipt comes through all the same.
    peer.say("RECEIPT\nreceipt-id:1\n\n\0").await;
    timeout(LIMIT, small).await.unwrap().unwrap();
    drop(peer);
    let lost = timeout(LIMIT, large).await.unwrap();
    assert!(matches!(lost, Err(Unconfirmed::ConnectionLost(_))), "{lost:?}");
}

#[tokio::test(start_paused = true)]
async fn heart_beats_go_out_at_half_the_period_and_silence_is_noticed_at_its_end() {
    let mut options = options();
    options.session.heart_beat = HeartBeat::every(Duration::from_secs(4));
    let (client, mut peer) = pair(options, 1 << 16, "version:1.2\nheart-beat:3000,5000\n").await;
    let start = Instant::now();
    // We send every max(4, 5) s, beaten at the half of it.
    for beat in 1..=3 {
        peer.expect("\n").await;
        assert_eq!(start.elapsed().as_millis(), 2500 * beat);
        peer.say("\n").await;
    }
    let spoke = Instant::now();
    // The peer was to speak every max(3, 4) s, with a grace of 2 periods.
    let end = client.ended().await;
    assert!(matches!(end, ConnectionError::Session(SessionError::PeerSilent(_))), "{end}");
    assert_eq!(spoke.elapsed().as_secs(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_without_an_answer_ends_in_time() {
    let (ours, _theirs) = duplex(1 << 16);
    let start = Instant::now();
    let error = Client::over(ours, options()).await.unwrap_err();
    assert!(matches!(error, ConnectionError::Session(SessionError::HandshakeTimeout(_))), "{error}");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_ends_in_time() {
    let (client, _peer) = pair(options(), 1 << 16, "version:1.2\n").await;
    let receipt = client.send_with_receipt(Frame::send("q", "")).await.unwrap();
    let start = Instant::now();
    let error = client.close(Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(error, ConnectionError::Session(SessionError::CloseTimeout(_))), "{error}");
    assert_eq!(start.elapsed().as_secs(), 3);
    assert!(matches!(receipt.await, Err(Unconfirmed::ConnectionLost(_))));
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_does_not_come_is_told_and_the_connection_lives_on() {
    let (client, mut peer) = pair(options(), 1 << 16, "version:1.2\n").await;
    let start = Instant::now();
    let receipt = client.send_with_receipt(Frame::send("q", "")).await.unwrap();
    assert!(matches!(receipt.await, Err(Unconfirmed::TimedOut)));
    assert_eq!(start.elapsed().as_secs(), 30);
    peer.expect("SEND\ndestination:q\nreceipt:1\ncontent-length:0\n\n\0").await;
    let receipt = client.send_with_receipt(Frame::send("q", "")).await.unwrap();
    peer.expect("SEND\ndestination:q\nreceipt:2\ncontent-length:0\n\n\0").await;
    peer.say("RECEIPT\nreceipt-id:1\n\n\0RECEIPT\nreceipt-id:2\n\n\0").await;
    receipt.await.unwrap();
}

#[tokio::test]
async fn a_frame_that_cannot_be_encoded_fails_alone() {
    let broker = broker().await;
    let client = connect(&broker, options()).await;
    let frames = ["good", "bad\0", "good"].map(|value| Frame::send("/queue/q", "").with_header("x", value));
    let receipts = client.send_batch(frames).await.unwrap();
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(timeout(LIMIT, receipt).await.unwrap());
    }
    assert!(matches!(
        &outcomes[..],
        [Ok(()), Err(Unconfirmed::NotSent(SendError::Refused(SessionError::Encode(_)))), Ok(())]
    ));
    assert_eq!(broker.queue("q").unwrap().messages, 2);
}

#[tokio::test]
async fn the_window_holds_back_what_does_not_fit() {
    let broker = broker().await;
    broker.faults().withhold_receipts(Which::All);
    for (window, sizes) in
        [(Window { frames: 2, bytes: 1000 }, [1, 1, 1]), (Window { frames: 9, bytes: 10 }, [4, 5, 2])]
    {
        broker.faults().withhold_receipts(Which::All);
        let mut options = options();
        options.window = window;
        let client = connect(&broker, options).await;
        let frame = |size: usize| Frame::send("/queue/q", vec![b'x'; size]);
        let first = client.send_with_receipt(frame(sizes[0])).await.unwrap();
        let second = client.send_with_receipt(frame(sizes[1])).await.unwrap();
        let third = client.send_with_receipt(frame(sizes[2]));
        tokio::pin!(third);
        assert!(timeout(Duration::from_millis(50), &mut third).await.is_err(), "{window:?}");
        broker.faults().release_receipts();
        for receipt in [first, second, timeout(LIMIT, third).await.unwrap().unwrap()] {
            timeout(LIMIT, receipt).await.unwrap().unwrap();
        }
    }
    let mut options = options();
    options.window.bytes = 10;
    let client = connect(&broker, options).await;
    let refused = client.send_with_receipt(Frame::send("/queue/q", "eleven octs")).await;
    assert!(matches!(refused, Err(SendError::TooLarge { len: 11, window: 10 })), "{refused:?}");
}

#[tokio::test]
async fn a_batch_larger_than_the_window_goes_through_in_parts() {
    let broker = broker().await;
    let mut options = options();
    options.window = Window { frames: 7, bytes: 1000 };
    let client = connect(&broker, options).await;
    let frames = (0..100).map(|n| Frame::send("/queue/q", n.to_string()));
    let receipts = timeout(LIMIT, client.send_batch(frames)).await.unwrap().unwrap();
    for receipt in receipts {
        timeout(LIMIT, receipt).await.unwrap().unwrap();
    }
    let bodies: Vec<_> = broker.peek("q", 100).iter().map(|frame| frame.body_bytes()).collect();
    assert_eq!(bodies, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn whatever_ends_the_connection_every_receipt_resolves() {
    type Fault = fn(&Broker);
    let faults: [(&str, Fault); 4] = [
        ("close", |broker| broker.faults().close_connections()),
        ("reset", |broker| broker.faults().reset_connections()),
        ("cut mid-frame", |broker| broker.faults().cut_connections_mid_frame()),
        ("silence", |broker| broker.faults().go_silent(true)),
    ];
    for (name, fault) in faults {
        let beat = HeartBeat::every(Duration::from_millis(200));
        let broker = Broker::builder().heart_beat(beat).start().await.unwrap();
        broker.faults().withhold_receipts(Which::All);
        let mut options = options();
        options.session.heart_beat = beat;
        let client = connect(&broker, options).await;
        let receipts = client.send_batch((0..50).map(|_| Frame::send("/queue/q", "x"))).await.unwrap();
        fault(&broker);
        for receipt in receipts {
            let outcome = timeout(LIMIT, receipt).await.expect(name);
            assert!(matches!(outcome, Err(Unconfirmed::ConnectionLost(_))), "{name}: {outcome:?}");
        }
        let late = client.send_with_receipt(Frame::send("/queue/q", "x")).await;
        assert!(matches!(late, Err(SendError::Closed(_))), "{name}: {late:?}");
        assert!(client.close(LIMIT).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn an_error_that_names_the_frame_fails_that_frame() {
    let broker = broker().await;
    let client = connect(&broker, options()).await;
    broker.faults().fail_next_send(ReceiptId::Named);
    let receipts = client.send_batch((0..2).map(|_| Frame::send("/queue/q", "x"))).await.unwrap();
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(timeout(LIMIT, receipt).await.unwrap());
    }
    assert!(
        matches!(&outcomes[..], [Err(Unconfirmed::Refused(_)), Err(Unconfirmed::ConnectionLost(_))]),
        "{outcomes:?}"
    );
    let end = client.ended().await;
    assert!(matches!(&end, ConnectionError::ServerError(_)), "{end}");
}

#[tokio::test]
async fn bad_credentials_are_the_servers_word_and_never_shown() {
    let broker = Broker::builder().credentials("app", "secret-right").start().await.unwrap();
    let url = format!("stomp://app:secret-wrong@{}/", broker.local_addr()).parse().unwrap();
    let error = Client::connect(&url, options()).await.unwrap_err();
    assert!(matches!(error, ConnectionError::ServerError(_)), "{error}");
    for shown in [format!("{error}"), format!("{error:?}"), format!("{url:?}")] {
        assert!(!shown.contains("secret"), "{shown}");
    }
}

#[tokio::test]
async fn nobody_there_is_an_io_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error =
        Client::connect(&format!("stomp://{address}/").parse().unwrap(), options()).await.unwrap_err();
    assert!(
        matches!(&error, ConnectionError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    );
    assert!(error.is_retryable());
}

#[tokio::test]
async fn messages_arrive_and_are_acknowledged_in_every_version() {
    for version in Version::ALL {
        let broker = broker().await;
        let mut options = options();
        options.session.versions = vec![version];
        let client = connect(&broker, options).await;
        assert_eq!(client.version(), Some(version));
        let receipts =
            client.send_batch((0..10).map(|n| Frame::send("/queue/q", n.to_string()))).await.unwrap();
        for receipt in receipts {
            receipt.await.unwrap();
        }
        // 1.0 knows no client-individual.
        let ack = if version == Version::V1_0 { AckMode::Client } else { AckMode::ClientIndividual };
        let subscribe = Subscribe::to("/queue/q").with_ack(ack).with_prefetch(3);
        let mut messages = client.subscribe(subscribe).await.unwrap();
        for n in 0..10 {
            let message = timeout(LIMIT, messages.next()).await.expect("a message").unwrap().unwrap();
            assert_eq!(message.body_bytes(), &n.to_string());
            messages.ack(&message).await.unwrap();
        }
        drop(messages);
        client.close(LIMIT).await.unwrap();
        assert_eq!(broker.queue("q").unwrap().messages, 0, "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_reads_nothing_for_the_receipt_timeout_is_told_of() {
    let (client, mut peer) = pair(options(), 4096, "version:1.2\n").await;
    let stuck = client.send_with_receipt(Frame::send("q", vec![b'x'; 1 << 20])).await.unwrap();
    peer.expect("SEND\ndestination:q\nreceipt:1\n").await;
    let start = Instant::now();
    // Queued behind it, and never taken by the connection's task.
    let waiting = client.send_with_receipt(Frame::send("q", "small")).await.unwrap();
    let refused = waiting.await;
    assert!(matches!(refused, Err(Unconfirmed::NotSent(SendError::Stalled(_)))), "{refused:?}");
    assert_eq!(start.elapsed().as_secs(), 30);
    assert!(matches!(stuck.await, Err(Unconfirmed::TimedOut)));
    // From now on at once: whoever sends is not kept waiting.
    let late = client.send_with_receipt(Frame::send("q", "late")).await.unwrap().await;
    assert!(matches!(late, Err(Unconfirmed::NotSent(SendError::Stalled(_)))), "{late:?}");
    assert_eq!(start.elapsed().as_secs(), 30);
    let error = client.close(Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(error, ConnectionError::Session(SessionError::CloseTimeout(_))), "{error}");
    assert_eq!(start.elapsed().as_secs(), 32);
}

#[tokio::test]
async fn a_server_that_lets_in_and_hangs_up_has_let_in() {
    for _ in 0..50 {
        let (ours, theirs) = duplex(1 << 16);
        let connecting = tokio::spawn(Client::over(ours, options()));
        let mut peer = support::Peer { transport: theirs };
        peer.shake_hands("version:1.2\n").await;
        drop(peer);
        let client = connecting.await.unwrap().expect("the handshake was done");
        let end = timeout(LIMIT, client.ended()).await.unwrap();
        assert!(matches!(end, ConnectionError::ClosedByServer), "{end}");
    }
}
