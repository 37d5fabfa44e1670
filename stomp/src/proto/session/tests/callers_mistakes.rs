use super::*;

#[test]
fn nothing_is_queued_and_the_session_goes_on() {
    let mut pair = Pair::open();
    let unencodable =
        EncodeError::Unencodable { name: "id".into(), command: Command::Ack, version: Version::V1_2 };
    let ack = Frame::new(Command::Ack).with_header("id", "\0");
    let table = [
        (Frame::send("/a", "").with_header("receipt", "mine"), SessionError::ReceiptHeader),
        (Frame::new(Command::Connect), SessionError::NotSendable(Command::Connect)),
        (Frame::new(Command::Stomp), SessionError::NotSendable(Command::Stomp)),
        (Frame::new(Command::Disconnect), SessionError::NotSendable(Command::Disconnect)),
        (Frame::new(Command::Message), SessionError::NotSendable(Command::Message)),
        (ack, SessionError::Encode(unencodable)),
    ];
    for (frame, error) in table {
        assert_eq!(pair.client.send(&frame), Err(error.clone()));
        assert!(error.is_callers(), "{error}");
        let refused = pair.client.send_with_receipt(&frame, "token", pair.now);
        assert_eq!(refused, Err((error, "token")));
    }
    assert_eq!((pair.client.outbox_len(), pair.client.receipts().len()), (0, 0));
    pair.send("a");
    pair.run(ms(10));
    assert_eq!(pair.server_frames[0].header("receipt"), Some("1"), "no id was spent");
}

#[test]
fn a_template_cannot_name_the_receipt() {
    let mut pair = Pair::open();
    let named: Headers = [("receipt", "mine")].into_iter().collect();
    let plain = Headers::new();
    for (constant, headers) in [(&named, &plain), (&plain, &named)] {
        let template = SendTemplate::new(pair.client.encoder(), constant).unwrap();
        let refused =
            pair.client.send_template_with_receipt(&template, headers, &Bytes::new(), "token", pair.now);
        assert_eq!(refused, Err((SessionError::ReceiptHeader, "token")));
    }
    assert_eq!((pair.client.outbox_len(), pair.client.receipts().len()), (0, 0));
}

#[test]
fn a_template_carries_the_receipt() {
    let mut pair = Pair::open();
    let constant: Headers = [("destination", "/a")].into_iter().collect();
    let template = SendTemplate::new(pair.client.encoder(), &constant).unwrap();
    let headers: Headers = [("beacon-count", "3"), ("note", "a:b")].into_iter().collect();
    pair.client
        .send_template_with_receipt(&template, &headers, &Bytes::from_static(b"x\0y"), "token", pair.now)
        .unwrap();
    assert_eq!(
        written(pair.client.outbox()),
        "SEND\ndestination:/a\nreceipt:1\nbeacon-count:3\nnote:a\\cb\ncontent-length:3\n\nx\0y\0"
    );
    assert_eq!(pair.client.receipts().len(), 1);
}
