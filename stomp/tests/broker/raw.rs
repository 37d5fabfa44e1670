//! A client that knows nothing of STOMP but that a frame ends in NUL.

use std::{io, time::Duration};

use stompwire::broker::{Broker, BrokerHandle};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longer than anything takes that is to happen.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longer than anything takes that is not to happen.
const A_WHILE: Duration = Duration::from_millis(60);

pub(crate) struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub(crate) async fn open(broker: &BrokerHandle) -> Self {
        Self { stream: TcpStream::connect(broker.local_addr()).await.unwrap(), read: Vec::new() }
    }

    /// Connected in this version, CONNECTED read.
    pub(crate) async fn connected(broker: &BrokerHandle, version: &str) -> Self {
        let mut raw = Self::open(broker).await;
        raw.write(&format!("CONNECT\naccept-version:{version}\nhost:/\n\n\0")).await;
        let connected = raw.frame().await;
        assert!(connected.starts_with("CONNECTED\n"), "{connected}");
        raw
    }

    pub(crate) async fn write(&mut self, octets: &str) {
        self.stream.write_all(octets.as_bytes()).await.unwrap();
    }

    /// The next frame without its NUL, and without end-of-lines before it.
    pub(crate) async fn frame(&mut self) -> String {
        loop {
            let start = self.read.iter().take_while(|&&octet| octet == b'\n').count();
            if let Some(length) = self.read[start..].iter().position(|&octet| octet == 0) {
                let frame = self.read.drain(..=start + length).collect::<Vec<_>>();
                return String::from_utf8(frame[start..start + length].to_vec()).unwrap();
            }
            assert!(self.more().await.unwrap() > 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// The next frames, to be exactly these, NULs and end-of-lines between left out.
    pub(crate) async fn expect(&mut self, frames: &[&str]) {
        for expected in frames {
            assert_eq!(self.frame().await, **expected);
        }
    }

    /// The next `count` octets.
    pub(crate) async fn octets(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await.unwrap() > 0, "closed");
        }
        self.read.drain(..count).collect()
    }

    /// Nothing comes for a while.
    pub(crate) async fn expect_nothing(&mut self) {
        let result = timeout(A_WHILE, self.more()).await;
        assert!(
            result.is_err() && self.read.is_empty(),
            "{result:?} {:?}",
            String::from_utf8_lossy(&self.read)
        );
    }

    /// Nothing more comes, then FIN.
    pub(crate) async fn expect_closed(mut self) {
        assert_eq!(self.rest().await.unwrap(), "");
    }

    /// RST comes, whatever was before it.
    pub(crate) async fn expect_reset(mut self) {
        assert_eq!(self.rest().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    /// ERROR comes with this message and these further headers, its body says the same, then FIN.
    pub(crate) async fn expect_error(self, message: &str, more: &str) {
        self.expect_error_as(message, &message.replace('\\', "\\\\").replace(':', "\\c"), more).await;
    }

    /// The same before a version is agreed on: the header then does without what would need an escape.
    pub(crate) async fn expect_refusal(self, message: &str) {
        self.expect_error_as(message, &message.replace(['\\', ':'], " "), "").await;
    }

    async fn expect_error_as(mut self, message: &str, header: &str, more: &str) {
        let length = message.len();
        let expected = format!(
            "ERROR\ncontent-type:text/plain\nmessage:{header}\n{more}content-length:{length}\n\n{message}"
        );
        assert_eq!(self.frame().await, expected);
        self.expect_closed().await;
    }

    /// Everything up to FIN.
    pub(crate) async fn rest(&mut self) -> io::Result<String> {
        while self.more().await? > 0 {}
        Ok(String::from_utf8(std::mem::take(&mut self.read)).unwrap())
    }

    pub(crate) async fn shut_down_writing(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    async fn more(&mut self) -> io::Result<usize> {
        timeout(DEADLINE, self.stream.read_buf(&mut self.read))
            .await
            .unwrap_or_else(|_| panic!("nothing came"))
    }
}

pub(crate) async fn broker() -> Broker {
    Broker::builder().start().await.unwrap()
}

/// Waits until `done` says so.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}
