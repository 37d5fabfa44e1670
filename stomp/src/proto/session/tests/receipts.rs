use super::*;

#[test]
fn each_resolves_by_its_own_id_in_any_order() {
    let mut pair = Pair::open();
    ["a", "b", "c", "d"].into_iter().for_each(|token| pair.send(token));
    pair.run(ms(10));
    let ids: Vec<&str> = pair.server_frames.iter().filter_map(|frame| frame.header("receipt")).collect();
    assert_eq!(ids, ["1", "2", "3", "4"]);
    for (id, so_far) in [("3", "c"), ("1", "a"), ("4", "d"), ("2", "b")] {
        pair.receipt(id);
        pair.run(ms(10));
        assert_eq!(pair.receipts().last(), Some(&so_far), "earlier ones are not resolved with it");
    }
    assert_eq!(pair.receipts(), ["c", "a", "d", "b"]);
    assert!(pair.client.receipts().is_empty());
}

#[test]
fn repeated_foreign_and_odd_ones_are_harmless() {
    let mut pair = Pair::open();
    pair.send("a");
    pair.run(ms(10));
    for id in ["1", "1", "2", "0", "", "+1", "-1", "x", "99999999999999999999"] {
        pair.receipt(id);
    }
    pair.run(ms(10));
    let strays = ["stray"; 8];
    assert_eq!(pair.receipts()[0], "a");
    assert_eq!(pair.receipts()[1..], strays);
    assert!(pair.client.is_open());
}

#[test]
fn one_that_does_not_come_expires_on_time() {
    let mut pair = Pair::open();
    let start = pair.now;
    pair.send("a");
    pair.run(secs(5));
    pair.send("b");
    pair.run(secs(5));
    pair.send("c");
    pair.run(ms(10));
    pair.receipt("2");
    pair.run(secs(29));
    assert_eq!(pair.receipts(), ["b"]);
    assert_eq!(pair.expired, [("a", start + secs(30))]);
    pair.run(secs(60));
    assert_eq!(pair.expired, [("a", start + secs(30)), ("c", start + secs(40))]);
    pair.receipt("1");
    pair.run(ms(10));
    assert_eq!(pair.receipts(), ["b", "stray"], "too late: its outcome was told already");
    assert!(pair.client.is_open(), "an expiry is the owner's to judge");
}

#[test]
fn no_time_limit() {
    let options = ClientOptions { receipt_timeout: None, ..client(HeartBeat::NONE) };
    let mut pair = Pair::new(options, ServerOptions::default());
    pair.run(ms(10));
    pair.send("a");
    pair.run(secs(1_000_000));
    assert_eq!(pair.expired, []);
    assert_eq!(pair.client.take_pending().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn an_error_fails_its_frame_and_leaves_the_rest_pending() {
    let mut pair = Pair::open();
    ["a", "b", "c"].into_iter().for_each(|token| pair.send(token));
    pair.run(ms(10));
    let culprit = pair.server_frames[1].clone();
    pair.server.error("no such: exchange", Some(&culprit));
    pair.run(ms(10));
    let Some(ClientEvent::Error { frame, token }) = pair.client_events.pop() else { panic!() };
    assert_eq!((frame.header("message"), token), (Some("no such: exchange"), Some("b")));
    assert_eq!(frame.header("receipt-id"), Some("2"));
    assert_eq!(pair.client.take_pending().collect::<Vec<_>>(), ["a", "c"], "oldest first");
    assert!(!pair.client.is_open() && pair.client.next_timeout().is_none());
    let late = pair.client.send_with_receipt(&Frame::send("/a", ""), "d", pair.now);
    assert_eq!(late, Err((SessionError::NotOpen, "d")));
}

#[test]
fn nothing_is_heard_after_an_error() {
    let mut pair = Pair::open();
    pair.send("a");
    pair.run(ms(10));
    let mut input = BytesMut::from("ERROR\nmessage:x\n\n\0RECEIPT\nreceipt-id:1\n\n\0garbage");
    let first = pair.client.next_event(&mut input, pair.now).unwrap();
    assert!(matches!(first, Some(ClientEvent::Error { token: None, .. })), "{first:?}");
    assert!(pair.client.next_event(&mut input, pair.now).unwrap().is_none());
    assert_eq!(pair.client.take_pending().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_server_says_error_once_and_nothing_else_then() {
    let mut pair = Pair::open();
    pair.server.error("one", None);
    let once = pair.server.outbox_len();
    pair.server.error("two", None);
    assert_eq!(pair.server.outbox_len(), once);
    let late = pair.server.send(&Frame::new(Command::Message));
    assert_eq!(late, Err(SessionError::NotOpen));
    assert!(pair.server.next_timeout().is_none());
    let mut input = BytesMut::from("SEND\n\n\0");
    assert!(pair.server.next_event(&mut input).unwrap().is_none());
}
