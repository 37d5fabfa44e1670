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
        self.headers_mut().push(name, value);
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

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::proto::{Decoder, Limits};

    fn received() -> Frame {
        let mut octets = BytesMut::from("MESSAGE\na:b\n\nbody\0rest");
        Decoder::new(Limits::default()).decode(&mut octets).unwrap().unwrap()
    }

    #[test]
    fn a_received_frame_is_as_one_that_was_built() {
        let built = Frame::new(Command::Message).with_header("a", "b").with_body("body");
        assert_eq!(received(), built);
        assert_eq!(alloc::format!("{:?}", received()), alloc::format!("{built:?}"));
        assert_eq!((received().body(), received().body_bytes()), (&b"body"[..], Bytes::from("body")));
        assert_eq!((received().into_body(), received().into_parts()), ("body".into(), built.into_parts()));
        assert_ne!(received(), received().with_body("other"));
    }

    #[test]
    fn the_body_stays_when_the_headers_go() {
        let mut frame = received();
        assert_eq!(core::mem::take(frame.headers_mut()).get("a"), Some("b"));
        assert_eq!((frame.headers().len(), frame.body()), (0, &b"body"[..]));
        let longer =
            Frame::new(Command::Message).with_header("a", "b").with_header("c", "d").with_body("body");
        let mut frame = received();
        frame.headers_mut().push("c", "d");
        assert_eq!(frame, longer);
        assert_eq!(received().with_header("c", "d"), longer);
        // And those of another received frame bring no body along.
        *frame.headers_mut() = received().headers().clone();
        assert_eq!(frame.with_body("mine").into_body(), "mine");
    }
}
