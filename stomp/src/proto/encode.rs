use alloc::string::String;

use bytes::{BufMut, BytesMut};

use super::{Command, EncodeError, Frame, Headers, Outbox, Version, digits::Digits, escape::Escaping};

/// Bodies up to this many octets are copied next to their head; longer ones are kept as they are and written from where
/// they lie. Copying this much costs about as much as one more slice in a vectored write.
const COPY_BODY: usize = 4096;

/// Turns frames into octets.
#[derive(Debug, Clone, Copy)]
pub struct Encoder {
    version: Version,
    escape_connect: bool,
    content_length: bool,
}

impl Encoder {
    /// An encoder for `version`. `content-length` is written for SEND, MESSAGE and ERROR.
    #[must_use]
    pub const fn new(version: Version) -> Self {
        Self { version, escape_connect: false, content_length: true }
    }

    /// The same for another version.
    #[must_use]
    pub const fn with_version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Escape the headers of CONNECT and STOMP: for RabbitMQ, which unescapes them although 1.2 forbids it. Needed when
    /// login or passcode hold a backslash.
    #[must_use]
    pub const fn with_escaped_connect(mut self, escape: bool) -> Self {
        self.escape_connect = escape;
        self
    }

    /// Whether `content-length` is written. ActiveMQ takes a SEND without it for a text message.
    #[must_use]
    pub const fn with_content_length(mut self, write: bool) -> Self {
        self.content_length = write;
        self
    }

    /// The version in force.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Appends the whole frame to `dst`.
    ///
    /// # Errors
    /// [`EncodeError`]; `dst` is then as it was.
    pub fn encode(&self, frame: &Frame, dst: &mut BytesMut) -> Result<(), EncodeError> {
        self.head(frame, &[], dst)?;
        dst.put_slice(frame.body());
        dst.put_u8(0);
        Ok(())
    }

    /// Appends the frame, with these headers added, to what is to be written. A long body is shared, not copied.
    ///
    /// # Errors
    /// [`EncodeError`]; `outbox` is then as it was.
    pub fn enqueue(
        &self,
        frame: &Frame,
        added: &[(&str, &str)],
        outbox: &mut Outbox,
    ) -> Result<(), EncodeError> {
        let dst = outbox.tail();
        dst.reserve(frame.body().len().min(COPY_BODY) + 256);
        self.head(frame, added, dst)?;
        finish(frame.body(), outbox);
        Ok(())
    }

    /// Command, headers and the blank line.
    fn head(&self, frame: &Frame, added: &[(&str, &str)], dst: &mut BytesMut) -> Result<(), EncodeError> {
        let start = dst.len();
        let result = self.try_head(frame, added, dst);
        if result.is_err() {
            dst.truncate(start);
        }
        result
    }

    fn try_head(&self, frame: &Frame, added: &[(&str, &str)], dst: &mut BytesMut) -> Result<(), EncodeError> {
        let (command, body) = (frame.command(), frame.body());
        if !body.is_empty() && !command.may_have_body() {
            return Err(EncodeError::BodyNotAllowed(command));
        }
        dst.put_slice(command.as_str().as_bytes());
        dst.put_u8(b'\n');
        self.headers(command, frame.headers().iter().chain(added.iter().copied()), body, dst)
    }

    /// The header lines, content-length where it is due, and the blank line.
    fn headers<'a>(
        &self,
        command: Command,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
        body: &[u8],
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let mut given_length = false;
        for (name, value) in headers {
            if name == "content-length" && !given_length {
                given_length = true;
                if value != Digits::default().of(body.len() as u64) {
                    return Err(EncodeError::WrongContentLength { given: value.into(), actual: body.len() });
                }
            }
            self.header(command, name, value, dst)?;
        }
        if !given_length && command.may_have_body() {
            if self.content_length {
                dst.put_slice(b"content-length:");
                dst.put_slice(Digits::default().of(body.len() as u64).as_bytes());
                dst.put_u8(b'\n');
            } else if memchr::memchr(0, body).is_some() {
                return Err(EncodeError::NulWithoutContentLength);
            }
        }
        dst.put_u8(b'\n');
        Ok(())
    }

    fn header(
        &self,
        command: Command,
        name: &str,
        value: &str,
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        if name.is_empty() {
            return Err(EncodeError::EmptyHeaderName);
        }
        let escaping = Escaping::of(command, self.version, self.escape_connect);
        let mut fits = escaping.put(name.as_bytes(), true, dst);
        dst.put_u8(b':');
        fits &= escaping.put(value.as_bytes(), false, dst);
        dst.put_u8(b'\n');
        if !fits {
            return Err(EncodeError::Unencodable { name: name.into(), command, version: self.version });
        }
        Ok(())
    }
}

/// A SEND whose constant headers are encoded once: what remains per frame is copying them and a few short values.
///
/// ```
/// use stompwire::{Headers, Version, proto::{Encoder, Outbox, SendTemplate}};
///
/// let constant: Headers = [("destination", "/queue/a"), ("persistent", "true")].into_iter().collect();
/// let template = SendTemplate::new(&Encoder::new(Version::V1_2), &constant).unwrap();
/// let mut outbox = Outbox::new();
/// template.enqueue(&[("receipt", "1")], &"hello".into(), &mut outbox).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct SendTemplate {
    encoder: Encoder,
    prefix: BytesMut,
    asks_for_receipt: bool,
}

impl SendTemplate {
    /// Encodes the constant headers.
    ///
    /// # Errors
    /// [`EncodeError`], as for the whole frame.
    pub fn new(encoder: &Encoder, constant: &Headers) -> Result<Self, EncodeError> {
        let mut prefix = BytesMut::from(&b"SEND\n"[..]);
        for (name, value) in constant.iter() {
            if name == "content-length" {
                let given = String::from(value);
                return Err(EncodeError::WrongContentLength { given, actual: 0 });
            }
            encoder.header(Command::Send, name, value, &mut prefix)?;
        }
        Ok(Self { encoder: *encoder, prefix, asks_for_receipt: constant.get("receipt").is_some() })
    }

    /// Whether the header `receipt` is among the constant ones.
    pub(crate) const fn asks_for_receipt(&self) -> bool {
        self.asks_for_receipt
    }

    /// Appends a frame with the constant headers, these and (unless the encoder suppresses it) a content-length. A long
    /// body is shared, not copied.
    ///
    /// # Errors
    /// [`EncodeError`]; `outbox` is then as it was.
    pub fn enqueue(
        &self,
        headers: &[(&str, &str)],
        body: &bytes::Bytes,
        outbox: &mut Outbox,
    ) -> Result<(), EncodeError> {
        self.enqueue_all(headers.iter().copied(), body, outbox)
    }

    /// The same with the header `receipt` in front.
    pub(crate) fn enqueue_with_receipt(
        &self,
        receipt: &str,
        headers: &Headers,
        body: &bytes::Bytes,
        outbox: &mut Outbox,
    ) -> Result<(), EncodeError> {
        let receipt = core::iter::once(("receipt", receipt));
        self.enqueue_all(receipt.chain(headers.iter()), body, outbox)
    }

    fn enqueue_all<'a>(
        &self,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
        body: &bytes::Bytes,
        outbox: &mut Outbox,
    ) -> Result<(), EncodeError> {
        let dst = outbox.tail();
        let start = dst.len();
        dst.reserve(self.prefix.len() + 256 + body.len().min(COPY_BODY));
        dst.put_slice(&self.prefix);
        if let Err(error) = self.encoder.headers(Command::Send, headers, body, dst) {
            dst.truncate(start);
            return Err(error);
        }
        finish(body, outbox);
        Ok(())
    }
}

/// Body and NUL, behind a head that is in the outbox's tail.
fn finish(body: &bytes::Bytes, outbox: &mut Outbox) {
    if body.len() <= COPY_BODY {
        outbox.tail().put_slice(body);
    } else {
        outbox.share(body.clone());
    }
    outbox.tail().put_u8(0);
}
