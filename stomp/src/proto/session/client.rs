use alloc::{
    collections::BTreeSet,
    string::{String, ToString},
};
use core::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::{ClientOptions, SessionError, Subscribe, Verdict, link::Link, subscription::Subscriptions};
use crate::proto::{
    Command, Encoder, Frame, Headers, HeartBeat, HeartBeatMonitor, Outbox, Receipts, SendTemplate, Time,
    Version, digits::Digits,
};

/// A client's side of one connection.
///
/// The owner moves the octets: it writes what is in [`ClientSession::outbox`] and says so with
/// [`ClientSession::wrote`]; it appends what it reads to a buffer, says so with [`ClientSession::read`], and takes
/// events out with [`ClientSession::next_event`] until there is none. It calls [`ClientSession::handle_timeout`] at
/// [`ClientSession::next_timeout`]. `T` is what the caller wants back when a frame's RECEIPT comes.
#[derive(Debug)]
pub struct ClientSession<T> {
    options: ClientOptions,
    phase: Phase,
    link: Link,
    receipts: Receipts<T>,
    subscriptions: Subscriptions,
    transactions: BTreeSet<u64>,
    failed: Option<SessionError>,
}

/// A frame that was not queued: why, and the token that came with it. Always the caller's mistake; the session goes on.
pub type Refused<T> = (SessionError, Option<T>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting {
        deadline: Time,
    },
    Open,
    /// DISCONNECT is on its way; nothing may follow it.
    Closing {
        receipt: u64,
        deadline: Time,
    },
    Closed,
}

/// What the server agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connected {
    /// The version in force.
    pub version: Version,
    /// The header `server`: name and version of the software.
    pub server: Option<String>,
    /// The header `session`.
    pub session: Option<String>,
    /// The agreed period of our heart-beats.
    pub sends_every: Option<Duration>,
    /// How long the server may be silent, grace included.
    pub server_patience: Option<Duration>,
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent<T> {
    /// The handshake is done.
    Connected(Connected),
    /// The frame sent with this token was processed.
    Receipt(T),
    /// A RECEIPT for nothing that waits: late, repeated or invented. Harmless.
    StrayReceipt,
    /// A message for a subscription.
    Message {
        /// The number the subscription was made under.
        subscription: u64,
        /// The MESSAGE frame.
        frame: Frame,
    },
    /// A message for no subscription of this session. Nothing unusual: it was under way when UNSUBSCRIBE went out.
    StrayMessage(Frame),
    /// The server gave up on the connection. If the frame names the receipt of the frame at fault, its token is here.
    Error {
        /// The ERROR frame.
        frame: Frame,
        /// The token of the frame at fault.
        token: Option<T>,
    },
    /// DISCONNECT was receipted: the connection can be closed, nothing is lost.
    Disconnected,
}

impl<T> ClientSession<T> {
    /// A session whose CONNECT is in the outbox.
    ///
    /// # Errors
    /// An option that cannot be encoded, such as a passcode with a line feed; a header `receipt`, which CONNECT may not
    /// have.
    pub fn new(options: ClientOptions, now: Time) -> Result<Self, SessionError> {
        if options.headers.get("receipt").is_some() {
            return Err(SessionError::ReceiptHeader);
        }
        let encoder = Encoder::new(Version::V1_2)
            .with_escaped_connect(options.escape_connect)
            .with_content_length(options.content_length);
        let mut link = Link::new(options.limits, options.lenience, encoder, now);
        encoder.enqueue(&options.connect_frame(), &[], &mut link.outbox)?;
        Ok(Self {
            phase: Phase::Connecting { deadline: now.saturating_add(options.connect_timeout) },
            link,
            receipts: Receipts::default(),
            subscriptions: Subscriptions::default(),
            transactions: BTreeSet::new(),
            failed: None,
            options,
        })
    }

    /// What is to be written.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.link.outbox
    }

    /// Octets waiting to be written.
    #[must_use]
    pub fn outbox_len(&self) -> usize {
        self.link.outbox.remaining()
    }

    /// The owner wrote some of the outbox.
    pub fn wrote(&mut self, now: Time) {
        self.link.wrote(now);
    }

    /// The owner read some octets.
    pub fn read(&mut self, now: Time) {
        self.link.read(now);
    }

    /// The next event in what was read; `None` when more octets are needed.
    ///
    /// # Errors
    /// The connection cannot go on; the error repeats.
    pub fn next_event(
        &mut self,
        input: &mut BytesMut,
        now: Time,
    ) -> Result<Option<ClientEvent<T>>, SessionError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.advance(input, now);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.phase = Phase::Closed;
        }
        result
    }

    /// Queues a frame. Whoever wants to know that it was processed uses [`ClientSession::send_with_receipt`].
    ///
    /// SUBSCRIBE, ACK, BEGIN and the like may be sent this way too; the session then knows nothing of the subscription or
    /// transaction, and messages of it come as [`ClientEvent::StrayMessage`].
    ///
    /// # Errors
    /// The caller's mistakes only; nothing was queued, the session goes on.
    pub fn send(&mut self, frame: &Frame) -> Result<(), SessionError> {
        self.queue(frame, None, None, Time::ZERO).map_err(|(error, _)| error)
    }

    /// Queues a frame that asks for a RECEIPT. The token comes back with [`ClientEvent::Receipt`], with
    /// [`ClientSession::expire`], or with [`ClientSession::take_pending`] when the connection has ended.
    ///
    /// # Errors
    /// The caller's mistakes only; the token is handed back, nothing was queued, the session goes on.
    pub fn send_with_receipt(&mut self, frame: &Frame, token: T, now: Time) -> Result<(), (SessionError, T)> {
        self.queue(frame, None, Some(token), now)
            .map_err(|(error, token)| (error, token.expect("`queue` hands the token back with the error")))
    }

    /// Queues a frame as part of an open transaction (header `transaction`). With a token it asks for a RECEIPT.
    ///
    /// # Errors
    /// As [`ClientSession::send_with_receipt`]; [`SessionError::NoTransaction`].
    pub fn send_in(
        &mut self,
        transaction: u64,
        frame: &Frame,
        token: Option<T>,
        now: Time,
    ) -> Result<(), Refused<T>> {
        self.queue(frame, Some(transaction), token, now)
    }

    /// Queues SUBSCRIBE. `id`, the caller's, is unique on this connection; messages come with it.
    ///
    /// # Errors
    /// As [`ClientSession::send_with_receipt`]; [`SessionError::SubscriptionExists`].
    pub fn subscribe(
        &mut self,
        id: u64,
        subscribe: &Subscribe,
        token: Option<T>,
        now: Time,
    ) -> Result<(), Refused<T>> {
        if let Err(error) = self.subscriptions.check_new(id) {
            return Err((error, token));
        }
        self.queue(&subscribe.frame(&id.to_string()), None, token, now)?;
        self.subscriptions.insert(id, subscribe);
        Ok(())
    }

    /// Queues UNSUBSCRIBE. Messages that are under way come as [`ClientEvent::StrayMessage`].
    ///
    /// # Errors
    /// As [`ClientSession::send_with_receipt`]; [`SessionError::NoSubscription`].
    pub fn unsubscribe(&mut self, id: u64, token: Option<T>, now: Time) -> Result<(), Refused<T>> {
        match self.subscriptions.unsubscribe(id) {
            Ok(frame) => self.queue(&frame, None, token, now)?,
            Err(error) => return Err((error, token)),
        }
        self.subscriptions.remove(id);
        Ok(())
    }

    /// Queues ACK or NACK of `message`, which came for the subscription `id`, if asked as part of a transaction.
    ///
    /// # Errors
    /// As [`ClientSession::send_with_receipt`]; [`SessionError::NoSubscription`], [`SessionError::NoTransaction`],
    /// [`SessionError::NotInVersion`] for a NACK in 1.0, [`SessionError::NothingToAcknowledge`] for a message that carries
    /// nothing to acknowledge it by, or in mode `auto`.
    pub fn settle(
        &mut self,
        verdict: Verdict,
        id: u64,
        message: &Frame,
        transaction: Option<u64>,
        token: Option<T>,
        now: Time,
    ) -> Result<(), Refused<T>> {
        match self.subscriptions.verdict(verdict, id, message, self.version()) {
            Ok(frame) => self.queue(&frame, transaction, token, now),
            Err(error) => Err((error, token)),
        }
    }

    /// Queues BEGIN. `id`, the caller's, is unique among the open transactions of this connection. A transaction that is
    /// open when the connection ends, or when DISCONNECT is processed, is aborted by the server (1.2, "BEGIN").
    ///
    /// # Errors
    /// As [`ClientSession::send_with_receipt`]; [`SessionError::TransactionExists`].
    pub fn begin(&mut self, id: u64, token: Option<T>, now: Time) -> Result<(), Refused<T>> {
        if self.transactions.contains(&id) {
            return Err((SessionError::TransactionExists(id), token));
        }
        self.queue(&transaction_frame(Command::Begin, id), None, token, now)?;
        self.transactions.insert(id);
        Ok(())
    }

    /// Queues COMMIT.
    ///
    /// # Errors
    /// As [`ClientSession::send_with_receipt`]; [`SessionError::NoTransaction`].
    pub fn commit(&mut self, id: u64, token: Option<T>, now: Time) -> Result<(), Refused<T>> {
        self.end_transaction(Command::Commit, id, token, now)
    }

    /// Queues ABORT.
    ///
    /// # Errors
    /// As [`ClientSession::send_with_receipt`]; [`SessionError::NoTransaction`].
    pub fn abort(&mut self, id: u64, token: Option<T>, now: Time) -> Result<(), Refused<T>> {
        self.end_transaction(Command::Abort, id, token, now)
    }

    /// Like [`ClientSession::send_with_receipt`] with a SEND whose constant headers are encoded already. `headers` are
    /// added to them.
    ///
    /// # Errors
    /// As there.
    pub fn send_template_with_receipt(
        &mut self,
        template: &SendTemplate,
        headers: &Headers,
        body: &Bytes,
        token: T,
        now: Time,
    ) -> Result<(), (SessionError, T)> {
        if self.phase != Phase::Open {
            return Err((SessionError::NotOpen, token));
        }
        if template.asks_for_receipt() || headers.get("receipt").is_some() {
            return Err((SessionError::ReceiptHeader, token));
        }
        let mut digits = Digits::default();
        let receipt = digits.of(self.receipts.next_id());
        let result = template.enqueue_with_receipt(receipt, headers, body, &mut self.link.outbox);
        match result {
            Ok(()) => {
                self.receipts.insert(token, now);
                Ok(())
            }
            Err(error) => Err((error.into(), token)),
        }
    }

    /// Queues DISCONNECT with a receipt. Call it when no receipt is pending any more: the server's receipt for
    /// DISCONNECT does not wait for those of earlier frames (seen with RabbitMQ).
    ///
    /// # Errors
    /// [`SessionError::NotOpen`].
    pub fn disconnect(&mut self, now: Time) -> Result<(), SessionError> {
        if self.phase != Phase::Open {
            return Err(SessionError::NotOpen);
        }
        // The id is this session's own: no token waits for it.
        let receipt = self.receipts.next_id();
        let frame = Frame::new(Command::Disconnect).with_header("receipt", &receipt.to_string());
        self.link.encoder.enqueue(&frame, &[], &mut self.link.outbox)?;
        self.phase = Phase::Closing { receipt, deadline: now.saturating_add(self.options.close_timeout) };
        Ok(())
    }

    /// When [`ClientSession::handle_timeout`] or [`ClientSession::expire`] has something to do.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let phase = match self.phase {
            Phase::Connecting { deadline } | Phase::Closing { deadline, .. } => Some(deadline),
            Phase::Open => None,
            Phase::Closed => return None,
        };
        // While something waits to be written the write itself is the sign of life.
        let may_send = self.phase == Phase::Open && !self.link.outbox.has_remaining();
        let send = if may_send { self.link.heart_beat.send_at() } else { None };
        let receipt = self
            .options
            .receipt_timeout
            .and_then(|timeout| self.receipts.oldest_since().map(|since| since.saturating_add(timeout)));
        [phase, send, self.link.heart_beat.dead_at(), receipt].into_iter().flatten().min()
    }

    /// Acts on the time: queues a heart-beat, or finds that the peer is gone.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), SessionError> {
        match self.phase {
            Phase::Connecting { deadline } if now >= deadline => {
                return Err(SessionError::HandshakeTimeout(self.options.connect_timeout));
            }
            Phase::Closing { deadline, .. } if now >= deadline => {
                return Err(SessionError::CloseTimeout(self.options.close_timeout));
            }
            Phase::Closed => return Ok(()),
            _ => {}
        }
        if self.link.heart_beat.dead_at().is_some_and(|at| now >= at) {
            return Err(SessionError::PeerSilent(self.link.heart_beat.silence(now)));
        }
        let may_send = self.phase == Phase::Open && !self.link.outbox.has_remaining();
        if may_send && self.link.heart_beat.send_at().is_some_and(|at| now >= at) {
            self.link.outbox.push_eol();
        }
        Ok(())
    }

    /// Takes the token of one frame whose RECEIPT did not come within the receipt timeout. Whether the frame was
    /// processed is unknown; a RECEIPT that comes later is a [`ClientEvent::StrayReceipt`].
    pub fn expire(&mut self, now: Time) -> Option<T> {
        let before = now.checked_sub(self.options.receipt_timeout?)?;
        self.receipts.expire(before)
    }

    /// Takes every token that still waits, oldest first; for when the connection has ended. Subscriptions and
    /// transactions end with it.
    pub fn take_pending(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.phase = Phase::Closed;
        self.receipts.drain()
    }

    /// The frames that wait for their RECEIPT.
    #[must_use]
    pub const fn receipts(&self) -> &Receipts<T> {
        &self.receipts
    }

    /// How long ago the server last gave a sign of life.
    #[must_use]
    pub fn silence(&self, now: Time) -> Duration {
        self.link.heart_beat.silence(now)
    }

    /// Whether frames can be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether DISCONNECT is queued or sent, and its receipt has not come.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// The version in force (1.2 before the handshake is done).
    #[must_use]
    pub const fn version(&self) -> Version {
        self.link.encoder.version()
    }

    /// The encoder in force, for a [`SendTemplate`].
    #[must_use]
    pub const fn encoder(&self) -> &Encoder {
        &self.link.encoder
    }

    fn advance(&mut self, input: &mut BytesMut, now: Time) -> Result<Option<ClientEvent<T>>, SessionError> {
        if self.phase == Phase::Closed {
            return Ok(None);
        }
        let Some(frame) = self.link.decoder.decode(input)? else { return Ok(None) };
        let connecting = matches!(self.phase, Phase::Connecting { .. });
        match frame.command() {
            Command::Connected if connecting => self.connected(&frame, now).map(Some),
            Command::Receipt if !connecting => self.receipt(&frame).map(Some),
            Command::Message if !connecting => {
                Ok(Some(match self.subscriptions.of(&frame, self.version()) {
                    Some(subscription) => ClientEvent::Message { subscription, frame },
                    None => ClientEvent::StrayMessage(frame),
                }))
            }
            Command::Error => {
                self.phase = Phase::Closed;
                let id = frame.header("receipt-id").and_then(own_number);
                Ok(Some(ClientEvent::Error { token: id.and_then(|id| self.receipts.resolve(id)), frame }))
            }
            other => Err(SessionError::Unexpected(other)),
        }
    }

    fn end_transaction(
        &mut self,
        command: Command,
        id: u64,
        token: Option<T>,
        now: Time,
    ) -> Result<(), Refused<T>> {
        if !self.transactions.contains(&id) {
            return Err((SessionError::NoTransaction(id), token));
        }
        self.queue(&transaction_frame(command, id), None, token, now)?;
        self.transactions.remove(&id);
        Ok(())
    }

    /// Queues a frame; with a token it asks for a RECEIPT.
    fn queue(
        &mut self,
        frame: &Frame,
        transaction: Option<u64>,
        token: Option<T>,
        now: Time,
    ) -> Result<(), Refused<T>> {
        if let Err(error) = self.check_queueable(frame, transaction) {
            return Err((error, token));
        }
        let (mut receipt, mut in_transaction) = (Digits::default(), Digits::default());
        let mut added = [("", ""); 2];
        let mut count = 0;
        let mut add = |name, value| {
            added[count] = (name, value);
            count += 1;
        };
        if token.is_some() {
            add("receipt", receipt.of(self.receipts.next_id()));
        }
        if let Some(id) = transaction {
            add("transaction", in_transaction.of(id));
        }
        match self.link.encoder.enqueue(frame, &added[..count], &mut self.link.outbox) {
            Ok(()) => {
                if let Some(token) = token {
                    self.receipts.insert(token, now);
                }
                Ok(())
            }
            Err(error) => Err((error.into(), token)),
        }
    }

    fn check_queueable(&self, frame: &Frame, transaction: Option<u64>) -> Result<(), SessionError> {
        self.check_sendable(frame)?;
        let Some(id) = transaction else { return Ok(()) };
        if !matches!(frame.command(), Command::Send | Command::Ack | Command::Nack) {
            return Err(SessionError::NotSendable(frame.command()));
        }
        if frame.header("transaction").is_some() {
            return Err(SessionError::TransactionHeader);
        }
        if self.transactions.contains(&id) { Ok(()) } else { Err(SessionError::NoTransaction(id)) }
    }

    fn check_sendable(&self, frame: &Frame) -> Result<(), SessionError> {
        if self.phase != Phase::Open {
            return Err(SessionError::NotOpen);
        }
        let command = frame.command();
        if command.is_from_server() || command.is_handshake() || command == Command::Disconnect {
            return Err(SessionError::NotSendable(command));
        }
        if frame.header("receipt").is_some() {
            return Err(SessionError::ReceiptHeader);
        }
        Ok(())
    }

    fn connected(&mut self, frame: &Frame, now: Time) -> Result<ClientEvent<T>, SessionError> {
        // A server of 1.0 does not name a version.
        let text = frame.header("version").unwrap_or(Version::V1_0.as_str());
        let version = Version::parse(text)
            .filter(|version| self.options.versions.contains(version))
            .ok_or_else(|| SessionError::VersionNotOffered(text.into()))?;
        let remote = match frame.header("heart-beat") {
            Some(value) if version > Version::V1_0 => {
                HeartBeat::parse(value).ok_or_else(|| SessionError::BadHeartBeat(value.into()))?
            }
            _ => HeartBeat::NONE,
        };
        self.phase = Phase::Open;
        self.link.agree_on(version);
        self.link.heart_beat =
            HeartBeatMonitor::negotiated(self.options.heart_beat, remote, self.options.heart_beat_grace, now);
        Ok(ClientEvent::Connected(Connected {
            version,
            server: frame.header("server").map(Into::into),
            session: frame.header("session").map(Into::into),
            sends_every: self.link.heart_beat.outgoing(),
            server_patience: self.link.heart_beat.patience(),
        }))
    }

    fn receipt(&mut self, frame: &Frame) -> Result<ClientEvent<T>, SessionError> {
        let text = frame
            .header("receipt-id")
            .ok_or(SessionError::MissingHeader { command: Command::Receipt, header: "receipt-id" })?;
        let Some(id) = own_number(text) else { return Ok(ClientEvent::StrayReceipt) };
        if matches!(self.phase, Phase::Closing { receipt, .. } if receipt == id) {
            self.phase = Phase::Closed;
            return Ok(ClientEvent::Disconnected);
        }
        Ok(self.receipts.resolve(id).map_or(ClientEvent::StrayReceipt, ClientEvent::Receipt))
    }
}

fn transaction_frame(command: Command, id: u64) -> Frame {
    Frame::new(command).with_header("transaction", &id.to_string())
}

/// Our own ids are plain decimal numbers; anything else is not ours.
pub(super) fn own_number(text: &str) -> Option<u64> {
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
