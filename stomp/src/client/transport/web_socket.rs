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
            let mut message = Vec::with_capacity(bufs.iter().map(|buf| buf.len()).sum::<usize>().min(MESSAGE));
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
        self.get_mut().poll_stream_flush(cx)
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
}
