use alloc::string::String;
use core::time::Duration;

use crate::proto::{Command, DecodeError, EncodeError, Version};

/// Why a session cannot go on. The variant says at whom to look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer sent what is not STOMP, or too much.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The caller's frame cannot be encoded; the session itself goes on.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The peer sent a frame that has no place here.
    #[error("the peer sent a {0} frame that has no place at this point")]
    Unexpected(Command),
    /// A frame lacks a header it must have.
    #[error("the peer sent a {command} frame without the header {header:?}")]
    MissingHeader {
        /// The frame's command.
        command: Command,
        /// The header's name.
        header: &'static str,
    },
    /// CONNECTED names a version that was not offered, or none that exists.
    #[error("the server chose the version {0:?}, which was not offered")]
    VersionNotOffered(String),
    /// No version in common (server side).
    #[error("the client offers no version this server speaks: {0:?}")]
    NoCommonVersion(String),
    /// A `heart-beat` header that is not two unsigned numbers.
    #[error("the peer sent the malformed heart-beat header {0:?}")]
    BadHeartBeat(String),
    /// No CONNECTED (client) or no CONNECT (server) within the time allowed.
    #[error("no answer to the handshake within {0:?}")]
    HandshakeTimeout(Duration),
    /// The peer agreed to heart-beats and sent nothing for this long.
    #[error("the peer has been silent for {0:?}, longer than the heart-beats allow")]
    PeerSilent(Duration),
    /// DISCONNECT was not receipted in time.
    #[error("no receipt for DISCONNECT within {0:?}")]
    CloseTimeout(Duration),
    /// The caller used a session that is not connected, or is closing.
    #[error("the session is not open")]
    NotOpen,
    /// The caller sent a frame that is the server's to send, or the session's own: CONNECT, STOMP, DISCONNECT.
    #[error("a {0} frame is not the caller's to send")]
    NotSendable(Command),
    /// The caller set the header `receipt`; the session numbers receipts itself.
    #[error("the header \"receipt\" is set by the session")]
    ReceiptHeader,
    /// The caller set the header `transaction` on a frame that goes into a transaction.
    #[error("the header \"transaction\" is set by the session")]
    TransactionHeader,
    /// The caller wants a frame that the version in force does not have, such as NACK in 1.0.
    #[error("STOMP {version} has no {command}")]
    NotInVersion {
        /// The frame's command.
        command: Command,
        /// The version in force.
        version: Version,
    },
    /// The caller's number for a subscription is taken on this connection.
    #[error("there is a subscription {0} on this connection already")]
    SubscriptionExists(u64),
    /// The caller names a subscription that this connection does not have.
    #[error("there is no subscription {0} on this connection")]
    NoSubscription(u64),
    /// The caller acknowledges what cannot be: a message of mode `auto`, or one without the headers to name it by.
    #[error(
        "the message cannot be acknowledged: its subscription is in mode auto, or it names no acknowledgement id"
    )]
    NothingToAcknowledge,
    /// The caller's number for a transaction is taken on this connection.
    #[error("there is an open transaction {0} on this connection already")]
    TransactionExists(u64),
    /// The caller names a transaction that is not open on this connection.
    #[error("there is no open transaction {0} on this connection")]
    NoTransaction(u64),
}

/// At whom to look when something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Culprit {
    /// What is in between, or the peer is not there at all.
    Network,
    /// The peer: it broke the protocol, refused, or did not answer.
    Peer,
    /// The code that calls this crate.
    Caller,
    /// A limit that was set on this side: raise it if what was refused is wanted.
    Limit,
}

impl SessionError {
    /// At whom to look.
    #[must_use]
    pub const fn culprit(&self) -> Culprit {
        match self {
            Self::Decode(
                DecodeError::LineTooLong { .. }
                | DecodeError::TooManyHeaders { .. }
                | DecodeError::HeadTooLong { .. }
                | DecodeError::BodyTooLong { .. }
                | DecodeError::EolFlood { .. },
            ) => Culprit::Limit,
            Self::PeerSilent(_) => Culprit::Network,
            _ if self.is_callers() => Culprit::Caller,
            _ => Culprit::Peer,
        }
    }

    /// Whether the caller's frame was at fault, and the session can go on.
    #[must_use]
    pub const fn is_callers(&self) -> bool {
        matches!(
            self,
            Self::Encode(_)
                | Self::NotOpen
                | Self::NotSendable(_)
                | Self::ReceiptHeader
                | Self::TransactionHeader
                | Self::NotInVersion { .. }
                | Self::SubscriptionExists(_)
                | Self::NoSubscription(_)
                | Self::NothingToAcknowledge
                | Self::TransactionExists(_)
                | Self::NoTransaction(_)
        )
    }
}
