//! STOMP over WebSocket (RFC 6455), as RabbitMQ's plugin web-stomp speaks it: a stream of octets in binary messages.
//!
//! Where one message ends and the next begins means nothing to STOMP: a frame may go over several and several may share
//! one. We send binary ones, since a body need not be UTF-8; either kind is read.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use futures_sink::Sink;
use http::{Request, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message,
        handshake::client::generate_key,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{BrokerUrl, ConnectionError, WebSocketError, explain, socket::Socket};
use crate::{
    Version,
    proto::{ClientOptions, Limits},
};

/// Octets of the longest message we send, and all that waits here to be written.
const MESSAGE: usize = 64 * 1024;
/// For pongs that wait for the socket, on top of one message.
const PONGS: usize = 4 * 1024;
/// Room for one read from the socket.
const READ: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: WebSocketStream<Socket>,
    /// What is left of the last message.
    unread: Bytes,
    /// How the stream ended, once `unread` has been read. An error is told once.
    end: Option<io::Result<()>>,
}

impl WebSocket {
    /// Shakes hands over an open socket. Cancel safe: dropping the future closes it.
    pub(super) async fn open(
        socket: Socket,
        url: &BrokerUrl,
        options: &ClientOptions,
    ) -> Result<Self, ConnectionError> {
        let uri = url.http_uri();
        let request = Request::get(&uri)
            .header(header::HOST, url.authority())
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key())
            .header(header::SEC_WEBSOCKET_PROTOCOL, subprotocols(&options.versions))
            .body(())
            .map_err(|error| WebSocketError::Protocol(error.to_string()))?;
        let (stream, _) = client_async_with_config(request, socket, Some(config(&options.limits)))
            .await
            .map_err(|error| explain(WebSocketError::into_io(error)))?;
        Ok(Self { stream, unread: Bytes::new(), end: None })
    }

    /// Hands the next message to the WebSocket once the last one has left it, so that no more than one ever waits there.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        message: impl FnOnce() -> Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        if self.end.is_some() {
            // The reader is told first, and how it ended says more than that nothing can be written.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_stream_flush(cx))?;
        let message = message();
        let len = message.len();
        let sent = Pin::new(&mut self.stream).start_send(Message::Binary(message.into()));
        Poll::Ready(sent.map(|()| len).map_err(WebSocketError::into_io))
    }

    fn poll_stream_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(WebSocketError::into_io)
    }
}

/// `v12.stomp, v11.stomp, v10.stomp`, or those of them that the session would agree to; the newest first.
fn subprotocols(versions: &[Version]) -> String {
    let mut versions = versions.to_vec();
    versions.sort_unstable();
    versions.dedup();
    let names = versions.iter().rev().map(|version| format!("v{}.stomp", version.as_str().replace('.', "")));
    names.collect::<Vec<_>>().join(", ")
}

fn config(limits: &Limits) -> WebSocketConfig {
    // RabbitMQ sends a message per frame, with a line end or two.
    const LINE_ENDS: usize = 16;
    let longest = limits.max_head.saturating_add(limits.max_body).saturating_add(LINE_ENDS);
    WebSocketConfig::default()
        .read_buffer_size(READ)
        // Nothing is held back: messages are as long as what there was to write.
        .write_buffer_size(0)
        .max_write_buffer_size(MESSAGE + PONGS)
        .max_message_size(Some(longest))
        .max_frame_size(Some(longest))
}

/// A server that is done says 1000; RabbitMQ also says so after an ERROR frame.
fn end(close: Option<CloseFrame>) -> io::Result<()> {
    let Some(CloseFrame { code, reason }) = close.filter(|close| close.code != CloseCode::Normal) else {
        return Ok(());
    };
    let reason = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Err(io::Error::other(WebSocketError::Closed { code: code.into(), reason }))
}

impl AsyncRead for WebSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        // As much as fits: RabbitMQ sends each RECEIPT in a message of its own.
        while buf.remaining() > 0 {
            if this.unread.has_remaining() {
                let len = this.unread.len().min(buf.remaining());
                buf.put_slice(&this.unread.split_to(len));
                continue;
            }
            if this.end.is_some() {
                break;
            }
            match Pin::new(&mut this.stream).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => match message {
                    Message::Binary(octets) => this.unread = octets,
                    Message::Text(text) => this.unread = text.into(),
                    Message::Close(close) => this.end = Some(end(close)),
                    // The pong to a ping leaves with the next read or write.
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                },
                Poll::Ready(Some(Err(error))) => this.end = Some(end_of(error)),
                Poll::Ready(None) => this.end = Some(Ok(())),
            }
        }
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match &mut this.end {
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(()))),
            None => Poll::Pending,
        }
    }
}

/// A server that is gone without a close frame is what it would be over TCP: the end of the stream.
fn end_of(error: tokio_tungstenite::tungstenite::Error) -> io::Result<()> {
    use tokio_tungstenite::tungstenite::{Error, error::ProtocolError};
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ok(()),
        error => Err(WebSocketError::into_io(error)),
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, || buf[..buf.len().min(MESSAGE)].to_vec())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, || {
            let mut message =
                Vec::with_capacity(bufs.iter().map(|buf| buf.len()).sum::<usize>().min(MESSAGE));
            for buf in bufs {
                let room = MESSAGE - message.len();
                message.extend_from_slice(&buf[..buf.len().min(room)]);
            }
            message
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Of an end the reader learns.
        if this.end.is_some() { Poll::Ready(Ok(())) } else { this.poll_stream_flush(cx) }
    }

    /// Says farewell with a close frame and closes the socket, without waiting for the server's answer: STOMP's own
    /// farewell has been said, or there is nothing more to lose.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_close(cx)).map_err(WebSocketError::into_io)?;
        Pin::new(this.stream.get_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::AsyncReadExt,
        net::{TcpSocket, TcpStream},
    };
    use tokio_tungstenite::{accept_hdr_async, tungstenite::handshake::server::Response};

    use super::*;

    #[test]
    fn the_newest_version_is_offered_first() {
        let table: [(&[Version], &str); 3] = [
            (&Version::ALL, "v12.stomp, v11.stomp, v10.stomp"),
            (&[Version::V1_1, Version::V1_2, Version::V1_1], "v12.stomp, v11.stomp"),
            (&[Version::V1_0], "v10.stomp"),
        ];
        for (versions, expected) in table {
            assert_eq!(subprotocols(versions), expected);
        }
    }

    /// A WebSocket over sockets with small buffers, and its server's end.
    async fn pair() -> (WebSocket, WebSocketStream<TcpStream>) {
        let listening = TcpSocket::new_v4().unwrap();
        listening.set_recv_buffer_size(BUFFER as u32).unwrap();
        listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listening.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let connecting = TcpSocket::new_v4().unwrap();
        connecting.set_send_buffer_size(BUFFER as u32).unwrap();
        let tcp = connecting.connect(address).await.unwrap();
        let url = format!("ws://{address}").parse().unwrap();
        let options = ClientOptions::default();
        let opening = WebSocket::open(Socket::Tcp(tcp), &url, &options);
        let accepting = async {
            let (tcp, _) = listener.accept().await.unwrap();
            #[allow(clippy::result_large_err)] // the crate's own signature
            let agree = |_: &_, mut response: Response| {
                response.headers_mut().insert("sec-websocket-protocol", "v12.stomp".parse().unwrap());
                Ok(response)
            };
            accept_hdr_async(tcp, agree).await.unwrap()
        };
        let (socket, peer) = tokio::join!(opening, accepting);
        (socket.unwrap(), peer)
    }

    const BUFFER: usize = 64 * 1024;

    #[tokio::test]
    async fn a_peer_that_does_not_read_holds_the_writer_back_and_gets_all_of_it_later() {
        let (mut socket, mut peer) = pair().await;
        let octets: Vec<u8> = (0..MESSAGE * 3).map(|n| n as u8).collect();
        let slices = octets.chunks(1000).map(io::IoSlice::new).collect::<Vec<_>>();
        let mut accepted = Vec::new();
        let mut refused = 0;
        // Refused a thousand times in a row: nothing moves any more.
        while refused < 1000 {
            let write = poll_fn(|cx| Poll::Ready(Pin::new(&mut socket).poll_write_vectored(cx, &slices)));
            match write.await {
                Poll::Ready(len) => {
                    let len = len.unwrap();
                    assert!((1..=MESSAGE).contains(&len), "{len}");
                    accepted.extend_from_slice(&octets[..len]);
                    refused = 0;
                }
                Poll::Pending => refused += 1,
            }
        }
        // Systems double what is asked for and add to it; ours on top is one message.
        assert!((MESSAGE..16 * BUFFER).contains(&accepted.len()), "{}", accepted.len());

        let reading = async {
            let mut read = Vec::new();
            while read.len() < accepted.len() {
                let message = poll_fn(|cx| Pin::new(&mut peer).poll_next(cx)).await.unwrap().unwrap();
                assert!(message.is_binary());
                read.extend_from_slice(&message.into_data());
            }
            read
        };
        let (flushed, read) = tokio::join!(poll_fn(|cx| Pin::new(&mut socket).poll_flush(cx)), reading);
        flushed.unwrap();
        assert!(read == accepted);
    }

    #[tokio::test]
    async fn a_flood_of_pings_that_cannot_be_answered_costs_no_memory_and_stops_no_reading() {
        let (mut socket, mut peer) = pair().await;
        // Nothing we write is read, so no pong gets through any more.
        let octets = vec![0; MESSAGE];
        let mut refused = 0;
        while refused < 1000 {
            let write = poll_fn(|cx| Poll::Ready(Pin::new(&mut socket).poll_write(cx, &octets)));
            refused = if write.await.is_pending() { refused + 1 } else { 0 };
        }
        let flood = async {
            for _ in 0..2000 {
                Pin::new(&mut peer).start_send(Message::Ping(vec![b'x'; 125].into())).unwrap();
                poll_fn(|cx| Pin::new(&mut peer).poll_flush(cx)).await.unwrap();
            }
            Pin::new(&mut peer).start_send(Message::text("here")).unwrap();
            poll_fn(|cx| Pin::new(&mut peer).poll_flush(cx)).await.unwrap();
        };
        let mut read = [0; 4];
        let (_, len) = tokio::join!(flood, socket.read_exact(&mut read));
        assert_eq!((len.unwrap(), &read), (4, b"here"));
    }
}
