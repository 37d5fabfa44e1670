//! Subscriptions: octets, credit, acknowledging, the end of them; and that a slow one holds up nobody.
#![cfg(all(feature = "tokio", feature = "broker"))]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use std::{future::poll_fn, pin::Pin, time::Duration};

use futures_core::Stream;
use stompwire::{
    Frame, Version,
    broker::Broker,
    client::{AckMode, Client, SendError, Subscribe, Subscription, SubscriptionError, Unconfirmed},
    proto::{Command, HeartBeat, SessionError},
};
use tokio::{task::JoinHandle, time::timeout};

use support::{LIMIT, Peer, options, pair};

fn subscribing(client: &Client, subscribe: Subscribe) -> JoinHandle<Result<Subscription, Unconfirmed>> {
    let client = client.clone();
    tokio::spawn(async move { client.subscribe(subscribe).await })
}

/// A subscription with this credit, number 1, mode client-individual.
async fn subscribed(credit: u16) -> (Client, Peer, Subscription) {
    let (client, mut peer) = pair(options(), 1 << 16, "version:1.2\n").await;
    let subscribing = subscribing(&client, Subscribe::to("q").with_prefetch(credit));
    peer.expect_subscribe(1, credit, Some(1)).await;
    let messages = subscribing.await.unwrap().unwrap();
    (client, peer, messages)
}

async fn take(messages: &mut Subscription) -> stompwire::client::Message {
    timeout(LIMIT, messages.next()).await.expect("in time").expect("not the end").expect("a message")
}

#[tokio::test]
async fn verdicts_go_out_with_and_without_receipts() {
    let (_client, mut peer, mut messages) = subscribed(10).await;
    for ack in ["a", "b", "c", "d"] {
        peer.message(1, ack).await;
    }
    let message = take(&mut messages).await;
    messages.ack(&message).await.unwrap();
    let message = take(&mut messages).await;
    messages.nack(&message).await.unwrap();
    let message = take(&mut messages).await;
    let acked = messages.ack_with_receipt(&message).await.unwrap();
    let message = take(&mut messages).await;
    let nacked = messages.nack_with_receipt(&message).await.unwrap();
    peer.expect("ACK\nid:a\n\n\0NACK\nid:b\n\n\0ACK\nid:c\nreceipt:2\n\n\0NACK\nid:d\nreceipt:3\n\n\0").await;
    peer.receipt(3).await;
    timeout(LIMIT, nacked).await.unwrap().unwrap();
    peer.receipt(2).await;
    timeout(LIMIT, acked).await.unwrap().unwrap();
}

#[tokio::test]
async fn mistakes_in_acknowledging_are_told_and_nothing_is_sent() {
    let refused = |result: Result<(), SendError>| match result {
        Err(SendError::Refused(error)) => error,
        other => panic!("{other:?}"),
    };
    let broker = Broker::builder().start().await.unwrap();
    for version in Version::ALL {
        let mut options = options();
        options.session.versions = vec![version];
        let client = Client::connect(&broker.url().parse().unwrap(), options).await.unwrap();
        for _ in 0..2 {
            client.send_with_receipt(Frame::send("/queue/q", "x")).await.unwrap().await.unwrap();
        }
        let acked = Subscribe::to("/queue/q").with_ack(AckMode::Client).with_prefetch(1);
        let mut acked = client.subscribe(acked).await.unwrap();
        let message = take(&mut acked).await;
        if version == Version::V1_0 {
            let error = refused(acked.nack(&message).await);
            assert_eq!(error, SessionError::NotInVersion { command: Command::Nack, version });
        }
        let automatic = Subscribe::to("/queue/q").with_ack(AckMode::Auto);
        let mut automatic = client.subscribe(automatic).await.unwrap();
        let other = take(&mut automatic).await;
        assert_eq!(refused(automatic.ack(&other).await), SessionError::NothingToAcknowledge);
        assert!(matches!(refused(acked.ack(&other).await), SessionError::NoSubscription(_)));
        acked.ack_with_receipt(&message).await.unwrap().await.unwrap();
        client.close(LIMIT).await.unwrap();
        assert_eq!(broker.queue("q").unwrap().messages, 0, "{version}");
    }
}

#[tokio::test]
async fn taking_acknowledges_when_half_the_credit_is_used_and_at_the_end() {
    let (client, mut peer) = pair(options(), 1 << 16, "version:1.2\n").await;
    let subscribing = subscribing(&client, Subscribe::to("q").acknowledged_on_take().with_prefetch(5));
    peer.expect("SUBSCRIBE\nid:1\ndestination:q\nack:client-individual\nprefetch-count:5\nreceipt:1\n\n\0")
        .await;
    peer.receipt(1).await;
    let mut messages = subscribing.await.unwrap().unwrap();
    for ack in ["a", "b", "c", "d", "e"] {
        peer.message(1, ack).await;
    }
    for _ in 0..2 {
        take(&mut messages).await;
    }
    peer.expect_nothing().await;
    take(&mut messages).await;
    peer.expect("ACK\nid:a\n\n\0ACK\nid:b\n\n\0ACK\nid:c\n\n\0").await;
    take(&mut messages).await;
    peer.expect_nothing().await;
    // What was taken is acknowledged before the subscription goes; e was not.
    drop(messages);
    peer.expect("ACK\nid:d\n\n\0UNSUBSCRIBE\nid:1\n\n\0").await;
}

#[tokio::test]
async fn what_was_taken_is_acknowledged_before_disconnect() {
    let broker = Broker::builder().start().await.unwrap();
    let client = Client::connect(&broker.url().parse().unwrap(), options()).await.unwrap();
    for receipt in client.send_batch((0..100).map(|n| Frame::send("/queue/q", n.to_string()))).await.unwrap()
    {
        receipt.await.unwrap();
    }
    let subscribe = Subscribe::to("/queue/q").acknowledged_on_take().with_prefetch(8);
    let mut messages = client.subscribe(subscribe).await.unwrap();
    for n in 0..61 {
        assert_eq!(take(&mut messages).await.body_bytes(), &n.to_string());
    }
    client.close(LIMIT).await.unwrap();
    assert!(timeout(LIMIT, async { while messages.next().await.is_some() {} }).await.is_ok());
    let left: Vec<_> = broker.peek("q", 100).iter().map(|frame| frame.body_bytes()).collect();
    assert_eq!(left, (61..100).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_that_does_not_know_credit_ends_one_subscription_only() {
    let (client, mut peer, mut messages) = subscribed(2).await;
    let other = subscribing(&client, Subscribe::to("q").with_prefetch(3));
    peer.expect_subscribe(2, 3, Some(2)).await;
    let mut other = other.await.unwrap().unwrap();
    for ack in ["a", "b", "c"] {
        peer.message(1, ack).await;
    }
    peer.expect("UNSUBSCRIBE\nid:1\n\n\0").await;
    peer.message(1, "d").await;
    peer.message(2, "e").await;
    assert_eq!(take(&mut other).await.body(), b"body e");
    for expected in ["body a", "body b"] {
        assert_eq!(take(&mut messages).await.body_bytes(), expected);
    }
    let end = messages.next().await.unwrap();
    assert!(matches!(end, Err(SubscriptionError::Overrun { credit: 2 })), "{end:?}");
    assert!(messages.next().await.is_none());
    drop(messages);
    peer.expect_nothing().await;
}

#[tokio::test]
async fn what_may_exceed_the_credit_is_kept_and_no_more() {
    let (client, mut peer, _first) = subscribed(2).await;
    let generous = subscribing(&client, Subscribe::to("q").with_prefetch(1).with_excess(2));
    peer.expect_subscribe(2, 1, Some(2)).await;
    let mut generous = generous.await.unwrap().unwrap();
    for ack in ["a", "b", "c"] {
        peer.message(2, ack).await;
    }
    for expected in ["body a", "body b", "body c"] {
        assert_eq!(take(&mut generous).await.body_bytes(), expected);
    }
    for ack in ["d", "e", "f", "g"] {
        peer.message(2, ack).await;
    }
    peer.expect("UNSUBSCRIBE\nid:2\n\n\0").await;
    for expected in ["body d", "body e", "body f"] {
        assert_eq!(take(&mut generous).await.body_bytes(), expected);
    }
    let end = generous.next().await.unwrap();
    assert!(matches!(end, Err(SubscriptionError::Overrun { credit: 1 })), "{end:?}");
}

#[tokio::test]
async fn a_slow_subscription_starves_nobody() {
    let beat = HeartBeat::every(Duration::from_millis(300));
    let broker = Broker::builder().heart_beat(beat).start().await.unwrap();
    let mut options = options();
    options.session.heart_beat = beat;
    let client = Client::connect(&broker.url().parse().unwrap(), options).await.unwrap();
    let mut slow = client.subscribe(Subscribe::to("/queue/slow").with_prefetch(10)).await.unwrap();
    let mut quick = client.subscribe(Subscribe::to("/queue/quick").acknowledged_on_take()).await.unwrap();
    let send = |queue: &'static str| {
        let client = client.clone();
        async move {
            let frames = (0..5_000).map(|n| Frame::send(queue, n.to_string()));
            for receipt in client.send_batch(frames).await.unwrap() {
                receipt.await.unwrap();
            }
        }
    };
    timeout(LIMIT, send("/queue/slow")).await.expect("receipts come although nobody takes the messages");
    let taking = async {
        for n in 0..5_000 {
            assert_eq!(take(&mut quick).await.body_bytes(), &n.to_string());
        }
    };
    timeout(LIMIT, async { tokio::join!(send("/queue/quick"), taking) }).await.expect("the other one flows");
    // Several times the grace of both sides.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(client.version().is_some(), "heart-beats went both ways");
    assert_eq!(broker.queue("slow").unwrap().unacked, 10, "no more than the credit is on this side");
    for n in 0..50 {
        let message = take(&mut slow).await;
        assert_eq!(message.body_bytes(), &n.to_string());
        slow.ack(&message).await.unwrap();
    }
}

#[tokio::test]
async fn unsubscribing_waits_for_the_receipt_and_dropping_does_not() {
    let (client, mut peer, messages) = subscribed(10).await;
    let unsubscribing = tokio::spawn(messages.unsubscribe());
    peer.expect("UNSUBSCRIBE\nid:1\nreceipt:2\n\n\0").await;
    // It was under way: nothing unusual.
    peer.message(1, "late").await;
    peer.receipt(2).await;
    timeout(LIMIT, unsubscribing).await.unwrap().unwrap().unwrap();
    let second = subscribing(&client, Subscribe::to("q"));
    peer.expect_subscribe(2, 100, Some(3)).await;
    drop(second.await.unwrap().unwrap());
    peer.expect("UNSUBSCRIBE\nid:2\n\n\0").await;
    peer.expect_nothing().await;
}

#[tokio::test]
async fn a_cancelled_subscribe_leaves_no_subscription() {
    let (client, mut peer) = pair(options(), 1 << 16, "version:1.2\n").await;
    let cancelled = subscribing(&client, Subscribe::to("q"));
    peer.expect("SUBSCRIBE\nid:1\ndestination:q\nack:client-individual\nprefetch-count:100\nreceipt:1\n\n\0")
        .await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    peer.expect("UNSUBSCRIBE\nid:1\n\n\0").await;
    peer.receipt(1).await;
    peer.message(1, "late").await;
    let next = subscribing(&client, Subscribe::to("q"));
    peer.expect_subscribe(2, 100, Some(2)).await;
    drop(next.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_cancelled_next_takes_nothing() {
    let (_client, mut peer, mut messages) = subscribed(10).await;
    for _ in 0..3 {
        assert!(timeout(Duration::from_millis(5), messages.next()).await.is_err());
    }
    peer.message(1, "a").await;
    assert_eq!(take(&mut messages).await.body(), b"body a");
}

#[tokio::test]
async fn it_is_a_stream() {
    let (_client, mut peer, mut messages) = subscribed(10).await;
    peer.message(1, "a").await;
    drop(peer);
    let mut seen = Vec::new();
    while let Some(item) = poll_fn(|cx| Pin::new(&mut messages).poll_next(cx)).await {
        seen.push(item.map(|message| message.body_bytes()));
    }
    assert!(
        matches!(&seen[..], [Ok(body), Err(SubscriptionError::Closed(_))] if body == "body a"),
        "{seen:?}"
    );
}
