use super::*;

#[test]
fn octets_both_ways() {
    let mut pair = Pair::new(
        ClientOptions {
            login: Some("guest".into()),
            passcode: Some("a:b\\c".into()),
            ..client(HeartBeat::NONE)
        },
        ServerOptions { server: "test/1".into(), ..ServerOptions::default() },
    );
    pair.run(secs(1));
    let up =
        "CONNECT\naccept-version:1.0,1.1,1.2\nhost:/\nheart-beat:0,0\nlogin:guest\npasscode:a:b\\c\n\n\0";
    let down = "CONNECTED\nsession:s-1\nversion:1.2\nheart-beat:10000,10000\nserver:test/1\n\n\0";
    assert_eq!(core::str::from_utf8(&pair.up.log), Ok(up));
    assert_eq!(core::str::from_utf8(&pair.down.log), Ok(down));
    let connected = Connected {
        version: Version::V1_2,
        server: Some("test/1".into()),
        session: Some("s-1".into()),
        sends_every: None,
        server_patience: None,
    };
    assert_eq!(pair.connected(), &connected);
}

#[test]
fn stomp_for_connect() {
    let options = ClientOptions {
        stomp_command: true,
        versions: vec![Version::V1_2, Version::V1_1],
        ..client(HeartBeat::NONE)
    };
    let mut pair = Pair::new(options, ServerOptions::default());
    pair.run(secs(1));
    assert!(pair.up.log.starts_with(b"STOMP\naccept-version:1.1,1.2\nhost:/\n"), "an ascending list");
    assert!(pair.client.is_open());
}

#[test]
fn the_highest_common_version() {
    use Version::{V1_0, V1_1, V1_2};
    let table: [(&[Version], &[Version], Option<Version>); 8] = [
        (&[V1_0, V1_1, V1_2], &[V1_0, V1_1, V1_2], Some(V1_2)),
        (&[V1_2, V1_0, V1_1, V1_1], &[V1_1, V1_0], Some(V1_1)),
        (&[V1_0, V1_1, V1_2], &[V1_0], Some(V1_0)),
        (&[V1_0], &[V1_0, V1_1, V1_2], Some(V1_0)),
        (&[V1_1], &[V1_0, V1_1, V1_2], Some(V1_1)),
        (&[V1_2], &[V1_0, V1_1], None),
        (&[V1_0], &[V1_1, V1_2], None),
        (&[V1_0, V1_2], &[V1_1], None),
    ];
    for (offered, spoken, expected) in table {
        let mut pair = Pair::new(
            ClientOptions { versions: offered.to_vec(), ..ClientOptions::default() },
            ServerOptions { versions: spoken.to_vec(), ..ServerOptions::default() },
        );
        pair.run(secs(1));
        match expected {
            Some(version) => {
                assert_eq!(pair.connected().version, version, "{offered:?} {spoken:?}");
                assert_eq!((pair.client.version(), pair.server.version()), (version, version));
                let beats = version > V1_0;
                assert_eq!(pair.connected().sends_every.is_some(), beats, "1.0 has no heart-beats");
            }
            None => assert!(
                matches!(pair.server_end, Some((SessionError::NoCommonVersion(_), _))),
                "{offered:?} {spoken:?}: {:?}",
                pair.server_end
            ),
        }
    }
}

#[test]
fn connected_without_a_version_is_1_0() {
    let events = answered(ClientOptions::default(), "CONNECTED\nsession:x\nheart-beat:1,1\n\n\0").unwrap();
    let [ClientEvent::Connected(connected)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((connected.version, connected.session.as_deref()), (Version::V1_0, Some("x")));
    assert_eq!((connected.sends_every, connected.server_patience), (None, None), "1.0 has no heart-beats");

    let modern = ClientOptions { versions: vec![Version::V1_1, Version::V1_2], ..ClientOptions::default() };
    let refused = answered(modern, "CONNECTED\nsession:x\n\n\0").unwrap_err();
    assert_eq!(refused, SessionError::VersionNotOffered("1.0".into()));
}

#[test]
fn connect_without_accept_version_is_1_0() {
    assert_eq!(asked(&Version::ALL, "CONNECT\nlogin:a\n\n\0"), Ok((Version::V1_0, 0)), "nor has 1.0 a host");
    let refused = asked(&[Version::V1_1, Version::V1_2], "CONNECT\nhost:a\n\n\0").unwrap_err();
    assert_eq!(refused, SessionError::NoCommonVersion("1.0".into()));
}

#[test]
fn a_version_that_was_not_offered() {
    let only = |version| ClientOptions { versions: vec![version], ..ClientOptions::default() };
    for (options, version) in [
        (only(Version::V1_2), "1.1"),
        (only(Version::V1_1), "1.2"),
        (ClientOptions::default(), "1.3"),
        (ClientOptions::default(), " 1.2"),
        (ClientOptions::default(), "1.20"),
        (ClientOptions::default(), ""),
    ] {
        let octets = alloc::format!("CONNECTED\nversion:{version}\n\n\0");
        assert_eq!(answered(options, &octets).unwrap_err(), SessionError::VersionNotOffered(version.into()));
    }
}

#[test]
fn versions_unknown_here_are_passed_over() {
    let asks =
        |list: &str| asked(&Version::ALL, &alloc::format!("CONNECT\naccept-version:{list}\nhost:a\n\n\0"));
    assert_eq!(asks("1.0,1.1,2.0"), Ok((Version::V1_1, 0)));
    assert_eq!(asks("9,1.2,x"), Ok((Version::V1_2, 0)));
    for list in ["2.0", "", "1.2;1.1", " 1.2"] {
        assert_eq!(asks(list), Err(SessionError::NoCommonVersion(list.into())));
    }
}

#[test]
fn malformed_heart_beats() {
    for text in ["", "1", "1,", ",1", "+1,1", "-1,1", "1,1,1", "1, 1", "a,b", "1.0,1"] {
        let bad = SessionError::BadHeartBeat(text.into());
        let octets = alloc::format!("CONNECTED\nversion:1.2\nheart-beat:{text}\n\n\0");
        assert_eq!(answered(ClientOptions::default(), &octets).unwrap_err(), bad);
        let octets = alloc::format!("CONNECT\naccept-version:1.1\nhost:a\nheart-beat:{text}\n\n\0");
        assert_eq!(asked(&Version::ALL, &octets), Err(bad));
    }
}

#[test]
fn missing_headers() {
    let missing = |command, header| SessionError::MissingHeader { command, header };
    for version in ["1.1", "1.2"] {
        let octets = alloc::format!("CONNECT\naccept-version:{version}\n\n\0");
        assert_eq!(asked(&Version::ALL, &octets), Err(missing(Command::Connect, "host")));
    }
    assert_eq!(asked(&Version::ALL, "CONNECT\naccept-version:1.0\n\n\0"), Ok((Version::V1_0, 0)));
    let refused =
        answered(ClientOptions::default(), "CONNECTED\nversion:1.2\n\n\0RECEIPT\n\n\0").unwrap_err();
    assert_eq!(refused, missing(Command::Receipt, "receipt-id"));
}

#[test]
fn no_answer_in_time() {
    let options = ClientOptions { connect_timeout: secs(3), ..ClientOptions::default() };
    let mut pair = Pair::new(options, ServerOptions { connect_timeout: secs(7), ..ServerOptions::default() });
    pair.up.cut();
    pair.run(secs(60));
    assert_eq!(pair.client_end, Some((SessionError::HandshakeTimeout(secs(3)), secs(1003))));
    assert_eq!(pair.server_end, Some((SessionError::HandshakeTimeout(secs(7)), secs(1007))));
}

#[test]
fn an_answer_just_in_time() {
    let options = ClientOptions { connect_timeout: secs(3), ..ClientOptions::default() };
    let mut pair = Pair::with_latency(options, ServerOptions::default(), ms(1499));
    pair.run(secs(60));
    assert_eq!((&pair.client_end, pair.client.is_open()), (&None, true));
}

#[test]
fn an_error_for_connected() {
    let octets = "ERROR\nmessage:Bad CONNECT\n\nAccess refused\0RECEIPT\nreceipt-id:1\n\n\0";
    let events = answered(ClientOptions::default(), octets).unwrap();
    let [ClientEvent::Error { frame, token: None }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((frame.header("message"), frame.body()), (Some("Bad CONNECT"), &b"Access refused"[..]));
}

#[test]
fn a_refusal_before_a_version_is_agreed_needs_no_escapes() {
    let mut pair = Pair::new(ClientOptions::default(), ServerOptions::default());
    pair.server.error("no: C:\\temp\nis\r\0full", None);
    pair.run(secs(1));
    let [ClientEvent::Error { frame, .. }] = &pair.client_events[..] else {
        panic!("{:?}", pair.client_events)
    };
    assert_eq!(frame.header("message"), Some("no  C  temp is  full"));
    assert_eq!(frame.body(), &b"no: C:\\temp\nis\r\0full"[..]);
}

#[test]
fn what_cannot_be_sent_in_connect() {
    let bad = |options| ClientSession::<()>::new(options, Time::ZERO).unwrap_err();
    let unencodable = |name: &str| {
        let (command, version) = (Command::Connect, Version::V1_2);
        SessionError::Encode(EncodeError::Unencodable { name: name.into(), command, version })
    };
    let default = ClientOptions::default;
    assert_eq!(bad(ClientOptions { passcode: Some("a\nb".into()), ..default() }), unencodable("passcode"));
    assert_eq!(bad(ClientOptions { login: Some("a\r".into()), ..default() }), unencodable("login"));
    assert_eq!(bad(ClientOptions { host: "\0".into(), ..default() }), unencodable("host"));
    let headers: Headers = [("receipt", "1")].into_iter().collect();
    assert_eq!(bad(ClientOptions { headers, ..default() }), SessionError::ReceiptHeader);
}

#[test]
fn the_switch_for_brokers_that_unescape_connect() {
    let options =
        ClientOptions { escape_connect: true, passcode: Some("a\\b:c".into()), ..ClientOptions::default() };
    let mut client = ClientSession::<()>::new(options, Time::ZERO).unwrap();
    assert!(written(client.outbox()).contains("\npasscode:a\\\\b\\cc\n"));
}

#[test]
fn a_server_may_do_without_host() {
    let options = ServerOptions { require_host: false, ..ServerOptions::default() };
    let mut server = ServerSession::new(options, Time::ZERO);
    let mut input = BytesMut::from("CONNECT\naccept-version:1.2\n\n\0");
    assert!(matches!(server.next_event(&mut input), Ok(Some(ServerEvent::Connect(_)))));
}
