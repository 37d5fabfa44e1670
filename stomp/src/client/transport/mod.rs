//! What carries the octets of a connection: TCP, TLS over it, WebSocket over either.
//!
//! [`open`] puts the layers on each other, all of them before one deadline. To the connection's task every transport
//! is a stream of octets.

mod socket;
#[cfg(feature = "rustls")]
mod tls;
#[cfg(feature = "rustls")]
mod tls_error;
#[cfg(feature = "ws")]
mod web_socket;
#[cfg(feature = "ws")]
mod web_socket_error;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout_at,
};

use self::socket::Socket;
use super::{BrokerUrl, ConnectOptions, ConnectionError, url::Scheme};

#[cfg(feature = "rustls")]
pub use tls::TlsOptions;
#[cfg(feature = "rustls")]
pub use tls_error::{CertificateFault, TlsError};
#[cfg(feature = "ws")]
pub use web_socket_error::WebSocketError;

/// An open transport.
#[derive(Debug)]
pub(crate) enum Transport {
    Socket(Socket),
    #[cfg(feature = "ws")]
    WebSocket(Box<web_socket::WebSocket>),
}

impl Transport {
    /// Whether the server may close it in answer to DISCONNECT, the receipt unsent, as RabbitMQ's web-stomp does (3.10.8).
    pub(super) const fn hangs_up(&self) -> bool {
        match self {
            Self::Socket(_) => false,
            #[cfg(feature = "ws")]
            Self::WebSocket(_) => true,
        }
    }
}

/// Opens the transport that the URL names. All of it, name look-up included, within `options.tcp_timeout`. Cancel safe:
/// dropping the future closes the socket.
pub(crate) async fn open(url: &BrokerUrl, options: &ConnectOptions) -> Result<Transport, ConnectionError> {
    let deadline = Deadline::after(options.tcp_timeout);
    match url.transport() {
        Scheme::Tcp => Ok(Transport::Socket(open_tcp(url, options, &deadline).await?)),
        #[cfg(feature = "rustls")]
        Scheme::Tls => Ok(Transport::Socket(open_tls(url, options, &deadline).await?)),
        #[cfg(feature = "ws")]
        Scheme::WebSocket => {
            let socket = open_tcp(url, options, &deadline).await?;
            open_web_socket(socket, url, options, &deadline).await
        }
        #[cfg(all(feature = "rustls", feature = "ws"))]
        Scheme::WebSocketOverTls => {
            let socket = open_tls(url, options, &deadline).await?;
            open_web_socket(socket, url, options, &deadline).await
        }
    }
}

async fn open_tcp(
    url: &BrokerUrl,
    options: &ConnectOptions,
    deadline: &Deadline,
) -> Result<Socket, ConnectionError> {
    connect(url, options, deadline).await.map(Socket::Tcp)
}

#[cfg(feature = "rustls")]
async fn open_tls(
    url: &BrokerUrl,
    options: &ConnectOptions,
    deadline: &Deadline,
) -> Result<Socket, ConnectionError> {
    // Before any octet is sent, so that options which cannot work say so without a network.
    let connector = deadline.run(tls::Connector::new(url, &options.tls), TlsError::Timeout).await??;
    let tcp = connect(url, options, deadline).await?;
    let stream = deadline.run(connector.shake_hands(tcp), TlsError::Timeout).await??;
    Ok(Socket::Tls(Box::new(stream)))
}

#[cfg(feature = "ws")]
async fn open_web_socket(
    socket: Socket,
    url: &BrokerUrl,
    options: &ConnectOptions,
    deadline: &Deadline,
) -> Result<Transport, ConnectionError> {
    let opening = web_socket::WebSocket::open(socket, url, &options.session);
    let socket = deadline.run(opening, WebSocketError::Timeout).await??;
    Ok(Transport::WebSocket(Box::new(socket)))
}

async fn connect(
    url: &BrokerUrl,
    options: &ConnectOptions,
    deadline: &Deadline,
) -> Result<TcpStream, ConnectionError> {
    let connecting = TcpStream::connect((url.host(), url.port()));
    let stream = deadline.run(connecting, ConnectionError::ConnectTimeout).await??;
    // Frames are coalesced before they come here; Nagle would only delay the last one.
    stream.set_nodelay(true)?;
    if let Some(idle) = options.tcp_keepalive {
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    Ok(stream)
}

/// The moment at which the whole transport must be open.
struct Deadline {
    at: tokio::time::Instant,
    limit: Duration,
}

impl Deadline {
    fn after(limit: Duration) -> Self {
        const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        let now = tokio::time::Instant::now();
        Self { at: now.checked_add(limit).unwrap_or(now + FAR), limit }
    }

    /// Runs a step; `late` is the error when the deadline comes first.
    async fn run<F: Future, E>(&self, step: F, late: impl FnOnce(Duration) -> E) -> Result<F::Output, E> {
        timeout_at(self.at, step).await.map_err(|_| late(self.limit))
    }
}

/// What an error of a transport means: the layers above TCP hide theirs in an [`io::Error`].
pub(crate) fn explain(error: io::Error) -> ConnectionError {
    #[cfg(feature = "rustls")]
    if let Some(error) = TlsError::within(&error) {
        return ConnectionError::Tls(error);
    }
    #[cfg(feature = "ws")]
    if let Some(error) = WebSocketError::within(&error) {
        return ConnectionError::WebSocket(error);
    }
    ConnectionError::Io(Arc::new(error))
}

/// Calls the same method of whichever transport it is.
macro_rules! each {
    ($transport:expr, $method:ident($($argument:expr),*)) => {
        match $transport {
            Transport::Socket(socket) => Pin::new(socket).$method($($argument),*),
            #[cfg(feature = "ws")]
            Transport::WebSocket(socket) => Pin::new(&mut **socket).$method($($argument),*),
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Socket(socket) => socket.is_write_vectored(),
            #[cfg(feature = "ws")]
            Self::WebSocket(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_tcp_transport_sends_at_once_writes_many_slices_and_keeps_alive_if_told() {
        for keepalive in [None, Some(Duration::from_secs(77))] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("stomp://{}", listener.local_addr().unwrap()).parse().unwrap();
            let options = ConnectOptions { tcp_keepalive: keepalive, ..ConnectOptions::default() };
            let transport = open(&url, &options).await.unwrap();
            assert!(transport.is_write_vectored());
            #[allow(irrefutable_let_patterns)] // without other features it is the only one
            let Transport::Socket(Socket::Tcp(stream)) = transport else { panic!("{transport:?}") };
            let socket = SockRef::from(&stream);
            assert!(stream.nodelay().unwrap());
            assert_eq!(socket.keepalive().unwrap(), keepalive.is_some());
            if let Some(idle) = keepalive {
                assert_eq!(socket.tcp_keepalive_time().unwrap(), idle);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_beyond_the_clock_is_no_panic() {
        let deadline = Deadline::after(Duration::MAX);
        deadline.run(tokio::time::sleep(Duration::from_secs(1)), drop).await.unwrap();
    }
}
