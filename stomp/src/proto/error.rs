use alloc::string::String;

use super::{Command, Version};

/// Octets that are not STOMP, or more of it than the limits allow. Always fatal for the connection: the decoder has
/// lost its place and repeats the error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first line of a frame is no command of the protocol.
    #[error("the peer sent an unknown command {0:?}")]
    UnknownCommand(String),
    /// A header line without a colon.
    #[error("the peer sent a header line without a colon: {0:?}")]
    NoColon(String),
    /// A header line that starts with its colon.
    #[error("the peer sent a header with an empty name")]
    EmptyHeaderName,
    /// An escape sequence that this version does not define, or a backslash at the end of a line.
    #[error(
        "the peer sent an escape sequence that STOMP {version} does not define, in the header line {line:?}"
    )]
    BadEscape {
        /// The version in force.
        version: Version,
        /// The line, shortened.
        line: String,
    },
    /// A carriage return that does not end a line (1.2).
    #[error("the peer sent a carriage return inside a line")]
    StrayCarriageReturn,
    /// A NUL before the blank line that ends the head.
    #[error("the peer sent a NUL inside a frame's head (is the blank line missing?)")]
    NulInHead,
    /// Command or headers are not UTF-8.
    #[error("the peer sent headers that are not UTF-8")]
    NotUtf8,
    /// A content-length that is not digits only, or does not fit in 64 bits.
    #[error("the peer sent the content-length {0:?}; it must be digits only")]
    BadContentLength(String),
    /// The octet after `content-length` octets of body is not NUL.
    #[error("the peer sent a body that does not end where its content-length says")]
    BodyNotTerminated,
    /// A body on a frame that may not have one (from 1.1 on).
    #[error("the peer sent a {0} frame with a body")]
    UnexpectedBody(Command),
    /// More than [`Limits::max_line`](super::Limits::max_line).
    #[error("the peer sent a line over the limit of {limit} octets")]
    LineTooLong {
        /// In octets.
        limit: usize,
    },
    /// More than [`Limits::max_headers`](super::Limits::max_headers).
    #[error("the peer sent a frame over the limit of {limit} headers")]
    TooManyHeaders {
        /// Headers.
        limit: usize,
    },
    /// More than [`Limits::max_head`](super::Limits::max_head).
    #[error("the peer sent a frame head over the limit of {limit} octets")]
    HeadTooLong {
        /// In octets.
        limit: usize,
    },
    /// More than [`Limits::max_body`](super::Limits::max_body) or, in parts,
    /// [`Limits::max_long_body`](super::Limits::max_long_body).
    #[error("the peer sent, or announced, a body over the limit of {limit} octets")]
    BodyTooLong {
        /// In octets.
        limit: u64,
    },
    /// More than [`Limits::max_eols`](super::Limits::max_eols).
    #[error("the peer sent more than {limit} end-of-lines within a second")]
    EolFlood {
        /// End-of-lines.
        limit: usize,
    },
}

/// A frame that cannot be put on the wire. The caller's mistake; nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A header with an empty name.
    #[error("a header needs a name")]
    EmptyHeaderName,
    /// NUL in a header, or CR, LF or a colon where this version or frame has no escape for it. Refused, since it would
    /// let a value inject headers or frames.
    #[error(
        "the header {name:?} of a {command} frame holds an octet that STOMP {version} cannot encode there"
    )]
    Unencodable {
        /// The header's name.
        name: String,
        /// The frame's command.
        command: Command,
        /// The version in force.
        version: Version,
    },
    /// A body on a frame that may not have one.
    #[error("a {0} frame may not have a body")]
    BodyNotAllowed(Command),
    /// A body with a NUL, and content-length suppressed: the peer would end the frame at the NUL.
    #[error("a body that holds a NUL needs a content-length")]
    NulWithoutContentLength,
    /// The caller set a content-length that is not the body's length.
    #[error("the header content-length says {given:?}, the body has {actual} octets")]
    WrongContentLength {
        /// The header's value.
        given: String,
        /// The body's length in octets.
        actual: usize,
    },
}
