//! Transactions of the client: octets, and that dropping aborts.
#![cfg(all(feature = "tokio", feature = "broker"))]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use stompwire::{
    Frame,
    broker::Broker,
    client::{Client, SendError, Subscribe, Transaction, Unconfirmed},
};
use tokio::time::timeout;

use support::{LIMIT, Peer, options, pair};

async fn begun() -> (Client, Peer, Transaction) {
    let (client, mut peer) = pair(options(), 1 << 16, "version:1.2\n").await;
    let beginning = tokio::spawn({
        let client = client.clone();
        async move { client.begin().await }
    });
    peer.expect("BEGIN\ntransaction:1\nreceipt:1\n\n\0").await;
    peer.receipt(1).await;
    let transaction = timeout(LIMIT, beginning).await.unwrap().unwrap().unwrap();
    (client, peer, transaction)
}

#[tokio::test]
async fn commit_is_receipted() {
    let (_client, mut peer, transaction) = begun().await;
    transaction.send(Frame::send("q", "x")).await.unwrap();
    let taken = transaction.send_with_receipt(Frame::send("q", "y")).await.unwrap();
    peer.expect("SEND\ndestination:q\ntransaction:1\ncontent-length:1\n\nx\0").await;
    peer.expect("SEND\ndestination:q\nreceipt:2\ntransaction:1\ncontent-length:1\n\ny\0").await;
    peer.receipt(2).await;
    timeout(LIMIT, taken).await.unwrap().unwrap();
    let committing = tokio::spawn(transaction.commit());
    peer.expect("COMMIT\ntransaction:1\nreceipt:3\n\n\0").await;
    peer.receipt(3).await;
    timeout(LIMIT, committing).await.unwrap().unwrap().unwrap();
    peer.expect_nothing().await;
}

#[tokio::test]
async fn abort_is_receipted_and_dropping_aborts() {
    let (client, mut peer, transaction) = begun().await;
    let aborting = tokio::spawn(transaction.abort());
    peer.expect("ABORT\ntransaction:1\nreceipt:2\n\n\0").await;
    peer.receipt(2).await;
    timeout(LIMIT, aborting).await.unwrap().unwrap().unwrap();
    let beginning = tokio::spawn(async move { client.begin().await });
    peer.expect("BEGIN\ntransaction:2\nreceipt:3\n\n\0").await;
    peer.receipt(3).await;
    let transaction = beginning.await.unwrap().unwrap();
    transaction.send(Frame::send("q", "")).await.unwrap();
    drop(transaction);
    // In this order, however quickly it was dropped.
    peer.expect("SEND\ndestination:q\ntransaction:2\ncontent-length:0\n\n\0ABORT\ntransaction:2\n\n\0").await;
}

#[tokio::test]
async fn a_cancelled_begin_is_aborted() {
    let (client, mut peer) = pair(options(), 1 << 16, "version:1.2\n").await;
    let cancelled = tokio::spawn({
        let client = client.clone();
        async move { client.begin().await.map(drop) }
    });
    peer.expect("BEGIN\ntransaction:1\nreceipt:1\n\n\0").await;
    cancelled.abort();
    peer.expect("ABORT\ntransaction:1\n\n\0").await;
    drop(client);
}

#[tokio::test]
async fn the_end_of_the_connection_is_the_end_of_it() {
    let (_client, peer, transaction) = begun().await;
    drop(peer);
    let lost = timeout(LIMIT, transaction.commit()).await.unwrap();
    assert!(
        matches!(lost, Err(Unconfirmed::NotSent(SendError::Closed(_)) | Unconfirmed::ConnectionLost(_))),
        "{lost:?}"
    );
}

#[tokio::test]
async fn messages_and_acknowledgements_count_from_commit_on() {
    let broker = Broker::builder().start().await.unwrap();
    let client = Client::connect(&broker.url().parse().unwrap(), options()).await.unwrap();
    client.send_with_receipt(Frame::send("/queue/in", "order")).await.unwrap().await.unwrap();
    let mut messages = client.subscribe(Subscribe::to("/queue/in")).await.unwrap();
    let order = messages.next().await.unwrap().unwrap();
    for commit in [false, true] {
        let transaction = client.begin().await.unwrap();
        transaction.ack(&messages, &order).await.unwrap();
        transaction.send_with_receipt(Frame::send("/queue/out", "invoice")).await.unwrap().await.unwrap();
        assert_eq!(broker.queue("out").map_or(0, |queue| queue.messages), 0);
        assert_eq!(broker.queue("in").unwrap().unacked, 1);
        if commit {
            transaction.commit().await.unwrap();
        } else {
            transaction.abort().await.unwrap();
        }
    }
    assert_eq!(broker.queue("out").unwrap().messages, 1);
    assert_eq!(broker.queue("in").unwrap().unacked, 0);
}
