use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{
    select,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    LaneState, Outcome, Retained,
    alarm::{Blocked, blocked_after},
    backlog::Pull,
    flight::Flight,
    shared::{Shared, turned},
};
use crate::{
    Headers,
    client::{
        Client, Completion, ConnectOptions, ConnectionError, Outgoing, Payload, SendError, Token, Unconfirmed,
    },
    pool::{Move, Seat},
    proto::{EncodeError, SendTemplate, SessionError},
};

/// Receipts taken at once.
const COMPLETIONS_AT_ONCE: usize = 1024;

/// One connection after the other, and the messages that are in flight on the present one.
pub(super) struct Lane<T> {
    index: usize,
    shared: Arc<Shared<T>>,
    closing: watch::Receiver<bool>,
    done: watch::Receiver<bool>,
    flight: Flight<T>,
    last_cause: String,
}

/// A connection and its place at a broker.
struct Line {
    client: Client,
    seat: Seat,
}

/// Why a lane stopped serving a connection.
enum End {
    Lost(ConnectionError),
    /// It has another one, at a better place.
    Moved,
    /// All is confirmed and no more will come.
    Done,
    /// The publisher's deadline has passed.
    Stopped,
}

/// Where a lane with a connection is heading.
enum Course {
    /// It stays.
    Steady,
    /// It goes on while it connects to a better place.
    Finding(Finding, Move),
    /// It takes nothing more, and waits for the receipts of what it has in flight.
    Leaving { to: Line, until: Instant, _moving: Move },
}

type Finding = Pin<Box<dyn Future<Output = Result<(Client, Seat), ConnectionError>> + Send>>;

impl<T: Send + 'static> Lane<T> {
    pub(super) fn new(index: usize, shared: Arc<Shared<T>>, closing: watch::Receiver<bool>) -> Self {
        Self {
            index,
            done: shared.backlog.done(),
            shared,
            closing,
            flight: Flight::new(),
            last_cause: String::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut line = None;
        loop {
            let end = match line.take() {
                Some(present) => {
                    let (end, next) = self.use_up(present).await;
                    line = next;
                    end
                }
                None => match self.connect().await {
                    Ok(new) => {
                        line = Some(new);
                        continue;
                    }
                    Err(end) => end,
                },
            };
            match end {
                End::Moved => {}
                End::Lost(cause) => {
                    self.note(cause.to_string(), line.is_some());
                    if self.or_end(sleep(shared.seats.failover_pause())).await.is_err() {
                        break;
                    }
                }
                End::Done | End::Stopped => break,
            }
        }
        shared.board.enter(self.index, LaneState::Closed);
        for retained in self.flight.take_all() {
            shared.abandon(retained).await;
        }
        self.show_in_flight();
    }

    async fn connect(&mut self) -> Result<Line, End> {
        let shared = Arc::clone(&self.shared);
        let attempt = self.or_end(shared.seats.claim()).await?;
        let broker = attempt.broker().map(ToString::to_string).unwrap_or_default();
        shared.board.update(self.index, |status| status.broker = broker);
        shared.board.enter(self.index, LaneState::Connecting);
        let (client, seat) =
            self.or_end(attempt.connect(self.connect_options())).await?.map_err(End::Lost)?;
        Ok(self.connected(client, seat))
    }

    fn connect_options(&self) -> ConnectOptions {
        let mut options = self.shared.options.connect.clone();
        // Messages wait for their receipts here, where a blocked broker can be told from a lost receipt.
        options.session.receipt_timeout = None;
        options
    }

    fn connected(&self, client: Client, seat: Seat) -> Line {
        let broker = seat.broker().map(ToString::to_string).unwrap_or_default();
        crate::log::info!(
            broker,
            server =
                client.connected().and_then(|connected| connected.server.clone()).as_deref().unwrap_or("?"),
            "connected to the broker"
        );
        self.shared.board.connected();
        Line { client, seat }
    }

    /// Serves a connection until its end, and puts its affairs in order. Returns the one to go on with, if there is one.
    async fn use_up(&mut self, mut line: Line) -> (End, Option<Line>) {
        let broker = line.seat.broker().map(ToString::to_string).unwrap_or_default();
        self.shared.board.update(self.index, |status| status.broker = broker);
        self.shared.board.enter(self.index, LaneState::Connected);
        let mut course = Course::Steady;
        let end = self.serve(&mut line, &mut course).await;
        let Line { client, seat } = line;
        let next = match course {
            Course::Leaving { to, .. } => Some(to),
            Course::Steady | Course::Finding(..) => None,
        };
        match &end {
            End::Done => {
                let within = self.shared.options.connect.session.close_timeout;
                // Everything is confirmed: whatever goes wrong now loses nothing.
                drop(client.close(within).await);
            }
            // The connection disconnects by itself when it is dropped.
            End::Moved if self.flight.is_empty() => {}
            End::Moved => {
                client.abort();
                let messages = self.flight.take_all();
                self.shared.backlog.give_back(messages.into_iter());
                self.show_in_flight();
            }
            End::Lost(cause) => {
                // Nothing more may be written: the messages are about to be sent elsewhere.
                client.abort();
                seat.lost(cause);
                self.give_back_lost(cause).await;
            }
            End::Stopped => client.abort(),
        }
        (end, next)
    }

    async fn serve(&mut self, line: &mut Line, course: &mut Course) -> End {
        let Line { client, seat } = line;
        let client = &*client;
        let template = match SendTemplate::new(&client.encoder(), &self.shared.options.headers) {
            Ok(template) => Arc::new(template),
            Err(error) => return End::Lost(ConnectionError::Session(error.into())),
        };
        let shared = Arc::clone(&self.shared);
        // One slot for every frame of the window: a completion always fits.
        let (completer, mut completions) = mpsc::channel(shared.options.connect.window.frames.max(1));
        let mut ready: Vec<Completion> = Vec::new();
        let blocked_after = blocked_after(client, &shared.options);
        let look = (blocked_after / 8).clamp(Duration::from_millis(50), Duration::from_millis(500));
        let mut tick = interval(look);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut closing, mut done) = (self.closing.clone(), self.done.clone());
        let mut blocked: Option<Blocked> = None;
        // A connection that is not written takes no frames; receipts, and time, go on meanwhile.
        let mut submitting = pin!(None);
        let end = loop {
            if matches!(course, Course::Leaving { .. }) && self.flight.is_empty() {
                break End::Moved;
            }
            // Made before the backlog is looked at, so that no arrival is missed in between.
            let arrival = shared.backlog.arrival();
            let mut has_room = false;
            let appetite = match (&*course, &blocked) {
                _ if submitting.is_some() => 0,
                (Course::Leaving { .. }, _) => 0,
                (_, Some(blocked)) => blocked.appetite(shared.options.receipt_timeout),
                (_, None) if self.flight.holds_suspect() => 0,
                (_, None) => usize::MAX,
            };
            if appetite > 0 {
                let (frames, pull) = self.pull(client, &template, &completer, appetite);
                has_room = pull == Pull::All;
                if !frames.is_empty() {
                    blocked.iter_mut().for_each(|blocked| blocked.probed = true);
                    submitting.set(Some(client.submit(frames)));
                    // Nearly always they are taken at once. If the connection has ended, that is told below.
                    let taken = std::future::poll_fn(|cx| {
                        let polled = submitting.as_mut().as_pin_mut().map(|submit| submit.poll(cx));
                        Poll::Ready(polled.is_some_and(|polled| polled.is_ready()))
                    });
                    if taken.await {
                        submitting.set(None);
                    }
                }
            }
            select! {
                biased;
                () = turned(&mut closing) => break End::Stopped,
                // Before the completions: a lost receipt must be found under full load too.
                _ = tick.tick() => {
                    seat.age();
                    match self.look(client, blocked_after.saturating_sub(look)) {
                        Ok(false) => {}
                        Ok(true) => {
                            blocked.get_or_insert_with(Blocked::now);
                            seat.set_blocked(true);
                            shared.board.enter(self.index, LaneState::Blocked);
                        }
                        Err(end) => break end,
                    }
                    match course {
                        Course::Leaving { until, .. } if *until <= Instant::now() => break End::Moved,
                        Course::Steady if blocked.is_none() => *course = self.change_course(seat),
                        _ => {}
                    }
                }
                _ = async { match submitting.as_mut().as_pin_mut() {
                    Some(submit) => submit.await,
                    None => std::future::pending().await,
                } } => submitting.set(None),
                _ = completions.recv_many(&mut ready, COMPLETIONS_AT_ONCE) => {
                    if self.settle(&mut ready).await {
                        seat.prove();
                        seat.set_blocked(false);
                        blocked = None;
                        shared.board.enter(self.index, LaneState::Connected);
                    }
                }
                cause = client.ended() => break End::Lost(cause),
                found = found(course) => *course = self.found(found, course),
                () = turned(&mut done) => break End::Done,
                () = arrival, if has_room => {}
            }
        };
        // What was receipted before the end counts.
        while let Ok(completion) = completions.try_recv() {
            ready.push(completion);
        }
        self.settle(&mut ready).await;
        end
    }

    /// Whether there is a better place to go to.
    fn change_course(&self, seat: &Seat) -> Course {
        let Some((attempt, moving)) = seat.propose_move() else { return Course::Steady };
        Course::Finding(Box::pin(attempt.connect(self.connect_options())), moving)
    }

    fn found(&self, found: Result<(Client, Seat), ConnectionError>, course: &mut Course) -> Course {
        match (found, std::mem::replace(course, Course::Steady)) {
            (Ok((client, seat)), Course::Finding(_, moving)) => {
                let to = self.connected(client, seat);
                self.shared.board.rebalanced();
                let until = Instant::now() + self.shared.options.drain_timeout;
                Course::Leaving { to, until, _moving: moving }
            }
            (Err(cause), _) => {
                self.shared.board.failed();
                crate::log::debug!(%cause, "the broker to move to is not back yet");
                Course::Steady
            }
            (Ok(_), course) => course,
        }
    }

    /// Takes from the backlog what fits into the window, at most `limit`, and keeps it. A suspect goes alone.
    fn pull(
        &mut self,
        client: &Client,
        template: &Arc<SendTemplate>,
        completer: &mpsc::Sender<Completion>,
        limit: usize,
    ) -> (Vec<Outgoing>, Pull) {
        let mut rooms = Vec::new();
        let mut pulled = Vec::new();
        let mut alone = false;
        let pull = self.shared.backlog.pull(&mut pulled, |retained| {
            let suspect = retained.is_suspect();
            let busy = !self.flight.is_empty() || !rooms.is_empty();
            if rooms.len() >= limit || alone || (suspect && busy) {
                return false;
            }
            let room = client.try_room(retained.message.body.len());
            let fits = room.is_some();
            alone = suspect && fits;
            rooms.extend(room);
            fits
        });
        let now = Instant::now();
        let mut frames = Vec::with_capacity(pulled.len());
        for (mut retained, room) in pulled.into_iter().zip(rooms) {
            if retained.attempts > 0 {
                self.shared.board.resent();
            }
            retained.attempts = retained.attempts.saturating_add(1);
            retained.sent_at = now;
            let mut headers = Headers::new();
            headers.push("amqp-message-id", &retained.message.id);
            retained.message.headers.iter().for_each(|(name, value)| headers.push(name, value));
            let payload = Payload::Template {
                template: Arc::clone(template),
                headers,
                body: retained.message.body.clone(),
            };
            let key = self.flight.add(retained, room);
            frames.push(Outgoing::receipted(payload, Token::keyed(key, completer.clone())));
        }
        if !frames.is_empty() {
            self.show_in_flight();
        }
        (frames, pull)
    }

    /// Passes outcomes on; returns whether a receipt was among them. Messages that were not confirmed stay in flight: the
    /// connection's end gives them back.
    async fn settle(&mut self, completions: &mut Vec<Completion>) -> bool {
        let mut settled = 0;
        let mut receipted = false;
        for (key, result) in completions.drain(..) {
            let error = match result {
                Ok(()) => None,
                Err(Unconfirmed::NotSent(SendError::Refused(SessionError::Encode(error)))) => Some(error),
                Err(_) => continue,
            };
            let Some(retained) = self.flight.remove(key) else { continue };
            settled += 1;
            if error.is_none() {
                receipted = true;
                self.flight.confirmed(key);
                self.shared.board.confirmed();
            }
            self.shared.tell(outcome(retained, error), &mut self.closing).await;
        }
        if settled > 0 {
            self.shared.backlog.settled(settled);
            self.show_in_flight();
        }
        receipted
    }

    /// Whether the broker takes nothing at present. See [`super::PublisherOptions::receipt_timeout`].
    fn look(&self, client: &Client, blocked_after: Duration) -> Result<bool, End> {
        let Some((age, overtaken)) = self.flight.oldest() else { return Ok(false) };
        let timeout = self.shared.options.receipt_timeout;
        let has_heart_beats = client.connected().is_some_and(|connected| connected.server_patience.is_some());
        let dried_up = self.flight.without_receipt() >= blocked_after;
        // While nothing at all is receipted, one that was overtaken before is no reason to reconnect either.
        if age >= timeout && if has_heart_beats { overtaken && !dried_up } else { true } {
            return Err(End::Lost(ConnectionError::ReceiptTimeout(timeout)));
        }
        Ok(dried_up)
    }

    /// Puts everything that was in flight when a connection was lost back to be sent again.
    async fn give_back_lost(&mut self, cause: &ConnectionError) {
        let shared = Arc::clone(&self.shared);
        let mut messages = self.flight.take_all();
        self.show_in_flight();
        let confirmed = shared.board.totals().confirmed;
        // For the one that was alone: whether the broker has taken others since its loss before this one.
        let others_pass = messages.last().is_some_and(|retained| confirmed > retained.confirmed_then);
        for retained in &mut messages {
            retained.losses = retained.losses.saturating_add(1);
            retained.confirmed_then = confirmed;
        }
        if messages.len() == 1
            && let Some(retained) = messages.pop_if(|retained| retained.is_suspect())
        {
            let Retained { attempts, losses, .. } = retained;
            let has_had_its_attempts = losses > super::SUSPECT_AFTER
                && shared.options.max_attempts.is_some_and(|max| attempts >= max);
            if has_had_its_attempts && others_pass {
                crate::log::warn!(
                    id = retained.message.id,
                    attempts,
                    %cause,
                    "a message was given up: it cost its connection each time it was sent"
                );
                shared.board.given_up();
                let error = cause.to_string();
                let outcome = Outcome::GivenUp { token: retained.message.token, attempts, error };
                shared.tell(outcome, &mut self.closing).await;
                shared.backlog.settled(1);
            } else {
                let pause = shared.options.backoff.pause(losses - 1);
                shared.backlog.defer(retained, Instant::now() + pause);
            }
        }
        shared.backlog.give_back(messages.into_iter());
    }

    /// Shows and logs why a connection was lost or not made. A cause that lasts is logged once.
    fn note(&mut self, cause: String, goes_on: bool) {
        if cause == self.last_cause {
            crate::log::debug!(cause, "still no connection to the broker");
        } else {
            crate::log::warn!(
                cause,
                "no connection to the broker; its unconfirmed messages will be sent again"
            );
            self.last_cause.clone_from(&cause);
        }
        self.shared.board.failed();
        if !goes_on {
            self.shared.board.update(self.index, |status| status.last_error = Some(cause));
            self.shared.board.enter(self.index, LaneState::BackingOff);
        }
    }

    fn show_in_flight(&self) {
        self.shared.board.update(self.index, |status| {
            status.in_flight = self.flight.len() as u64;
            status.in_flight_bytes = self.flight.bytes() as u64;
            status.oldest_sent = self.flight.oldest_sent();
        });
    }

    /// Waits for `what`, unless there is nothing left to do or no time left to do it in.
    async fn or_end<F: Future>(&mut self, what: F) -> Result<F::Output, End> {
        select! {
            biased;
            () = turned(&mut self.closing) => Err(End::Stopped),
            () = turned(&mut self.done) => Err(End::Done),
            output = what => Ok(output),
        }
    }
}

/// Completes when the better place has answered.
async fn found(course: &mut Course) -> Result<(Client, Seat), ConnectionError> {
    match course {
        Course::Finding(finding, _) => finding.await,
        Course::Steady | Course::Leaving { .. } => std::future::pending().await,
    }
}

fn outcome<T>(retained: Retained<T>, error: Option<EncodeError>) -> Outcome<T> {
    let Retained { message, attempts, sent_at, .. } = retained;
    match error {
        None => Outcome::Confirmed { token: message.token, latency: sent_at.elapsed(), attempts },
        Some(error) => Outcome::Unencodable { token: message.token, error },
    }
}
