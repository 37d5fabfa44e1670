//! The publisher against the broker of this crate, with faults: nothing is lost, ids stay, states are told.
#![cfg(all(feature = "tokio", feature = "broker"))]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stompwire::{
    Headers,
    broker::{Admission, Broker, Which},
    client::Window,
    proto::HeartBeat,
    publisher::{Backoff, LaneState, Message, Outcome, Outcomes, Publisher, PublisherOptions},
};
use tokio::time::{Instant, sleep, timeout};

const LIMIT: Duration = Duration::from_secs(20);

fn options(brokers: &[&str]) -> PublisherOptions {
    let brokers = brokers.iter().map(|url| url.parse().unwrap()).collect();
    let mut options = PublisherOptions::new(brokers, "/queue/q");
    options.backoff = Backoff { min: Duration::from_millis(10), max: Duration::from_millis(50) };
    options.connect.session.heart_beat = HeartBeat::every(Duration::from_millis(500));
    options
}

fn message(n: usize) -> Message<usize> {
    let headers: Headers = [("n", n.to_string().as_str())].into_iter().collect();
    Message { id: format!("id-{n}"), headers, body: n.to_string().into(), token: n }
}

async fn publish(publisher: &Publisher<usize>, numbers: impl IntoIterator<Item = usize>) {
    for n in numbers {
        timeout(LIMIT, publisher.publish(message(n))).await.expect("room in the window").unwrap();
    }
}

/// Waits until `count` messages are confirmed; their attempts by token.
async fn confirmed(outcomes: &mut Outcomes<usize>, count: usize) -> BTreeMap<usize, u32> {
    let mut seen = BTreeMap::new();
    while seen.len() < count {
        match timeout(LIMIT, outcomes.recv()).await.expect("an outcome").unwrap() {
            Outcome::Confirmed { token, attempts, .. } => assert_eq!(seen.insert(token, attempts), None),
            other => panic!("{other:?}"),
        }
    }
    seen
}

/// The ids at the broker, how often each.
fn ids(broker: &Broker) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for message in broker.peek("q", usize::MAX) {
        *ids.entry(message.header("amqp-message-id").unwrap().to_owned()).or_default() += 1;
    }
    ids
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn every_message_is_confirmed_with_its_headers() {
    let broker = Broker::builder().start().await.unwrap();
    let mut options = options(&[&broker.url()]);
    options.connections = 3;
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    publish(&publisher, 0..500).await;
    let seen = confirmed(&mut outcomes, 500).await;
    assert!(seen.values().all(|&attempts| attempts == 1));
    let first = broker.peek("q", 500).into_iter().find(|message| message.body() == "0").unwrap();
    for (name, value) in [("persistent", "true"), ("amqp-message-id", "id-0"), ("n", "0")] {
        assert_eq!(first.header(name), Some(value));
    }
    assert_eq!(ids(&broker).len(), 500);
    assert!(publisher.lanes().iter().all(|lane| lane.state == LaneState::Connected && lane.in_flight == 0));
    timeout(LIMIT, publisher.close(LIMIT)).await.unwrap();
    assert_eq!(outcomes.recv().await, None);
}

#[tokio::test]
async fn what_was_not_receipted_is_sent_again_with_the_same_id() {
    let broker = Broker::builder().start().await.unwrap();
    let (publisher, mut outcomes) = Publisher::start(options(&[&broker.url()])).unwrap();
    let faults = broker.faults();
    faults.withhold_receipts(Which::All);
    publish(&publisher, 0..20).await;
    until("all are at the broker", || broker.queue("q").is_some_and(|queue| queue.messages == 20)).await;
    faults.reset_connections();
    until("all are there twice", || broker.queue("q").is_some_and(|queue| queue.messages == 40)).await;
    faults.release_receipts();
    let seen = confirmed(&mut outcomes, 20).await;
    assert!(seen.values().all(|&attempts| attempts == 2), "{seen:?}");
    let expected: BTreeMap<String, usize> = (0..20).map(|n| (format!("id-{n}"), 2)).collect();
    assert_eq!(ids(&broker), expected);
    let totals = publisher.board().totals();
    assert_eq!((totals.resent, totals.connects, totals.failures), (20, 2, 1));
}

#[tokio::test]
async fn cuts_of_every_kind_in_the_middle_lose_nothing() {
    let broker = Broker::builder().start().await.unwrap();
    let mut options = options(&[&broker.url()]);
    options.connections = 2;
    options.connect.window = Window { frames: 16, bytes: 1 << 20 };
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    let faults = broker.faults();
    let cutting = async {
        for round in 0..9 {
            sleep(Duration::from_millis(30)).await;
            match round % 3 {
                0 => faults.reset_connections(),
                1 => faults.cut_connections_mid_frame(),
                _ => faults.close_connections(),
            }
        }
    };
    let publishing = async {
        for n in 0..3000 {
            publish(&publisher, [n]).await;
            if n % 10 == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let (_, (), seen) = tokio::join!(cutting, publishing, confirmed(&mut outcomes, 3000));
    let at_broker: BTreeSet<String> = ids(&broker).into_keys().collect();
    assert_eq!(at_broker, (0..3000).map(|n| format!("id-{n}")).collect());
    assert_eq!(seen.len(), 3000);
    assert!(publisher.board().totals().connects > 2, "no connection was cut");
}

#[tokio::test]
async fn a_lane_goes_on_to_the_next_broker() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead_url = format!("stomp://{}/", dead.local_addr().unwrap());
    drop(dead);
    let broker = Broker::builder().start().await.unwrap();
    let mut options = options(&[&dead_url, &broker.url()]);
    // Two lanes begin at two brokers.
    options.connections = 2;
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    publish(&publisher, 0..10).await;
    confirmed(&mut outcomes, 10).await;
    let both = || publisher.lanes().iter().all(|lane| lane.state == LaneState::Connected);
    until("both lanes are there", both).await;
    assert!(publisher.board().totals().failures >= 1);
    let errors: Vec<_> = publisher.lanes().into_iter().map(|lane| lane.last_error).collect();
    assert_eq!(errors, [None, None], "an error is forgotten once connected");
}

#[tokio::test]
async fn no_receipts_with_heart_beats_is_blocked_and_not_a_reason_to_reconnect() {
    let broker =
        Broker::builder().heart_beat(HeartBeat::every(Duration::from_millis(100))).start().await.unwrap();
    let mut options = options(&[&broker.url()]);
    options.receipt_timeout = Duration::from_millis(300);
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    publish(&publisher, 0..5).await;
    confirmed(&mut outcomes, 5).await;
    let faults = broker.faults();
    faults.stop_reading(true);
    publish(&publisher, 5..10).await;
    until("blocked", || publisher.lanes()[0].state == LaneState::Blocked).await;
    // Blocked for many receipt timeouts: one message is taken to find out, no connection is made.
    publish(&publisher, 10..15).await;
    sleep(Duration::from_secs(1)).await;
    let status = &publisher.lanes()[0];
    assert_eq!((status.state, status.in_flight), (LaneState::Blocked, 6));
    faults.stop_reading(false);
    let seen = confirmed(&mut outcomes, 10).await;
    assert!(seen.values().all(|&attempts| attempts == 1), "{seen:?}");
    assert_eq!(publisher.board().totals().connects, 1);
    until("it is open again", || publisher.lanes()[0].state == LaneState::Connected).await;
}

#[tokio::test]
async fn blocked_is_seen_within_two_heart_beat_periods_and_slow_is_not_blocked() {
    const PERIOD: Duration = Duration::from_secs(1);
    let broker = Broker::builder().heart_beat(HeartBeat::every(PERIOD)).start().await.unwrap();
    let mut options = options(&[&broker.url()]);
    options.connect.session.heart_beat = HeartBeat::every(PERIOD);
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    let faults = broker.faults();
    faults.delay_receipts(Duration::from_millis(900));
    publish(&publisher, 0..5).await;
    let slow = async {
        loop {
            assert_ne!(publisher.lanes()[0].state, LaneState::Blocked);
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = slow => {}
        seen = confirmed(&mut outcomes, 5) => assert!(seen.values().all(|&attempts| attempts == 1)),
    }
    faults.delay_receipts(Duration::ZERO);
    faults.stop_reading(true);
    let start = Instant::now();
    publish(&publisher, [5]).await;
    until("blocked", || publisher.lanes()[0].state == LaneState::Blocked).await;
    let seen_after = start.elapsed();
    assert!(seen_after >= PERIOD, "{seen_after:?}");
    assert!(seen_after <= 2 * PERIOD + Duration::from_millis(500), "{seen_after:?}");
    faults.stop_reading(false);
    confirmed(&mut outcomes, 1).await;
    until("it is open again", || publisher.lanes()[0].state == LaneState::Connected).await;
}

#[tokio::test]
async fn a_write_that_is_stalled_is_blocked_too() {
    let broker = Broker::builder().start().await.unwrap();
    let mut options = options(&[&broker.url()]);
    options.connect.window = Window { frames: 4096, bytes: 256 << 20 };
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    publish(&publisher, [0]).await;
    confirmed(&mut outcomes, 1).await;
    let faults = broker.faults();
    faults.stop_reading(true);
    // More than every buffer on the way takes.
    for n in 1..=600 {
        let message = Message { body: vec![b'x'; 64 * 1024].into(), ..message(n) };
        publisher.publish(message).await.unwrap();
        tokio::task::yield_now().await;
    }
    until("blocked", || publisher.lanes()[0].state == LaneState::Blocked).await;
    faults.stop_reading(false);
    let seen = confirmed(&mut outcomes, 600).await;
    assert!(seen.values().all(|&attempts| attempts == 1), "sent again");
    assert_eq!(publisher.board().totals().connects, 1);
}

#[tokio::test]
async fn a_lost_receipt_with_nothing_after_it_is_found_by_the_one_message_a_blocked_lane_takes() {
    let broker = Broker::builder().start().await.unwrap();
    let mut options = options(&[&broker.url()]);
    options.receipt_timeout = Duration::from_millis(300);
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    let faults = broker.faults();
    faults.drop_receipts(Which::All);
    publish(&publisher, [0]).await;
    until("blocked", || publisher.lanes()[0].state == LaneState::Blocked).await;
    faults.drop_receipts(Which::None);
    publish(&publisher, [1]).await;
    assert_eq!(confirmed(&mut outcomes, 2).await, BTreeMap::from([(0, 2), (1, 1)]));
}

#[tokio::test]
async fn what_the_server_said_is_kept() {
    let broker = Broker::builder().start().await.unwrap();
    broker.faults().set_admission(Admission::RefuseConnect);
    let (publisher, _outcomes) = Publisher::<()>::start(options(&[&broker.url()])).unwrap();
    let said =
        |text: &str| publisher.lanes()[0].last_error.as_deref().is_some_and(|error| error.contains(text));
    until("the server's words", || said("the broker was told to refuse this CONNECT")).await;
}

#[tokio::test]
async fn a_lost_receipt_is_found_by_those_that_overtake_it() {
    let broker = Broker::builder().start().await.unwrap();
    let mut options = options(&[&broker.url()]);
    options.receipt_timeout = Duration::from_millis(300);
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    let faults = broker.faults();
    faults.drop_receipts(Which::All);
    publish(&publisher, [0]).await;
    until("it is at the broker", || broker.queue("q").is_some_and(|queue| queue.messages == 1)).await;
    faults.drop_receipts(Which::None);
    publish(&publisher, [1]).await;
    let seen = confirmed(&mut outcomes, 2).await;
    assert_eq!(seen, BTreeMap::from([(0, 2), (1, 1)]));
    assert_eq!(ids(&broker), BTreeMap::from([("id-0".to_owned(), 2), ("id-1".to_owned(), 1)]));
}

#[tokio::test]
async fn without_a_broker_publishing_waits_at_the_window_and_closing_tells_what_is_left() {
    let mut options = options(&["stomp://127.0.0.1:1/"]);
    options.connect.window = Window { frames: 3, bytes: 1 << 20 };
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    publish(&publisher, 0..3).await;
    assert!(timeout(Duration::from_millis(100), publisher.publish(message(3))).await.is_err());
    assert!(publisher.lanes()[0].last_error.as_deref().is_some_and(|error| error.contains("refused")));
    let start = Instant::now();
    publisher.close(Duration::from_millis(200)).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    let mut abandoned = Vec::new();
    while let Some(outcome) = outcomes.recv().await {
        abandoned.push(outcome);
    }
    assert_eq!(abandoned, (0..3).map(|token| Outcome::Abandoned { token, attempts: 0 }).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_place_is_for_one_message_and_comes_back_when_it_is_dropped() {
    let mut options = options(&["stomp://127.0.0.1:1/"]);
    options.connect.window = Window { frames: 2, bytes: 10 };
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    let first = publisher.try_reserve(6).unwrap();
    assert!(publisher.try_reserve(6).is_none(), "octets");
    let second = publisher.try_reserve(1).unwrap();
    assert!(publisher.try_reserve(1).is_none(), "frames");
    drop(second);
    let second = timeout(LIMIT, publisher.reserve(1)).await.unwrap().unwrap();
    first.publish(message(1));
    second.publish(message(2));
    assert!(timeout(Duration::from_millis(20), publisher.reserve(1)).await.is_err());
    publisher.close(Duration::ZERO).await;
    for token in [1, 2] {
        assert_eq!(outcomes.recv().await, Some(Outcome::Abandoned { token, attempts: 0 }));
    }
}

#[tokio::test]
async fn what_goes_behind_waits_for_all_others() {
    let broker = Broker::builder().start().await.unwrap();
    broker.faults().withhold_receipts(Which::All);
    // Nothing is taken before the lane runs, and it runs when this task waits.
    let (publisher, mut outcomes) = Publisher::start(options(&[&broker.url()])).unwrap();
    let place = || publisher.try_reserve(1).unwrap();
    place().publish_behind(message(0));
    place().publish(message(1));
    place().publish_behind(message(2));
    place().publish(message(3));
    until("all are there", || broker.queue("q").is_some_and(|queue| queue.messages == 4)).await;
    let seen: Vec<String> = broker
        .peek("q", usize::MAX)
        .iter()
        .map(|message| message.header("amqp-message-id").unwrap().to_owned())
        .collect();
    assert_eq!(seen, ["id-1", "id-3", "id-0", "id-2"]);
    assert!(publisher.lanes().iter().all(|lane| lane.oldest_sent.is_some()));
    publisher.close(Duration::ZERO).await;
    while outcomes.recv().await.is_some() {}
}

#[tokio::test]
async fn closing_without_anything_pending_does_not_wait_for_a_broker() {
    let (publisher, mut outcomes) = Publisher::<()>::start(options(&["stomp://127.0.0.1:1/"])).unwrap();
    timeout(Duration::from_secs(2), publisher.close(LIMIT)).await.expect("at once");
    assert_eq!(outcomes.recv().await, None);
}

#[tokio::test]
async fn what_was_sent_and_not_receipted_at_the_deadline_is_told_as_such() {
    let broker = Broker::builder().start().await.unwrap();
    broker.faults().withhold_receipts(Which::All);
    let (publisher, mut outcomes) = Publisher::start(options(&[&broker.url()])).unwrap();
    publish(&publisher, [7]).await;
    until("it is at the broker", || broker.queue("q").is_some_and(|queue| queue.messages == 1)).await;
    publisher.close(Duration::from_millis(200)).await;
    assert_eq!(outcomes.recv().await, Some(Outcome::Abandoned { token: 7, attempts: 1 }));
    assert_eq!(outcomes.recv().await, None);
}

#[tokio::test]
async fn a_message_that_cannot_be_encoded_is_told_and_does_not_stop_the_line() {
    let broker = Broker::builder().start().await.unwrap();
    let (publisher, mut outcomes) = Publisher::start(options(&[&broker.url()])).unwrap();
    let mut bad = message(0);
    bad.headers.push("x", "nul\0");
    publisher.publish(bad).await.unwrap();
    publish(&publisher, [1]).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(timeout(LIMIT, outcomes.recv()).await.unwrap().unwrap());
    }
    assert!(seen.iter().any(|outcome| matches!(outcome, Outcome::Unencodable { token: 0, .. })), "{seen:?}");
    assert!(seen.iter().any(|outcome| matches!(outcome, Outcome::Confirmed { token: 1, .. })), "{seen:?}");
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_closing_up_once_and_not_for_each_message() {
    let broker = Broker::builder().start().await.unwrap();
    let mut options = options(&[&broker.url()]);
    options.connect.window = Window { frames: 4, bytes: 1 << 20 };
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    // Four outcomes fill the buffer, the lane holds one, and four more wait.
    publish(&publisher, 0..8).await;
    until("all that fit are at the broker", || broker.queue("q").is_some_and(|queue| queue.messages >= 8))
        .await;
    let start = Instant::now();
    publisher.close(Duration::from_millis(100)).await;
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    for n in 0..4 {
        let outcome = outcomes.recv().await;
        assert!(matches!(outcome, Some(Outcome::Confirmed { token, .. }) if token == n), "{outcome:?}");
    }
    assert_eq!(outcomes.recv().await, None);
}
