use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::proto::{Command, EncodeError, Encoder, Frame, Headers, ServerSession, Version};

/// Bodies shorter than this are copied out of the buffer they were read into, so that a short message that stays in a
/// queue does not keep a long buffer. A longer body keeps at most about three times its length.
const COPY_BODY: usize = 32 * 1024;

/// Headers of SEND that the broker consumes or sets itself.
const OWN_HEADERS: [&str; 8] = [
    "destination",
    "receipt",
    "transaction",
    "content-length",
    "subscription",
    "message-id",
    "ack",
    "redelivered",
];

/// A message as the queues share it.
#[derive(Debug)]
pub(super) struct Message {
    /// MESSAGE with every header that is the same for each consumer, `destination` first.
    pub(super) frame: Frame,
    /// Header names, header values and body.
    pub(super) octets: usize,
}

/// A message on its way to one subscription.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    pub(super) tag: Tag,
    /// The header `id` of SUBSCRIBE, which may be missing in 1.0.
    pub(super) subscription_id: Option<Arc<str>>,
    /// The header `destination` of SUBSCRIBE.
    pub(super) subscribed_to: Arc<str>,
    pub(super) wants_ack: bool,
    pub(super) redelivered: bool,
}

/// What `message-id` and `ack` say: which delivery of which subscription of which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) peer: u64,
    pub(super) subscription: u64,
    pub(super) number: u64,
}

impl Message {
    /// The message of a SEND to `destination`.
    pub(super) fn from_send(send: &Frame, destination: &str) -> Arc<Self> {
        let mut headers = Headers::new();
        headers.push("destination", destination);
        for (name, value) in send.headers().iter().filter(|(name, _)| !OWN_HEADERS.contains(name)) {
            headers.push(name, value);
        }
        let body = send.body();
        let body = if body.len() < COPY_BODY { Bytes::copy_from_slice(body) } else { send.body_bytes() };
        let head: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let octets = head + body.len();
        Arc::new(Self { frame: Frame::from_parts(Command::Message, headers, body), octets })
    }

    pub(super) fn destination(&self) -> &str {
        self.frame.header("destination").unwrap_or_default()
    }
}

impl Delivery {
    /// Puts the MESSAGE into the session's outbox.
    pub(super) fn enqueue(&self, session: &mut ServerSession) {
        let encoder = Encoder::new(session.version());
        let id = self.tag.to_string();
        let mut added = [("message-id", id.as_str()); 4];
        let mut count = 1;
        let mut add = |name, value| {
            added[count] = (name, value);
            count += 1;
        };
        if let Some(subscription) = &self.subscription_id {
            add("subscription", subscription);
        }
        if self.wants_ack && session.version() == Version::V1_2 {
            add("ack", &id);
        }
        if self.redelivered {
            add("redelivered", "true");
        }
        let added = &added[..count];
        let frame = &self.message.frame;
        let routed_by_destination = self.subscription_id.is_none();
        let result = if routed_by_destination && *self.subscribed_to != *self.message.destination() {
            Err(None)
        } else {
            encoder.enqueue(frame, added, session.outbox()).map_err(Some)
        };
        if let Err(error) = result {
            let destination = routed_by_destination.then_some(&*self.subscribed_to);
            self.enqueue_adapted(&encoder, added, destination, error, session);
        }
    }

    /// The same for a client that could not take the message as it is: one of 1.0 that knows its subscription by
    /// another destination, or one whose version has no escape for a header, which is then left out.
    fn enqueue_adapted(
        &self,
        encoder: &Encoder,
        added: &[(&str, &str)],
        destination: Option<&str>,
        error: Option<EncodeError>,
        session: &mut ServerSession,
    ) {
        if let Some(error) = error {
            crate::log::debug!(%error, "a header is left out for a client of an older version");
        }
        let headers: Headers = self
            .message
            .frame
            .headers()
            .iter()
            .map(|(name, value)| {
                (name, if name == "destination" { destination.unwrap_or(value) } else { value })
            })
            .filter(|(name, value)| {
                let plain = |text: &str| !text.contains(['\n', '\r', '\0']);
                plain(name) && plain(value) && !name.contains(':')
            })
            .collect();
        let frame = Frame::from_parts(Command::Message, headers, self.message.frame.body_bytes());
        if let Err(error) = encoder.enqueue(&frame, added, session.outbox()) {
            crate::log::debug!(%error, "a message is not written");
        }
    }
}

impl Tag {
    /// Reads what its `Display` wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-').map(|part| part.parse().ok());
        let mut next = || parts.next().flatten();
        Some(Self { peer: next()?, subscription: next()?, number: next()? })
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.peer, self.subscription, self.number)
    }
}
