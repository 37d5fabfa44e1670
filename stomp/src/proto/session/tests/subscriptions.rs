use super::*;

/// A client with one subscription, at a server that speaks `version` only, and what it wrote after the handshake.
fn subscribed(
    version: Version,
    subscribe: &Subscribe,
) -> (ClientSession<&'static str>, BytesMut, alloc::string::String) {
    let mut client = ClientSession::new(ClientOptions::default(), Time::ZERO).unwrap();
    written(client.outbox());
    let mut input = BytesMut::from(&*match version {
        Version::V1_0 => "CONNECTED\n\n\0".to_string(),
        version => alloc::format!("CONNECTED\nversion:{version}\n\n\0"),
    });
    assert!(matches!(client.next_event(&mut input, Time::ZERO), Ok(Some(ClientEvent::Connected(_)))));
    client.subscribe(7, subscribe, Some("subscribed"), Time::ZERO).unwrap();
    let octets = written(client.outbox());
    (client, input, octets)
}

fn message(client: &mut ClientSession<&'static str>, input: &mut BytesMut, octets: &str) -> Option<u64> {
    input.extend_from_slice(octets.as_bytes());
    match client.next_event(input, Time::ZERO).unwrap().unwrap() {
        ClientEvent::Message { subscription, .. } => Some(subscription),
        ClientEvent::StrayMessage(_) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_goes_out() {
    let plain = Subscribe::to("/queue/a");
    let cumulative = plain.clone().with_ack(AckMode::Client).with_prefetch(0).with_header("id", "99");
    let automatic = plain.clone().with_ack(AckMode::Auto).with_headers([("selector", "a:b")]);
    let table = [
        (plain, "ack:client-individual\nprefetch-count:100\n"),
        (cumulative, "ack:client\nprefetch-count:1\nid:99\n"),
        (automatic, "ack:auto\nselector:a\\cb\n"),
    ];
    for (subscribe, rest) in table {
        let (_, _, octets) = subscribed(Version::V1_2, &subscribe);
        assert_eq!(octets, alloc::format!("SUBSCRIBE\nid:7\ndestination:/queue/a\n{rest}receipt:1\n\n\0"));
    }
}

#[test]
fn messages_are_routed_by_subscription_and_in_1_0_by_destination() {
    let table = [
        (Version::V1_2, "MESSAGE\nsubscription:7\nack:1\n\n\0", Some(7)),
        (Version::V1_2, "MESSAGE\nsubscription:8\nack:1\n\n\0", None),
        (Version::V1_2, "MESSAGE\nsubscription:+7\nack:1\n\n\0", None),
        (Version::V1_2, "MESSAGE\ndestination:/queue/a\nack:1\n\n\0", None),
        (Version::V1_1, "MESSAGE\nsubscription:7\nmessage-id:1\n\n\0", Some(7)),
        (Version::V1_0, "MESSAGE\nsubscription:7\nmessage-id:1\n\n\0", Some(7)),
        (Version::V1_0, "MESSAGE\ndestination:/queue/a\nmessage-id:1\n\n\0", Some(7)),
        (Version::V1_0, "MESSAGE\ndestination:/queue/b\nmessage-id:1\n\n\0", None),
        (Version::V1_0, "MESSAGE\nmessage-id:1\n\n\0", None),
    ];
    for (version, octets, expected) in table {
        let (mut client, mut input, _) = subscribed(version, &Subscribe::to("/queue/a"));
        assert_eq!(message(&mut client, &mut input, octets), expected, "{version} {octets:?}");
    }
}

#[test]
fn a_message_for_a_subscription_just_dropped_is_tolerated() {
    let (mut client, mut input, _) = subscribed(Version::V1_2, &Subscribe::to("/queue/a"));
    client.unsubscribe(7, Some("gone"), Time::ZERO).unwrap();
    assert_eq!(written(client.outbox()), "UNSUBSCRIBE\nid:7\nreceipt:2\n\n\0");
    assert_eq!(message(&mut client, &mut input, "MESSAGE\nsubscription:7\nack:1\n\n\0"), None);
    assert!(client.is_open());
    let again = client.unsubscribe(7, Some("twice"), Time::ZERO);
    assert_eq!(again, Err((SessionError::NoSubscription(7), Some("twice"))));
    client.subscribe(7, &Subscribe::to("/queue/b"), None, Time::ZERO).unwrap();
    assert_eq!(message(&mut client, &mut input, "MESSAGE\nsubscription:7\nack:1\n\n\0"), Some(7));
}

#[test]
fn a_number_is_taken_once() {
    let (mut client, _, _) = subscribed(Version::V1_2, &Subscribe::to("/queue/a"));
    let again = client.subscribe(7, &Subscribe::to("/queue/b"), Some("twice"), Time::ZERO);
    assert_eq!(again, Err((SessionError::SubscriptionExists(7), Some("twice"))));
    let unencodable = client.subscribe(8, &Subscribe::to("/queue/\0"), None, Time::ZERO);
    assert!(matches!(unencodable, Err((SessionError::Encode(_), None))), "{unencodable:?}");
    assert_eq!(client.outbox_len(), 0);
    client.subscribe(8, &Subscribe::to("/queue/b"), None, Time::ZERO).unwrap();
}

#[test]
fn verdicts_carry_the_headers_of_each_version() {
    let frame = Frame::new(Command::Message)
        .with_header("subscription", "7")
        .with_header("message-id", "m:1")
        .with_header("ack", "a1");
    let none = Frame::new(Command::Message).with_header("subscription", "7");
    let not_in_1_0 = SessionError::NotInVersion { command: Command::Nack, version: Version::V1_0 };
    let table = [
        (Version::V1_2, Verdict::Ack, &frame, Ok("ACK\nid:a1\nreceipt:2\n\n\0")),
        (Version::V1_2, Verdict::Nack, &frame, Ok("NACK\nid:a1\nreceipt:2\n\n\0")),
        (Version::V1_1, Verdict::Ack, &frame, Ok("ACK\nmessage-id:m\\c1\nsubscription:7\nreceipt:2\n\n\0")),
        (Version::V1_1, Verdict::Nack, &frame, Ok("NACK\nmessage-id:m\\c1\nsubscription:7\nreceipt:2\n\n\0")),
        (Version::V1_0, Verdict::Ack, &frame, Ok("ACK\nmessage-id:m:1\nreceipt:2\n\n\0")),
        (Version::V1_0, Verdict::Nack, &frame, Err(not_in_1_0)),
        (Version::V1_2, Verdict::Ack, &none, Err(SessionError::NothingToAcknowledge)),
        (Version::V1_1, Verdict::Ack, &none, Err(SessionError::NothingToAcknowledge)),
        (Version::V1_0, Verdict::Ack, &none, Err(SessionError::NothingToAcknowledge)),
    ];
    for (version, verdict, message, expected) in table {
        let (mut client, _, _) = subscribed(version, &Subscribe::to("/queue/a"));
        let result = client.settle(verdict, 7, message, None, Some("done"), Time::ZERO);
        let expected_result = expected.as_ref().map(|_| ()).map_err(|error| (error.clone(), Some("done")));
        assert_eq!(result, expected_result, "{version} {verdict:?}");
        assert_eq!(written(client.outbox()), expected.unwrap_or_default(), "{version} {verdict:?}");
    }
    let (mut client, _, _) = subscribed(Version::V1_2, &Subscribe::to("/queue/a").with_ack(AckMode::Auto));
    let result = client.settle(Verdict::Ack, 7, &frame, None, None, Time::ZERO);
    assert_eq!(result, Err((SessionError::NothingToAcknowledge, None)));
    let result = client.settle(Verdict::Ack, 8, &frame, None, None, Time::ZERO);
    assert_eq!(result, Err((SessionError::NoSubscription(8), None)));
}
