//! Client and server joined on a virtual clock: hours pass in microseconds, and to the millisecond.

use alloc::{collections::VecDeque, string::ToString, vec, vec::Vec};
use core::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::*;
use crate::proto::{
    Command, DecodeError, EncodeError, Frame, Headers, HeartBeat, Limits, SendTemplate, Time, Version,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One direction of a connection. Octets arrive in order, `latency` after they were written, until the link is cut.
struct Wire {
    latency: Duration,
    cut: bool,
    in_flight: VecDeque<(Time, Bytes)>,
    /// Everything ever written.
    log: Vec<u8>,
}

impl Wire {
    fn new(latency: Duration) -> Self {
        Self { latency, cut: false, in_flight: VecDeque::new(), log: Vec::new() }
    }

    fn write(&mut self, octets: Bytes, now: Time) {
        self.log.extend_from_slice(&octets);
        if !self.cut {
            self.in_flight.push_back((now + self.latency, octets));
        }
    }

    /// What has arrived.
    fn read(&mut self, now: Time, input: &mut BytesMut) -> bool {
        let mut read = false;
        while let Some((_, octets)) = self.in_flight.pop_front_if(|(due, _)| *due <= now) {
            input.extend_from_slice(&octets);
            read = true;
        }
        read
    }

    fn cut(&mut self) {
        self.cut = true;
        self.in_flight.clear();
    }
}

/// A client and a server. What the server does with frames is the test's; CONNECT it accepts by itself.
struct Pair {
    now: Time,
    client: ClientSession<&'static str>,
    server: ServerSession,
    up: Wire,
    down: Wire,
    client_input: BytesMut,
    server_input: BytesMut,
    client_events: Vec<ClientEvent<&'static str>>,
    server_frames: Vec<Frame>,
    disconnected: bool,
    /// Receipts that timed out, and when.
    expired: Vec<(&'static str, Time)>,
    client_end: Option<(SessionError, Time)>,
    server_end: Option<(SessionError, Time)>,
}

impl Pair {
    fn new(client: ClientOptions, server: ServerOptions) -> Self {
        Self::with_latency(client, server, ms(1))
    }

    fn with_latency(client: ClientOptions, server: ServerOptions, latency: Duration) -> Self {
        // Not zero, so that nothing depends on the origin of the clock.
        let now = secs(1000);
        Self {
            now,
            client: ClientSession::new(client, now).unwrap(),
            server: ServerSession::new(server, now),
            up: Wire::new(latency),
            down: Wire::new(latency),
            client_input: BytesMut::new(),
            server_input: BytesMut::new(),
            client_events: Vec::new(),
            server_frames: Vec::new(),
            disconnected: false,
            expired: Vec::new(),
            client_end: None,
            server_end: None,
        }
    }

    /// The default options, connected.
    fn open() -> Self {
        let mut pair = Self::new(ClientOptions::default(), ServerOptions::default());
        pair.run(ms(10));
        assert!(pair.client.is_open() && pair.server.is_open());
        pair.client_events.clear();
        pair
    }

    /// Lets time pass, stopping at every moment at which something is due.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut calls_at_once = 0;
        loop {
            self.write();
            let wires = [&self.up, &self.down].into_iter().filter_map(|wire| Some(wire.in_flight.front()?.0));
            let client = self.client_end.is_none().then(|| self.client.next_timeout()).flatten();
            let server = self.server_end.is_none().then(|| self.server.next_timeout()).flatten();
            let Some(next) = wires.chain(client).chain(server).min().filter(|next| *next <= until) else {
                break;
            };
            calls_at_once = if next > self.now { 0 } else { calls_at_once + 1 };
            assert!(calls_at_once < 20, "a session asks to be called again and again at {:?}", self.now);
            self.now = self.now.max(next);
            self.read();
            self.time_out();
        }
        self.now = until;
    }

    fn write(&mut self) {
        let now = self.now;
        let outbox = self.client.outbox();
        if outbox.has_remaining() {
            self.up.write(outbox.copy_to_bytes(outbox.remaining()), now);
            self.client.wrote(now);
        }
        let outbox = self.server.outbox();
        if outbox.has_remaining() {
            self.down.write(outbox.copy_to_bytes(outbox.remaining()), now);
            self.server.wrote(now);
        }
    }

    fn read(&mut self) {
        let now = self.now;
        if self.down.read(now, &mut self.client_input) && self.client_end.is_none() {
            self.client.read(now);
            self.client_end = self.client_events_until_none().err().map(|error| (error, now));
        }
        if self.up.read(now, &mut self.server_input) && self.server_end.is_none() {
            self.server.read(now);
            self.server_end = self.server_events_until_none().err().map(|error| (error, now));
        }
    }

    fn client_events_until_none(&mut self) -> Result<(), SessionError> {
        while let Some(event) = self.client.next_event(&mut self.client_input, self.now)? {
            self.client_events.push(event);
        }
        Ok(())
    }

    fn server_events_until_none(&mut self) -> Result<(), SessionError> {
        while let Some(event) = self.server.next_event(&mut self.server_input)? {
            match event {
                ServerEvent::Connect(_) => self.server.accept("s-1", self.now)?,
                ServerEvent::Frame(frame) => self.server_frames.push(frame),
                ServerEvent::Disconnect => self.disconnected = true,
            }
        }
        Ok(())
    }

    fn time_out(&mut self) {
        let now = self.now;
        if self.client_end.is_none() {
            self.client_end = self.client.handle_timeout(now).err().map(|error| (error, now));
            self.expired.extend(core::iter::from_fn(|| self.client.expire(now)).map(|token| (token, now)));
        }
        if self.server_end.is_none() {
            self.server_end = self.server.handle_timeout(now).err().map(|error| (error, now));
        }
    }

    fn send(&mut self, token: &'static str) {
        self.client.send_with_receipt(&Frame::send("/a", token), token, self.now).unwrap();
    }

    fn receipt(&mut self, id: &str) {
        self.server.send(&Frame::new(Command::Receipt).with_header("receipt-id", id)).unwrap();
    }

    /// The tokens of the receipts so far; a stray one is "stray".
    fn receipts(&self) -> Vec<&'static str> {
        let token = |event: &ClientEvent<&'static str>| match event {
            ClientEvent::Receipt(token) => Some(*token),
            ClientEvent::StrayReceipt => Some("stray"),
            _ => None,
        };
        self.client_events.iter().filter_map(token).collect()
    }

    fn connected(&self) -> &Connected {
        match self.client_events.first() {
            Some(ClientEvent::Connected(connected)) => connected,
            other => panic!("not connected: {other:?}, {:?}", self.client_end),
        }
    }
}

fn client(heart_beat: HeartBeat) -> ClientOptions {
    ClientOptions { heart_beat, ..ClientOptions::default() }
}

fn server(heart_beat: HeartBeat) -> ServerOptions {
    ServerOptions { heart_beat, ..ServerOptions::default() }
}

/// What a client makes of these octets right after its CONNECT.
fn answered(options: ClientOptions, octets: &str) -> Result<Vec<ClientEvent<&'static str>>, SessionError> {
    let mut client = ClientSession::new(options, Time::ZERO).unwrap();
    client.read(Time::ZERO);
    let mut input = BytesMut::from(octets);
    let mut events = Vec::new();
    loop {
        match client.next_event(&mut input, Time::ZERO) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return Ok(events),
            Err(error) => {
                assert_eq!(
                    client.next_event(&mut input, Time::ZERO).err(),
                    Some(error.clone()),
                    "it repeats"
                );
                assert!(!client.is_open() && client.next_timeout().is_none());
                return Err(error);
            }
        }
    }
}

/// What a server makes of these octets, accepting CONNECT; it may speak `versions`.
fn asked(versions: &[Version], octets: &str) -> Result<(Version, usize), SessionError> {
    let options = ServerOptions { versions: versions.to_vec(), ..ServerOptions::default() };
    let mut server = ServerSession::new(options, Time::ZERO);
    let mut input = BytesMut::from(octets);
    let mut frames = 0;
    while let Some(event) = server.next_event(&mut input)? {
        match event {
            ServerEvent::Connect(_) => server.accept("s-1", Time::ZERO)?,
            ServerEvent::Frame(_) | ServerEvent::Disconnect => frames += 1,
        }
    }
    Ok((server.version(), frames))
}

fn written(outbox: &mut crate::proto::Outbox) -> alloc::string::String {
    let octets = outbox.copy_to_bytes(outbox.remaining());
    core::str::from_utf8(&octets).unwrap().to_string()
}

mod handshake {
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
        let events =
            answered(ClientOptions::default(), "CONNECTED\nsession:x\nheart-beat:1,1\n\n\0").unwrap();
        let [ClientEvent::Connected(connected)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((connected.version, connected.session.as_deref()), (Version::V1_0, Some("x")));
        assert_eq!(
            (connected.sends_every, connected.server_patience),
            (None, None),
            "1.0 has no heart-beats"
        );

        let modern =
            ClientOptions { versions: vec![Version::V1_1, Version::V1_2], ..ClientOptions::default() };
        let refused = answered(modern, "CONNECTED\nsession:x\n\n\0").unwrap_err();
        assert_eq!(refused, SessionError::VersionNotOffered("1.0".into()));
    }

    #[test]
    fn connect_without_accept_version_is_1_0() {
        assert_eq!(
            asked(&Version::ALL, "CONNECT\nlogin:a\n\n\0"),
            Ok((Version::V1_0, 0)),
            "nor has 1.0 a host"
        );
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
            assert_eq!(
                answered(options, &octets).unwrap_err(),
                SessionError::VersionNotOffered(version.into())
            );
        }
    }

    #[test]
    fn versions_unknown_here_are_passed_over() {
        let asks = |list: &str| {
            asked(&Version::ALL, &alloc::format!("CONNECT\naccept-version:{list}\nhost:a\n\n\0"))
        };
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
        let mut pair =
            Pair::new(options, ServerOptions { connect_timeout: secs(7), ..ServerOptions::default() });
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
        assert_eq!(
            (frame.header("message"), &frame.body()[..]),
            (Some("Bad CONNECT"), &b"Access refused"[..])
        );
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
        assert_eq!(
            bad(ClientOptions { passcode: Some("a\nb".into()), ..default() }),
            unencodable("passcode")
        );
        assert_eq!(bad(ClientOptions { login: Some("a\r".into()), ..default() }), unencodable("login"));
        assert_eq!(bad(ClientOptions { host: "\0".into(), ..default() }), unencodable("host"));
        let headers: Headers = [("receipt", "1")].into_iter().collect();
        assert_eq!(bad(ClientOptions { headers, ..default() }), SessionError::ReceiptHeader);
    }

    #[test]
    fn the_switch_for_brokers_that_unescape_connect() {
        let options = ClientOptions {
            escape_connect: true,
            passcode: Some("a\\b:c".into()),
            ..ClientOptions::default()
        };
        let mut client = ClientSession::<()>::new(options, Time::ZERO).unwrap();
        assert!(written(client.outbox()).contains("\npasscode:a\\\\b\\cc\n"));
    }
}

mod heart_beats {
    use super::*;

    /// End-of-lines in what was written, the handshake apart.
    fn eols(log: &[u8]) -> usize {
        let handshake = log.iter().position(|&octet| octet == 0).unwrap() + 1;
        assert!(log[handshake..].iter().all(|&octet| octet == b'\n'));
        log.len() - handshake
    }

    #[test]
    fn idle_hours_are_survived() {
        let mut pair = Pair::with_latency(
            client(HeartBeat { send: secs(4), receive: secs(10) }),
            server(HeartBeat { send: secs(6), receive: secs(2) }),
            ms(300),
        );
        pair.run(secs(3 * 3600));
        assert_eq!((&pair.client_end, &pair.server_end), (&None, &None));
        assert_eq!(pair.connected().sends_every, Some(secs(4)), "the greater of 4 and 2");
        assert_eq!(pair.connected().server_patience, Some(secs(20)), "twice the greater of 6 and 10");
        // One each half period: 2 and 5 seconds.
        assert!((5390..=5400).contains(&eols(&pair.up.log)), "{}", eols(&pair.up.log));
        assert!((2150..=2160).contains(&eols(&pair.down.log)), "{}", eols(&pair.down.log));
    }

    #[test]
    fn neither_way_where_either_is_zero() {
        let (period, none) = (secs(1), Duration::ZERO);
        for (ours, theirs) in [
            (HeartBeat::NONE, HeartBeat::every(period)),
            (HeartBeat::every(period), HeartBeat::NONE),
            (HeartBeat { send: period, receive: none }, HeartBeat { send: period, receive: none }),
            (HeartBeat { send: none, receive: period }, HeartBeat { send: none, receive: period }),
        ] {
            let mut pair = Pair::new(client(ours), server(theirs));
            pair.run(secs(3600));
            assert_eq!((&pair.client_end, &pair.server_end), (&None, &None), "{ours} {theirs}");
            assert_eq!((eols(&pair.up.log), eols(&pair.down.log)), (0, 0), "{ours} {theirs}");
        }
    }

    #[test]
    fn one_way_only() {
        let mut pair = Pair::new(
            client(HeartBeat { send: Duration::ZERO, receive: secs(1) }),
            server(HeartBeat { send: secs(1), receive: secs(1) }),
        );
        pair.run(secs(60));
        assert_eq!((&pair.client_end, &pair.server_end), (&None, &None));
        assert_eq!(eols(&pair.up.log), 0);
        assert!((118..=120).contains(&eols(&pair.down.log)));
    }

    #[test]
    fn a_dead_server_is_found_in_time() {
        let mut pair = Pair::new(client(HeartBeat::every(secs(2))), server(HeartBeat::every(secs(2))));
        pair.run(secs(10));
        pair.down.cut();
        // The link delivers one end-of-line a second; the last one arrived within the second before the cut.
        pair.run(secs(60));
        let (error, at) = pair.client_end.clone().unwrap();
        assert_eq!(error, SessionError::PeerSilent(secs(4)));
        assert!((secs(1013)..=secs(1014)).contains(&at), "{at:?}");
        assert!(pair.server_end.is_none() || pair.server_end.as_ref().is_some_and(|(_, end)| *end > at));
    }

    #[test]
    fn a_dead_client_is_found_in_time() {
        let mut pair = Pair::new(client(HeartBeat::every(secs(2))), server(HeartBeat::every(secs(2))));
        pair.run(secs(10));
        pair.up.cut();
        pair.run(secs(60));
        let (error, at) = pair.server_end.clone().unwrap();
        assert_eq!(error, SessionError::PeerSilent(secs(4)));
        assert!((secs(1013)..=secs(1014)).contains(&at), "{at:?}");
    }

    #[test]
    fn the_margin_forgives_a_slow_link() {
        let mut pair = Pair::new(client(HeartBeat::every(secs(2))), server(HeartBeat::every(secs(2))));
        pair.run(secs(10));
        // Octets take 2.9 s longer from now on: silence of at most 1 + 2.9 s, where 4 s are allowed.
        pair.up.latency = ms(2900);
        pair.down.latency = ms(2900);
        pair.run(secs(600));
        assert_eq!((&pair.client_end, &pair.server_end), (&None, &None));
    }

    #[test]
    fn traffic_takes_the_place_of_end_of_lines() {
        let mut pair = Pair::new(client(HeartBeat::every(secs(2))), server(HeartBeat::every(secs(2))));
        pair.run(ms(10));
        let before = pair.up.log.len();
        for _ in 0..100 {
            pair.client.send(&Frame::send("/a", "x")).unwrap();
            pair.run(ms(900));
        }
        assert_eq!((&pair.client_end, &pair.server_end), (&None, &None));
        let frame = b"SEND\ndestination:/a\ncontent-length:1\n\nx\0".len();
        assert_eq!(pair.up.log.len() - before, 100 * frame, "frames and nothing else");
    }

    #[test]
    fn nothing_piles_up_while_the_owner_cannot_write() {
        let mut pair = Pair::new(client(HeartBeat::every(secs(2))), server(HeartBeat::every(secs(2))));
        pair.run(ms(10));
        pair.client.send(&Frame::send("/a", "x")).unwrap();
        let waiting = pair.client.outbox_len();
        for second in 0..3600 {
            let now = pair.now + secs(second);
            // The server's octets keep coming.
            pair.client.read(now);
            pair.client.handle_timeout(now).unwrap();
            assert!(pair.client.next_timeout().is_none_or(|at| at > now), "no busy loop");
        }
        assert_eq!(pair.client.outbox_len(), waiting);
    }

    #[test]
    fn an_end_of_line_behind_every_frame_is_no_flood() {
        let mut pair = Pair::open();
        pair.client.read(pair.now);
        let mut input = BytesMut::from(&b"RECEIPT\nreceipt-id:0\n\n\0\n".repeat(50_000)[..]);
        let mut strays = 0;
        while let Some(event) = pair.client.next_event(&mut input, pair.now).unwrap() {
            strays += usize::from(matches!(event, ClientEvent::StrayReceipt));
        }
        assert_eq!((strays, input.len()), (50_000, 0));
    }

    #[test]
    fn a_flood_of_end_of_lines_is_one_within_a_second() {
        let most = Limits::default().max_eols;
        let mut pair = Pair::open();
        let mut feed = |eols: usize, now: Time| {
            pair.client.read(now);
            let mut input = BytesMut::from(&vec![b'\n'; eols][..]);
            let result = pair.client.next_event(&mut input, now);
            result.map(|event| assert!(event.is_none() && input.is_empty()))
        };
        for second in 0..100 {
            assert_eq!(feed(most, secs(2000 + second)), Ok(()));
        }
        let flood = SessionError::Decode(DecodeError::EolFlood { limit: most });
        assert_eq!(feed(1, secs(2099) + ms(999)), Err(flood));
    }

    #[test]
    fn a_period_below_a_millisecond_is_not_none() {
        let short = Duration::from_micros(300);
        let mut pair = Pair::new(client(HeartBeat::every(short)), server(HeartBeat::every(ms(1))));
        pair.run(ms(50));
        assert_eq!(pair.connected().sends_every, Some(ms(1)));
        assert!(pair.up.log.windows(15).any(|octets| octets == b"\nheart-beat:1,1"));
    }
}

mod receipts {
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
}

mod the_end {
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
                ClientEvent::Message(frame) if frame.body() == "late" => "message",
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
        let mut pair = Pair::open();
        pair.send("a");
        pair.down.cut();
        pair.client.disconnect(pair.now).unwrap();
        let start = pair.now;
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
        assert_eq!(
            asked(&Version::ALL, octets),
            Ok((Version::V1_2, 1)),
            "what follows DISCONNECT is not read"
        );
    }

    #[test]
    fn tokens_are_handed_back_when_the_connection_is_lost() {
        let mut pair = Pair::open();
        ["a", "b"].into_iter().for_each(|token| pair.send(token));
        assert_eq!(pair.client.take_pending().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(pair.client.take_pending().count(), 0);
        assert!(!pair.client.is_open());
    }
}

mod out_of_place {
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
        assert_eq!(
            refused,
            SessionError::Decode(DecodeError::UnknownCommand("HTTP/1.1 400 Bad Request".into()))
        );
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
        let [ClientEvent::Connected(connected), ClientEvent::Message(message)] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(connected.session.as_deref(), Some("a\\cb"));
        assert_eq!(message.header("x"), Some("a:b\r"));
    }
}

mod callers_mistakes {
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
}
