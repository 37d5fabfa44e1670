//! What the connection's task does while it is connected: commands to frames, events to whoever waits.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    ConnectionError, Message, SendError, SubscriptionError, Unconfirmed,
    desk::{Desk, Registered},
    link::Link,
    mailbox::Mailbox,
    receipt::{Room, Token},
};
use crate::proto::{
    ClientEvent, Frame, Headers, Refused, SendTemplate, SessionError, Subscribe, Time, Verdict,
};

/// No more commands are taken while this much waits to be written: enough for one large vectored write, and the rest
/// stays with the senders.
const HIGH_WATER: usize = 256 * 1024;
/// Commands taken at once, to leave in one write.
pub(super) const COMMANDS_AT_ONCE: usize = 64;

#[derive(Debug)]
pub(crate) enum Command {
    One(Outgoing),
    /// Frames to send, in this order, in one write if they fit.
    Frames(Vec<Outgoing>),
    Subscribe {
        id: u64,
        subscribe: Subscribe,
        mailbox: Arc<Mailbox>,
        token: Token,
    },
    /// Drain, disconnect and close.
    Close {
        within: Duration,
    },
}

#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) payload: Payload,
    pub(crate) claim: Claim,
    /// The number of the only connection it may go over.
    only_on: Option<u64>,
}

#[derive(Debug)]
pub(crate) enum Payload {
    Frame(Frame),
    Template { template: Arc<SendTemplate>, headers: Headers, body: Bytes },
    Unsubscribe(u64),
    Settle { verdict: Verdict, subscription: u64, message: Frame, transaction: Option<u64> },
    Begin(u64),
    InTransaction { transaction: u64, frame: Frame },
    Commit(u64),
    Abort(u64),
}

impl Payload {
    /// The transaction that is incomplete without it.
    const fn transaction(&self) -> Option<u64> {
        match self {
            Self::Settle { transaction, .. } => *transaction,
            Self::InTransaction { transaction, .. } | Self::Commit(transaction) => Some(*transaction),
            _ => None,
        }
    }

    /// Whether it gives something back at the server.
    const fn is_end(&self) -> bool {
        matches!(self, Self::Unsubscribe(_) | Self::Abort(_))
    }
}

/// What a frame holds until it is done with.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Until its RECEIPT.
    Token(Token),
    /// Until it is queued for writing.
    Room(Room),
    Nothing,
}

impl Outgoing {
    pub(crate) const fn receipted(payload: Payload, token: Token) -> Self {
        Self { payload, claim: Claim::Token(token), only_on: None }
    }

    pub(super) const fn plain(payload: Payload, room: Room) -> Self {
        Self { payload, claim: Claim::Room(room), only_on: None }
    }

    pub(super) const fn left_behind(payload: Payload) -> Self {
        Self { payload, claim: Claim::Nothing, only_on: None }
    }

    /// The same, for one connection only.
    pub(super) fn only_on(mut self, connection: impl Into<Option<u64>>) -> Self {
        self.only_on = connection.into();
        self
    }

    /// Tells whoever waits that it was not sent.
    pub(super) fn refuse(self, error: SendError) {
        let lost = matches!(error, SendError::NotConnected(_));
        let error = if lost && self.only_on.is_some() { SendError::Stale } else { error };
        if let Claim::Token(token) = self.claim {
            token.resolve(Err(Unconfirmed::NotSent(error)));
        }
    }
}

impl From<Outgoing> for Command {
    fn from(outgoing: Outgoing) -> Self {
        Self::One(outgoing)
    }
}

impl Command {
    /// Tells whoever waits that it was not carried out.
    pub(super) fn refuse(self, error: &SendError) {
        match self {
            Self::One(outgoing) => outgoing.refuse(error.clone()),
            Self::Frames(frames) => frames.into_iter().for_each(|outgoing| outgoing.refuse(error.clone())),
            Self::Subscribe { token, mailbox, .. } => {
                mailbox.end(None);
                token.resolve(Err(Unconfirmed::NotSent(error.clone())));
            }
            Self::Close { .. } => {}
        }
    }
}

/// One connection's turn at the desk.
pub(super) struct Driver<'a, T> {
    link: &'a mut Link<T>,
    desk: &'a mut Desk,
    number: u64,
    drain: Drain,
    /// A frame without a receipt was refused and logged: once a connection is enough.
    has_warned: bool,
}

#[derive(Debug, Clone, Copy)]
enum Drain {
    /// Commands are welcome.
    No,
    /// Waiting for the last receipts.
    Until { deadline: Time, within: Duration },
    /// DISCONNECT is queued; the session keeps its deadline.
    Disconnecting,
}

impl<'a, T: AsyncRead + AsyncWrite + Unpin> Driver<'a, T> {
    pub(super) fn new(link: &'a mut Link<T>, desk: &'a mut Desk, number: u64) -> Self {
        Self { link, desk, number, drain: Drain::No, has_warned: false }
    }

    /// Runs until the connection ends. Whoever waits for a receipt of this connection has been told when it returns.
    pub(super) async fn run(mut self) -> ConnectionError {
        self.subscribe_anew();
        let end = loop {
            if let Err(end) = poll_fn(|cx| self.turn(cx)).await {
                break end;
            }
        };
        for token in self.link.session.take_pending() {
            token.resolve(Err(Unconfirmed::ConnectionLost(end.clone())));
        }
        end
    }

    /// One look at everything that can make progress; ready if something did.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        // Events first: some may have been read with CONNECTED.
        let mut progress = self.handle_events()?;
        progress |= self.link.poll_read(cx)?;
        progress |= self.poll_commands(cx);
        self.continue_drain()?;
        progress |= self.link.poll_write(cx)?;
        progress |= self.poll_time(cx)?;
        if progress { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn handle_events(&mut self) -> Result<bool, ConnectionError> {
        let mut any = false;
        while let Some(event) = self.link.next_event()? {
            any = true;
            match event {
                ClientEvent::Receipt(token) => token.resolve(Ok(())),
                ClientEvent::Message { subscription, frame } => self.deliver(subscription, frame),
                ClientEvent::Error { frame, token } => {
                    let frame = Arc::new(frame);
                    if let Some(token) = token {
                        token.resolve(Err(Unconfirmed::Refused(Arc::clone(&frame))));
                    }
                    return Err(ConnectionError::ServerError(frame));
                }
                ClientEvent::Disconnected => return Err(ConnectionError::ClosedByUs),
                ClientEvent::Connected(_) | ClientEvent::StrayReceipt | ClientEvent::StrayMessage(_) => {}
            }
        }
        Ok(any)
    }

    fn deliver(&mut self, subscription: u64, frame: Frame) {
        let Some(Registered { mailbox, subscribe }) = self.desk.subscriptions.get(&subscription) else {
            return;
        };
        if mailbox.put(Message::new(frame, subscription, self.number)) {
            return;
        }
        let credit = subscribe.prefetch;
        crate::log::warn!(
            destination = %subscribe.destination,
            credit,
            "a subscription was cancelled: the server sent more messages than its credit allows; take them faster, or let them be acknowledged"
        );
        mailbox.end(Some(SubscriptionError::Overrun { credit }));
        self.unsubscribe(subscription, None);
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> bool {
        if !matches!(self.drain, Drain::No) {
            return false;
        }
        if self.link.session.outbox_len() >= HIGH_WATER {
            return self.refuse_if_stalled(cx);
        }
        let mut progress = self.desk.poll_wake(cx);
        if progress {
            self.acknowledge_taken(false);
        }
        let mut taken = std::mem::take(&mut self.desk.taken);
        let received = self.desk.commands.poll_recv_many(cx, &mut taken, COMMANDS_AT_ONCE);
        match received {
            Poll::Ready(count @ 1..) => {
                debug_assert_eq!(count, taken.len());
                progress = true;
                let now = self.link.now();
                taken.drain(..).for_each(|command| self.execute(command, now));
            }
            // Everything that was queued before is done: now what was left behind.
            Poll::Pending => progress |= self.clear_left_behind(),
            Poll::Ready(_) => {
                self.clear_left_behind();
                self.start_drain(self.desk.close_timeout());
                progress = true;
            }
        }
        self.desk.taken = taken;
        progress
    }

    /// While the server reads nothing, commands wait where they are; after the receipt timeout they are refused, so that
    /// nobody waits for ever.
    fn refuse_if_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(limit) = self.stall_limit().filter(|at| self.link.now() >= *at) else {
            // The write, or the time, will wake us.
            return false;
        };
        let since = self.link.stalled_since().unwrap_or(limit);
        let error = SendError::Stalled(self.link.now().saturating_sub(since));
        let mut progress = false;
        while let Poll::Ready(Some(command)) = self.desk.commands.poll_recv(cx) {
            progress = true;
            match command {
                Command::Close { within } => {
                    self.start_drain(within);
                    break;
                }
                // What ends must end: it is short, and there are as many as there are subscriptions and transactions.
                Command::One(outgoing) if outgoing.payload.is_end() => {
                    self.enqueue(outgoing, self.link.now());
                }
                Command::One(outgoing) => {
                    let transaction = outgoing.payload.transaction();
                    outgoing.refuse(error.clone());
                    self.break_off(transaction);
                }
                other => other.refuse(&error),
            }
        }
        progress
    }

    /// When a write that has been waiting since then counts as stalled.
    fn stall_limit(&self) -> Option<Time> {
        let since = self.link.stalled_since()?;
        Some(since.saturating_add(self.desk.receipt_timeout()?))
    }

    fn poll_time(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        let drain = match self.drain {
            Drain::Until { deadline, within } => Some((deadline, within)),
            _ => None,
        };
        let now = self.link.now();
        let stall = self.stall_limit().filter(|at| *at > now);
        let also = [drain.map(|(deadline, _)| deadline), stall].into_iter().flatten().min();
        if !self.link.poll_time(cx, also)? {
            return Ok(false);
        }
        let now = self.link.now();
        if let Some((_, within)) = drain.filter(|(deadline, _)| now >= *deadline) {
            return Err(SessionError::CloseTimeout(within).into());
        }
        while let Some(token) = self.link.session.expire(now) {
            token.resolve(Err(Unconfirmed::TimedOut));
        }
        Ok(true)
    }

    fn execute(&mut self, command: Command, now: Time) {
        match command {
            Command::One(outgoing) => self.enqueue(outgoing, now),
            Command::Frames(frames) => frames.into_iter().for_each(|outgoing| self.enqueue(outgoing, now)),
            Command::Subscribe { id, subscribe, mailbox, token } => {
                match self.link.session.subscribe(id, &subscribe, Some(token), now) {
                    Ok(()) => {
                        self.desk.subscriptions.insert(id, Registered { subscribe, mailbox });
                    }
                    Err(refused) => {
                        mailbox.end(None);
                        self.tell(refused);
                    }
                }
            }
            Command::Close { within } => self.start_drain(within),
        }
    }

    fn enqueue(&mut self, Outgoing { payload, claim, only_on }: Outgoing, now: Time) {
        let token = match claim {
            Claim::Token(token) => Some(token),
            Claim::Room(room) => {
                // Given back now: the frame is queued, or never will be.
                drop(room);
                None
            }
            Claim::Nothing => None,
        };
        if only_on.is_some_and(|number| number != self.number) {
            if let Some(token) = token {
                token.resolve(Err(Unconfirmed::NotSent(SendError::Stale)));
            }
            return;
        }
        let transaction = payload.transaction();
        let session = &mut self.link.session;
        let result = match payload {
            Payload::Template { template, headers, body } => match token {
                Some(token) => session
                    .send_template_with_receipt(&template, &headers, &body, token, now)
                    .map_err(|(error, token)| (error, Some(token))),
                None => Ok(()),
            },
            Payload::Frame(frame) => match token {
                Some(token) => session
                    .send_with_receipt(&frame, token, now)
                    .map_err(|(error, token)| (error, Some(token))),
                None => session.send(&frame).map_err(|error| (error, None)),
            },
            Payload::Settle { verdict, subscription, message, transaction } => {
                session.settle(verdict, subscription, &message, transaction, token, now)
            }
            Payload::Begin(id) => session.begin(id, token, now),
            Payload::InTransaction { transaction, frame } => session.send_in(transaction, &frame, token, now),
            Payload::Commit(id) => session.commit(id, token, now),
            Payload::Abort(id) => match session.abort(id, token, now) {
                // Left behind by one that never began, or was broken off.
                Err((SessionError::NoTransaction(_), None)) => Ok(()),
                result => result,
            },
            Payload::Unsubscribe(id) => return self.unsubscribe(id, token),
        };
        if let Err(refused) = result {
            self.tell(refused);
            self.break_off(transaction);
        }
    }

    /// A frame of this transaction was not sent: it is aborted, so that it cannot be committed in part.
    fn break_off(&mut self, transaction: Option<u64>) {
        let now = self.link.now();
        if let Some(id) = transaction
            && let Err((error, _)) = self.link.session.abort(id, None, now)
        {
            crate::log::debug!(%error, transaction = id, "nothing to abort");
        }
    }

    fn unsubscribe(&mut self, id: u64, token: Option<Token>) {
        // What was taken counts as acknowledged.
        self.acknowledge(id, true);
        if let Some(Registered { mailbox, .. }) = self.desk.subscriptions.remove(&id) {
            mailbox.end(None);
        }
        let now = self.link.now();
        match self.link.session.unsubscribe(id, token, now) {
            Ok(()) => {}
            // It had ended by itself: then there is nothing to end.
            Err((SessionError::NoSubscription(_), token)) => {
                if let Some(token) = token {
                    token.resolve(Ok(()));
                }
            }
            Err(refused) => self.tell(refused),
        }
    }

    /// Acts on what was dropped. It comes after every command that was sent before.
    fn clear_left_behind(&mut self) -> bool {
        let left = self.desk.take_left_behind();
        let now = self.link.now();
        let any = !left.is_empty();
        left.into_iter().for_each(|outgoing| self.enqueue(outgoing, now));
        any
    }

    /// Acknowledges for the subscriptions that leave it to us.
    fn acknowledge_taken(&mut self, in_any_case: bool) {
        let ids: Vec<u64> = self.desk.acknowledging().collect();
        ids.into_iter().for_each(|id| self.acknowledge(id, in_any_case));
    }

    fn acknowledge(&mut self, id: u64, in_any_case: bool) {
        let Some(Registered { mailbox, .. }) = self.desk.subscriptions.get(&id) else { return };
        let now = self.link.now();
        for message in mailbox.take_due_acks(in_any_case) {
            if message.connection != self.number {
                continue;
            }
            let result = self.link.session.settle(Verdict::Ack, id, &message.frame, None, None, now);
            if let Err(refused) = result {
                self.tell(refused);
            }
        }
    }

    fn subscribe_anew(&mut self) {
        let now = self.link.now();
        let session = &mut self.link.session;
        self.desk.subscriptions.retain(|id, Registered { subscribe, mailbox }| {
            if !mailbox.is_established() {
                // Its first SUBSCRIBE was never receipted: its caller has been told.
                mailbox.end(None);
                return false;
            }
            match session.subscribe(*id, subscribe, None, now) {
                Ok(()) => true,
                // It was accepted once: only a server of another version can make it fail.
                Err((error, _)) => {
                    mailbox.end(Some(SubscriptionError::Closed(error.into())));
                    false
                }
            }
        });
    }

    /// Tells of a caller's mistake. Without a receipt nobody can be told; the caller chose so, and it is worth a word.
    fn tell(&mut self, (error, token): Refused<Token>) {
        match token {
            Some(token) => token.resolve(Err(Unconfirmed::NotSent(SendError::Refused(error)))),
            None if self.has_warned => crate::log::debug!(%error, "a frame without a receipt was not sent"),
            None => {
                self.has_warned = true;
                crate::log::warn!(
                    %error,
                    "a frame was not sent, and as it asked for no receipt its sender cannot be told; the next ones of this connection are logged at debug level"
                );
            }
        }
    }

    fn start_drain(&mut self, within: Duration) {
        if matches!(self.drain, Drain::No) {
            self.desk.is_closing = true;
            self.drain = Drain::Until { deadline: self.link.now().saturating_add(within), within };
            self.acknowledge_taken(true);
        }
    }

    /// DISCONNECT must not overtake receipts: the server's answer to it does not wait for them.
    fn continue_drain(&mut self) -> Result<(), ConnectionError> {
        if matches!(self.drain, Drain::Until { .. }) && self.link.session.receipts().is_empty() {
            self.link.session.disconnect(self.link.now())?;
            self.drain = Drain::Disconnecting;
        }
        Ok(())
    }
}
