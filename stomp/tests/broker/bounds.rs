//! What clients can make the broker hold.

use std::time::Duration;

use stompwire::{
    broker::{Broker, BrokerBuilder, Overflow},
    proto::{HeartBeat, Limits},
};
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::raw::{Raw, until};

async fn started(builder: BrokerBuilder) -> (Broker, Raw) {
    let broker = builder.start().await.unwrap();
    let raw = Raw::connected(&broker, "1.2").await;
    (broker, raw)
}

fn send(receipt: usize, body: &str) -> String {
    format!("SEND\ndestination:/queue/a\nreceipt:{receipt}\n\n{body}\0")
}

#[tokio::test]
async fn drop_head_discards_the_oldest_and_counts_it() {
    let (broker, mut raw) = started(Broker::builder().max_messages(3)).await;
    for number in 0..5 {
        raw.write(&send(number, &number.to_string())).await;
        raw.expect(&[&format!("RECEIPT\nreceipt-id:{number}\n\n")]).await;
    }
    let bodies: Vec<_> = broker.peek("a", 9).iter().map(|frame| frame.body_bytes()).collect();
    assert_eq!(bodies, ["2", "3", "4"]);
    let info = broker.queue("a").unwrap();
    assert_eq!((info.messages, info.published_total, info.dropped_total), (3, 5, 2));
    // Messages with a consumer count, and are not discarded: the new one is.
    raw.write("SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client\n\n\0").await;
    for _ in 0..3 {
        raw.frame().await;
    }
    raw.write(&send(5, "5")).await;
    raw.expect(&["RECEIPT\nreceipt-id:5\n\n"]).await;
    let info = broker.queue("a").unwrap();
    assert_eq!((info.messages, info.unacked, info.published_total, info.dropped_total), (0, 3, 6, 3));
}

#[tokio::test]
async fn octets_are_bounded_for_a_queue_and_in_total() {
    // A message is 11 + 8 octets of headers and 81 of body.
    let body = "x".repeat(81);
    let (broker, mut raw) = started(Broker::builder().max_octets(350).max_total_octets(500)).await;
    for number in 0..5 {
        raw.write(&send(number, &body)).await;
        raw.frame().await;
    }
    let info = broker.queue("a").unwrap();
    assert_eq!((info.messages, info.octets, info.dropped_total), (3, 300, 2));
    for number in 0..3 {
        raw.write(&send(number, &body).replace("/queue/a", "/queue/b")).await;
        raw.frame().await;
    }
    let info = broker.queue("b").unwrap();
    assert_eq!((info.messages, info.octets, info.dropped_total), (2, 200, 1));
    // One that can never fit empties nothing.
    raw.write(&send(9, &"x".repeat(400))).await;
    raw.frame().await;
    let info = broker.queue("a").unwrap();
    assert_eq!((info.messages, info.dropped_total), (3, 3));
    // Room comes back from ACKs, purges and subscriptions to topics that end.
    broker.purge("a");
    raw.write("SUBSCRIBE\nid:t\ndestination:/topic/t\nack:client\n\n\0").await;
    for _ in 0..3 {
        raw.write(&send(9, &body).replace("/queue/a", "/topic/t")).await;
    }
    for _ in 0..6 {
        raw.frame().await;
    }
    raw.write("UNSUBSCRIBE\nid:t\n\n\0").await;
    for number in 0..3 {
        raw.write(&send(number, &body)).await;
        raw.frame().await;
    }
    assert_eq!((broker.queue("a").unwrap().messages, broker.queue("b").unwrap().messages), (3, 2));
}

#[tokio::test]
async fn refuse_answers_error() {
    let (broker, mut raw) =
        started(Broker::builder().overflow(Overflow::Refuse).max_messages(1).max_octets(100)).await;
    raw.write(&(send(1, "a") + &send(2, "b"))).await;
    raw.expect(&["RECEIPT\nreceipt-id:1\n\n"]).await;
    raw.expect_error("the queue \"a\" is full", "receipt-id:2\n").await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write(&send(3, &"x".repeat(90))).await;
    raw.expect_error("a message of 109 octets is longer than the queue may hold (100)", "receipt-id:3\n")
        .await;
    let info = broker.queue("a").unwrap();
    assert_eq!((info.messages, info.published_total, info.dropped_total), (1, 1, 0));
}

#[tokio::test]
async fn block_waits_for_room_and_keeps_the_connection() {
    let builder = Broker::builder().overflow(Overflow::Block).max_messages(2);
    let broker = builder.heart_beat(HeartBeat::every(Duration::from_millis(250))).start().await.unwrap();
    let mut raw = Raw::open(&broker).await;
    raw.write("CONNECT\naccept-version:1.2\nhost:/\nheart-beat:250,250\n\n\0").await;
    raw.frame().await;
    // The last is in a transaction, whose COMMIT finds no room in the middle.
    raw.write("BEGIN\ntransaction:t\n\n\0").await;
    for number in 1..=4 {
        raw.write(&send(number, &number.to_string()).replace("\n\n", "\ntransaction:t\n\n")).await;
        raw.frame().await;
    }
    raw.write(&("COMMIT\ntransaction:t\nreceipt:5\n\n\0".to_owned() + &send(6, "6"))).await;
    until("the queue is full", || broker.queue("a").is_some_and(|info| info.messages == 2)).await;
    // Blocked for longer than silence is allowed (500 ms): it gets a heart-beat each 125 ms and is not cut.
    assert_eq!(raw.octets(5).await, b"\n\n\n\n\n");
    let mut consumer = Raw::connected(&broker, "1.2").await;
    consumer.write("SUBSCRIBE\nid:0\ndestination:/queue/a\n\n\0").await;
    for body in ["1", "2", "3", "4", "6"] {
        assert!(consumer.frame().await.ends_with(&format!("\n\n{body}")));
    }
    raw.expect(&["RECEIPT\nreceipt-id:5\n\n", "RECEIPT\nreceipt-id:6\n\n"]).await;
    assert_eq!(broker.queue("a").unwrap().dropped_total, 0);
}

#[tokio::test]
async fn a_slow_listener_of_a_topic_loses_its_oldest_whatever_the_policy() {
    let (broker, mut raw) = started(Broker::builder().overflow(Overflow::Refuse).max_messages(2)).await;
    raw.write("SUBSCRIBE\nid:0\ndestination:/topic/a\nack:client\nprefetch-count:1\n\n\0").await;
    for number in 0..4 {
        raw.write(&send(number, "x").replace("/queue/a", "/topic/a")).await;
    }
    for _ in 0..5 {
        raw.frame().await;
    }
    let info = broker.queue("/topic/a#1-0").unwrap();
    assert_eq!((info.messages, info.unacked, info.dropped_total), (1, 1, 2));
}

#[tokio::test]
async fn unacked_messages_are_bounded() {
    let (broker, mut raw) = started(Broker::builder().max_unacked(2)).await;
    for number in 0..4 {
        raw.write(&send(number, "x")).await;
        raw.frame().await;
    }
    raw.write("SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client\nprefetch-count:9\n\n\0").await;
    raw.frame().await;
    raw.frame().await;
    raw.expect_nothing().await;
    raw.write("ACK\nid:1-0-1\n\n\0").await;
    raw.frame().await;
    raw.frame().await;
    assert_eq!(broker.queue("a").unwrap().unacked, 2);
}

#[tokio::test]
async fn queues_subscriptions_and_frames_are_bounded() {
    let limits = Limits { max_body: 10, ..Limits::default() };
    let builder = Broker::builder().max_queues(2).max_subscriptions(1).limits(limits);
    let broker = builder.start().await.unwrap();
    let table = [
        (
            "SEND\ndestination:/queue/a\n\n\0SUBSCRIBE\nid:0\ndestination:/topic/b\n\n\0SEND\ndestination:/queue/c\n",
            "there are 2 queues already, as many as there may be",
        ),
        (
            "SUBSCRIBE\nid:0\ndestination:/queue/a\n\n\0SUBSCRIBE\nid:1\ndestination:/queue/a\n",
            "this connection has 1 subscriptions already, as many as it may have",
        ),
        (
            "SEND\ndestination:/queue/a\ncontent-length:11\n",
            "the peer sent, or announced, a body over the limit of 10 octets",
        ),
    ];
    for (frames, message) in table {
        let mut raw = Raw::connected(&broker, "1.2").await;
        raw.write(&format!("{frames}\n\0")).await;
        raw.expect_error(message, "").await;
    }
}

#[tokio::test]
async fn connections_are_bounded() {
    let (broker, mut first) = started(Broker::builder().max_connections(2)).await;
    let second = Raw::connected(&broker, "1.2").await;
    Raw::open(&broker).await.expect_closed().await;
    drop(second);
    until("there is room again", || broker.connections().len() == 1).await;
    let mut third = Raw::connected(&broker, "1.2").await;
    for raw in [&mut first, &mut third] {
        raw.write(&send(1, "x")).await;
        raw.expect(&["RECEIPT\nreceipt-id:1\n\n"]).await;
    }
}

/// It writes without reading: the broker stops reading it, so that its writes stall; then it reads everything.
#[tokio::test]
async fn a_client_that_does_not_read_is_not_served_beyond_its_bound() {
    let (broker, mut raw) = started(Broker::builder().max_outbox(64 * 1024)).await;
    let receipt = "r".repeat(10_000);
    let frame = format!("SEND\ndestination:/queue/a\nreceipt:{receipt}\n\n\0");
    let mut sent = 0;
    while timeout(Duration::from_millis(300), raw.stream().write_all(frame.as_bytes())).await.is_ok() {
        sent += 1;
        assert!(sent < 10_000, "100 MB were taken from a client that reads nothing");
    }
    assert!(broker.queue("a").unwrap().published_total < sent);
    // What the last write left unfinished is not repeated: only whole frames count.
    for _ in 0..sent {
        raw.expect(&[&format!("RECEIPT\nreceipt-id:{receipt}\n\n")]).await;
    }
}

#[tokio::test]
async fn a_consumer_that_does_not_read_leaves_messages_in_the_queue() {
    let (broker, mut slow) = started(Broker::builder().max_outbox(64 * 1024)).await;
    slow.write("SUBSCRIBE\nid:0\ndestination:/queue/a\nreceipt:s\n\n\0").await;
    slow.expect(&["RECEIPT\nreceipt-id:s\n\n"]).await;
    let mut producer = Raw::connected(&broker, "1.2").await;
    let count = 1000;
    for number in 0..count {
        producer.write(&send(number, &"x".repeat(20_000))).await;
        producer.frame().await;
    }
    assert!(
        broker.queue("a").unwrap().messages > 100,
        "20 MB do not fit into socket buffers and a 64 KiB outbox"
    );
    for _ in 0..count {
        assert!(slow.frame().await.starts_with("MESSAGE\n"));
    }
    assert_eq!(broker.queue("a").unwrap().messages, 0);
}

#[tokio::test]
async fn a_client_that_reads_nothing_for_a_minute_is_let_go() {
    let (broker, mut raw) = started(Broker::builder().max_outbox(64 * 1024)).await;
    let receipt = "r".repeat(10_000);
    let frame = format!("SEND\ndestination:/queue/a\nreceipt:{receipt}\n\n\0");
    while timeout(Duration::from_millis(200), raw.stream().write_all(frame.as_bytes())).await.is_ok() {}
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(broker.connections().len(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(broker.connections(), []);
}
