//! The first model's connection: one frame outstanding, and the answer waits for its RECEIPT; or no receipts at all.

use std::{io, time::Duration};

use bytes::BytesMut;
use stompwire::{
    Command, Frame, Version,
    client::BrokerUrl,
    proto::{Decoder, Encoder, Limits},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::slots::Connection;

/// To CONNECTED.
const CONNECT: Duration = Duration::from_secs(3);

/// What a connection needs to know.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) url: BrokerUrl,
    pub(super) destination: String,
    pub(super) with_receipts: bool,
}

/// A STOMP connection over stompwire's codec, without a task of its own: the request writes and reads itself, which
/// saves two changes of task against a client that many share.
#[derive(Debug)]
pub(super) struct Direct {
    stream: TcpStream,
    encoder: Encoder,
    decoder: Decoder,
    incoming: BytesMut,
    outgoing: BytesMut,
    destination: String,
    with_receipts: bool,
    sent: u64,
}

impl Connection for Direct {
    type Recipe = Recipe;

    async fn open(recipe: &Recipe) -> io::Result<Self> {
        let connect = async {
            let stream = TcpStream::connect((recipe.url.host(), recipe.url.port())).await?;
            stream.set_nodelay(true)?;
            let mut direct = Self {
                stream,
                encoder: Encoder::new(Version::V1_2),
                decoder: Decoder::new(Limits::default()),
                incoming: BytesMut::with_capacity(4096),
                outgoing: BytesMut::with_capacity(4096),
                destination: recipe.destination.clone(),
                with_receipts: recipe.with_receipts,
                sent: 0,
            };
            direct.shake_hands(&recipe.url).await?;
            Ok(direct)
        };
        timeout(CONNECT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn put(&mut self, line: bytes::Bytes) -> io::Result<()> {
        let frame = Frame::send(&self.destination, line).with_header("persistent", "true");
        if !self.with_receipts {
            return self.write(&frame).await;
        }
        self.sent += 1;
        let receipt = self.sent.to_string();
        self.write(&frame.with_header("receipt", &receipt)).await?;
        let answer = self.read().await?;
        if answer.command() == Command::Receipt && answer.header("receipt-id") == Some(&receipt) {
            return Ok(());
        }
        Err(unexpected(&answer))
    }
}

impl Direct {
    async fn shake_hands(&mut self, url: &BrokerUrl) -> io::Result<()> {
        let mut connect = Frame::new(Command::Connect)
            .with_header("accept-version", "1.2")
            .with_header("host", url.vhost());
        for (name, value) in [("login", url.login()), ("passcode", url.passcode())] {
            if let Some(value) = value {
                connect = connect.with_header(name, value);
            }
        }
        self.write(&connect).await?;
        let answer = self.read().await?;
        if answer.command() != Command::Connected {
            return Err(unexpected(&answer));
        }
        self.decoder.set_version(Version::V1_2);
        Ok(())
    }

    async fn write(&mut self, frame: &Frame) -> io::Result<()> {
        self.outgoing.clear();
        self.encoder.encode(frame, &mut self.outgoing).map_err(io::Error::other)?;
        self.stream.write_all(&self.outgoing).await
    }

    async fn read(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.incoming).map_err(io::Error::other)? {
                self.decoder.forgive_eols();
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn unexpected(frame: &Frame) -> io::Error {
    let text = frame.header("message").unwrap_or_default();
    io::Error::other(format!("the broker says {}: {text}", frame.command().as_str()))
}
