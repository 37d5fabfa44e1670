//! The second model's connections to Redis: one command outstanding.

use std::{io, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::{
    decode::decode_bytes_mut,
    encode::extend_encode_borrowed,
    types::{BorrowedFrame, BytesFrame, Resp2Frame as _},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::slots::Connection;

/// Until connected.
const CONNECT: Duration = Duration::from_secs(3);

/// A connection over the crate `redis-protocol`, without a task of its own, for the same reason as
/// [`Direct`](super::direct::Direct).
#[derive(Debug)]
pub(in crate::models) struct Redis {
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl Redis {
    /// Connects.
    pub(in crate::models) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = timeout(CONNECT, TcpStream::connect(address))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, incoming: BytesMut::with_capacity(4096), outgoing: BytesMut::with_capacity(4096) })
    }

    /// Sends a command and waits for its reply. Not cancel safe. An error that Redis replies is one here.
    pub(in crate::models) async fn command(&mut self, words: &[&[u8]]) -> io::Result<BytesFrame> {
        let words: Vec<BorrowedFrame<'_>> =
            words.iter().map(|word| BorrowedFrame::BulkString(word)).collect();
        self.outgoing.clear();
        extend_encode_borrowed(&mut self.outgoing, &BorrowedFrame::Array(&words), false)
            .map_err(io::Error::other)?;
        self.stream.write_all(&self.outgoing).await?;
        loop {
            match decode_bytes_mut(&mut self.incoming).map_err(io::Error::other)? {
                Some((BytesFrame::Error(text), ..)) => {
                    return Err(io::Error::other(format!("Redis says {text}")));
                }
                Some((reply, ..)) => return Ok(reply),
                None => {}
            }
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes up to `count` elements from the head of the list `key`.
    pub(super) async fn pop(&mut self, key: &str, count: usize) -> io::Result<Vec<Bytes>> {
        let reply = self.command(&[b"LPOP", key.as_bytes(), count.to_string().as_bytes()]).await?;
        let elements = match reply {
            BytesFrame::Array(elements) => elements,
            BytesFrame::Null => return Ok(Vec::new()),
            other => return Err(io::Error::other(format!("Redis replies {:?} to LPOP", other.kind()))),
        };
        let octets = elements.into_iter().map(|element| match element {
            BytesFrame::BulkString(octets) => Ok(octets),
            other => Err(io::Error::other(format!("Redis has {:?} in the list", other.kind()))),
        });
        octets.collect()
    }
}

/// Where the list is.
#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) address: SocketAddr,
    pub(super) key: String,
}

/// A connection that appends to a list.
#[derive(Debug)]
pub(super) struct Push {
    redis: Redis,
    key: String,
}

impl Connection for Push {
    type Recipe = List;

    async fn open(list: &List) -> io::Result<Self> {
        Ok(Self { redis: Redis::connect(list.address).await?, key: list.key.clone() })
    }

    async fn put(&mut self, line: Bytes) -> io::Result<()> {
        match self.redis.command(&[b"RPUSH", self.key.as_bytes(), &line]).await? {
            BytesFrame::Integer(_) => Ok(()),
            other => Err(io::Error::other(format!("Redis replies {:?} to RPUSH", other.kind()))),
        }
    }
}
