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
