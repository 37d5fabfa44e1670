//! BEGIN, COMMIT, ABORT.

use stompwire::broker::Broker;

use crate::raw::{Raw, broker};

#[tokio::test]
async fn commit_takes_the_steps_in_order_and_abort_forgets_them() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write(
        "SEND\ndestination:/queue/in\n\nx\0SUBSCRIBE\nid:0\ndestination:/queue/in\nack:client\n\n\0BEGIN\ntransaction:t\n\n\0",
    )
    .await;
    raw.frame().await;
    for (end, expected) in [("ABORT", (1, 0)), ("COMMIT", (0, 2))] {
        if end == "COMMIT" {
            raw.write("BEGIN\ntransaction:t\n\n\0").await;
        }
        raw.write(
            "SEND\ndestination:/queue/out\ntransaction:t\nreceipt:1\n\na\0\
             ACK\nid:1-0-0\ntransaction:t\nreceipt:2\n\n\0\
             SEND\ndestination:/queue/out\ntransaction:t\nreceipt:3\n\nb\0",
        )
        .await;
        raw.expect(&["RECEIPT\nreceipt-id:1\n\n", "RECEIPT\nreceipt-id:2\n\n", "RECEIPT\nreceipt-id:3\n\n"])
            .await;
        assert_eq!((broker.queue("in").unwrap().unacked, broker.queue("out")), (1, None));
        raw.write(&format!("{end}\ntransaction:t\nreceipt:4\n\n\0")).await;
        raw.expect(&["RECEIPT\nreceipt-id:4\n\n"]).await;
        let out = broker.queue("out").map_or(0, |info| info.messages);
        assert_eq!((broker.queue("in").unwrap().unacked, out), expected, "{end}");
    }
    let bodies: Vec<_> = broker.peek("out", 9).iter().map(|frame| frame.body_bytes()).collect();
    assert_eq!(bodies, ["a", "b"]);
    assert!(broker.peek("out", 1)[0].header("transaction").is_none());
}

#[tokio::test]
async fn a_lost_connection_aborts() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write("BEGIN\ntransaction:t\n\n\0SEND\ndestination:/queue/a\ntransaction:t\n\nx\0DISCONNECT\n\n\0")
        .await;
    raw.expect_closed().await;
    assert_eq!(broker.queue("a"), None);
}

#[tokio::test]
async fn transactions_are_bounded_and_named() {
    let broker = Broker::builder().max_octets(1000).start().await.unwrap();
    let table = [
        ("COMMIT\ntransaction:t\n", "this connection has no transaction \"t\""),
        ("ABORT\ntransaction:t\n", "this connection has no transaction \"t\""),
        ("SEND\ndestination:/queue/a\ntransaction:t\n", "this connection has no transaction \"t\""),
        ("BEGIN\ntransaction:u\n", "this connection has a transaction \"u\" already"),
    ];
    for (frame, message) in table {
        let mut raw = Raw::connected(&broker, "1.2").await;
        raw.write(&format!("BEGIN\ntransaction:u\n\n\0{frame}\n\0")).await;
        raw.expect_error(message, "").await;
    }
    let mut raw = Raw::connected(&broker, "1.2").await;
    for number in 0..=64 {
        raw.write(&format!("BEGIN\ntransaction:{number}\n\n\0")).await;
    }
    raw.expect_error("this connection has 64 transactions already, as many as it may have", "").await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write("BEGIN\ntransaction:u\n\n\0").await;
    let send = format!("SEND\ndestination:/queue/a\ntransaction:u\n\n{}\0", "x".repeat(300));
    raw.write(&send.repeat(3)).await;
    raw.expect_error("the transactions of this connection hold as much as they may", "").await;
}
