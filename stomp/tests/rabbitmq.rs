//! What the client and the publisher rely on, seen on a live RabbitMQ.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use rabbitmq_node::{Node, QueueCounts, QueueKind, QueueOptions, Vhost, shared};
use stompwire::{
    Frame, Version,
    client::{
        AckMode, Client, ConnectOptions, ConnectionError, Reconnect, SendError, State, Subscribe,
        Subscription, SubscriptionError, Unconfirmed,
    },
    proto::HeartBeat,
    publisher::{LaneState, Message, Outcome, Publisher, PublisherOptions},
    rabbitmq::STREAM_CHUNK,
};
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(30);

/// A virtual host of its own, with the durable queue `q`.
fn vhost() -> Vhost {
    let vhost = shared().new_vhost().unwrap();
    vhost.declare_queue("q", &QueueOptions::default()).unwrap();
    vhost
}

async fn connect(url: &str, options: ConnectOptions) -> Result<Client, ConnectionError> {
    timeout(LIMIT, Client::connect(&url.parse().unwrap(), options)).await.expect("in time")
}

async fn outcome(client: &Client, frame: Frame) -> Result<(), Unconfirmed> {
    timeout(LIMIT, client.send_with_receipt(frame).await.unwrap()).await.expect("resolved")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_receipted_pipelined_and_carry_their_properties() {
    let vhost = vhost();
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    assert_eq!(client.version(), Some(Version::V1_2));
    assert!(client.connected().unwrap().server.as_deref().unwrap().starts_with("RabbitMQ/"));
    let frames = (0..2000).map(|n| {
        Frame::send("/amq/queue/q", format!("body {n}\0"))
            .with_header("persistent", "true")
            .with_header("content-type", "text/plain")
            .with_header("amqp-message-id", &format!("id:{n}"))
            .with_header("x-own", "a:b\\c\nd")
    });
    for receipt in client.send_batch(frames).await.unwrap() {
        timeout(LIMIT, receipt).await.unwrap().unwrap();
    }
    assert_eq!(vhost.queue_depth("q").unwrap(), 2000);
    let message = &vhost.get_messages("q", 1).unwrap()[0];
    assert_eq!(message.payload, b"body 0\0");
    assert_eq!(message.properties["delivery_mode"], 2);
    assert_eq!(message.properties["message_id"], "id:0");
    assert_eq!(message.properties["content_type"], "text/plain");
    assert_eq!(message.header("x-own").unwrap(), "a:b\\c\nd");
    client.close(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_header_persistent_a_message_is_transient() {
    let vhost = vhost();
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    outcome(&client, Frame::send("/amq/queue/q", "x")).await.unwrap();
    let message = &vhost.get_messages("q", 1).unwrap()[0];
    assert_ne!(message.properties.get("delivery_mode"), Some(&2.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unroutable_message_is_receipted_and_gone() {
    let vhost = vhost();
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    outcome(&client, Frame::send("/amq/queue/missing", "x")).await.unwrap();
    outcome(&client, Frame::send("/exchange/amq.direct/nobody", "x")).await.unwrap();
    assert_eq!(vhost.queue_depth("q").unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_exchange_is_an_error_and_the_end() {
    let vhost = vhost();
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    let lost = outcome(&client, Frame::send("/exchange/missing/key", "x")).await;
    assert!(matches!(lost, Err(Unconfirmed::ConnectionLost(_))), "{lost:?}");
    let end = client.ended().await;
    let ConnectionError::ServerError(frame) = &end else { panic!("{end}") };
    assert_eq!(frame.header("message"), Some("not_found"));
    assert_eq!(frame.header("receipt-id"), None, "RabbitMQ does not say which frame");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_message_closes_the_connection_without_an_error() {
    let vhost = vhost();
    let policy = serde_json::json!({ "max-length": 1, "overflow": "reject-publish" });
    vhost.set_policy("full", "^q$", &policy).unwrap();
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    let frames = (0..5).map(|_| Frame::send("/amq/queue/q", "x"));
    let mut lost = 0;
    for receipt in client.send_batch(frames).await.unwrap() {
        lost += u32::from(timeout(LIMIT, receipt).await.unwrap().is_err());
    }
    assert!(lost > 0);
    let end = client.ended().await;
    assert!(matches!(end, ConnectionError::ClosedByServer | ConnectionError::Io(_)), "{end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_credentials_and_a_missing_vhost_are_the_servers_word() {
    let vhost = vhost();
    let wrong = vhost.stomp_url_as("guest", "hunter2");
    let elsewhere = format!("stomp://guest:guest@{}/nowhere", vhost.stomp_addr());
    for url in [wrong, elsewhere] {
        let error = connect(&url, ConnectOptions::default()).await.unwrap_err();
        assert!(matches!(error, ConnectionError::ServerError(_)), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passcode_with_a_backslash_needs_the_switch() {
    let vhost = vhost();
    let user = format!("user-{}", vhost.name());
    vhost.add_user(&user, "back\\slash\\n").unwrap();
    vhost.set_permissions(&user, ".*", ".*", ".*").unwrap();
    let url = vhost.stomp_url_as(&user, "back\\slash\\n");
    assert!(
        connect(&url, ConnectOptions::default()).await.is_err(),
        "RabbitMQ does not unescape CONNECT any more"
    );
    let mut options = ConnectOptions::default();
    options.session.escape_connect = true;
    connect(&url, options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heart_beats_keep_an_idle_connection_and_their_absence_ends_it() {
    let vhost = vhost();
    let mut options = ConnectOptions::default();
    options.session.heart_beat = HeartBeat::every(Duration::from_secs(1));
    let client = connect(&vhost.stomp_url(), options).await.unwrap();
    let idle = timeout(Duration::from_secs(6), client.ended()).await;
    assert!(idle.is_err(), "an idle connection ended: {idle:?}");
    outcome(&client, Frame::send("/amq/queue/q", "x")).await.unwrap();

    // A silent client that promised heart-beats: cut off without an ERROR.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut silent = tokio::net::TcpStream::connect(vhost.stomp_addr()).await.unwrap();
    let connect = format!(
        "CONNECT\naccept-version:1.2\nhost:{}\nlogin:guest\npasscode:guest\nheart-beat:1000,0\n\n\0",
        vhost.name()
    );
    silent.write_all(connect.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let start = Instant::now();
    timeout(LIMIT, silent.read_to_string(&mut answer)).await.expect("cut off").unwrap_or_default();
    assert!(answer.starts_with("CONNECTED\n") && !answer.contains("ERROR"), "{answer}");
    assert!((1..=6).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_consumed_and_acknowledged() {
    let vhost = vhost();
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    let frames = (0..300).map(|n| Frame::send("/amq/queue/q", n.to_string()));
    for receipt in client.send_batch(frames).await.unwrap() {
        timeout(LIMIT, receipt).await.unwrap().unwrap();
    }
    let mut messages = client.subscribe(Subscribe::to("/amq/queue/q").with_prefetch(10)).await.unwrap();
    for n in 0..300 {
        let message = timeout(LIMIT, messages.next()).await.expect("a message").unwrap().unwrap();
        assert_eq!(message.body_bytes(), &n.to_string());
        messages.ack(&message).await.unwrap();
    }
    client.close(LIMIT).await.unwrap();
    vhost.wait_for_depth("q", 0, LIMIT).unwrap();
}

async fn take(messages: &mut Subscription) -> stompwire::client::Message {
    timeout(LIMIT, messages.next()).await.expect("a message in time").expect("not the end").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_holds_the_broker_back_and_a_nack_brings_the_message_again() {
    let vhost = vhost();
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    for receipt in
        client.send_batch((0..9).map(|n| Frame::send("/amq/queue/q", n.to_string()))).await.unwrap()
    {
        timeout(LIMIT, receipt).await.unwrap().unwrap();
    }
    let mut messages = client.subscribe(Subscribe::to("/amq/queue/q").with_prefetch(3)).await.unwrap();
    let first = take(&mut messages).await;
    take(&mut messages).await;
    let third = take(&mut messages).await;
    assert_eq!(vhost.queue_counts("q").unwrap(), QueueCounts { ready: 6, unacknowledged: 3 });
    timeout(LIMIT, messages.ack_with_receipt(&first).await.unwrap()).await.unwrap().unwrap();
    assert_eq!(take(&mut messages).await.body(), b"3");
    assert_eq!(vhost.queue_counts("q").unwrap(), QueueCounts { ready: 5, unacknowledged: 3 });
    assert_eq!(third.header("redelivered"), Some("false"));
    timeout(LIMIT, messages.nack_with_receipt(&third).await.unwrap()).await.unwrap().unwrap();
    let again = take(&mut messages).await;
    assert_eq!((again.body(), again.header("redelivered")), (third.body(), Some("true")));
    client.close(LIMIT).await.unwrap();
    vhost.wait_for_depth("q", 8, LIMIT).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_counts_from_commit_on_or_not_at_all() {
    let vhost = vhost();
    vhost.declare_queue("out", &QueueOptions::default()).unwrap();
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    outcome(&client, Frame::send("/amq/queue/q", "order")).await.unwrap();
    let mut messages = client.subscribe(Subscribe::to("/amq/queue/q")).await.unwrap();
    let order = take(&mut messages).await;
    for (commit, expected) in [(false, [1, 0]), (true, [0, 1])] {
        let transaction = timeout(LIMIT, client.begin()).await.unwrap().unwrap();
        transaction.ack(&messages, &order).await.unwrap();
        transaction.send(Frame::send("/amq/queue/out", "invoice")).await.unwrap();
        let end = async { if commit { transaction.commit().await } else { transaction.abort().await } };
        timeout(LIMIT, end).await.unwrap().unwrap();
        for (queue, depth) in ["q", "out"].into_iter().zip(expected) {
            vhost.wait_for_depth(queue, depth, LIMIT).unwrap();
        }
    }
    client.close(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_comes_back_and_what_it_held_is_delivered_again() {
    let vhost = vhost();
    let builder = Client::builder().broker(&vhost.stomp_url()).unwrap().reconnect(Reconnect::default());
    let client = timeout(LIMIT, builder.connect()).await.unwrap().unwrap();
    for n in 0..5 {
        outcome(&client, Frame::send("/amq/queue/q", n.to_string())).await.unwrap();
    }
    let mut messages = client.subscribe(Subscribe::to("/amq/queue/q")).await.unwrap();
    let first = take(&mut messages).await;
    timeout(LIMIT, messages.ack_with_receipt(&first).await.unwrap()).await.unwrap().unwrap();
    let held = take(&mut messages).await;
    assert_eq!(vhost.close_all_connections().unwrap(), 1);
    let mut state = client.state();
    let back = state.wait_for(|state| matches!(state, State::Connected { number: 2, .. }));
    timeout(LIMIT, back).await.expect("it comes back").unwrap();
    // All that was not acknowledged, each once, whether it had been taken or not.
    for n in 1..5 {
        let message = take(&mut messages).await;
        assert_eq!(
            (message.body_bytes(), message.header("redelivered")),
            (n.to_string().into(), Some("true"))
        );
        if n == 1 {
            let stale = messages.ack(&held).await;
            assert!(matches!(stale, Err(SendError::Stale)), "{stale:?}");
        }
        messages.ack(&message).await.unwrap();
    }
    client.close(LIMIT).await.unwrap();
    vhost.wait_for_depth("q", 0, LIMIT).unwrap();
}

/// Ten messages each in `q` and `r`; those of `q` are delivered to the client and not acknowledged.
async fn ten_held_of_q() -> (Vhost, Client, Subscription) {
    let vhost = vhost();
    vhost.declare_queue("r", &QueueOptions::default()).unwrap();
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    let frames = (0..20).map(|n| Frame::send(["/amq/queue/q", "/amq/queue/r"][n % 2], n.to_string()));
    for receipt in client.send_batch(frames).await.unwrap() {
        timeout(LIMIT, receipt).await.unwrap().unwrap();
    }
    let mut held = client.subscribe(Subscribe::to("/amq/queue/q").with_prefetch(10)).await.unwrap();
    for _ in 0..10 {
        timeout(LIMIT, held.next()).await.expect("a message").unwrap().unwrap();
    }
    (vhost, client, held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cumulative_ack_speaks_for_every_subscription_of_the_connection() {
    let (vhost, client, _held) = ten_held_of_q().await;
    let subscribe = Subscribe::to("/amq/queue/r").with_ack(AckMode::Client).with_prefetch(10);
    let mut cumulative = client.subscribe(subscribe).await.unwrap();
    let first = timeout(LIMIT, cumulative.next()).await.expect("a message").unwrap().unwrap();
    timeout(LIMIT, cumulative.ack_with_receipt(&first).await.unwrap()).await.unwrap().unwrap();
    let depths = ["q", "r"].map(|queue| vhost.queue_depth(queue).unwrap());
    assert_eq!(depths, [0, 9], "RabbitMQ has learnt to tell subscriptions apart: change what `AckMode` says");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_on_take_is_no_other_subscriptions() {
    let (vhost, client, _held) = ten_held_of_q().await;
    let subscribe = Subscribe::to("/amq/queue/r").acknowledged_on_take().with_prefetch(10);
    let mut taken = client.subscribe(subscribe).await.unwrap();
    for _ in 0..10 {
        timeout(LIMIT, taken.next()).await.expect("a message").unwrap().unwrap();
    }
    taken.unsubscribe().await.unwrap();
    vhost.wait_for_depth("r", 0, LIMIT).unwrap();
    client.close(LIMIT).await.unwrap();
    vhost.wait_for_depth("q", 10, LIMIT).unwrap();
}

/// A node whose alarms may be raised without disturbing the other tests.
fn alarmed() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| Node::start().unwrap())
}

/// Held by the test that raises alarms on it.
static ALARM: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_an_alarm_the_publisher_is_blocked_does_not_reconnect_and_loses_nothing() {
    let node = alarmed();
    let _alone = ALARM.lock().await;
    let vhost = node.new_vhost().unwrap();
    vhost.declare_queue("q", &QueueOptions::default()).unwrap();
    let mut options = PublisherOptions::new(vec![vhost.stomp_url().parse().unwrap()], "/amq/queue/q");
    options.connect.session.heart_beat = HeartBeat::every(Duration::from_secs(1));
    options.receipt_timeout = Duration::from_secs(1);
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    let message = |n: usize| Message {
        id: n.to_string(),
        headers: stompwire::Headers::new(),
        body: vec![b'x'; 1000].into(),
        token: n,
    };
    publisher.publish(message(0)).await.unwrap();
    assert!(matches!(timeout(LIMIT, outcomes.recv()).await.unwrap(), Some(Outcome::Confirmed { .. })));

    node.set_disk_alarm(true).unwrap();
    for n in 1..100 {
        publisher.publish(message(n)).await.unwrap();
        // Apart, so that they do not arrive in the one read that the broker may still do.
        sleep(Duration::from_millis(2)).await;
    }
    let start = Instant::now();
    while publisher.lanes()[0].state != LaneState::Blocked {
        assert!(start.elapsed() < LIMIT, "never blocked: {:?}", publisher.lanes());
        sleep(Duration::from_millis(50)).await;
    }
    // Several receipt timeouts and heart-beat periods later the connection is the same.
    sleep(Duration::from_secs(5)).await;
    assert_eq!(publisher.lanes()[0].state, LaneState::Blocked);
    node.set_disk_alarm(false).unwrap();

    let cleared = Instant::now();
    let mut confirmed = 1;
    while confirmed < 100 {
        match timeout(LIMIT, outcomes.recv()).await.expect("receipts come").unwrap() {
            Outcome::Confirmed { attempts, .. } => assert_eq!(attempts, 1),
            other => panic!("{other:?}"),
        }
        confirmed += 1;
    }
    println!("100 messages confirmed {:?} after the alarm cleared", cleared.elapsed());
    assert_eq!(publisher.board().totals().connects, 1);
    assert_eq!(vhost.queue_depth("q").unwrap(), 100);
    publisher.close(LIMIT).await;
}

/// The beginning of a connection by hand, up to CONNECTED.
async fn raw(vhost: &Vhost) -> tokio::net::TcpStream {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(vhost.stomp_addr()).await.unwrap();
    let connect =
        format!("CONNECT\naccept-version:1.2\nhost:{}\nlogin:guest\npasscode:guest\n\n\0", vhost.name());
    stream.write_all(connect.as_bytes()).await.unwrap();
    let mut answer = [0; 9];
    timeout(LIMIT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"CONNECTED");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_five_mebibytes_is_receipted_before_3_12_and_costs_the_connection_after() {
    let vhost = vhost();
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    let huge = outcome(&client, Frame::send("/amq/queue/q", vec![b'x'; 5 << 20])).await;
    let version = shared().version();
    let number =
        |part: usize| version.split('.').nth(part).and_then(|part| part.parse::<u32>().ok()).unwrap();
    if (number(0), number(1)) < (3, 12) {
        huge.unwrap();
        assert_eq!(vhost.queue_depth("q").unwrap(), 1);
    } else {
        let end = client.ended().await;
        assert!(matches!(end, ConnectionError::ClosedByServer | ConnectionError::Io(_)), "{end}");
        assert_eq!(vhost.queue_depth("q").unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_write_is_told_so_and_so_is_one_who_declares_otherwise() {
    let vhost = vhost();
    vhost.add_user("reader", "secret").unwrap();
    vhost.set_permissions("reader", "", "", ".*").unwrap();
    vhost.declare_queue("transient", &QueueOptions { durable: false, ..QueueOptions::default() }).unwrap();
    for (url, destination, message) in [
        (vhost.stomp_url_as("reader", "secret"), "/amq/queue/q", "access_refused"),
        (vhost.stomp_url_as("reader", "secret"), "/queue/new", "access_refused"),
        (vhost.stomp_url(), "/queue/transient", "precondition_failed"),
    ] {
        let client = connect(&url, ConnectOptions::default()).await.unwrap();
        let lost = outcome(&client, Frame::send(destination, "x").with_header("persistent", "true")).await;
        assert!(matches!(lost, Err(Unconfirmed::ConnectionLost(_))), "{lost:?}");
        let ConnectionError::ServerError(frame) = client.ended().await else {
            panic!("{destination}: no ERROR")
        };
        assert_eq!(frame.header("message"), Some(message), "{destination}");
        assert_eq!(frame.header("receipt-id"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_exceeds_the_prefetch_by_up_to_a_chunk() {
    const MESSAGES: usize = 500;
    let vhost = vhost();
    vhost.declare_queue("s", &QueueOptions::of_kind(QueueKind::Stream)).unwrap();
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    // Written at once, so that chunks hold more than a message.
    let frames = (0..MESSAGES).map(|n| Frame::send("/amq/queue/s", n.to_string()));
    for receipt in client.send_batch(frames).await.unwrap() {
        timeout(LIMIT, receipt).await.unwrap().unwrap();
    }
    let to_stream = || {
        let subscribe = Subscribe::to("/amq/queue/s").with_ack(AckMode::Client).with_prefetch(1);
        subscribe.with_header("x-stream-offset", "first")
    };
    let mut strict = client.subscribe(to_stream()).await.unwrap();
    let mut taken = 0;
    let end = loop {
        match timeout(LIMIT, strict.next()).await.expect("in time").unwrap() {
            Ok(message) => {
                taken += 1;
                // Too late when the subscription has been cancelled already.
                strict.ack(&message).await.unwrap_or_default();
            }
            Err(error) => break Some(error),
        }
        if taken == MESSAGES {
            break None;
        }
    };
    if shared().version().starts_with("3.10.") {
        assert!(matches!(end, Some(SubscriptionError::Overrun { credit: 1 })), "{end:?} after {taken}");
    }
    drop(strict);

    // Over a connection of its own: the end of a busy subscription may cost the other one, as the next test shows.
    let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    let mut whole = client.subscribe(to_stream().with_excess(STREAM_CHUNK)).await.unwrap();
    for number in 0..MESSAGES {
        let message = timeout(LIMIT, whole.next()).await.expect("in time").unwrap().unwrap();
        assert_eq!(message.body(), number.to_string().as_bytes());
        whole.ack(&message).await.unwrap();
    }
    client.close(LIMIT).await.unwrap();
}

/// RabbitMQ forgets a subscription at UNSUBSCRIBE, and then answers a message for it that waits in its own process with
/// ERROR (`send_delivery` in `rabbit_stomp_processor`). How often is a race, so nothing is claimed of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_busy_subscription_may_cost_the_connection() {
    const TRIES: usize = 10;
    let vhost = vhost();
    let publisher = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
    let mut lost = 0;
    for _ in 0..TRIES {
        let frames = (0..5000).map(|_| Frame::send("/amq/queue/q", "x"));
        for receipt in publisher.send_batch(frames).await.unwrap() {
            timeout(LIMIT, receipt).await.unwrap().unwrap();
        }
        let client = connect(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap();
        let busy = Subscribe::to("/amq/queue/q").with_ack(AckMode::ClientIndividual).with_prefetch(1000);
        let mut messages = client.subscribe(busy).await.unwrap();
        timeout(LIMIT, messages.next()).await.unwrap().unwrap().unwrap();
        // The RECEIPT may come before the ERROR.
        let end = match timeout(LIMIT, messages.unsubscribe()).await.unwrap() {
            Ok(()) => client.close(LIMIT).await,
            Err(Unconfirmed::ConnectionLost(error)) => Err(error),
            Err(other) => panic!("{other}"),
        };
        match end {
            Ok(()) => {}
            Err(ConnectionError::ServerError(frame)) => {
                assert_eq!(frame.header("message"), Some("Subscription not found"));
                lost += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    println!("{lost} of {TRIES} connections lost to UNSUBSCRIBE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_says_nothing_of_the_frames_before_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let vhost = vhost();
    let mut stream = raw(&vhost).await;
    // The first has no receipt and goes nowhere; the second is confirmed all the same.
    stream
        .write_all(
            b"SEND\ndestination:/amq/queue/gone\n\nx\0SEND\ndestination:/amq/queue/q\nreceipt:2\n\ny\0",
        )
        .await
        .unwrap();
    let mut seen = Vec::new();
    while !seen.windows(12).any(|window| window == b"receipt-id:2") {
        let mut some = [0; 256];
        let read = timeout(LIMIT, stream.read(&mut some)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&some[..read]);
    }
    assert_eq!(vhost.queue_depth("q").unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_an_alarm_a_new_connection_is_made_and_nothing_is_receipted_until_it_clears() {
    let node = alarmed();
    let _alone = ALARM.lock().await;
    let vhost = node.new_vhost().unwrap();
    vhost.declare_queue("q", &QueueOptions::default()).unwrap();
    for memory in [true, false] {
        let alarm = |on| if memory { node.set_memory_alarm(on) } else { node.set_disk_alarm(on) };
        alarm(true).unwrap();
        let mut options = ConnectOptions::default();
        options.session.heart_beat = HeartBeat::every(Duration::from_secs(1));
        let client = connect(&vhost.stomp_url(), options).await.unwrap();
        let mut receipts = Vec::new();
        for _ in 0..20 {
            receipts.push(client.send_with_receipt(Frame::send("/amq/queue/q", "x")).await.unwrap());
            sleep(Duration::from_millis(20)).await;
        }
        let mut last = std::pin::pin!(receipts.pop().unwrap());
        assert!(timeout(Duration::from_secs(4), &mut last).await.is_err(), "receipted under an alarm");
        assert!(timeout(Duration::from_millis(1), client.ended()).await.is_err(), "heart-beats keep coming");
        alarm(false).unwrap();
        timeout(LIMIT, last).await.unwrap().unwrap();
        for receipt in receipts {
            timeout(LIMIT, receipt).await.unwrap().unwrap();
        }
        client.close(LIMIT).await.unwrap();
    }
    assert_eq!(vhost.queue_depth("q").unwrap(), 40);
}
