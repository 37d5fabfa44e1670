//! Transactions of the client: octets, and that dropping aborts.
#![cfg(all(feature = "tokio", feature = "broker"))]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use std::time::Duration;

use stompwire::{
    Frame,
    broker::Broker,
    client::{Client, SendError, Subscribe, Transaction, Unconfirmed},
};
use tokio::{io::AsyncReadExt, time::timeout};

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

#[tokio::test]
async fn a_transaction_that_lacks_a_frame_is_not_committed() {
    let (client, mut peer, transaction) = begun().await;
    transaction.send(Frame::send("q", "kept")).await.unwrap();
    // It cannot be encoded, and as it asks for no receipt nobody can be told.
    transaction.send(Frame::send("q", "lost").with_header("transaction", "mine")).await.unwrap();
    let refused = timeout(LIMIT, transaction.commit()).await.unwrap();
    assert!(refused.as_ref().is_err_and(Unconfirmed::was_never_sent), "{refused:?}");
    peer.expect("SEND\ndestination:q\ntransaction:1\ncontent-length:4\n\nkept\0ABORT\ntransaction:1\n\n\0")
        .await;
    peer.expect_nothing().await;
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn nor_is_one_of_which_a_frame_met_a_stalled_connection() {
    let (client, mut peer) = pair(options(), 4096, "version:1.2\n").await;
    let subscribing = tokio::spawn({
        let client = client.clone();
        async move { (client.begin().await, client.subscribe(Subscribe::to("q")).await) }
    });
    peer.expect("BEGIN\ntransaction:1\nreceipt:1\n\n\0").await;
    peer.receipt(1).await;
    peer.expect_subscribe(2, 100, Some(2)).await;
    let (transaction, messages) = subscribing.await.unwrap();
    let (transaction, messages) = (transaction.unwrap(), messages.unwrap());
    let stuck = client.send_with_receipt(Frame::send("q", vec![b'x'; 1 << 20])).await.unwrap();
    let head = "SEND\ndestination:q\nreceipt:3\ncontent-length:1048576\n\n";
    peer.expect(head).await;
    transaction.send(Frame::send("q", "lost")).await.unwrap();
    let unsubscribing = tokio::spawn(messages.unsubscribe());
    assert!(matches!(timeout(2 * receipt_timeout(), stuck).await, Ok(Err(Unconfirmed::TimedOut))));
    // The server reads again: the subscription ends, and the transaction is no more.
    let mut rest = vec![0; 1 << 20];
    timeout(LIMIT, peer.transport.read_exact(&mut rest)).await.unwrap().unwrap();
    let committing = tokio::spawn(transaction.commit());
    peer.expect("\0ABORT\ntransaction:1\n\n\0UNSUBSCRIBE\nid:2\nreceipt:4\n\n\0").await;
    peer.receipt(4).await;
    timeout(LIMIT, unsubscribing).await.unwrap().unwrap().unwrap();
    let refused = timeout(LIMIT, committing).await.unwrap().unwrap();
    assert!(refused.as_ref().is_err_and(Unconfirmed::was_never_sent), "{refused:?}");
    peer.expect_nothing().await;
}

fn receipt_timeout() -> Duration {
    options().session.receipt_timeout.unwrap()
}
