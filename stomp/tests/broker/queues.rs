//! SEND, SUBSCRIBE, MESSAGE, ACK, NACK, UNSUBSCRIBE.

use stompwire::broker::{Broker, BrokerHandle};

use crate::raw::{Raw, broker, until};

/// The tag of the first deliveries of a test's only subscription: `number` counts from 0.
fn tag(connection: u64, number: u64) -> String {
    format!("{connection}-0-{number}")
}

fn counts(broker: &BrokerHandle, queue: &str) -> (usize, usize) {
    let info = broker.queue(queue).unwrap();
    (info.messages, info.unacked)
}

#[tokio::test]
async fn a_message_carries_the_headers_of_its_send() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write(
        "SEND\ndestination:/queue/a\nreceipt:1\ncontent-length:3\ncontent-type:text/plain\nx\\cy:\\n\\\\\n\
         redelivered:no\nsubscription:mine\nmessage-id:m\nack:n\nx\\cy:again\nempty:\n\nb\0y\0\
         SUBSCRIBE\nid:s\\c1\ndestination:/amq/queue/a\nack:client\nreceipt:2\n\n\0",
    )
    .await;
    raw.expect(&["RECEIPT\nreceipt-id:1\n\n", "RECEIPT\nreceipt-id:2\n\n"]).await;
    let message = "MESSAGE\ndestination:/queue/a\ncontent-type:text/plain\nx\\cy:\\n\\\\\nx\\cy:again\nempty:\n\
                   message-id:1-0-0\nsubscription:s\\c1\nack:1-0-0\ncontent-length:3\n\nb\0y\0";
    assert_eq!(String::from_utf8(raw.octets(message.len()).await).unwrap(), message);
}

#[tokio::test]
async fn every_kind_of_frame_is_receipted() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    let frames = [
        "SEND\ndestination:/queue/a\n",
        "SEND\ndestination:/queue/a\n",
        "BEGIN\ntransaction:t\n",
        "SEND\ndestination:/queue/a\ntransaction:t\n",
        "COMMIT\ntransaction:t\n",
        "BEGIN\ntransaction:t\n",
        "ABORT\ntransaction:t\n",
        "SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client-individual\nprefetch-count:2\n",
        "ACK\nid:1-0-0\n",
        "NACK\nid:1-0-1\n",
        "UNSUBSCRIBE\nid:0\n",
        "DISCONNECT\n",
    ];
    for (number, frame) in frames.iter().enumerate() {
        raw.write(&format!("{frame}receipt:r\\c{number}\n\n\0")).await;
        loop {
            let answer = raw.frame().await;
            if !answer.starts_with("MESSAGE") {
                assert_eq!(answer, format!("RECEIPT\nreceipt-id:r\\c{number}\n\n"));
                break;
            }
        }
    }
    raw.expect_closed().await;
}

#[tokio::test]
async fn client_mode_is_cumulative() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    for body in 0..5 {
        raw.write(&format!("SEND\ndestination:/queue/a\n\n{body}\0")).await;
    }
    raw.write("SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client\n\n\0").await;
    for body in 0..5 {
        let tag = tag(1, body);
        let message = format!(
            "MESSAGE\ndestination:/queue/a\nmessage-id:{tag}\nsubscription:0\nack:{tag}\ncontent-length:1\n\n{body}"
        );
        raw.expect(&[&message]).await;
    }
    assert_eq!(counts(&broker, "a"), (0, 5));
    raw.write("ACK\nid:1-0-2\nreceipt:1\n\n\0").await;
    raw.expect(&["RECEIPT\nreceipt-id:1\n\n"]).await;
    assert_eq!(counts(&broker, "a"), (0, 2));
    // What is covered already is not there to be acknowledged again.
    raw.write("ACK\nid:1-0-1\nreceipt:2\n\n\0").await;
    raw.expect_error("nothing waits for an acknowledgement under \"1-0-1\"", "receipt-id:2\n").await;
    assert_eq!(counts(&broker, "a"), (2, 0));
}

#[tokio::test]
async fn a_cumulative_nack_returns_everything_up_to_it_in_order() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    for body in 0..4 {
        raw.write(&format!("SEND\ndestination:/queue/a\n\n{body}\0")).await;
    }
    raw.write("SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client\nprefetch-count:3\n\n\0").await;
    for _ in 0..3 {
        raw.frame().await;
    }
    raw.write("UNSUBSCRIBE\nid:0\n\n\0NACK\nid:1-0-1\nreceipt:1\n\n\0").await;
    raw.expect(&["RECEIPT\nreceipt-id:1\n\n"]).await;
    assert_eq!(bodies(&broker, "a"), ["0", "1", "3"]);
    raw.write("ACK\nid:1-0-2\nreceipt:2\n\n\0").await;
    raw.expect(&["RECEIPT\nreceipt-id:2\n\n"]).await;
    assert_eq!(counts(&broker, "a"), (3, 0));
}

#[tokio::test]
async fn individual_nack_returns_to_the_old_place_and_is_marked() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    for body in 0..3 {
        raw.write(&format!("SEND\ndestination:/queue/a\n\n{body}\0")).await;
    }
    raw.write("SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client-individual\nprefetch-count:2\n\n\0").await;
    raw.frame().await;
    raw.frame().await;
    raw.expect_nothing().await;
    raw.write("NACK\nid:1-0-0\n\n\0").await;
    raw.expect(&[
        "MESSAGE\ndestination:/queue/a\nmessage-id:1-0-2\nsubscription:0\nack:1-0-2\nredelivered:true\n\
                  content-length:1\n\n0",
    ])
    .await;
    raw.write("ACK\nid:1-0-2\n\n\0").await;
    raw.expect(&[
        "MESSAGE\ndestination:/queue/a\nmessage-id:1-0-3\nsubscription:0\nack:1-0-3\ncontent-length:1\n\n2",
    ])
    .await;
    assert_eq!(counts(&broker, "a"), (0, 2));
}

#[tokio::test]
async fn a_lost_connection_gives_back_what_it_held() {
    let broker = broker().await;
    let mut first = Raw::connected(&broker, "1.2").await;
    for body in 0..3 {
        first.write(&format!("SEND\ndestination:/queue/a\n\n{body}\0")).await;
    }
    first.write("SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client-individual\nprefetch-count:2\n\n\0").await;
    first.frame().await;
    first.frame().await;
    let mut second = Raw::connected(&broker, "1.2").await;
    second.write("SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client-individual\n\n\0").await;
    assert!(second.frame().await.ends_with("\n\n2"));
    drop(first);
    second
        .expect(&[
            "MESSAGE\ndestination:/queue/a\nmessage-id:2-0-1\nsubscription:0\nack:2-0-1\nredelivered:true\n\
             content-length:1\n\n0",
            "MESSAGE\ndestination:/queue/a\nmessage-id:2-0-2\nsubscription:0\nack:2-0-2\nredelivered:true\n\
             content-length:1\n\n1",
        ])
        .await;
    let info = broker.queue("a").unwrap();
    assert_eq!((info.messages, info.unacked, info.published_total, info.consumers), (0, 3, 3, 1));
}

#[tokio::test]
async fn auto_mode_is_done_when_delivered_and_has_no_ack_header() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write("SUBSCRIBE\nid:0\ndestination:/queue/a\n\n\0SEND\ndestination:/queue/a\n\nx\0").await;
    raw.expect(&["MESSAGE\ndestination:/queue/a\nmessage-id:1-0-0\nsubscription:0\ncontent-length:1\n\nx"])
        .await;
    assert_eq!(counts(&broker, "a"), (0, 0));
    raw.write("ACK\nid:1-0-0\n\n\0").await;
    raw.expect_error("nothing waits for an acknowledgement under \"1-0-0\"", "").await;
}

#[tokio::test]
async fn competing_consumers_get_messages_in_turn() {
    let broker = broker().await;
    let mut consumers = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::connected(&broker, "1.2").await;
        raw.write("SUBSCRIBE\nid:0\ndestination:/queue/a\nreceipt:s\n\n\0").await;
        raw.expect(&["RECEIPT\nreceipt-id:s\n\n"]).await;
        consumers.push(raw);
    }
    let mut producer = Raw::connected(&broker, "1.2").await;
    for body in 0..9 {
        producer.write(&format!("SEND\ndestination:/queue/a\n\n{body}\0")).await;
    }
    for round in 0..3 {
        for (place, consumer) in consumers.iter_mut().enumerate() {
            let message = consumer.frame().await;
            assert!(message.ends_with(&format!("\n\n{}", 3 * round + place)), "{round} {place} {message}");
        }
    }
    assert_eq!(broker.queue("a").unwrap().consumers, 3);
}

#[tokio::test]
async fn a_topic_goes_to_those_who_listen() {
    let broker = broker().await;
    let mut producer = Raw::connected(&broker, "1.2").await;
    producer.write("SEND\ndestination:/topic/t\nreceipt:0\n\nnobody\0").await;
    producer.expect(&["RECEIPT\nreceipt-id:0\n\n"]).await;
    let mut listeners = Vec::new();
    for connection in 2..4 {
        let mut raw = Raw::connected(&broker, "1.2").await;
        raw.write("SUBSCRIBE\nid:0\ndestination:/topic/t\nack:client\nreceipt:s\n\n\0").await;
        raw.expect(&["RECEIPT\nreceipt-id:s\n\n"]).await;
        listeners.push((connection, raw));
    }
    producer.write("SEND\ndestination:/topic/t\n\nall\0SEND\ndestination:/topic/other\n\nno\0").await;
    for (connection, raw) in &mut listeners {
        raw.expect(&[&format!(
            "MESSAGE\ndestination:/topic/t\nmessage-id:{connection}-0-0\nsubscription:0\nack:{connection}-0-0\n\
             content-length:3\n\nall"
        )])
        .await;
        raw.expect_nothing().await;
    }
    assert_eq!(counts(&broker, "/topic/t#2-0"), (0, 1));
    listeners.clear();
    until("the topics' queues end", || broker.queues().is_empty()).await;
}

#[tokio::test]
async fn any_other_destination_is_a_queue_of_that_name() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    for destination in ["/exchange/e/k", "plain", "/queue/plain", "/queue/a/b"] {
        raw.write(&format!("SEND\ndestination:{destination}\nreceipt:1\n\n{destination}\0")).await;
        raw.frame().await;
    }
    let names: Vec<_> = broker.queues().into_iter().map(|(name, info)| (name, info.messages)).collect();
    assert_eq!(names, [("/exchange/e/k".into(), 1), ("a/b".into(), 1), ("plain".into(), 2)]);
    assert_eq!(bodies(&broker, "plain"), ["plain", "/queue/plain"]);
}

#[tokio::test]
async fn version_1_1_acknowledges_by_message_id_and_subscription() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.1").await;
    raw.write("SEND\ndestination:/queue/a\n\nx\0SUBSCRIBE\nid:7\ndestination:/queue/a\nack:client\n\n\0")
        .await;
    raw.expect(&["MESSAGE\ndestination:/queue/a\nmessage-id:1-0-0\nsubscription:7\ncontent-length:1\n\nx"])
        .await;
    raw.write("NACK\nmessage-id:1-0-0\nsubscription:7\n\n\0").await;
    assert!(raw.frame().await.contains("message-id:1-0-1\nsubscription:7\nredelivered:true\n"));
    raw.write("ACK\nmessage-id:1-0-1\nsubscription:7\nreceipt:1\n\n\0").await;
    raw.expect(&["RECEIPT\nreceipt-id:1\n\n"]).await;
    assert_eq!(counts(&broker, "a"), (0, 0));
    raw.write("ACK\nmessage-id:1-0-1\n\n\0").await;
    raw.expect_error("ACK needs the header \"subscription\"", "").await;
}

#[tokio::test]
async fn version_1_0_needs_no_subscription_id() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.0").await;
    // The second header cannot be written in 1.0.
    let mut sender = Raw::connected(&broker, "1.2").await;
    sender.write("SEND\ndestination:/amq/queue/a\nback\\\\slash:a\\cb\nbad:a\\nb\n\nx\0").await;
    raw.write("SUBSCRIBE\ndestination:/queue/a\nack:client\n\n\0").await;
    raw.expect(&["MESSAGE\ndestination:/queue/a\nback\\slash:a:b\nmessage-id:1-0-0\ncontent-length:1\n\nx"])
        .await;
    raw.write("ACK\nmessage-id:1-0-0\nreceipt:1\n\n\0UNSUBSCRIBE\ndestination:/queue/a\nreceipt:2\n\n\0")
        .await;
    raw.expect(&["RECEIPT\nreceipt-id:1\n\n", "RECEIPT\nreceipt-id:2\n\n"]).await;
    let info = broker.queue("a").unwrap();
    assert_eq!((info.messages, info.unacked, info.consumers), (0, 0, 0));
    raw.write("NACK\nmessage-id:1-0-0\n\n\0").await;
    let error = raw.frame().await;
    assert!(error.contains("\nmessage:STOMP 1.0 has no NACK\n"), "{error}");
    raw.expect_closed().await;
}

#[tokio::test]
async fn frames_that_make_no_sense_are_errors() {
    let broker = broker().await;
    let table = [
        ("SEND\n", "SEND needs the header \"destination\""),
        ("SEND\ndestination:/queue/\n", "the header \"destination\" of SEND is not valid: \"/queue/\""),
        ("SUBSCRIBE\ndestination:/queue/a\n", "SUBSCRIBE needs the header \"id\""),
        ("SUBSCRIBE\nid:9\n", "SUBSCRIBE needs the header \"destination\""),
        ("SUBSCRIBE\nid:0\ndestination:/queue/b\n", "this connection has a subscription \"0\" already"),
        (
            "SUBSCRIBE\nid:9\ndestination:/queue/a\nack:maybe\n",
            "the header \"ack\" of SUBSCRIBE is not valid: \"maybe\"",
        ),
        (
            "SUBSCRIBE\nid:9\ndestination:/queue/a\nprefetch-count:many\n",
            "the header \"prefetch-count\" of SUBSCRIBE is not valid: \"many\"",
        ),
        ("UNSUBSCRIBE\n", "UNSUBSCRIBE needs the header \"id\""),
        ("UNSUBSCRIBE\nid:9\n", "this connection has no subscription \"9\""),
        ("ACK\n", "ACK needs the header \"id\""),
        ("ACK\nid:1-0-0\n", "nothing waits for an acknowledgement under \"1-0-0\""),
        ("NACK\nid:x\n", "nothing waits for an acknowledgement under \"x\""),
        ("BEGIN\n", "BEGIN needs the header \"transaction\""),
    ];
    for (frame, message) in table {
        let mut raw = Raw::connected(&broker, "1.2").await;
        raw.write("SUBSCRIBE\nid:0\ndestination:/queue/a\n\n\0").await;
        // The frames behind it are not looked at, and do not take the ERROR from the client.
        raw.write(&format!("{frame}receipt:7\n\n\0SEND\ndestination:/queue/late\n\n\0")).await;
        raw.expect_error(message, "receipt-id:7\n").await;
    }
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write("CONNECT\naccept-version:1.2\nhost:/\n\n\0").await;
    raw.expect_error("the peer sent a CONNECT frame that has no place at this point", "").await;
    assert_eq!(broker.queue("late"), None);
}

#[tokio::test]
async fn a_long_body_comes_out_as_it_went_in() {
    let broker = broker().await;
    let mut raw = Raw::connected(&broker, "1.2").await;
    let body: String = (0..300_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    raw.write("SUBSCRIBE\nid:0\ndestination:/queue/a\n\n\0").await;
    for _ in 0..3 {
        raw.write(&format!("SEND\ndestination:/queue/a\ncontent-length:{}\n\n{body}\0", body.len())).await;
    }
    for _ in 0..3 {
        let message = raw.frame().await;
        assert!(message.starts_with("MESSAGE\n") && message.ends_with(&format!("\n\n{body}")));
    }
}

#[tokio::test]
async fn a_queue_can_be_looked_into_and_emptied() {
    let broker = Broker::builder().start().await.unwrap();
    assert_eq!((broker.queue("a"), broker.purge("a")), (None, None));
    assert!(broker.peek("a", 5).is_empty());
    let mut raw = Raw::connected(&broker, "1.2").await;
    for body in ["one", "two", "three"] {
        raw.write(&format!("SEND\ndestination:/queue/a\nk:v\nreceipt:{body}\n\n{body}\0")).await;
        raw.frame().await;
    }
    assert_eq!(bodies(&broker, "a"), ["one", "two", "three"]);
    let last = broker.handle().peek("a", 2);
    assert_eq!(last.iter().map(|frame| frame.body()).collect::<Vec<_>>(), [&b"two"[..], b"three"]);
    assert!(last[0].headers().iter().eq([("destination", "/queue/a"), ("k", "v")]));
    let info = broker.queue("a").unwrap();
    // destination + /queue/a + k + v = 21 octets of headers each.
    assert_eq!((info.messages, info.octets, info.published_total), (3, 3 * 21 + 11, 3));
    assert_eq!(broker.purge("a"), Some(3));
    let info = broker.queue("a").unwrap();
    assert_eq!((info.messages, info.octets, info.published_total, info.dropped_total), (0, 0, 3, 0));
}

fn bodies(broker: &BrokerHandle, queue: &str) -> Vec<String> {
    let frames = broker.peek(queue, usize::MAX);
    frames.iter().map(|frame| String::from_utf8(frame.body().to_vec()).unwrap()).collect()
}
