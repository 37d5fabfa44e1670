use super::*;

#[test]
fn frames_a_client_may_not_get() {
    let open = "CONNECTED\nversion:1.2\n\n\0";
    let table = [
        ("MESSAGE\n\n\0", Command::Message),
        ("RECEIPT\nreceipt-id:1\n\n\0", Command::Receipt),
        ("SEND\n\n\0", Command::Send),
        ("CONNECT\n\n\0", Command::Connect),
        (&[open, open].concat(), Command::Connected),
        (&[open, "SEND\n\n\0"].concat(), Command::Send),
        (&[open, "DISCONNECT\n\n\0"].concat(), Command::Disconnect),
    ];
    for (octets, command) in table {
        let refused = answered(ClientOptions::default(), octets).unwrap_err();
        assert_eq!(refused, SessionError::Unexpected(command), "{octets:?}");
        assert!(!refused.is_callers());
    }
}

#[test]
fn frames_a_server_may_not_get() {
    let open = "CONNECT\naccept-version:1.2\nhost:a\n\n\0";
    let table = [
        ("SEND\n\n\0", Command::Send),
        ("DISCONNECT\n\n\0", Command::Disconnect),
        ("CONNECTED\n\n\0", Command::Connected),
        (&[open, open].concat(), Command::Connect),
        (&[open, "STOMP\n\n\0"].concat(), Command::Stomp),
        (&[open, "MESSAGE\n\n\0"].concat(), Command::Message),
        (&[open, "RECEIPT\n\n\0"].concat(), Command::Receipt),
        (&[open, "ERROR\n\n\0"].concat(), Command::Error),
        (&[open, "CONNECTED\n\n\0"].concat(), Command::Connected),
    ];
    for (octets, command) in table {
        assert_eq!(asked(&Version::ALL, octets), Err(SessionError::Unexpected(command)), "{octets:?}");
    }
}

#[test]
fn octets_that_are_not_stomp() {
    let refused = answered(ClientOptions::default(), "HTTP/1.1 400 Bad Request\r\n").unwrap_err();
    assert_eq!(refused, SessionError::Decode(DecodeError::UnknownCommand("HTTP/1.1 400 Bad Request".into())));
}

#[test]
fn frames_behind_connect_wait_for_its_answer() {
    let mut server = ServerSession::new(ServerOptions::default(), Time::ZERO);
    let mut input = BytesMut::from("CONNECT\naccept-version:1.1\nhost:a\n\n\0SEND\na\\c:b\r\n\n\0");
    assert!(matches!(server.next_event(&mut input), Ok(Some(ServerEvent::Connect(_)))));
    assert!(matches!(server.next_event(&mut input), Ok(None)));
    server.accept("s", Time::ZERO).unwrap();
    let Ok(Some(ServerEvent::Frame(frame))) = server.next_event(&mut input) else { panic!() };
    assert_eq!(frame.header("a:"), Some("b\r"), "read by the rules of 1.1");
    assert_eq!(server.accept("s", Time::ZERO), Err(SessionError::NotOpen));
}

#[test]
fn the_version_of_connected_is_in_force_from_the_next_frame() {
    let octets = "CONNECTED\r\nversion:1.1\r\nsession:a\\cb\r\n\r\n\0MESSAGE\nx:a\\cb\r\n\n\0";
    let events = answered(ClientOptions::default(), octets).unwrap();
    let [ClientEvent::Connected(connected), ClientEvent::StrayMessage(message)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(connected.session.as_deref(), Some("a\\cb"));
    assert_eq!(message.header("x"), Some("a:b\r"));
}
