//! Brokers, a gate that counts who knocks, and waiting.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use stompwire::{
    broker::{Broker, BrokerHandle},
    client::BrokerUrl,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

/// For what must happen at last.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn brokers(count: usize) -> Vec<Broker> {
    let mut brokers = Vec::new();
    for _ in 0..count {
        brokers.push(Broker::builder().start().await.unwrap());
    }
    brokers
}

pub(crate) fn urls(brokers: &[Broker]) -> Vec<BrokerUrl> {
    brokers.iter().map(|broker| broker.url().parse().unwrap()).collect()
}

/// Connections to each broker whose handshake is done.
pub(crate) fn spread(brokers: &[Broker]) -> Vec<usize> {
    let done = |broker: &Broker| {
        broker.connections().iter().filter(|connection| connection.version.is_some()).count()
    };
    brokers.iter().map(done).collect()
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The door of a broker: counts those who knock, and lets them in or not.
pub(crate) struct Gate {
    address: SocketAddr,
    knocks: Arc<AtomicUsize>,
    open: Arc<AtomicBool>,
    cut: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Gate {
    pub(crate) async fn before(broker: &BrokerHandle) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (knocks, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
        let cut = watch::Sender::new(0);
        let mut tasks = JoinSet::new();
        let (counter, is_open, cuts) = (Arc::clone(&knocks), Arc::clone(&open), cut.clone());
        let to = broker.local_addr();
        tasks.spawn(async move {
            let mut guests = JoinSet::new();
            loop {
                let (mut guest, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let mut cut = cuts.subscribe();
                guests.spawn(async move {
                    let mut host = TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        result = copy_bidirectional(&mut guest, &mut host) => drop(result),
                        _ = cut.changed() => {}
                    }
                });
                while guests.try_join_next().is_some() {}
            }
        });
        Self { address, knocks, open, cut, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> BrokerUrl {
        format!("stomp://guest:guest@{}/", self.address).parse().unwrap()
    }

    pub(crate) fn knocks(&self) -> usize {
        self.knocks.load(Ordering::SeqCst)
    }

    /// Lets nobody in any more, and throws everybody out.
    pub(crate) fn shut(&self) {
        self.open.store(false, Ordering::SeqCst);
        self.throw_out();
    }

    pub(crate) fn throw_out(&self) {
        self.cut.send_modify(|cut| *cut += 1);
    }

    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}
