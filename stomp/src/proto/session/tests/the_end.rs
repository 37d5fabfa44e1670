use super::*;

#[test]
fn disconnect_drains_and_is_the_last_frame() {
    let mut pair = Pair::open();
    pair.send("a");
    pair.run(ms(10));
    pair.client.disconnect(pair.now).unwrap();
    // On their way while DISCONNECT is: both still count.
    let message = Frame::new(Command::Message).with_header("subscription", "0").with_body("late");
    pair.server.send(&message).unwrap();
    pair.receipt("1");
    assert_eq!(pair.client.send(&Frame::send("/a", "")), Err(SessionError::NotOpen));
    assert_eq!(pair.client.disconnect(pair.now), Err(SessionError::NotOpen));
    pair.run(ms(10));
    let kinds: Vec<&str> = pair
        .client_events
        .iter()
        .map(|event| match event {
            ClientEvent::StrayMessage(frame) if frame.body() == b"late" => "message",
            ClientEvent::Receipt("a") => "receipt",
            ClientEvent::Disconnected => "disconnected",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["message", "receipt", "disconnected"]);
    assert!(pair.disconnected);
    pair.run(secs(3600));
    assert!(pair.up.log.ends_with(b"DISCONNECT\nreceipt:2\n\n\0"), "not even an end-of-line follows");
    assert!(pair.down.log.ends_with(b"RECEIPT\nreceipt-id:2\n\n\0"));
    assert_eq!((&pair.client_end, &pair.server_end), (&None, &None));
}

#[test]
fn disconnect_that_is_not_receipted() {
    // Only the client beats, and often: it must neither send nor ask to be called while it waits.
    let silent = HeartBeat { send: Duration::ZERO, receive: secs(1) };
    let mut pair = Pair::new(client(HeartBeat::every(secs(1))), server(silent));
    pair.run(ms(10));
    pair.send("a");
    pair.down.cut();
    pair.client.disconnect(pair.now).unwrap();
    let start = pair.now;
    pair.run(secs(2));
    pair.client.handle_timeout(pair.now).unwrap();
    assert_eq!(pair.client.outbox_len(), 0, "called without need it sends nothing either");
    pair.run(secs(60));
    assert_eq!(pair.client_end, Some((SessionError::CloseTimeout(secs(5)), start + secs(5))));
    assert!(pair.up.log.ends_with(b"DISCONNECT\nreceipt:2\n\n\0"), "not even an end-of-line follows");
    assert_eq!(pair.client.take_pending().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn an_error_for_the_receipt_of_disconnect() {
    let mut pair = Pair::open();
    pair.client.disconnect(pair.now).unwrap();
    let mut input = BytesMut::from("ERROR\nreceipt-id:1\n\n\0");
    let event = pair.client.next_event(&mut input, pair.now).unwrap();
    assert!(matches!(event, Some(ClientEvent::Error { token: None, .. })), "{event:?}");
}

#[test]
fn a_client_that_goes_without_a_receipt() {
    let octets = "CONNECT\naccept-version:1.2\nhost:a\n\n\0DISCONNECT\n\n\0SEND\n\n\0";
    assert_eq!(asked(&Version::ALL, octets), Ok((Version::V1_2, 1)), "what follows DISCONNECT is not read");
}

#[test]
fn tokens_are_handed_back_when_the_connection_is_lost() {
    let mut pair = Pair::open();
    ["a", "b"].into_iter().for_each(|token| pair.send(token));
    assert_eq!(pair.client.take_pending().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(pair.client.take_pending().count(), 0);
    assert!(!pair.client.is_open());
}
