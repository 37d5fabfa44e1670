use bytes::Bytes;

use super::{Command, Headers};

/// One frame: a command, headers and a body of opaque octets.
///
/// Cloning is cheap for the body (shared) and copies the headers' table. A received frame's headers and body are slices
/// of the buffer it was read into; a frame kept for long keeps that buffer.
///
/// ```
/// use stompwire::{Command, Frame};
///
/// let frame = Frame::new(Command::Send).with_header("destination", "/queue/a").with_body("hello");
/// assert_eq!(frame.header("destination"), Some("/queue/a"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    command: Command,
    headers: Headers,
    body: Bytes,
}

impl Frame {
    /// A frame without headers or body.
    #[must_use]
    pub const fn new(command: Command) -> Self {
        Self::from_parts(command, Headers::new(), Bytes::new())
    }

    /// A SEND to `destination`.
    #[must_use]
    pub fn send(destination: &str, body: impl Into<Bytes>) -> Self {
        Self::new(Command::Send).with_header("destination", destination).with_body(body)
    }

    /// A frame of these parts.
    #[must_use]
    pub const fn from_parts(command: Command, headers: Headers, body: Bytes) -> Self {
        Self { command, headers, body }
    }

    /// The same with one more header at the end.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(name, value);
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The command.
    #[must_use]
    pub const fn command(&self) -> Command {
        self.command
    }

    /// The headers.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The headers, to be extended.
    pub const fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The body; empty if there is none.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The parts.
    #[must_use]
    pub fn into_parts(self) -> (Command, Headers, Bytes) {
        (self.command, self.headers, self.body)
    }
}
