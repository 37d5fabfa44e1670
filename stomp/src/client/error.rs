use std::{error::Error, io, sync::Arc, time::Duration};

use crate::proto::{Culprit, Frame, SessionError};

/// Why a connection ended, or never began. Cheap to clone: everything that waited for the connection gets a copy.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The network: refused, reset, unreachable, name not found.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// The connection was not there in time.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The callback that gives the credentials failed, or took longer than the connect timeout.
    #[error("no credentials: {0}")]
    Credentials(Arc<dyn Error + Send + Sync>),
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
        match self {
            Self::ClosedByUs => false,
            Self::Session(error) => !error.is_callers(),
            #[cfg(feature = "rustls")]
            Self::Tls(error) => error.is_retryable(),
            _ => true,
        }
    }

    /// At whom to look.
    #[must_use]
    pub const fn culprit(&self) -> Culprit {
        match self {
            Self::Io(_) | Self::ConnectTimeout(_) => Culprit::Network,
            #[cfg(feature = "rustls")]
            Self::Tls(error) => error.culprit(),
            #[cfg(feature = "ws")]
            Self::WebSocket(error) => error.culprit(),
            Self::ClosedByServer | Self::ServerError(_) | Self::ReceiptTimeout(_) => Culprit::Peer,
            Self::Session(error) => error.culprit(),
            Self::Credentials(_) | Self::ClosedByUs => Culprit::Caller,
        }
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
    NotSent(#[from] SendError),
}

impl Unconfirmed {
    /// Whether the server cannot have seen the frame, so that sending it again cannot make a duplicate.
    #[must_use]
    pub const fn was_never_sent(&self) -> bool {
        matches!(self, Self::NotSent(_))
    }

    /// Whether the same frame might be confirmed if it is sent again; unless [`Unconfirmed::was_never_sent`], the server
    /// may then have it twice.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::ConnectionLost(cause) => cause.is_retryable(),
            Self::Refused(_) => false,
            Self::NotSent(error) => error.is_retryable(),
        }
    }

    /// At whom to look.
    #[must_use]
    pub const fn culprit(&self) -> Culprit {
        match self {
            Self::TimedOut | Self::Refused(_) => Culprit::Peer,
            Self::ConnectionLost(cause) => cause.culprit(),
            Self::NotSent(error) => error.culprit(),
        }
    }
}

/// A frame that was not sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection has ended, and will not come back.
    #[error("the connection has ended: {0}")]
    Closed(ConnectionError),
    /// The connection is lost and being made anew.
    #[error("not connected at present: {0}")]
    NotConnected(ConnectionError),
    /// There was no connection, or no room in the window, within the operation timeout.
    #[error(
        "not sent within {0:?}: the connection is lost, or the server is slow to receipt what was sent before"
    )]
    TimedOut(Duration),
    /// The frame is longer than the whole window.
    #[error("a frame of {len} octets does not fit into a window of {window}")]
    TooLarge {
        /// Octets of the frame's body.
        len: usize,
        /// Octets of the window.
        window: usize,
    },
    /// It belongs to a connection that is gone: an ACK or NACK of a message that came over it, or a frame of a
    /// transaction. The server delivers such messages again, and has aborted the transaction.
    #[error("it belongs to a connection that is gone")]
    Stale,
    /// The server has read nothing for as long as the receipt timeout; what waits to be written fills the buffer.
    #[error("the server has read nothing for {0:?}")]
    Stalled(Duration),
    /// The caller's mistake.
    #[error(transparent)]
    Refused(#[from] SessionError),
}

impl SendError {
    /// Whether the same frame might be sent later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::NotConnected(_) | Self::TimedOut(_) | Self::Stalled(_))
    }

    /// At whom to look.
    #[must_use]
    pub const fn culprit(&self) -> Culprit {
        match self {
            Self::Closed(cause) | Self::NotConnected(cause) => cause.culprit(),
            Self::TimedOut(_) | Self::Stalled(_) => Culprit::Peer,
            Self::TooLarge { .. } => Culprit::Limit,
            Self::Stale => Culprit::Network,
            Self::Refused(error) => error.culprit(),
        }
    }
}

/// The server's explanation: the header `message`, then the body's first line if it says more.
fn error_text(frame: &Frame) -> String {
    let message = frame.header("message").unwrap_or("(no message)");
    let body = String::from_utf8_lossy(frame.body());
    let detail: String =
        body.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    if detail.is_empty() || detail == message { message.into() } else { format!("{message}: {detail}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Command, DecodeError};

    #[test]
    fn the_culprit_is_named_and_a_retry_is_worth_it_or_not() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let table = [
            (ConnectionError::from(refused), Culprit::Network, true),
            (ConnectionError::ClosedByServer, Culprit::Peer, true),
            (ConnectionError::ServerError(Arc::new(Frame::new(Command::Error))), Culprit::Peer, true),
            (SessionError::from(DecodeError::NotUtf8).into(), Culprit::Peer, true),
            (SessionError::from(DecodeError::BodyTooLong { limit: 1 }).into(), Culprit::Limit, true),
            (SessionError::ReceiptHeader.into(), Culprit::Caller, false),
            (ConnectionError::ClosedByUs, Culprit::Caller, false),
        ];
        for (error, culprit, retryable) in table {
            assert_eq!((error.culprit(), error.is_retryable()), (culprit, retryable), "{error}");
            let lost = Unconfirmed::ConnectionLost(error);
            assert_eq!((lost.culprit(), lost.is_retryable()), (culprit, retryable), "{lost}");
        }
    }
}
