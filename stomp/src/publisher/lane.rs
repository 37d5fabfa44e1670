use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    select,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    LaneState, Outcome, PublisherOptions, Retained,
    backlog::{Backlog, Pull},
    status::Board,
};
use crate::{
    Headers,
    client::{
        BrokerUrl, Client, Completion, ConnectionError, Outgoing, Payload, Room, SendError, Token,
        Unconfirmed,
    },
    proto::{EncodeError, SendTemplate, SessionError},
};

/// Receipts taken at once.
const COMPLETIONS_AT_ONCE: usize = 1024;
/// How often the age of the oldest unreceipted message is looked at.
const TICK: Duration = Duration::from_millis(500);
/// Without a receipt for this long a lane with live heart-beats counts as blocked and takes no more messages.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);
/// For a reader of the outcomes that does not read while the publisher is being closed.
const TELL: Duration = Duration::from_secs(5);

/// What the lanes of a publisher have in common.
#[derive(Debug)]
pub(super) struct Shared<T> {
    pub(super) options: PublisherOptions,
    pub(super) backlog: Backlog<T>,
    pub(super) board: Arc<Board>,
    pub(super) outcomes: mpsc::Sender<Outcome<T>>,
}

impl<T> Shared<T> {
    /// Tells that a message was given up. The reader may have gone.
    pub(super) async fn abandon(&self, retained: Retained<T>) {
        let Retained { message, attempts, .. } = retained;
        let outcome = Outcome::Abandoned { token: message.token, attempts };
        drop(self.outcomes.send_timeout(outcome, TELL).await);
    }
}

/// One connection after the other, and the messages that are in flight on the present one.
pub(super) struct Lane<T> {
    index: usize,
    shared: Arc<Shared<T>>,
    closing: watch::Receiver<bool>,
    done: watch::Receiver<bool>,
    /// By key, and so by age.
    in_flight: BTreeMap<u64, InFlight<T>>,
    in_flight_bytes: usize,
    next_key: u64,
    newest_confirmed: u64,
    /// In a row, without a receipt in between.
    failures: u32,
}

struct InFlight<T> {
    retained: Retained<T>,
    _room: Room,
}

/// Why a lane stopped serving a connection.
enum End {
    Lost(ConnectionError),
    /// All is confirmed and no more will come.
    Done,
    /// The publisher's deadline has passed.
    GivenUp,
}

impl<T: Send + 'static> Lane<T> {
    pub(super) fn new(index: usize, shared: Arc<Shared<T>>, closing: watch::Receiver<bool>) -> Self {
        Self {
            index,
            done: shared.backlog.done(),
            shared,
            closing,
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            next_key: 1,
            newest_confirmed: 0,
            failures: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let brokers = &shared.options.brokers;
        let mut at = self.index;
        let mut last_cause = String::new();
        while let Some(broker) = brokers.get(at % brokers.len().max(1)) {
            shared.board.update(self.index, |status| status.broker = broker.to_string());
            shared.board.enter(self.index, LaneState::Connecting);
            let cause = match self.attempt(broker).await {
                End::Lost(cause) => cause.to_string(),
                End::Done | End::GivenUp => break,
            };
            self.give_back();
            at += 1;
            self.failures = self.failures.saturating_add(1);
            shared.board.failed();
            let pause = shared.options.backoff.pause(self.failures);
            // A state that lasts is logged once.
            if cause == last_cause {
                crate::log::debug!(%broker, cause, ?pause, "still no connection to the broker");
            } else {
                crate::log::warn!(%broker, cause, ?pause, "no connection to the broker; its unconfirmed messages will be sent again");
                last_cause.clone_from(&cause);
            }
            shared.board.update(self.index, |status| status.last_error = Some(cause));
            shared.board.enter(self.index, LaneState::BackingOff);
            if self.or_end(sleep(pause)).await.is_err() {
                break;
            }
        }
        shared.board.enter(self.index, LaneState::Closed);
        for (_, in_flight) in std::mem::take(&mut self.in_flight) {
            shared.abandon(in_flight.retained).await;
        }
        self.in_flight_bytes = 0;
        self.show_in_flight();
    }

    /// One connection, from its first octet to its end.
    async fn attempt(&mut self, broker: &BrokerUrl) -> End {
        let mut options = self.shared.options.connect.clone();
        // Messages wait for their receipts here, where a blocked broker can be told from a lost receipt.
        options.session.receipt_timeout = None;
        let connected = match self.or_end(Client::connect(broker, options)).await {
            Ok(connected) => connected,
            Err(end) => return end,
        };
        let client = match connected {
            Ok(client) => client,
            Err(cause) => return End::Lost(cause),
        };
        crate::log::info!(
            %broker,
            server = client.connected().and_then(|connected| connected.server.clone()).as_deref().unwrap_or("?"),
            "connected to the broker"
        );
        self.shared.board.connected();
        self.shared.board.enter(self.index, LaneState::Connected);
        match self.serve(&client).await {
            End::Done => {
                let within = self.shared.options.connect.session.close_timeout;
                // Everything is confirmed: whatever goes wrong now loses nothing.
                drop(client.close(within).await);
                End::Done
            }
            end => {
                // Nothing more may be written: the messages are about to be sent elsewhere, or given up.
                client.abort();
                end
            }
        }
    }

    async fn serve(&mut self, client: &Client) -> End {
        let template = match SendTemplate::new(&client.encoder(), &self.shared.options.headers) {
            Ok(template) => Arc::new(template),
            Err(error) => return End::Lost(ConnectionError::Session(error.into())),
        };
        let shared = Arc::clone(&self.shared);
        // One slot for every frame of the window: a completion always fits.
        let (completer, mut completions) = mpsc::channel(shared.options.connect.window.frames.max(1));
        let mut ready: Vec<Completion> = Vec::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut closing, mut done) = (self.closing.clone(), self.done.clone());
        let mut blocked = false;
        loop {
            // Made before the backlog is looked at, so that no arrival is missed in between.
            let arrival = shared.backlog.arrival();
            let mut has_room = false;
            if !blocked {
                let (frames, pull) = self.pull(client, &template, &completer);
                has_room = pull == Pull::All;
                if !frames.is_empty()
                    && let Err(end) = self.or_end(client.submit(frames)).await
                {
                    return end;
                }
            }
            select! {
                biased;
                () = turned(&mut closing) => return End::GivenUp,
                // Before the completions: a lost receipt must be found under full load too.
                _ = tick.tick() => match self.look_at_oldest(client) {
                    Ok(now_blocked) => blocked = now_blocked,
                    Err(end) => return end,
                },
                _ = completions.recv_many(&mut ready, COMPLETIONS_AT_ONCE) => {
                    blocked = false;
                    self.settle(&mut ready).await;
                }
                cause = client.ended() => {
                    // What was receipted before the end counts.
                    while let Ok(completion) = completions.try_recv() {
                        ready.push(completion);
                    }
                    self.settle(&mut ready).await;
                    return End::Lost(cause);
                }
                () = turned(&mut done) => return End::Done,
                () = arrival, if has_room => {}
            }
            if !blocked {
                shared.board.enter(self.index, LaneState::Connected);
            }
        }
    }

    /// Takes from the backlog what fits into the window, and keeps it.
    fn pull(
        &mut self,
        client: &Client,
        template: &Arc<SendTemplate>,
        completer: &mpsc::Sender<Completion>,
    ) -> (Vec<Outgoing>, Pull) {
        let mut rooms = Vec::new();
        let mut pulled = Vec::new();
        let pull = self.shared.backlog.pull(&mut pulled, |retained| {
            let room = client.try_room(retained.message.body.len());
            let fits = room.is_some();
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
            frames.push(Outgoing::receipted(payload, Token::keyed(self.next_key, completer.clone())));
            self.in_flight_bytes += retained.message.body.len();
            self.in_flight.insert(self.next_key, InFlight { retained, _room: room });
            self.next_key += 1;
        }
        if !frames.is_empty() {
            self.show_in_flight();
        }
        (frames, pull)
    }

    /// Passes outcomes on. Messages that were not confirmed stay in flight: the connection's end gives them back.
    async fn settle(&mut self, completions: &mut Vec<Completion>) {
        let mut settled = 0;
        for (key, result) in completions.drain(..) {
            let error = match result {
                Ok(()) => None,
                Err(Unconfirmed::NotSent(SendError::Refused(SessionError::Encode(error)))) => Some(error),
                Err(_) => continue,
            };
            let Some(InFlight { retained, .. }) = self.in_flight.remove(&key) else { continue };
            self.in_flight_bytes -= retained.message.body.len();
            settled += 1;
            if error.is_none() {
                self.failures = 0;
                self.newest_confirmed = self.newest_confirmed.max(key);
                self.shared.board.confirmed();
            }
            // A reader that has gone wants no outcomes.
            drop(self.shared.outcomes.send(outcome(retained, error)).await);
        }
        if settled > 0 {
            self.shared.backlog.settled(settled);
            self.show_in_flight();
        }
    }

    /// Whether the broker takes nothing at present. See [`PublisherOptions::receipt_timeout`].
    fn look_at_oldest(&mut self, client: &Client) -> Result<bool, End> {
        let Some((&key, oldest)) = self.in_flight.first_key_value() else { return Ok(false) };
        let age = oldest.retained.sent_at.elapsed();
        let timeout = self.shared.options.receipt_timeout;
        let overtaken = key < self.newest_confirmed;
        let has_heart_beats = client.connected().is_some_and(|connected| connected.server_patience.is_some());
        if age >= timeout && (overtaken || !has_heart_beats) {
            return Err(End::Lost(ConnectionError::ReceiptTimeout(timeout)));
        }
        let blocked = age >= BLOCKED_AFTER.min(timeout) && !overtaken;
        if blocked {
            self.shared.board.enter(self.index, LaneState::Blocked);
        }
        Ok(blocked)
    }

    /// Puts everything in flight back to be sent again.
    fn give_back(&mut self) {
        let in_flight = std::mem::take(&mut self.in_flight);
        self.in_flight_bytes = 0;
        self.show_in_flight();
        self.shared.backlog.give_back(in_flight.into_values().map(|in_flight| in_flight.retained));
    }

    fn show_in_flight(&self) {
        self.shared.board.update(self.index, |status| {
            status.in_flight = self.in_flight.len() as u64;
            status.in_flight_bytes = self.in_flight_bytes as u64;
        });
    }

    /// Waits for `what`, unless there is nothing left to do or no time left to do it in.
    async fn or_end<F: Future>(&mut self, what: F) -> Result<F::Output, End> {
        select! {
            biased;
            () = turned(&mut self.closing) => Err(End::GivenUp),
            () = turned(&mut self.done) => Err(End::Done),
            output = what => Ok(output),
        }
    }
}

/// Completes when the flag is set, or its owner is gone.
async fn turned(flag: &mut watch::Receiver<bool>) {
    drop(flag.wait_for(|turned| *turned).await);
}

fn outcome<T>(retained: Retained<T>, error: Option<EncodeError>) -> Outcome<T> {
    let Retained { message, attempts, sent_at, .. } = retained;
    match error {
        None => Outcome::Confirmed { token: message.token, latency: sent_at.elapsed(), attempts },
        Some(error) => Outcome::Unencodable { token: message.token, error },
    }
}
