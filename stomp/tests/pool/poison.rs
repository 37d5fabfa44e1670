//! A message that costs its connection each time, at a peer that plays a broker.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use stompwire::{
    client::BrokerUrl,
    publisher::{Outcome, Publisher, PublisherOptions},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::{
    lanes::{options, publish},
    support::LIMIT,
};

#[derive(Debug, Clone, Copy)]
enum Reaction {
    /// ERROR, and the end.
    Error,
    /// The end, without a word.
    Close,
    /// No RECEIPT, ever.
    Nothing,
}

/// Receipts every SEND but those whose body is `poison`.
struct Peer {
    address: std::net::SocketAddr,
    /// The bodies that came, by connection.
    received: Arc<Mutex<Vec<Vec<String>>>>,
    _tasks: JoinSet<()>,
}

impl Peer {
    async fn start(poison: usize, reaction: Reaction) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let all = Arc::clone(&received);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let index = {
                    let mut all = all.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                connections.spawn(serve(stream, poison.to_string(), reaction, Arc::clone(&all), index));
            }
        });
        Self { address, received, _tasks: tasks }
    }

    fn url(&self) -> BrokerUrl {
        format!("stomp://{}/", self.address).parse().unwrap()
    }

    fn received(&self) -> Vec<Vec<String>> {
        self.received.lock().unwrap().clone()
    }
}

/// Returns when the connection is over; a client that has gone is no concern of it.
async fn serve(
    stream: TcpStream,
    poison: String,
    reaction: Reaction,
    received: Arc<Mutex<Vec<Vec<String>>>>,
    index: usize,
) {
    let mut stream = BufReader::new(stream);
    let mut frame = Vec::new();
    while stream.read_until(0, &mut frame).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8(std::mem::take(&mut frame)).unwrap();
        let (head, body) = text.trim_start_matches('\n').trim_end_matches('\0').split_once("\n\n").unwrap();
        let receipt = head.lines().find_map(|line| line.strip_prefix("receipt:"));
        let answer = match head.lines().next() {
            Some("CONNECT") => "CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0".to_owned(),
            Some("SEND") => {
                received.lock().unwrap()[index].push(body.to_owned());
                match (body == poison, reaction) {
                    (true, Reaction::Close) => return,
                    (true, Reaction::Nothing) => continue,
                    (true, Reaction::Error) => "ERROR\nmessage:indigestible\n\n\0".to_owned(),
                    (false, _) => format!("RECEIPT\nreceipt-id:{}\n\n\0", receipt.unwrap()),
                }
            }
            _ => format!("RECEIPT\nreceipt-id:{}\n\n\0", receipt.unwrap_or_default()),
        };
        if stream.write_all(answer.as_bytes()).await.is_err() || answer.starts_with("ERROR") {
            return;
        }
    }
}

async fn with(poison: usize, reaction: Reaction, connections: usize) -> (Peer, PublisherOptions) {
    let peer = Peer::start(poison, reaction).await;
    let mut options = options(vec![peer.url()], connections);
    options.receipt_timeout = Duration::from_millis(300);
    (peer, options)
}

#[tokio::test]
async fn only_the_message_that_is_at_fault_is_given_up() {
    for reaction in [Reaction::Error, Reaction::Close, Reaction::Nothing] {
        let (peer, mut options) = with(5, reaction, 1).await;
        options.max_attempts = Some(3);
        let (publisher, mut outcomes) = Publisher::start(options).unwrap();
        publish(&publisher, 0..10).await;
        let mut confirmed = BTreeMap::new();
        let mut given_up = None;
        let mut published = 10;
        while confirmed.len() < published - 1 || given_up.is_none() {
            match timeout(Duration::from_millis(100), outcomes.recv()).await {
                Ok(Some(Outcome::Confirmed { token, attempts, .. })) => {
                    assert_eq!(confirmed.insert(token, attempts), None);
                }
                Ok(Some(Outcome::GivenUp { token: 5, attempts, error })) if given_up.is_none() => {
                    given_up = Some((attempts, error));
                }
                Ok(other) => panic!("{reaction:?}: {other:?}"),
                // While nothing else passes it is not known to be at fault.
                Err(_) if given_up.is_none() => {
                    assert!(published < 1000, "{reaction:?}: never given up");
                    publish(&publisher, [published]).await;
                    published += 1;
                }
                Err(_) => {}
            }
        }
        let (attempts, error) = given_up.unwrap();
        assert!(attempts > 3, "{reaction:?}: {attempts}");
        match reaction {
            Reaction::Error => assert!(error.contains("indigestible"), "{error}"),
            Reaction::Close => assert!(error.contains("closed"), "{error}"),
            Reaction::Nothing => assert!(error.contains("no receipt"), "{error}"),
        }
        // The line goes on.
        publish(&publisher, published..published + 10).await;
        while confirmed.len() < published + 9 {
            match timeout(LIMIT, outcomes.recv()).await.expect("an outcome").unwrap() {
                Outcome::Confirmed { token, attempts, .. } => {
                    assert_eq!(confirmed.insert(token, attempts), None);
                }
                other => panic!("{reaction:?}: {other:?}"),
            }
        }
        let totals = publisher.board().totals();
        assert_eq!((totals.given_up, totals.confirmed), (1, published as u64 + 9));
        let poisoned = peer.received().iter().flatten().filter(|body| *body == "5").count();
        assert_eq!(poisoned, attempts as usize, "{reaction:?}");
        timeout(LIMIT, publisher.close(LIMIT)).await.unwrap();
        assert_eq!(outcomes.recv().await, None);
    }
}

#[tokio::test]
async fn while_the_broker_takes_nothing_no_message_is_at_fault() {
    let (peer, mut options) = with(0, Reaction::Close, 2).await;
    options.max_attempts = Some(3);
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    // Every body is the poison.
    for _ in 0..3 {
        publish(&publisher, [0]).await;
    }
    let attempts = || peer.received().iter().flatten().count();
    crate::support::until("each tried many times", || attempts() >= 30).await;
    assert_eq!(publisher.board().totals().given_up, 0);
    // Once others pass, it is they that are at fault.
    let mut given_up = 0;
    for n in 1.. {
        publish(&publisher, [n]).await;
        while let Ok(Some(outcome)) = timeout(Duration::from_millis(10), outcomes.recv()).await {
            match outcome {
                Outcome::Confirmed { token, .. } => assert_ne!(token, 0),
                Outcome::GivenUp { token: 0, .. } => given_up += 1,
                other => panic!("{other:?}"),
            }
        }
        if given_up == 3 {
            break;
        }
        assert!(n < 3000, "{given_up} were given up");
    }
    publisher.close(LIMIT).await;
}

#[tokio::test]
async fn several_lanes_under_load_give_up_the_one_at_fault() {
    let (_peer, mut options) = with(100, Reaction::Error, 3).await;
    options.max_attempts = Some(5);
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    let publishing = async {
        for n in 0..1000 {
            publish(&publisher, [n]).await;
            if n % 5 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let reading = async {
        let mut told = BTreeMap::new();
        while told.len() < 1000 {
            let (token, fine) = match timeout(LIMIT, outcomes.recv()).await.expect("an outcome").unwrap() {
                Outcome::Confirmed { token, .. } => (token, true),
                Outcome::GivenUp { token, .. } => (token, false),
                other => panic!("{other:?}"),
            };
            assert_eq!(told.insert(token, fine), None);
        }
        told
    };
    let ((), told) = tokio::join!(publishing, reading);
    assert_eq!(told.iter().filter(|&(_, &fine)| !fine).map(|(&n, _)| n).collect::<Vec<_>>(), [100]);
}

#[tokio::test]
async fn without_a_limit_it_is_tried_again_and_again_and_does_not_stop_the_line() {
    let (peer, options) = with(0, Reaction::Close, 1).await;
    let (publisher, mut outcomes) = Publisher::start(options).unwrap();
    for batch in 0..10 {
        publish(&publisher, batch * 20..batch * 20 + 20).await;
        for _ in 0..if batch == 0 { 19 } else { 20 } {
            match timeout(LIMIT, outcomes.recv()).await.expect("an outcome").unwrap() {
                Outcome::Confirmed { token, .. } => assert_ne!(token, 0),
                other => panic!("{other:?}"),
            }
        }
    }
    let attempts = || peer.received().iter().flatten().filter(|body| *body == "0").count();
    crate::support::until("tried six times", || attempts() >= 6).await;
    // Once it is suspected it flies alone.
    let connections = peer.received();
    let with_poison: Vec<&Vec<String>> =
        connections.iter().filter(|bodies| bodies.contains(&"0".to_owned())).collect();
    assert!(with_poison[2..].iter().all(|bodies| bodies.last().unwrap() == "0"), "{with_poison:?}");
    publisher.close(Duration::from_millis(200)).await;
    let Some(Outcome::Abandoned { token: 0, attempts }) = outcomes.recv().await else { panic!("not told") };
    assert!(attempts >= 6);
    assert_eq!(outcomes.recv().await, None);
}
