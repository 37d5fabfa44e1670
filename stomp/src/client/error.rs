use std::{io, sync::Arc, time::Duration};

use crate::proto::{Frame, SessionError};

/// Why a connection ended, or never began. Cheap to clone: everything that waited for the connection gets a copy.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The network: refused, reset, unreachable, name not found.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// The TCP connection was not there in time.
    #[error("no TCP connection within {0:?}")]
    ConnectTimeout(Duration),
    /// TLS; the variant says whose fault it was.
    #[cfg(feature = "rustls")]
    #[error("TLS: {0}")]
    Tls(#[from] super::TlsError),
    /// The WebSocket between TCP and STOMP.
    #[cfg(feature = "ws")]
    #[error("WebSocket: {0}")]
    WebSocket(#[from] super::WebSocketError),
    /// The server closed the connection without a word.
    #[error("the server closed the connection")]
    ClosedByServer,
    /// The server sent ERROR and gave up on the connection.
    #[error("the server answered ERROR: {}", error_text(.0))]
    ServerError(Arc<Frame>),
    /// The protocol went wrong; the variant says whose fault it was.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A subscription's messages came faster than agreed (more than its prefetch count unacknowledged).
    #[error("the server sent more than the {0} messages that the subscription's prefetch count allows")]
    Overrun(usize),
    /// A publisher gave the connection up: a message had no receipt in time although the broker was at work.
    #[error("no receipt within {0:?}, although the broker answers")]
    ReceiptTimeout(Duration),
    /// We closed it.
    #[error("the connection was closed by this side")]
    ClosedByUs,
}

impl ConnectionError {
    /// Whether the same might work later. Bad credentials arrive as [`ConnectionError::ServerError`] and are counted as
    /// retryable: an operator may be fixing them right now; back off.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        #[cfg(feature = "rustls")]
        if let Self::Tls(error) = self {
            return error.is_retryable();
        }
        !matches!(self, Self::ClosedByUs | Self::Session(SessionError::Encode(_)))
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        super::transport::explain(error)
    }
}

/// What is known of a frame whose RECEIPT did not come. In every case but [`Unconfirmed::NotSent`] the server may have
/// processed it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Unconfirmed {
    /// No RECEIPT in time. The connection lives on.
    #[error("no receipt within the receipt timeout")]
    TimedOut,
    /// The connection ended first.
    #[error("the connection ended before the receipt came: {0}")]
    ConnectionLost(ConnectionError),
    /// The server answered ERROR and named this frame.
    #[error("the server refused the frame: {}", error_text(.0))]
    Refused(Arc<Frame>),
    /// The frame was never written.
    #[error("the frame was not sent: {0}")]
    NotSent(ConnectionError),
}

impl Unconfirmed {
    /// Whether the server cannot have seen the frame, so that sending it again cannot make a duplicate.
    #[must_use]
    pub const fn was_never_sent(&self) -> bool {
        matches!(self, Self::NotSent(_))
    }
}

/// A frame that was not taken.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    Closed(ConnectionError),
    /// The frame is longer than the whole window.
    #[error("a frame of {len} octets does not fit into a window of {window}")]
    TooLarge {
        /// Octets of the frame's body.
        len: usize,
        /// Octets of the window.
        window: usize,
    },
}

/// The server's explanation: the header `message`, then the body's first line if it says more.
fn error_text(frame: &Frame) -> String {
    let message = frame.header("message").unwrap_or("(no message)");
    let body = String::from_utf8_lossy(frame.body());
    let detail: String =
        body.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    if detail.is_empty() || detail == message { message.into() } else { format!("{message}: {detail}") }
}
