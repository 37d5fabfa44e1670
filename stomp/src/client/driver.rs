//! The task of one connection: moves octets between transport and session, and outcomes to whoever waits.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{Semaphore, mpsc, watch},
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::{
    ConnectionError, Unconfirmed,
    receipt::{Room, Token},
};
use crate::proto::{
    ClientEvent, ClientOptions, ClientSession, Connected, Encoder, Frame, Headers, SendTemplate,
    SessionError, Time,
};

/// Room for one read. RECEIPTs are some 40 octets: one read takes 1,500 of them.
const READ: usize = 64 * 1024;
/// No more commands are taken while this much waits to be written: enough for one large vectored write, and the rest
/// stays with the senders.
const HIGH_WATER: usize = 256 * 1024;
/// Commands taken at once, to leave in one write.
const COMMANDS_AT_ONCE: usize = 64;
/// For closing the transport's writing half, once all is said.
const SHUTDOWN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) enum Command {
    /// Frames to send, in this order, in one write if they fit.
    Frames(Vec<Outgoing>),
    Subscribe {
        id: String,
        destination: String,
        frame: Frame,
        token: Token,
        messages: mpsc::Sender<Frame>,
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
}

#[derive(Debug)]
pub(crate) enum Payload {
    Frame(Frame),
    Template { template: Arc<SendTemplate>, headers: Headers, body: Bytes },
}

/// What a frame holds until it is done with.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Until its RECEIPT.
    Token(Token),
    /// Until it is queued for writing.
    Room(Room),
}

#[derive(Debug)]
struct Route {
    destination: String,
    messages: mpsc::Sender<Frame>,
}

pub(crate) struct Driver<T> {
    transport: T,
    session: ClientSession<Token>,
    input: BytesMut,
    commands: mpsc::Receiver<Command>,
    taken: Vec<Command>,
    routes: HashMap<String, Route>,
    /// Closed at the end, so that nobody waits for room any more.
    windows: [Arc<Semaphore>; 2],
    ended: watch::Sender<Option<ConnectionError>>,
    connected: Option<Connected>,
    drain: Drain,
    needs_flush: bool,
    origin: Instant,
    sleep: Pin<Box<Sleep>>,
    close_timeout: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Drain {
    /// Commands are welcome.
    No,
    /// Waiting for the last receipts.
    Until(Time),
    /// DISCONNECT is queued; the session keeps its deadline.
    Disconnecting,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    pub(crate) fn new(
        transport: T,
        options: ClientOptions,
        commands: mpsc::Receiver<Command>,
        windows: [Arc<Semaphore>; 2],
        ended: watch::Sender<Option<ConnectionError>>,
    ) -> Result<Self, ConnectionError> {
        let close_timeout = options.close_timeout;
        Ok(Self {
            transport,
            session: ClientSession::new(options, Time::ZERO)?,
            input: BytesMut::new(),
            commands,
            taken: Vec::new(),
            routes: HashMap::new(),
            windows,
            ended,
            connected: None,
            drain: Drain::No,
            needs_flush: false,
            origin: Instant::now(),
            sleep: Box::pin(sleep_until(Instant::now())),
            close_timeout,
        })
    }

    /// Runs until the server has said CONNECTED.
    pub(crate) async fn handshake(&mut self) -> Result<Connected, ConnectionError> {
        loop {
            poll_fn(|cx| self.turn(cx, false)).await?;
            if let Some(connected) = self.connected.take() {
                return Ok(connected);
            }
        }
    }

    pub(crate) fn encoder(&self) -> Encoder {
        *self.session.encoder()
    }

    /// Runs until the connection ends, then tells everybody who waits.
    pub(crate) async fn run(mut self) {
        let end = loop {
            if let Err(end) = poll_fn(|cx| self.turn(cx, true)).await {
                break end;
            }
        };
        self.resolve_all(&end);
        self.ended.send_replace(Some(end));
        // Best effort: the peer may be gone, and all outcomes are told already.
        drop(timeout(SHUTDOWN, self.transport.shutdown()).await);
    }

    /// One look at everything that can make progress; ready if something did.
    fn turn(&mut self, cx: &mut Context<'_>, serve: bool) -> Poll<Result<(), ConnectionError>> {
        let mut progress = self.poll_read(cx)?;
        if serve {
            progress |= self.poll_commands(cx)?;
            self.continue_drain()?;
        }
        progress |= self.poll_write(cx)?;
        progress |= self.poll_time(cx)?;
        if progress { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        self.input.reserve(READ);
        match poll_read_buf(Pin::new(&mut self.transport), cx, &mut self.input) {
            Poll::Pending => Ok(false),
            // RabbitMQ's web-stomp hangs up on DISCONNECT, its receipt unsent. All others have come by then.
            Poll::Ready(Ok(0))
                if matches!(self.drain, Drain::Disconnecting) && self.session.outbox_len() == 0 =>
            {
                Err(ConnectionError::ClosedByUs)
            }
            Poll::Ready(Ok(0)) => Err(ConnectionError::ClosedByServer),
            Poll::Ready(Ok(_)) => {
                let now = self.now();
                self.session.read(now);
                while let Some(event) = self.session.next_event(&mut self.input, now)? {
                    self.handle(event)?;
                }
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error.into()),
        }
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        if !matches!(self.drain, Drain::No) || self.session.outbox_len() >= HIGH_WATER {
            // The write, or the end, will wake us.
            return Ok(false);
        }
        let mut taken = std::mem::take(&mut self.taken);
        match self.commands.poll_recv_many(cx, &mut taken, COMMANDS_AT_ONCE) {
            Poll::Pending => {}
            Poll::Ready(0) => self.start_drain(self.close_timeout),
            Poll::Ready(_) => {
                let now = self.now();
                taken.drain(..).for_each(|command| self.execute(command, now));
                self.taken = taken;
                return Ok(true);
            }
        }
        self.taken = taken;
        Ok(false)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        if self.session.outbox().has_remaining() {
            return match poll_write_buf(Pin::new(&mut self.transport), cx, self.session.outbox()) {
                Poll::Pending => Ok(false),
                Poll::Ready(Ok(0)) => Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(_)) => {
                    self.session.wrote(self.now());
                    self.needs_flush = true;
                    Ok(true)
                }
                Poll::Ready(Err(error)) => Err(error.into()),
            };
        }
        if self.needs_flush && Pin::new(&mut self.transport).poll_flush(cx)?.is_ready() {
            self.needs_flush = false;
        }
        Ok(false)
    }

    fn poll_time(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        let drain = match self.drain {
            Drain::Until(deadline) => Some(deadline),
            _ => None,
        };
        let Some(next) = [self.session.next_timeout(), drain].into_iter().flatten().min() else {
            return Ok(false);
        };
        // Re-arming costs more than a spurious wake-up: a timer that is early enough stays as it is.
        let next = self.origin + next;
        if next < self.sleep.deadline() || self.sleep.is_elapsed() {
            self.sleep.as_mut().reset(next);
        }
        if self.sleep.as_mut().poll(cx).is_pending() {
            return Ok(false);
        }
        let now = self.now();
        if drain.is_some_and(|deadline| now >= deadline) {
            return Err(SessionError::CloseTimeout(self.close_timeout).into());
        }
        self.session.handle_timeout(now)?;
        while let Some(token) = self.session.expire(now) {
            token.resolve(Err(Unconfirmed::TimedOut));
        }
        Ok(true)
    }

    fn handle(&mut self, event: ClientEvent<Token>) -> Result<(), ConnectionError> {
        match event {
            ClientEvent::Connected(connected) => self.connected = Some(connected),
            ClientEvent::Receipt(token) => token.resolve(Ok(())),
            ClientEvent::StrayReceipt => {}
            ClientEvent::Message(frame) => self.deliver(frame)?,
            ClientEvent::Error { frame, token } => {
                let frame = Arc::new(frame);
                if let Some(token) = token {
                    token.resolve(Err(Unconfirmed::Refused(Arc::clone(&frame))));
                }
                return Err(ConnectionError::ServerError(frame));
            }
            ClientEvent::Disconnected => return Err(ConnectionError::ClosedByUs),
        }
        Ok(())
    }

    fn deliver(&mut self, message: Frame) -> Result<(), ConnectionError> {
        let id = match message.header("subscription") {
            Some(id) => Some(id.to_owned()),
            // A server of 1.0 may leave it out.
            None => {
                let destination = message.header("destination");
                let mut routes = self.routes.iter();
                routes
                    .find(|(_, route)| Some(route.destination.as_str()) == destination)
                    .map(|(id, _)| id.clone())
            }
        };
        // A message for a subscription just dropped is nothing unusual.
        let Some(route) = id.as_ref().and_then(|id| self.routes.get(id)) else { return Ok(()) };
        match route.messages.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(ConnectionError::Overrun(route.messages.max_capacity()))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                if let Some(id) = id {
                    self.routes.remove(&id);
                    let frame = Frame::new(crate::Command::Unsubscribe).with_header("id", &id);
                    self.session.send(&frame)?;
                }
                Ok(())
            }
        }
    }

    fn execute(&mut self, command: Command, now: Time) {
        match command {
            Command::Frames(frames) => {
                for Outgoing { payload, claim } in frames {
                    self.enqueue(&payload, claim, now);
                }
            }
            Command::Subscribe { id, destination, frame, token, messages } => {
                self.routes.insert(id, Route { destination, messages });
                self.enqueue(&Payload::Frame(frame), Claim::Token(token), now);
            }
            Command::Close { within } => self.start_drain(within),
        }
    }

    fn enqueue(&mut self, payload: &Payload, claim: Claim, now: Time) {
        let result = match (payload, claim) {
            (Payload::Frame(frame), Claim::Token(token)) => self.session.send_with_receipt(frame, token, now),
            (Payload::Template { template, headers, body }, Claim::Token(token)) => {
                self.session.send_template_with_receipt(template, headers, body, token, now)
            }
            (Payload::Frame(frame), Claim::Room(room)) => {
                drop(room);
                // Without a receipt nobody can be told; the caller chose so. Mistakes are worth a word.
                if let Err(error) = self.session.send(frame) {
                    crate::log::warn!(command = %frame.command(), %error, "a frame was not sent");
                }
                return;
            }
            (Payload::Template { .. }, Claim::Room(_)) => return,
        };
        if let Err((error, token)) = result {
            token.resolve(Err(Unconfirmed::NotSent(error.into())));
        }
    }

    fn start_drain(&mut self, within: Duration) {
        if matches!(self.drain, Drain::No) {
            self.close_timeout = within;
            self.drain = Drain::Until(self.now().saturating_add(within));
        }
    }

    /// DISCONNECT must not overtake receipts: the server's answer to it does not wait for them.
    fn continue_drain(&mut self) -> Result<(), ConnectionError> {
        if matches!(self.drain, Drain::Until(_)) && self.session.receipts().is_empty() {
            self.session.disconnect(self.now())?;
            self.drain = Drain::Disconnecting;
        }
        Ok(())
    }

    fn resolve_all(&mut self, end: &ConnectionError) {
        for token in self.session.take_pending() {
            token.resolve(Err(Unconfirmed::ConnectionLost(end.clone())));
        }
        self.windows.iter().for_each(|window| window.close());
        self.routes.clear();
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            let tokens = match command {
                Command::Frames(frames) => frames
                    .into_iter()
                    .filter_map(|outgoing| match outgoing.claim {
                        Claim::Token(token) => Some(token),
                        Claim::Room(_) => None,
                    })
                    .collect(),
                Command::Subscribe { token, .. } => vec![token],
                Command::Close { .. } => Vec::new(),
            };
            for token in tokens {
                token.resolve(Err(Unconfirmed::NotSent(end.clone())));
            }
        }
    }

    fn now(&self) -> Time {
        self.origin.elapsed()
    }
}
