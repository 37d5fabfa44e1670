use alloc::string::String;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Command, EncodeError, Frame, Headers, Outbox, Version,
    digits::{put_content_length, says},
    escape::Escaping,
    headers::CONTENT_LENGTH,
};

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
        finish(frame.body(), || frame.body_bytes(), outbox);
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
        dst.put_slice(command.line().as_bytes());
        self.headers(command, frame.headers(), dst)?;
        self.pairs(command, added, dst)?;
        self.end_of_head(command, given_length(frame.headers(), added), body, dst)
    }

    fn headers(&self, command: Command, headers: &Headers, dst: &mut BytesMut) -> Result<(), EncodeError> {
        match headers.lines() {
            Some(lines) => dst.put_slice(lines),
            None => headers.octets().try_for_each(|(name, value)| self.header(command, name, value, dst))?,
        }
        Ok(())
    }

    fn pairs(&self, command: Command, pairs: &[(&str, &str)], dst: &mut BytesMut) -> Result<(), EncodeError> {
        pairs
            .iter()
            .try_for_each(|(name, value)| self.header(command, name.as_bytes(), value.as_bytes(), dst))
    }

    fn header(
        &self,
        command: Command,
        name: &[u8],
        value: &[u8],
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        if name.is_empty() {
            return Err(EncodeError::EmptyHeaderName);
        }
        let escaping = Escaping::of(command, self.version, self.escape_connect);
        let mut fits = escaping.put(name, true, dst);
        dst.put_u8(b':');
        fits &= escaping.put(value, false, dst);
        dst.put_u8(b'\n');
        if !fits {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(EncodeError::Unencodable { name, command, version: self.version });
        }
        Ok(())
    }

    /// The content-length, where it is due and not given already, and the blank line.
    fn end_of_head(
        &self,
        command: Command,
        given: Option<&[u8]>,
        body: &[u8],
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        match given {
            Some(given) if !says(given, body.len() as u64) => return Err(wrong_length(given, body.len())),
            Some(_) => {}
            None if !command.may_have_body() => {}
            None if self.content_length => {
                put_content_length(body.len() as u64, dst);
                return Ok(());
            }
            None if memchr::memchr(0, body).is_some() => return Err(EncodeError::NulWithoutContentLength),
            None => {}
        }
        dst.put_u8(b'\n');
        Ok(())
    }
}

/// The content-length that the caller has set. Of repeated ones the first counts, here as at the receiver.
fn given_length<'a>(headers: &'a Headers, added: &[(&str, &'a str)]) -> Option<&'a [u8]> {
    let among_added =
        || added.iter().find(|(name, _)| *name == CONTENT_LENGTH).map(|(_, value)| value.as_bytes());
    headers.content_length().or_else(among_added)
}

fn wrong_length(given: &[u8], actual: usize) -> EncodeError {
    EncodeError::WrongContentLength { given: String::from_utf8_lossy(given).into_owned(), actual }
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
        if let Some(given) = constant.content_length() {
            return Err(wrong_length(given, 0));
        }
        let mut prefix = BytesMut::from(&b"SEND\n"[..]);
        encoder.headers(Command::Send, constant, &mut prefix)?;
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
        body: &Bytes,
        outbox: &mut Outbox,
    ) -> Result<(), EncodeError> {
        self.enqueue_all(headers, &Headers::new(), body, outbox)
    }

    /// The same with the header `receipt` in front.
    pub(crate) fn enqueue_with_receipt(
        &self,
        receipt: &str,
        headers: &Headers,
        body: &Bytes,
        outbox: &mut Outbox,
    ) -> Result<(), EncodeError> {
        self.enqueue_all(&[("receipt", receipt)], headers, body, outbox)
    }

    fn enqueue_all(
        &self,
        first: &[(&str, &str)],
        headers: &Headers,
        body: &Bytes,
        outbox: &mut Outbox,
    ) -> Result<(), EncodeError> {
        let dst = outbox.tail();
        let start = dst.len();
        dst.reserve(self.prefix.len() + 256 + body.len().min(COPY_BODY));
        let result = self.try_head(first, headers, body, dst);
        if result.is_err() {
            dst.truncate(start);
            return result;
        }
        finish(body, || body.clone(), outbox);
        Ok(())
    }

    fn try_head(
        &self,
        first: &[(&str, &str)],
        headers: &Headers,
        body: &[u8],
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let (encoder, command) = (&self.encoder, Command::Send);
        dst.put_slice(&self.prefix);
        encoder.pairs(command, first, dst)?;
        encoder.headers(command, headers, dst)?;
        encoder.end_of_head(command, given_length(headers, first), body, dst)
    }
}

/// Body and NUL, behind a head that is in the outbox's tail.
fn finish(body: &[u8], shared: impl FnOnce() -> Bytes, outbox: &mut Outbox) {
    if body.len() <= COPY_BODY {
        outbox.tail().put_slice(body);
    } else {
        outbox.share(shared());
    }
    outbox.tail().put_u8(0);
}
