//! A STOMP server that looks at what its clients have outstanding: it notes every SEND and keeps each receipt back for a
//! while.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use stompwire::{
    Command, Frame, Version,
    proto::{Decoder, Encoder, Limits},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};

/// What clients have sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Connections that sent a message.
    pub(crate) connections: usize,
    pub(crate) messages: u64,
    /// Lines in them.
    pub(crate) beacons: u64,
    /// Lines in the fullest.
    pub(crate) most_beacons: u64,
    /// Receipts due at the same time on one connection, at most.
    pub(crate) most_outstanding: usize,
    pub(crate) without_receipt: u64,
    /// Messages that are not persistent.
    pub(crate) transient: u64,
}

/// The server; it ends when this is dropped.
pub(crate) struct Peer {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Peer {
    /// Starts one that sends each receipt `delay` after its message.
    pub(crate) fn start(delay: Duration) -> Self {
        let (stop, stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let theirs = seen.clone();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let accept = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        tokio::spawn(converse(stream, delay, theirs.clone()));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("peer".to_owned()).spawn(serve).unwrap();
        Self { address, seen, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("stomp://guest:guest@{}/", self.address)
    }

    /// What was seen, once so many beacons have been.
    pub(crate) fn wait_for_beacons(&self, count: u64) -> Seen {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if seen.beacons >= count {
                return seen;
            }
            assert!(Instant::now() < deadline, "{seen:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn converse(stream: TcpStream, delay: Duration, seen: Arc<Mutex<Seen>>) {
    let (mut from, mut to) = stream.into_split();
    let (mut decoder, encoder) = (Decoder::new(Limits::default()), Encoder::new(Version::V1_2));
    let (frames, mut queue) = mpsc::channel::<(Option<tokio::time::Instant>, Frame)>(4096);
    let outstanding = Arc::new(Mutex::new(HashSet::new()));
    let theirs = outstanding.clone();
    tokio::spawn(async move {
        while let Some((due, frame)) = queue.recv().await {
            if let Some(due) = due {
                tokio::time::sleep_until(due).await;
            }
            // No longer outstanding from here on: the client may send the next before this task goes on.
            theirs.lock().unwrap().remove(frame.header("receipt-id").unwrap_or_default());
            let mut octets = BytesMut::new();
            encoder.encode(&frame, &mut octets).unwrap();
            if to.write_all(&octets).await.is_err() {
                return;
            }
        }
    });
    let (mut octets, mut first) = (BytesMut::new(), true);
    loop {
        while let Some(frame) = decoder.decode(&mut octets).unwrap() {
            decoder.forgive_eols();
            match frame.command() {
                Command::Connect | Command::Stomp => {
                    decoder.set_version(Version::V1_2);
                    let connected = Frame::new(Command::Connected).with_header("version", "1.2");
                    frames.try_send((None, connected)).unwrap();
                }
                Command::Send => {
                    let mut seen = seen.lock().unwrap();
                    seen.connections += usize::from(std::mem::replace(&mut first, false));
                    seen.messages += 1;
                    let beacons = frame.body().iter().filter(|&&octet| octet == b'\n').count() as u64;
                    seen.beacons += beacons;
                    seen.most_beacons = seen.most_beacons.max(beacons);
                    seen.transient += u64::from(frame.header("persistent") != Some("true"));
                    let Some(receipt) = frame.header("receipt") else {
                        seen.without_receipt += 1;
                        continue;
                    };
                    let mut outstanding = outstanding.lock().unwrap();
                    assert!(outstanding.insert(receipt.to_owned()), "{receipt} twice");
                    seen.most_outstanding = seen.most_outstanding.max(outstanding.len());
                    let answer = Frame::new(Command::Receipt).with_header("receipt-id", receipt);
                    // No client here has as many outstanding as the channel holds; one whose connection broke needs none.
                    drop(frames.try_send((Some(tokio::time::Instant::now() + delay), answer)));
                }
                _ => return,
            }
        }
        match from.read_buf(&mut octets).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
