//! What can go wrong with the WebSocket, and whose fault it was.

use std::{io, time::Duration};

use tokio_tungstenite::tungstenite::{
    Error,
    error::{CapacityError, ProtocolError},
};

use crate::proto::Culprit;

/// Why there is no WebSocket, or no longer. All of it is the server's (or a proxy's) doing, and may work later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// The handshake was answered with another HTTP status than 101.
    #[error(
        "the server answered HTTP status {0} instead of a WebSocket; is the URL's path right (RabbitMQ's is /ws)?"
    )]
    Refused(u16),
    /// The server offers a WebSocket, but none of the STOMP versions asked for as its subprotocol.
    #[error(
        "the server agreed to none of the subprotocols v12.stomp, v11.stomp, v10.stomp that were offered"
    )]
    NoStomp,
    /// The server does not speak HTTP and WebSocket as it should.
    #[error("the server does not speak WebSocket, or wrongly ({0})")]
    Protocol(String),
    /// The server closed the connection during the handshake.
    #[error("the server closed the connection during the handshake")]
    ClosedInHandshake,
    /// TCP was there, and the handshake was not done in time. The duration is the limit of the whole transport.
    #[error("no handshake within {0:?}")]
    Timeout(Duration),
    /// The server closed with a code (RFC 6455, section 7.4) that says it was for a reason. 1007: RabbitMQ could not
    /// parse a frame.
    #[error("the server closed with code {code}: {reason}")]
    Closed {
        /// Its code.
        code: u16,
        /// Its words, without control characters.
        reason: String,
    },
    /// A message longer than the session's limits allow a frame to be.
    #[error("the server sent a message of {len} octets, more than the limit of {max}")]
    TooLong {
        /// Its octets.
        len: usize,
        /// Octets that a head and a body may have together.
        max: usize,
    },
    /// A text message that is not UTF-8.
    #[error("the server sent a text message that is not UTF-8; set RabbitMQ's web_stomp.ws_frame = binary")]
    NotUtf8,
}

impl WebSocketError {
    /// At whom to look.
    #[must_use]
    pub const fn culprit(&self) -> Culprit {
        match self {
            Self::Timeout(_) => Culprit::Network,
            Self::TooLong { .. } => Culprit::Limit,
            _ => Culprit::Peer,
        }
    }

    /// The error of the WebSocket in an [`io::Error`], where there is one.
    pub(super) fn within(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().cloned()
    }

    /// As what a transport reports. An error of the layers below stays as it is.
    pub(super) fn into_io(error: Error) -> io::Error {
        io::Error::other(match error {
            Error::Io(error) => return error,
            Error::Http(response) => Self::Refused(response.status().as_u16()),
            Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => Self::NoStomp,
            Error::Protocol(ProtocolError::HandshakeIncomplete) => Self::ClosedInHandshake,
            Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                Self::TooLong { len: size, max: max_size }
            }
            Error::Utf8(_) => Self::NotUtf8,
            other => Self::Protocol(other.to_string()),
        })
    }
}
