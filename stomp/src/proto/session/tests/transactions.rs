use super::*;

fn open() -> ClientSession<&'static str> {
    let mut pair = Pair::open();
    assert_eq!(written(pair.client.outbox()), "");
    pair.client
}

#[test]
fn what_goes_out() {
    let mut client = open();
    let now = secs(1000);
    client.begin(3, Some("begun"), now).unwrap();
    client.send_in(3, &Frame::send("/a", "x"), None, now).unwrap();
    client.send_in(3, &Frame::send("/a", "y"), Some("sent"), now).unwrap();
    client.commit(3, Some("committed"), now).unwrap();
    client.begin(3, None, now).unwrap();
    client.abort(3, None, now).unwrap();
    assert_eq!(
        written(client.outbox()),
        "BEGIN\ntransaction:3\nreceipt:1\n\n\0\
         SEND\ndestination:/a\ntransaction:3\ncontent-length:1\n\nx\0\
         SEND\ndestination:/a\nreceipt:2\ntransaction:3\ncontent-length:1\n\ny\0\
         COMMIT\ntransaction:3\nreceipt:3\n\n\0\
         BEGIN\ntransaction:3\n\n\0\
         ABORT\ntransaction:3\n\n\0"
    );
    assert_eq!(client.receipts().len(), 3);
}

#[test]
fn an_acknowledgement_can_be_part_of_one() {
    let mut client = open();
    let now = secs(1000);
    client.subscribe(1, &Subscribe::to("/a"), None, now).unwrap();
    client.begin(9, None, now).unwrap();
    written(client.outbox());
    let message = Frame::new(Command::Message).with_header("ack", "5");
    client.settle(Verdict::Ack, 1, &message, Some(9), None, now).unwrap();
    assert_eq!(written(client.outbox()), "ACK\nid:5\ntransaction:9\n\n\0");
    let unknown = client.settle(Verdict::Nack, 1, &message, Some(8), Some("token"), now);
    assert_eq!(unknown, Err((SessionError::NoTransaction(8), Some("token"))));
}

#[test]
fn mistakes_queue_nothing_and_hand_the_token_back() {
    let mut client = open();
    let now = secs(1000);
    client.begin(1, None, now).unwrap();
    written(client.outbox());
    let send = Frame::send("/a", "");
    let with_header = send.clone().with_header("transaction", "1");
    let subscribe = Frame::new(Command::Subscribe);
    let token = || Some("token");
    let results = [
        (client.begin(1, token(), now), SessionError::TransactionExists(1)),
        (client.commit(2, token(), now), SessionError::NoTransaction(2)),
        (client.abort(2, token(), now), SessionError::NoTransaction(2)),
        (client.send_in(2, &send, token(), now), SessionError::NoTransaction(2)),
        (client.send_in(1, &with_header, token(), now), SessionError::TransactionHeader),
        (client.send_in(1, &subscribe, token(), now), SessionError::NotSendable(Command::Subscribe)),
    ];
    for (result, error) in results {
        assert!(error.is_callers(), "{error}");
        assert_eq!(result, Err((error, token())));
    }
    assert_eq!((client.outbox_len(), client.receipts().len()), (0, 0));
    client.commit(1, None, now).unwrap();
    assert_eq!(client.commit(1, None, now), Err((SessionError::NoTransaction(1), None)), "it has ended");
}

#[test]
fn nothing_begins_once_the_session_is_closing() {
    let mut client = open();
    client.disconnect(secs(1000)).unwrap();
    assert_eq!(client.begin(1, Some("token"), secs(1000)), Err((SessionError::NotOpen, Some("token"))));
}
