//! `Pool`.

use std::time::Duration;

use stompwire::{
    Backoff, Frame,
    broker::{Admission, Broker, Which},
    client::{BrokerUrl, Unconfirmed},
    pool::{ConnectionState, Pool, PoolError, PoolOptions},
    proto::HeartBeat,
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Gate, LIMIT, brokers, spread, until, urls};

/// So long that whoever waits for it is found out.
const LONG: Backoff = Backoff { min: Duration::from_secs(60), max: Duration::from_secs(60) };
const SHORT: Backoff = Backoff { min: Duration::from_millis(20), max: Duration::from_millis(200) };

fn options(brokers: Vec<BrokerUrl>, connections: usize) -> PoolOptions {
    let mut options = PoolOptions::new(brokers);
    options.connections = connections;
    options.backoff = SHORT;
    options.rebalance = Some(Duration::from_millis(50));
    options
}

async fn full(pool: &Pool, connections: usize) {
    until("all are connected", || pool.status().connected() == connections).await;
}

#[tokio::test]
async fn connections_spread_evenly_and_are_handed_out_in_turn() {
    let brokers = brokers(3).await;
    let pool = Pool::connect(options(urls(&brokers), 6), LIMIT).await.unwrap();
    full(&pool, 6).await;
    assert_eq!(spread(&brokers), [2, 2, 2]);
    for _ in 0..12 {
        let client = pool.client(LIMIT).await.unwrap();
        client.send_with_receipt(Frame::send("/queue/q", "x")).await.unwrap().await.unwrap();
    }
    for broker in &brokers {
        assert_eq!(broker.queue("q").unwrap().messages, 4);
    }
    // The least used one: each of six at once is another.
    let mut loans = Vec::new();
    for n in 0..6 {
        let client = pool.try_client().unwrap();
        client.send_with_receipt(Frame::send("/queue/loan", n.to_string())).await.unwrap().await.unwrap();
        loans.push(client);
    }
    let at: Vec<usize> = brokers.iter().map(|broker| broker.queue("loan").unwrap().messages).collect();
    assert_eq!(at, [2, 2, 2]);
    let status = pool.brokers();
    assert!(status.iter().all(|broker| broker.good && broker.connections == 2 && broker.failures == 0));
    assert!(!format!("{status:?}{:?}", pool.status()).contains("guest:guest"));
}

#[tokio::test]
async fn a_connection_that_is_refused_or_closed_is_made_elsewhere_within_a_second() {
    for admission in [Admission::PortClosed, Admission::Reset, Admission::RefuseConnect] {
        let brokers = brokers(2).await;
        let mut options = options(urls(&brokers), 4);
        options.backoff = LONG;
        let pool = Pool::connect(options, LIMIT).await.unwrap();
        full(&pool, 4).await;
        assert_eq!(spread(&brokers), [2, 2]);
        brokers[0].faults().set_admission(admission);
        let start = Instant::now();
        brokers[0].faults().reset_connections();
        until("all are at the other", || pool.brokers()[1].connections == 4).await;
        assert!(start.elapsed() < Duration::from_secs(1), "{admission:?}: {:?}", start.elapsed());
        assert_eq!(pool.brokers()[0].connections, 0);
        assert_eq!(pool.brokers()[0].failures, 1, "{:?}", pool.brokers());
    }
}

#[tokio::test]
async fn a_broker_that_refuses_from_the_start_costs_nobody_a_second() {
    let brokers = brokers(2).await;
    brokers[0].faults().set_admission(Admission::RefuseConnect);
    let mut options = options(urls(&brokers), 8);
    options.backoff = LONG;
    let start = Instant::now();
    let pool = Pool::connect(options, LIMIT).await.unwrap();
    full(&pool, 8).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(spread(&brokers), [0, 8]);
}

#[tokio::test]
async fn a_silent_broker_is_left_within_the_grace_of_its_heart_beats() {
    let beats = HeartBeat::every(Duration::from_millis(300));
    let builder = || Broker::builder().heart_beat(beats).start();
    let brokers = [builder().await.unwrap(), builder().await.unwrap()];
    let mut options = options(urls(&brokers), 4);
    options.connect.session.heart_beat = beats;
    let pool = Pool::connect(options, LIMIT).await.unwrap();
    full(&pool, 4).await;
    brokers[0].faults().go_silent(true);
    let start = Instant::now();
    until("all are at the other", || pool.brokers()[1].connections == 4).await;
    // Two periods of grace, and a second.
    assert!(start.elapsed() < Duration::from_millis(1600), "{:?}", start.elapsed());
}

#[tokio::test]
async fn connections_move_back_one_by_one_and_what_is_in_use_is_not_cut() {
    let brokers = brokers(2).await;
    brokers[0].faults().set_admission(Admission::PortClosed);
    let pool = Pool::connect(options(urls(&brokers), 4), LIMIT).await.unwrap();
    until("all are at one", || spread(&brokers) == [0, 4]).await;
    // Each connection is in use, with a receipt that does not come yet.
    brokers[1].faults().withhold_receipts(Which::All);
    let mut receipts = Vec::new();
    let mut loans = Vec::new();
    for _ in 0..4 {
        let client = pool.client(LIMIT).await.unwrap();
        receipts.push(client.send_with_receipt(Frame::send("/queue/q", "x")).await.unwrap());
        loans.push(client);
    }
    brokers[0].faults().set_admission(Admission::Open);
    until("a move began", || pool.status().rebalanced == 1).await;
    // The old connection waits, and so do further moves.
    sleep(Duration::from_millis(700)).await;
    assert_eq!((spread(&brokers), pool.status().rebalanced), (vec![1, 4], 1));
    assert_eq!(pool.status().connected(), 4);
    brokers[1].faults().release_receipts();
    for receipt in receipts {
        timeout(LIMIT, receipt).await.unwrap().unwrap();
    }
    drop(loans);
    until("even", || spread(&brokers) == [2, 2]).await;
    until("told", || pool.brokers().iter().all(|broker| broker.connections == 2)).await;
    // Balanced, nothing moves any more.
    let connects = pool.status().connects;
    sleep(Duration::from_millis(700)).await;
    assert_eq!((pool.status().rebalanced, pool.status().connects), (2, connects));
}

#[tokio::test]
async fn thirty_two_connections_do_not_storm_a_broker_that_comes_and_goes() {
    let brokers = brokers(1).await;
    let gate = Gate::before(&brokers[0]).await;
    let mut options = options(vec![gate.url()], 32);
    options.backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_millis(400) };
    let pool = Pool::connect(options, LIMIT).await.unwrap();
    for round in 0..3 {
        full(&pool, 32).await;
        let before = gate.knocks();
        gate.shut();
        sleep(Duration::from_secs(2)).await;
        let away = gate.knocks() - before;
        // At most one for each shortest pause: a quarter of the bounds 100, 200 and then 400 ms.
        assert!((3..=2 + 2000 / 100).contains(&away), "round {round}: {away}");
        gate.open();
        full(&pool, 32).await;
        let back = gate.knocks() - before - away;
        assert!((32..=34).contains(&back), "round {round}: {back}");
    }
}

#[tokio::test]
async fn a_broker_that_drops_every_connection_keeps_its_pauses() {
    let brokers = brokers(1).await;
    let gate = Gate::before(&brokers[0]).await;
    let mut options = options(vec![gate.url()], 1);
    options.backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_secs(60) };
    let pool = Pool::start(options);
    for lost in 1..=5 {
        until("connected", || pool.status().connects == lost).await;
        gate.throw_out();
        until("lost", || pool.status().failures == lost).await;
    }
    assert_eq!(pool.brokers()[0].failures, 5);
}

#[tokio::test]
async fn without_a_connection_the_wait_ends_with_the_reason() {
    let brokers = brokers(1).await;
    brokers[0].faults().set_admission(Admission::RefuseConnect);
    let error = Pool::connect(options(urls(&brokers), 2), Duration::from_millis(300)).await.unwrap_err();
    let PoolError::NoConnection { last_error: Some(reason), .. } = &error else { panic!("{error}") };
    assert!(reason.contains("told to refuse this CONNECT"), "{reason}");
    assert!(reason.contains(&brokers[0].local_addr().to_string()), "{reason}");
    assert!(!error.to_string().contains("guest:guest"), "{error}");
    let nowhere = Pool::start(options(Vec::new(), 1));
    let error = nowhere.client(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, PoolError::NoConnection { last_error: None, .. }), "{error}");
    timeout(LIMIT, nowhere.close(LIMIT)).await.unwrap();
}

#[tokio::test]
async fn changes_can_be_watched() {
    let brokers = brokers(1).await;
    let pool = Pool::connect(options(urls(&brokers), 1), LIMIT).await.unwrap();
    let mut watch = pool.watch();
    brokers[0].faults().set_admission(Admission::PortClosed);
    brokers[0].faults().reset_connections();
    let lost = watch.wait_for(|status| status.connected() == 0);
    let lost = timeout(LIMIT, lost).await.unwrap().unwrap().clone();
    assert!(lost.failures >= 1);
    brokers[0].faults().set_admission(Admission::Open);
    let back =
        timeout(LIMIT, watch.wait_for(|status| status.connected() == 1)).await.unwrap().unwrap().clone();
    assert_eq!((back.connects, &back.connections[0].last_error), (2, &None));
    timeout(LIMIT, pool.close(LIMIT)).await.unwrap();
    assert_eq!(watch.borrow().connections[0].state, ConnectionState::Closed);
}

#[tokio::test]
async fn closing_waits_for_loans_and_receipts() {
    let brokers = brokers(1).await;
    let faults = brokers[0].faults();
    faults.withhold_receipts(Which::All);
    let pool = Pool::connect(options(urls(&brokers), 2), LIMIT).await.unwrap();
    full(&pool, 2).await;
    let client = pool.client(LIMIT).await.unwrap();
    let receipt = client.send_with_receipt(Frame::send("/queue/q", "x")).await.unwrap();
    let mut closing = std::pin::pin!(pool.close(LIMIT));
    assert!(timeout(Duration::from_millis(100), &mut closing).await.is_err());
    assert!(matches!(pool.client(LIMIT).await, Err(PoolError::Closed)));
    assert!(pool.try_client().is_none());
    drop(client);
    assert!(timeout(Duration::from_millis(100), &mut closing).await.is_err());
    faults.release_receipts();
    timeout(LIMIT, closing).await.unwrap();
    receipt.await.unwrap();
    until("no connection is left", || brokers[0].connections().is_empty()).await;
}

#[tokio::test]
async fn at_the_deadline_of_closing_what_is_left_is_cut() {
    let brokers = brokers(1).await;
    brokers[0].faults().withhold_receipts(Which::All);
    let pool = Pool::connect(options(urls(&brokers), 2), LIMIT).await.unwrap();
    let client = pool.client(LIMIT).await.unwrap();
    let receipt = client.send_with_receipt(Frame::send("/queue/q", "x")).await.unwrap();
    let start = Instant::now();
    timeout(LIMIT, pool.close(Duration::from_millis(300))).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(matches!(receipt.await, Err(Unconfirmed::ConnectionLost(_))));
    until("no connection is left", || brokers[0].connections().is_empty()).await;
}

#[tokio::test]
async fn a_pool_that_is_dropped_leaves_only_what_is_on_loan() {
    let brokers = brokers(2).await;
    let pool = Pool::connect(options(urls(&brokers), 4), LIMIT).await.unwrap();
    full(&pool, 4).await;
    let client = pool.client(LIMIT).await.unwrap();
    drop(pool);
    until("one is left", || spread(&brokers).iter().sum::<usize>() == 1).await;
    client.send_with_receipt(Frame::send("/queue/q", "x")).await.unwrap().await.unwrap();
    drop(client);
    until("none is left", || spread(&brokers) == [0, 0]).await;
}
