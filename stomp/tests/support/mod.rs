//! A peer that plays a script, over a pipe: octets are asserted, time can be virtual.
#![allow(dead_code)] // each test program uses a part of it

pub(crate) mod proxy;

use std::time::Duration;

use stompwire::{
    client::{Client, ClientBuilder, ConnectOptions, ConnectionError, State},
    proto::HeartBeat,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
    time::timeout,
};

/// Longer than any test should take.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// What a client without credentials and heart-beats says first.
pub(crate) const CONNECT: &str = "CONNECT\naccept-version:1.0,1.1,1.2\nhost:/\nheart-beat:0,0\n\n\0";

/// A peer that says what the test tells it to.
pub(crate) struct Peer {
    pub(crate) transport: DuplexStream,
}

impl Peer {
    /// Reads exactly these octets.
    pub(crate) async fn expect(&mut self, octets: &str) {
        let mut read = vec![0; octets.len()];
        let result = timeout(LIMIT, self.transport.read_exact(&mut read)).await;
        assert_eq!(String::from_utf8_lossy(&read), octets, "{result:?}");
    }

    pub(crate) async fn say(&mut self, octets: &str) {
        self.transport.write_all(octets.as_bytes()).await.expect("written");
    }

    /// Nothing more has come, and the client is still there.
    pub(crate) async fn expect_nothing(&mut self) {
        let more = timeout(Duration::from_millis(50), self.transport.read_u8()).await;
        assert!(more.is_err(), "unexpected octets: {more:?}");
    }

    /// The client has closed its side, having said nothing more.
    pub(crate) async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        timeout(LIMIT, self.transport.read_to_end(&mut rest)).await.expect("in time").expect("an end");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// The handshake; `answer` is put into CONNECTED.
    pub(crate) async fn shake_hands(&mut self, answer: &str) {
        self.expect(CONNECT).await;
        self.say(&format!("CONNECTED\n{answer}\n\0\n")).await;
    }

    /// Receipts SUBSCRIBE number `id` to `q`, in mode client-individual with this credit.
    pub(crate) async fn expect_subscribe(&mut self, id: u64, credit: u16, receipt: Option<u64>) {
        let asked = receipt.map_or(String::new(), |receipt| format!("receipt:{receipt}\n"));
        self.expect(&format!(
            "SUBSCRIBE\nid:{id}\ndestination:q\nack:client-individual\nprefetch-count:{credit}\n{asked}\n\0"
        ))
        .await;
        if let Some(receipt) = receipt {
            self.receipt(receipt).await;
        }
    }

    pub(crate) async fn receipt(&mut self, id: u64) {
        self.say(&format!("RECEIPT\nreceipt-id:{id}\n\n\0")).await;
    }

    pub(crate) async fn message(&mut self, subscription: u64, ack: &str) {
        self.say(&format!(
            "MESSAGE\nsubscription:{subscription}\nack:{ack}\nmessage-id:{ack}\n\nbody {ack}\0"
        ))
        .await;
    }
}

/// No heart-beats: the script is the same however slow the machine is.
pub(crate) fn options() -> ConnectOptions {
    let mut options = ConnectOptions::default();
    options.session.heart_beat = HeartBeat::NONE;
    options
}

/// A connected client and its peer. `answer` is put into CONNECTED.
pub(crate) async fn pair(options: ConnectOptions, capacity: usize, answer: &str) -> (Client, Peer) {
    let (ours, theirs) = duplex(capacity);
    let heart_beat = options.session.heart_beat;
    let connecting = tokio::spawn(Client::over(ours, options));
    let mut peer = Peer { transport: theirs };
    peer.expect(&format!("CONNECT\naccept-version:1.0,1.1,1.2\nhost:/\nheart-beat:{heart_beat}\n\n\0")).await;
    peer.say(&format!("CONNECTED\n{answer}\n\0\n")).await;
    (connecting.await.unwrap().unwrap(), peer)
}

/// Where the connections of a client arrive, one peer for each.
pub(crate) struct Door {
    peers: mpsc::Receiver<Peer>,
}

impl Door {
    /// The next connection, the handshake still to come.
    pub(crate) async fn open(&mut self) -> Peer {
        timeout(LIMIT, self.peers.recv()).await.expect("a connection in time").expect("a client")
    }

    /// The next connection, its handshake done.
    pub(crate) async fn welcome(&mut self) -> Peer {
        let mut peer = self.open().await;
        peer.shake_hands("version:1.2\n").await;
        peer
    }

    /// Whether no connection waits.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.peers.try_recv().is_err()
    }
}

/// Has `builder` connect to a door, whoever opens it.
pub(crate) fn through_a_door(
    builder: ClientBuilder,
) -> (tokio::task::JoinHandle<Result<Client, ConnectionError>>, Door) {
    let (sender, peers) = mpsc::channel(64);
    let make = move || {
        let sender = sender.clone();
        async move {
            let (ours, theirs) = duplex(1 << 16);
            match sender.try_send(Peer { transport: theirs }) {
                Ok(()) => Ok(ours),
                Err(_) => Err(std::io::ErrorKind::ConnectionRefused.into()),
            }
        }
    };
    (tokio::spawn(builder.connect_with(make)), Door { peers })
}

/// A client that came through the door, and its first peer.
pub(crate) async fn let_in(builder: ClientBuilder) -> (Client, Peer, Door) {
    let (connecting, mut door) = through_a_door(builder.options(options()));
    let peer = door.welcome().await;
    let client = timeout(LIMIT, connecting).await.expect("in time").unwrap().expect("connected");
    (client, peer, door)
}

/// Waits for a state.
pub(crate) async fn until(client: &Client, what: &str, holds: impl FnMut(&State) -> bool) -> State {
    let mut state = client.state();
    let reached = timeout(LIMIT, state.wait_for(holds)).await;
    match reached {
        Ok(Ok(state)) => state.clone(),
        other => panic!("never {what}: {other:?}"),
    }
}
