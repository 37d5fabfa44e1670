//! Publishers and consumers against a real RabbitMQ, over a network that fails: nothing confirmed is lost, nothing is
//! damaged, everything resolves, nothing is left behind.
//!
//! `STOMPWIRE_SOAK_SECONDS` (default 10) is how long the network fails, `STOMPWIRE_SOAK_SEED` when and how.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

#[path = "soak/consumers.rs"]
mod consumers;
#[path = "soak/faults.rs"]
mod faults;
#[path = "soak/ledger.rs"]
mod ledger;
#[path = "soak/publishers.rs"]
mod publishers;
mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use rabbitmq_node::{QueueKind, QueueOptions, Vhost, shared};
use stompwire::{
    Backoff,
    client::{Client, ClientBuilder, ConnectOptions, Reconnect, State},
    proto::HeartBeat,
};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout},
};

use consumers::Kind;
use ledger::Ledger;
use support::proxy::Proxy;

/// Longer than anything may take: the receipt and operation timeouts and some more.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
const PUBLISHERS: usize = 8;
const CONSUMERS: usize = 8;
const QUEUES: [(&str, QueueKind); 4] = [
    ("a", QueueKind::Classic),
    ("b", QueueKind::Quorum),
    ("c", QueueKind::Classic),
    ("d", QueueKind::Quorum),
];
/// A leak test, not a benchmark.
const MAY_GROW_BY_KIB: u64 = 32 * 1024;

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Faults,
    /// The network is well; what is unconfirmed gets confirmed.
    Healed,
    /// All is consumed; the consumers finish.
    Drained,
}

pub(crate) fn options() -> ConnectOptions {
    let mut options = ConnectOptions::default();
    options.session.heart_beat = HeartBeat::every(Duration::from_secs(1));
    options.session.receipt_timeout = Some(Duration::from_secs(10));
    options.session.connect_timeout = Duration::from_secs(5);
    options.operation_timeout = Duration::from_secs(10);
    options
}

/// Where every client stands, and how often it came back.
#[derive(Debug, Default)]
pub(crate) struct Roll(Mutex<BTreeMap<usize, watch::Receiver<State>>>);

impl Roll {
    pub(crate) fn enter(&self, index: usize, client: &Client) {
        self.0.lock().unwrap().insert(index, client.state());
    }

    /// It must still be connected, or have been lost just now.
    pub(crate) fn leave(&self, index: usize, ledger: &Ledger) {
        let state = self.0.lock().unwrap().remove(&index).unwrap();
        if let State::Connected { number, .. } = &*state.borrow() {
            ledger.reconnects.fetch_add(number - 1, Relaxed);
        }
    }

    fn not_connected(&self) -> Vec<(usize, State)> {
        let roll = self.0.lock().unwrap();
        let states = roll.iter().map(|(index, state)| (*index, state.borrow().clone()));
        states.filter(|(_, state)| !state.is_connected()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_holds_over_a_network_that_fails() {
    let from_env = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().expect("a whole number"))
    };
    let faulty = Duration::from_secs(from_env("STOMPWIRE_SOAK_SECONDS", 10));
    let seed = from_env("STOMPWIRE_SOAK_SEED", 1);
    println!("soak: {faulty:?} of faults, seed {seed}");
    let vhost = Arc::new(spawn_blocking(vhost).await.unwrap());
    // What the runtime keeps for itself apart.
    let tasks_before = Handle::current().metrics().num_alive_tasks();

    let proxy = Proxy::start(vhost.stomp_addr()).await;
    let url = format!("stomp://guest:guest@{}/{}", proxy.address(), vhost.name());
    let backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_millis(500) };
    let builder = Client::builder()
        .brokers([url.parse().unwrap()])
        .options(options())
        .reconnect(Reconnect::default().with_backoff(backoff));
    let ledger = Arc::new(Ledger::new(PUBLISHERS));
    let roll = Arc::new(Roll::default());
    let stage = watch::Sender::new(Stage::Faults);
    let (mut publishing, mut consuming) = (JoinSet::new(), JoinSet::new());
    for index in 0..PUBLISHERS {
        let task = publishers::Task {
            index,
            destination: destination(index),
            ledger: Arc::clone(&ledger),
            stage: stage.subscribe(),
        };
        if index.is_multiple_of(2) {
            publishing.spawn(with_client(task, builder.clone(), Arc::clone(&roll)));
        } else {
            publishing.spawn(task.with_publisher(url.parse().unwrap()));
        }
    }
    for index in 0..CONSUMERS {
        consuming.spawn(consumer(index, seed, &builder, &ledger, &roll, &stage).run());
    }

    let start = Instant::now();
    let warm = async {
        sleep(faulty.mul_f64(0.3)).await;
        resident_kib()
    };
    let (faults, warm) =
        tokio::join!(faults::disturb(&proxy, fastrand::Rng::with_seed(seed), start + faulty), warm);
    stage.send_replace(Stage::Healed);
    let counts = proxy.counts();
    until(&ledger, "all is confirmed", || {
        let balance = ledger.balance();
        if balance.issued == balance.confirmed { Ok(()) } else { Err(format!("{balance:?}")) }
    })
    .await;
    until(&ledger, "the consumers are calm", || {
        let calm = ledger.calm.load(Relaxed);
        if calm == CONSUMERS as u64 { Ok(()) } else { Err(format!("{calm} of them")) }
    })
    .await;
    // What subscriptions that were dropped left unacknowledged comes back when their connections end.
    proxy.reset_all();
    until(&ledger, "all is consumed", || {
        let balance = ledger.balance();
        if balance.missing == 0 { Ok(()) } else { Err(format!("{balance:?}")) }
    })
    .await;
    until(&ledger, "all are connected", || {
        let missing = roll.not_connected();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
    let end = resident_kib();
    let before_the_end = {
        let vhost = Arc::clone(&vhost);
        spawn_blocking(move || QUEUES.map(|(queue, _)| vhost.queue_counts(queue).unwrap())).await.unwrap()
    };
    stage.send_replace(Stage::Drained);
    for tasks in [&mut publishing, &mut consuming] {
        while let Some(ended) = timeout(2 * LIMIT, tasks.join_next()).await.expect("they end") {
            ended.expect("no panic");
        }
    }
    let depths = {
        let vhost = Arc::clone(&vhost);
        spawn_blocking(move || QUEUES.map(|(queue, _)| vhost.wait_for_depth(queue, 0, LIMIT))).await.unwrap()
    };
    drop(proxy);
    let tasks = until_tasks(tasks_before).await;

    let balance = ledger.balance();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    let duplicates = load(&ledger.duplicates);
    let pending = load(&ledger.receipts_asked) - load(&ledger.receipts_resolved);
    println!(
        "soak: published {}, confirmed {}, sent again {}, consumed {}, duplicates {duplicates}, missing {}\n\
         soak: receipts asked {}, pending {pending}; {} in {:?}\n\
         soak: nacked {}, transactions {}, stale verdicts {}, subscribed anew {}, reconnects {}\n\
         soak: {faults}; {counts:?}\n\
         soak: resident {warm} KiB warm, {end} KiB at the end; tasks {tasks_before} before, {tasks} after",
        balance.issued,
        balance.confirmed,
        load(&ledger.sent_again),
        balance.consumed,
        balance.missing,
        load(&ledger.receipts_asked),
        rate(balance.consumed, start.elapsed()),
        start.elapsed(),
        load(&ledger.nacks),
        load(&ledger.transactions),
        load(&ledger.acks_stale),
        load(&ledger.resubscribed),
        load(&ledger.reconnects),
    );
    assert_eq!(ledger.wrongs(), Vec::<String>::new(), "the queues held {before_the_end:?}");
    assert_eq!((balance.missing, pending), (0, 0));
    depths.into_iter().for_each(|depth| depth.unwrap());
    assert!(
        balance.issued > 0 && load(&ledger.sent_again) > 0 && duplicates > 0,
        "nothing was put to the test"
    );
    assert!(load(&ledger.reconnects) > 0 && counts.cuts > 0 && counts.resets > 0 && counts.swallowed > 0);
    assert_eq!(tasks, tasks_before, "tasks were left behind");
    assert!(end <= warm + MAY_GROW_BY_KIB, "resident memory grew from {warm} to {end} KiB");
}

fn vhost() -> Vhost {
    let vhost = shared().new_vhost().unwrap();
    for (queue, kind) in QUEUES {
        vhost.declare_queue(queue, &QueueOptions::of_kind(kind)).unwrap();
    }
    vhost
}

fn destination(index: usize) -> String {
    format!("/amq/queue/{}", QUEUES[index % QUEUES.len()].0)
}

async fn with_client(task: publishers::Task, builder: ClientBuilder, roll: Arc<Roll>) {
    let (index, ledger) = (CONSUMERS + task.index, Arc::clone(&task.ledger));
    let mut stage = task.stage.clone();
    let client = builder.start().unwrap();
    roll.enter(index, &client);
    let client = task.with_client(client).await;
    drop(stage.wait_for(|stage| *stage >= Stage::Drained).await);
    roll.leave(index, &ledger);
    if let Err(error) = client.close(LIMIT).await {
        ledger.wrong(format!("publisher {index} cannot be closed: {error}"));
    }
}

/// Each queue has two consumers, of two kinds.
fn consumer(
    index: usize,
    seed: u64,
    builder: &ClientBuilder,
    ledger: &Arc<Ledger>,
    roll: &Arc<Roll>,
    stage: &watch::Sender<Stage>,
) -> consumers::Task {
    let kinds = [Kind::Individual, Kind::Cumulative, Kind::OnTake];
    consumers::Task {
        index,
        kind: kinds[index % kinds.len()],
        destination: destination(index),
        builder: builder.clone(),
        ledger: Arc::clone(ledger),
        roll: Arc::clone(roll),
        stage: stage.subscribe(),
        rng: fastrand::Rng::with_seed(seed.wrapping_mul(31).wrapping_add(index as u64)),
    }
}

async fn until(ledger: &Ledger, what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(seen) = look() {
        if start.elapsed() > LIMIT {
            return ledger.wrong(format!("it is not so that {what}: {seen}"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits a while for the tasks to become so few again.
async fn until_tasks(before: usize) -> usize {
    let start = Instant::now();
    loop {
        let now = Handle::current().metrics().num_alive_tasks();
        if now <= before || start.elapsed() > Duration::from_secs(5) {
            return now;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// VmRSS.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

fn rate(count: u64, over: Duration) -> String {
    format!("{:.0} messages/s", count as f64 / over.as_secs_f64())
}
