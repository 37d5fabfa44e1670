use core::fmt;

use bytes::{Buf, Bytes};

use super::{Command, Headers};

/// One frame: a command, headers and a body of opaque octets.
///
/// Cloning shares the body. A received frame's headers and body are one slice of the buffer it was read into; a frame
/// kept for long keeps that buffer.
///
/// ```
/// use stompwire::{Command, Frame};
///
/// let frame = Frame::new(Command::Send).with_header("destination", "/queue/a").with_body("hello");
/// assert_eq!(frame.header("destination"), Some("/queue/a"));
/// ```
#[derive(Clone)]
pub struct Frame {
    command: Command,
    headers: Headers,
    body: Body,
}

#[derive(Clone)]
enum Body {
    Own(Bytes),
    /// In the buffer of the headers, after so many octets and before the NUL that ends it.
    Behind(usize),
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
        Self { command, headers, body: Body::Own(body) }
    }

    /// A received frame. The buffer of `headers` is the whole frame, its NUL included; the head takes so many octets of it.
    #[inline]
    pub(crate) const fn received(command: Command, headers: Headers, head: usize) -> Self {
        Self { command, headers, body: Body::Behind(head) }
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
        self.body = Body::Own(body.into());
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
    pub fn headers_mut(&mut self) -> &mut Headers {
        // The body must not go with them.
        if let Body::Behind(_) = self.body {
            self.body = Body::Own(self.body_bytes());
        }
        &mut self.headers
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The body; empty if there is none.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Own(body) => body,
            Body::Behind(head) => self.headers.shared().map_or(&[], |frame| &frame[*head..frame.len() - 1]),
        }
    }

    /// The body, shared, not copied.
    #[must_use]
    pub fn body_bytes(&self) -> Bytes {
        match &self.body {
            Body::Own(body) => body.clone(),
            Body::Behind(head) => {
                self.headers.shared().map_or_else(Bytes::new, |frame| frame.slice(*head..frame.len() - 1))
            }
        }
    }

    /// The body, taken out.
    #[must_use]
    pub fn into_body(self) -> Bytes {
        match self.body {
            Body::Own(body) => body,
            Body::Behind(head) => self.headers.into_shared().map_or_else(Bytes::new, |mut frame| {
                frame.truncate(frame.len() - 1);
                frame.advance(head);
                frame
            }),
        }
    }

    /// The parts.
    #[must_use]
    pub fn into_parts(self) -> (Command, Headers, Bytes) {
        let body = if let Body::Own(body) = self.body { body } else { self.body_bytes() };
        (self.command, self.headers, body)
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        (self.command, &self.headers, self.body()) == (other.command, &other.headers, other.body())
    }
}

impl Eq for Frame {}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("command", &self.command)
            .field("headers", &self.headers)
            .field("body", &self.body_bytes())
            .finish()
    }
}
