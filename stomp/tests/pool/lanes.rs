//! The publisher's lanes: nothing is lost, and each message is told exactly once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stompwire::{
    Backoff, Headers,
    broker::{Admission, Broker, Which},
    client::{BrokerUrl, Window},
    proto::HeartBeat,
    publisher::{LaneState, Message, Outcome, Outcomes, Publisher, PublisherOptions},
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Gate, LIMIT, brokers, spread, until, urls};

pub(crate) fn options(brokers: Vec<BrokerUrl>, connections: usize) -> PublisherOptions {
    let mut options = PublisherOptions::new(brokers, "/queue/q");
    options.connections = connections;
    options.backoff = Backoff { min: Duration::from_millis(20), max: Duration::from_millis(200) };
    options.rebalance = Some(Duration::from_millis(50));
    options
}

pub(crate) async fn publish(publisher: &Publisher<usize>, numbers: impl IntoIterator<Item = usize>) {
    for n in numbers {
        let body = n.to_string().into();
        let message = Message { id: format!("id-{n}"), headers: Headers::new(), body, token: n };
        timeout(LIMIT, publisher.publish(message)).await.expect("room in the window").unwrap();
    }
}

/// Waits until `count` messages are confirmed; their attempts by token. None comes twice.
pub(crate) async fn confirmed(outcomes: &mut Outcomes<usize>, count: usize) -> BTreeMap<usize, u32> {
    let mut seen = BTreeMap::new();
    while seen.len() < count {
        match timeout(LIMIT, outcomes.recv()).await.expect("an outcome").unwrap() {
            Outcome::Confirmed { token, attempts, .. } => assert_eq!(seen.insert(token, attempts), None),
            other => panic!("{other:?}"),
        }
    }
    seen
}

async fn full(publisher: &Publisher<usize>) {
    let full = || publisher.lanes().iter().all(|lane| lane.state == LaneState::Connected);
    until("all lanes are connected", full).await;
}

fn ids(brokers: &[Broker]) -> BTreeSet<String> {
    let messages = brokers.iter().flat_map(|broker| broker.peek("q", usize::MAX));
    messages.map(|message| message.header("amqp-message-id").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn lanes_fail_over_within_a_second() {
    let brokers = brokers(2).await;
    let mut options = options(urls(&brokers), 4);
    options.backoff = Backoff { min: Duration::from_secs(60), max: Duration::from_secs(60) };
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    full(&publisher).await;
    assert_eq!(spread(&brokers), [2, 2]);
    brokers[0].faults().withhold_receipts(Which::All);
    publish(&publisher, 0..100).await;
    until("all are sent", || ids(&brokers).len() == 100).await;
    brokers[0].faults().set_admission(Admission::PortClosed);
    let start = Instant::now();
    brokers[0].faults().reset_connections();
    confirmed(&mut outcomes, 100).await;
    until("all lanes are at the other", || spread(&brokers) == [0, 4]).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn lanes_leave_a_silent_broker_within_the_grace_of_its_heart_beats() {
    let beats = HeartBeat::every(Duration::from_millis(300));
    let builder = || Broker::builder().heart_beat(beats).start();
    let brokers = [builder().await.unwrap(), builder().await.unwrap()];
    let mut options = options(urls(&brokers), 4);
    options.connect.session.heart_beat = beats;
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    full(&publisher).await;
    brokers[0].faults().go_silent(true);
    let start = Instant::now();
    publish(&publisher, 0..100).await;
    confirmed(&mut outcomes, 100).await;
    assert!(start.elapsed() < Duration::from_millis(1600), "{:?}", start.elapsed());
}

#[tokio::test]
async fn lanes_move_back_without_sending_anything_again() {
    let brokers = brokers(2).await;
    brokers[0].faults().set_admission(Admission::PortClosed);
    let mut options = options(urls(&brokers), 4);
    options.connect.window = Window { frames: 32, bytes: 1 << 20 };
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    until("all lanes are at one", || spread(&brokers) == [0, 4]).await;
    // Receipts take a while, so that there is something to wait for.
    brokers[1].faults().delay_receipts(Duration::from_millis(5));
    brokers[0].faults().set_admission(Admission::Open);
    let publishing = async {
        let mut n = 0;
        while spread(&brokers) != [2, 2] {
            publish(&publisher, n..n + 10).await;
            n += 10;
            sleep(Duration::from_millis(1)).await;
            assert!(n < 100_000, "never even: {:?}", spread(&brokers));
        }
        publish(&publisher, n..n + 500).await;
        let board = publisher.board();
        timeout(LIMIT, publisher.close(LIMIT)).await.unwrap();
        (n + 500, board.totals())
    };
    let reading = async {
        let mut seen = BTreeMap::new();
        while let Some(outcome) = outcomes.recv().await {
            let Outcome::Confirmed { token, attempts, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!(seen.insert(token, attempts), None);
        }
        seen
    };
    let ((n, totals), seen) = tokio::join!(publishing, reading);
    assert_eq!(seen.len(), n);
    assert!(seen.values().all(|&attempts| attempts == 1));
    assert_eq!((totals.rebalanced, totals.resent), (2, 0));
    let stored: usize = brokers.iter().filter_map(|broker| broker.queue("q")).map(|q| q.messages).sum();
    assert_eq!(stored, n, "none twice");
    assert_eq!(ids(&brokers).len(), n);
}

#[tokio::test]
async fn what_has_no_receipt_when_a_move_must_end_is_sent_again() {
    let brokers = brokers(2).await;
    brokers[0].faults().set_admission(Admission::PortClosed);
    let mut options = options(urls(&brokers), 2);
    options.drain_timeout = Duration::from_millis(200);
    options.connect.window = Window { frames: 8, bytes: 1 << 20 };
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    until("all lanes are at one", || spread(&brokers) == [0, 2]).await;
    brokers[1].faults().withhold_receipts(Which::All);
    // Both windows are full.
    publish(&publisher, 0..16).await;
    until("all are there", || ids(&brokers).len() == 16).await;
    brokers[0].faults().set_admission(Admission::Open);
    let seen = confirmed(&mut outcomes, 8).await;
    assert!(seen.values().all(|&attempts| attempts == 2), "{seen:?}");
    brokers[1].faults().release_receipts();
    let seen = confirmed(&mut outcomes, 8).await;
    assert!(seen.values().all(|&attempts| attempts == 1), "{seen:?}");
    let totals = publisher.board().totals();
    assert_eq!((totals.rebalanced, totals.resent), (1, 8));
}

#[tokio::test]
async fn a_lane_in_an_alarm_stays_where_it_is() {
    let brokers = brokers(2).await;
    brokers[0].faults().set_admission(Admission::PortClosed);
    let mut options = options(urls(&brokers), 2);
    options.receipt_timeout = Duration::from_millis(300);
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    until("all lanes are at one", || spread(&brokers) == [0, 2]).await;
    brokers[1].faults().stop_reading(true);
    publish(&publisher, [0, 1]).await;
    let blocked = || publisher.lanes().iter().filter(|lane| lane.state == LaneState::Blocked).count();
    until("one is blocked", || blocked() >= 1).await;
    let connects = publisher.board().totals().connects;
    brokers[0].faults().set_admission(Admission::Open);
    sleep(Duration::from_secs(1)).await;
    let totals = publisher.board().totals();
    assert_eq!((totals.connects, totals.rebalanced), (connects, 0));
    brokers[1].faults().stop_reading(false);
    let seen = confirmed(&mut outcomes, 2).await;
    assert!(seen.values().all(|&attempts| attempts == 1), "{seen:?}");
    until("even at last", || spread(&brokers) == [1, 1]).await;
}

#[tokio::test]
async fn thirty_two_lanes_do_not_storm_a_broker_that_comes_and_goes() {
    let brokers = brokers(1).await;
    let gate = Gate::before(&brokers[0]).await;
    let mut options = options(vec![gate.url()], 32);
    options.backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_millis(400) };
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    for round in 0..2 {
        full(&publisher).await;
        let before = gate.knocks();
        gate.shut();
        let numbers = round * 100..(round + 1) * 100;
        publish(&publisher, numbers).await;
        sleep(Duration::from_secs(2)).await;
        let away = gate.knocks() - before;
        assert!((3..=2 + 2000 / 100).contains(&away), "round {round}: {away}");
        gate.open();
        confirmed(&mut outcomes, 100).await;
        full(&publisher).await;
        let back = gate.knocks() - before - away;
        assert!((32..=34).contains(&back), "round {round}: {back}");
    }
}

#[tokio::test]
async fn three_brokers_that_come_and_go_lose_nothing_and_each_message_is_told_once() {
    const MESSAGES: usize = 4000;
    let beats = HeartBeat::every(Duration::from_millis(300));
    let builder = || Broker::builder().heart_beat(beats).start();
    let brokers = [builder().await.unwrap(), builder().await.unwrap(), builder().await.unwrap()];
    let mut options = options(urls(&brokers), 6);
    options.connect.session.heart_beat = beats;
    options.connect.session.connect_timeout = Duration::from_millis(500);
    options.connect.window = Window { frames: 16, bytes: 1 << 20 };
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    let breaking = async {
        for round in 0..15_usize {
            let faults = brokers[round % 3].faults();
            match round % 5 {
                0 => {
                    faults.set_admission(Admission::PortClosed);
                    faults.reset_connections();
                }
                1 => faults.cut_connections_mid_frame(),
                2 => {
                    faults.set_admission(Admission::Reset);
                    faults.close_connections();
                }
                3 => faults.go_silent(true),
                _ => {
                    faults.set_admission(Admission::RefuseConnect);
                    faults.reset_connections();
                }
            }
            sleep(Duration::from_millis(150)).await;
            faults.clear();
        }
    };
    let publishing = async {
        for n in 0..MESSAGES {
            publish(&publisher, [n]).await;
            if n % 3 == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let ((), (), seen) = tokio::join!(breaking, publishing, confirmed(&mut outcomes, MESSAGES));
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(ids(&brokers), (0..MESSAGES).map(|n| format!("id-{n}")).collect());
    assert!(publisher.board().totals().failures >= 6, "{:?}", publisher.board().totals());
    until("even again", || spread(&brokers) == [2, 2, 2]).await;
    timeout(LIMIT, publisher.close(LIMIT)).await.unwrap();
    assert_eq!(outcomes.recv().await, None, "told twice");
}
