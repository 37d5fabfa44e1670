//! A client that comes back: pauses, credentials, subscriptions made anew, and what becomes of everything in between.
#![cfg(all(feature = "tokio", feature = "broker"))]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use stompwire::{
    Backoff, Frame,
    broker::Broker,
    client::{
        Client, ClientBuilder, ConnectionError, Credentials, Reconnect, SendError, State, Subscribe,
        SubscriptionError, Unconfirmed,
    },
};
use tokio::time::{Instant, timeout};

use support::{CONNECT, LIMIT, Peer, let_in, options, through_a_door, until};

/// Pauses of 1 s to 8 s, each between a quarter and the whole of its bound.
fn patient() -> Reconnect {
    Reconnect::default().with_backoff(Backoff { min: Duration::from_secs(1), max: Duration::from_secs(8) })
}

fn builder() -> ClientBuilder {
    Client::builder().reconnect(patient())
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_made_anew_once_each_and_what_waited_is_not_seen_twice() {
    let (client, mut peer, mut door) = let_in(builder()).await;
    let subscribing = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe(Subscribe::to("q").with_prefetch(5)).await }
    });
    peer.expect_subscribe(1, 5, Some(1)).await;
    let mut messages = subscribing.await.unwrap().unwrap();
    for ack in ["a", "b", "c"] {
        peer.message(1, ack).await;
    }
    let a = messages.next().await.unwrap().unwrap();
    assert_eq!(a.body(), b"body a");
    drop(peer);
    until(&client, "waiting", |state| matches!(state, State::Waiting { .. })).await;

    let stale = messages.ack(&a).await;
    assert!(matches!(stale, Err(SendError::Stale)), "{stale:?}");
    let mut peer = door.welcome().await;
    peer.expect_subscribe(1, 5, None).await;
    let stale = messages.ack(&a).await;
    assert!(matches!(stale, Err(SendError::Stale)), "{stale:?}");
    peer.expect_nothing().await;
    // The server delivers again what was not acknowledged; b and c, which waited here, come once.
    for ack in ["a2", "b2", "c2"] {
        peer.message(1, ack).await;
    }
    for ack in ["a2", "b2", "c2"] {
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!(message.header("ack"), Some(ack));
        messages.ack(&message).await.unwrap();
        peer.expect(&format!("ACK\nid:{ack}\n\n\0")).await;
    }
    assert!(matches!(&*client.state().borrow(), State::Connected { number: 2, .. }));
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_there_is_no_connection_is_not_made_anew() {
    let (client, mut peer, mut door) = let_in(builder()).await;
    let subscribing = tokio::spawn({
        let client = client.clone();
        async move { (client.subscribe(Subscribe::to("q")).await, client.begin().await) }
    });
    peer.expect_subscribe(1, 100, Some(1)).await;
    peer.expect("BEGIN\ntransaction:2\nreceipt:2\n\n\0").await;
    peer.receipt(2).await;
    let (messages, transaction) = subscribing.await.unwrap();
    let (messages, transaction) = (messages.unwrap(), transaction.unwrap());
    drop(peer);
    until(&client, "waiting", |state| matches!(state, State::Waiting { .. })).await;
    drop(messages);
    let stale = transaction.send(Frame::send("q", "")).await;
    assert!(matches!(stale, Err(SendError::Stale)), "{stale:?}");
    let stale = transaction.commit().await;
    assert!(matches!(stale, Err(Unconfirmed::NotSent(SendError::Stale))), "{stale:?}");
    door.welcome().await.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_while_there_is_no_connection_is_the_end_of_it_too() {
    let (client, mut peer, mut door) = let_in(builder()).await;
    let subscribing = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe(Subscribe::to("q")).await }
    });
    peer.expect_subscribe(1, 100, Some(1)).await;
    let messages = subscribing.await.unwrap().unwrap();
    drop(peer);
    until(&client, "waiting", |state| matches!(state, State::Waiting { .. })).await;
    let over = timeout(LIMIT, messages.unsubscribe()).await.unwrap();
    assert!(matches!(over, Err(Unconfirmed::NotSent(SendError::NotConnected(_)))), "{over:?}");
    // Made anew it would take messages that nobody reads.
    door.welcome().await.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_while_it_is_closed_is_not_made_anew() {
    for by_dropping in [false, true] {
        let (client, mut peer, mut door) = let_in(builder()).await;
        let pending = client.send_with_receipt(Frame::send("q", "1")).await.unwrap();
        peer.expect("SEND\ndestination:q\nreceipt:1\ncontent-length:1\n\n1\0").await;
        let (mut state, start) = (client.state(), Instant::now());
        let closing = tokio::spawn(async move {
            if by_dropping {
                drop(client);
                return Ok(());
            }
            client.close(LIMIT).await
        });
        // It waits for the receipt.
        peer.expect_nothing().await;
        drop(peer);
        let closed = timeout(LIMIT, closing).await.unwrap().unwrap();
        assert_eq!(closed.is_err(), !by_dropping, "{closed:?}");
        let lost = timeout(LIMIT, pending).await.unwrap();
        assert!(matches!(lost, Err(Unconfirmed::ConnectionLost(_))), "{lost:?}");
        timeout(LIMIT, state.wait_for(State::is_closed)).await.unwrap().unwrap();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(door.is_quiet());
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_the_server_refuses_is_not_tried_again() {
    let (client, mut peer, mut door) = let_in(builder()).await;
    let subscribing = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe(Subscribe::to("q")).await }
    });
    peer.expect("SUBSCRIBE\nid:1\ndestination:q\n").await;
    peer.say("ERROR\nmessage:no such queue\n\n\0").await;
    drop(peer);
    let refused = subscribing.await.unwrap();
    assert!(
        matches!(refused, Err(Unconfirmed::ConnectionLost(ConnectionError::ServerError(_)))),
        "{refused:?}"
    );
    door.welcome().await.expect_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn pending_receipts_are_told_and_later_frames_wait_for_the_next_connection() {
    let (client, mut peer, mut door) = let_in(builder()).await;
    let pending = client.send_with_receipt(Frame::send("q", "1")).await.unwrap();
    peer.expect("SEND\ndestination:q\nreceipt:1\ncontent-length:1\n\n1\0").await;
    drop(peer);
    let lost = pending.await;
    assert!(matches!(&lost, Err(Unconfirmed::ConnectionLost(_))), "{lost:?}");
    assert!(lost.unwrap_err().is_retryable());
    let sending = tokio::spawn({
        let client = client.clone();
        async move { client.send_with_receipt(Frame::send("q", "2")).await.unwrap().await }
    });
    let mut peer = door.welcome().await;
    peer.expect("SEND\ndestination:q\nreceipt:1\ncontent-length:1\n\n2\0").await;
    peer.receipt(1).await;
    sending.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_connection_has_a_limit() {
    let (client, peer, _door) = let_in(builder()).await;
    drop(peer);
    until(&client, "waiting", |state| matches!(state, State::Waiting { .. })).await;
    // Connections are made and never answered.
    let start = Instant::now();
    let limit = Duration::from_secs(30);
    let late = client.send(Frame::send("q", "")).await;
    assert!(matches!(late, Err(SendError::TimedOut(after)) if after == limit), "{late:?}");
    assert_eq!(start.elapsed(), limit);
    for late in [
        client.subscribe(Subscribe::to("q")).await.map(drop),
        client.begin().await.map(drop),
        client.send_batch([Frame::send("q", "")]).await.map(drop).map_err(|error| error.cause.into()),
    ] {
        assert!(matches!(late, Err(Unconfirmed::NotSent(SendError::TimedOut(_)))), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_and_attempts_end() {
    let refused = |_: &str| -> std::io::Result<tokio::io::DuplexStream> {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    };
    let (mut first, mut peers) = (true, tokio::sync::mpsc::channel(1));
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    let make = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let made = if std::mem::take(&mut first) {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            peers.0.try_send(Peer { transport: theirs }).unwrap();
            Ok(ours)
        } else {
            refused("again")
        };
        async move { made }
    };
    let builder = Client::builder().options(options()).reconnect(patient().with_max_attempts(5));
    let connecting = tokio::spawn(builder.connect_with(make));
    let mut peer = timeout(LIMIT, peers.1.recv()).await.unwrap().unwrap();
    peer.shake_hands("version:1.2\n").await;
    let client = connecting.await.unwrap().unwrap();
    let mut state = client.state();
    let start = Instant::now();
    drop(peer);
    let mut pauses = Vec::new();
    let end = loop {
        state.changed().await.unwrap();
        match state.borrow_and_update().clone() {
            State::Waiting { pause, failures, .. } => {
                pauses.push(pause);
                assert_eq!(failures as usize, pauses.len());
            }
            State::Closed { cause } => break cause,
            _ => {}
        }
    };
    assert!(matches!(end, ConnectionError::Io(_)), "{end}");
    for (pause, bound) in pauses.iter().zip([1, 2, 4, 8, 8]) {
        let bound = Duration::from_secs(bound);
        assert!((bound / 4..=bound).contains(pause), "{pauses:?}");
    }
    assert_eq!((pauses.len(), attempts.load(Ordering::Relaxed)), (5, 6));
    assert!(start.elapsed() >= pauses.iter().sum());
    let late = client.send(Frame::send("q", "")).await;
    assert!(matches!(late, Err(SendError::Closed(ConnectionError::Io(_)))), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lets_in_and_throws_out_is_not_hammered() {
    let (client, peer, mut door) = let_in(builder()).await;
    let start = Instant::now();
    drop(peer);
    for _ in 0..6 {
        drop(door.welcome().await);
    }
    // 1 + 2 + 4 + 8 + 8 + 8 s, each at least a quarter of it.
    assert!(start.elapsed() >= Duration::from_millis(31_000 / 4), "{:?}", start.elapsed());
    let waiting =
        until(&client, "waiting", |state| matches!(state, State::Waiting { failures: 7, .. })).await;
    assert!(!waiting.is_closed());
    // A connection that has lived for as long as the longest pause counts as a success.
    let peer = door.welcome().await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    drop(peer);
    until(&client, "forgiven", |state| matches!(state, State::Waiting { failures: 1, .. })).await;
}

#[tokio::test(start_paused = true)]
async fn credentials_are_asked_for_before_each_connection() {
    let asked = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    let source = move || {
        let number = counted.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            if number == 2 {
                Err("the vault is sealed")
            } else {
                Ok(Credentials::new("app", format!("token-{number}")))
            }
        }
    };
    let (connecting, mut door) = through_a_door(builder().options(options()).credentials(source));
    let greeting =
        |number: u32| CONNECT.replace("\n\n\0", &format!("\nlogin:app\npasscode:token-{number}\n\n\0"));
    let mut peer = door.open().await;
    peer.expect(&greeting(1)).await;
    peer.say("CONNECTED\nversion:1.2\n\n\0").await;
    let client = connecting.await.unwrap().unwrap();
    drop(peer);
    let failed = |state: &State| {
        matches!(state, State::Waiting { failures: 2, cause: ConnectionError::Credentials(_), .. })
    };
    let state = until(&client, "without credentials", failed).await;
    assert!(format!("{state:?}").contains("the vault is sealed"));
    let mut peer = door.open().await;
    peer.expect(&greeting(3)).await;
    assert!(!format!("{:?}", Credentials::new("app", "hunter2")).contains("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn credentials_that_do_not_come_are_not_waited_for_for_ever() {
    let source = || async {
        std::future::pending::<()>().await;
        Ok::<_, std::convert::Infallible>(Credentials::new("", ""))
    };
    let builder = Client::builder().options(options()).credentials(source);
    let start = Instant::now();
    let (connecting, _door) = through_a_door(builder.clone());
    let error = connecting.await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectionError::Credentials(_)), "{error}");
    assert_eq!(start.elapsed().as_secs(), 10);
    let (ours, _theirs) = tokio::io::duplex(1 << 16);
    let error = builder.connect_over(ours).await.unwrap_err();
    assert!(matches!(error, ConnectionError::Credentials(_)), "{error}");
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test]
async fn the_next_host_is_tried_at_once() {
    let (one, two) = (Broker::builder().start().await.unwrap(), Broker::builder().start().await.unwrap());
    let client = builder().broker(&one.url()).unwrap().broker(&two.url()).unwrap().connect().await.unwrap();
    assert_eq!((one.connections().len(), two.connections().len()), (1, 0));
    one.shutdown().await;
    until(&client, "at the second", |state| matches!(state, State::Connected { number: 2, .. })).await;
    assert_eq!(two.connections().len(), 1);
    client.send_with_receipt(Frame::send("/queue/q", "x")).await.unwrap().await.unwrap();
    assert_eq!(two.queue("q").unwrap().messages, 1);
    // The first caller is told at once when nobody is there, whatever comes later.
    let gone = two.url();
    client.close(LIMIT).await.unwrap();
    two.shutdown().await;
    let start = Instant::now();
    let error = builder().broker(&gone).unwrap().connect().await.unwrap_err();
    assert!(matches!(error, ConnectionError::Io(_)) && start.elapsed() < Duration::from_secs(1), "{error}");
}

#[tokio::test]
async fn a_client_may_be_started_before_its_broker() {
    let broker = Broker::builder().start().await.unwrap();
    let (url, faults) = (broker.url(), broker.faults());
    faults.set_admission(stompwire::broker::Admission::PortClosed);
    let quick = Reconnect::default()
        .with_backoff(Backoff { min: Duration::from_millis(10), max: Duration::from_millis(50) });
    let client = Client::builder().broker(&url).unwrap().reconnect(quick).start().unwrap();
    until(&client, "refused", |state| matches!(state, State::Waiting { failures: 2.., .. })).await;
    assert!(client.connected().is_none() && client.version().is_none());
    let sending = tokio::spawn({
        let client = client.clone();
        async move { client.send_with_receipt(Frame::send("/queue/q", "x")).await.unwrap().await }
    });
    faults.set_admission(stompwire::broker::Admission::Open);
    timeout(LIMIT, sending).await.unwrap().unwrap().unwrap();
    assert!(Client::builder().start().is_err(), "without a broker");
}

#[tokio::test(start_paused = true)]
async fn closing_and_dropping_end_a_client_that_waits() {
    for close in [true, false] {
        let (client, mut peer, mut door) = let_in(builder()).await;
        let subscribing = tokio::spawn({
            let client = client.clone();
            async move { client.subscribe(Subscribe::to("q")).await }
        });
        peer.expect_subscribe(1, 100, Some(1)).await;
        let mut messages = subscribing.await.unwrap().unwrap();
        drop(peer);
        until(&client, "waiting", |state| matches!(state, State::Waiting { .. })).await;
        let mut state = client.state();
        if close {
            client.close(LIMIT).await.unwrap();
            assert!(messages.next().await.is_none(), "an end that was asked for is no error");
        } else {
            drop(messages);
            drop(client);
        }
        timeout(LIMIT, state.wait_for(State::is_closed)).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(door.is_quiet());
    }
}

#[tokio::test]
async fn without_reconnect_a_lost_connection_is_the_end() {
    let (client, mut peer, _door) = let_in(Client::builder()).await;
    let subscribing = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe(Subscribe::to("q")).await }
    });
    peer.expect_subscribe(1, 100, Some(1)).await;
    let mut messages = subscribing.await.unwrap().unwrap();
    peer.message(1, "a").await;
    let a = messages.next().await.unwrap().unwrap();
    peer.message(1, "b").await;
    drop(peer);
    until(&client, "closed", State::is_closed).await;
    // What has arrived can still be taken, and is the server's to deliver again.
    assert_eq!(messages.next().await.unwrap().unwrap().body(), b"body b");
    let end = messages.next().await.unwrap();
    assert!(matches!(end, Err(SubscriptionError::Closed(ConnectionError::ClosedByServer))), "{end:?}");
    assert!(messages.next().await.is_none());
    assert!(matches!(messages.ack(&a).await, Err(SendError::Closed(_))));
}
