//! Delivery of a destination that has a spool.
//!
//! ```text
//!  batches ─▶ held ──────────────▶ publisher          room within `after`, and a broker
//!        ╲      ╲ else             ▲     ▲ behind
//!         ╲      ▼                 │     │ all others
//!          ╲──▶ append ──────▶ row ╯   backlog ◀─ read, oldest first, when nothing fresh waits
//!           write-ahead
//! ```
//!
//! Every row of the spool is in one of three states: with the publisher (in flight), in the backlog (in spool), or about to
//! be removed. `rows.rs` knows which; the ledger counts them. What the publisher has without a row gets one when no broker
//! confirms it: [`Copies`]. It stays with the publisher.

mod ending;

use std::{
    collections::VecDeque,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use stompwire::publisher::{Board, Place, Publisher};
use tokio::{
    select,
    sync::watch,
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval, sleep_until},
};
use uuid::Uuid;

use self::ending::last_writes;
use super::{
    Delivered,
    backlog::{Backlog, Next, Read},
    copies::{Copied, Copies},
    episode::{Episode, Why},
    flights::Flights,
    parcel::Parcel,
    passed,
};
use crate::{
    batch::Batch,
    ledger::DropReason,
    spool::{Level, Refused, Row, Spool, State},
    ticket::{Ack, Ticket},
};

/// Batches in hand at most: being written, or waiting for the publisher. Enough for a group commit to be worth it.
const MOST_HELD: usize = 64;
/// And their octets, but for one batch.
const MOST_HELD_OCTETS: usize = 16 << 20;
/// After a batch was refused.
const PAUSE: Duration = Duration::from_millis(250);
/// How often it is looked whether a broker takes messages again, while something waits.
const LOOK: Duration = Duration::from_millis(25);
/// A fresh batch in hand that waits for the publisher.
struct Held {
    batch: Batch,
    row: Option<Row>,
    since: Instant,
}

/// An append that has ended.
struct Appended {
    batch: Batch,
    row: Result<Row, Refused>,
}

struct Carrier {
    delivered: Delivered,
    spool: Spool,
    state: watch::Receiver<State>,
    state_is_told: bool,
    works: bool,
    board: Arc<Board>,
    /// Oldest first.
    held: VecDeque<Held>,
    appends: JoinSet<Appended>,
    /// Dropped when they are not to wait for the disk any longer.
    patience: Option<watch::Sender<()>>,
    /// What is being written, and its beacons: a row may be read before its append is told.
    appending: Vec<(Uuid, u64)>,
    /// Octets of what is held and of what is being written.
    in_hand: usize,
    /// What finds no room goes to the spool without waiting for it.
    is_spooling: bool,
    /// And why.
    why: Why,
    /// A shutdown has begun: nothing waits for room any more.
    is_ending: bool,
    /// No append before this: one was refused.
    append_at: Instant,
    recovered: Level,
    backlog: Backlog,
    /// What the publisher has without a row.
    flights: Flights,
    copies: Copies,
    episode: Episode,
}

/// Batches to the publisher and the spool, until they end or the deadline passes. What an earlier run left is counted at
/// once.
pub(super) fn feed(
    delivered: Delivered,
    spool: Spool,
    flights: Flights,
    publisher: Publisher<Parcel>,
    deadline: watch::Receiver<Option<Instant>>,
) -> impl Future<Output = ()> + Send {
    let mut carrier = Carrier::new(delivered, spool, flights, publisher.board());
    carrier.note_state();
    async move {
        let in_time = carrier.carry(&publisher, deadline.clone()).await;
        // Without a deadline the process is going down in disorder: do not wait.
        let until = deadline.borrow().unwrap_or_else(Instant::now);
        let patience = carrier.finish(&publisher, last_writes(until), in_time).await;
        publisher.close(patience).await;
    }
}

impl Carrier {
    fn new(delivered: Delivered, spool: Spool, flights: Flights, board: Arc<Board>) -> Self {
        Self {
            state: spool.state(),
            state_is_told: true,
            works: true,
            board,
            held: VecDeque::new(),
            appends: JoinSet::new(),
            patience: Some(watch::Sender::new(())),
            appending: Vec::new(),
            in_hand: 0,
            is_spooling: false,
            why: Why::NoBroker,
            is_ending: false,
            append_at: Instant::now(),
            recovered: Level::default(),
            backlog: Backlog::new(spool.clone(), &delivered.config),
            copies: Copies::new(flights.clone(), spool.clone(), delivered.config.spool.after),
            flights,
            episode: Episode::new(&delivered.name),
            delivered,
            spool,
        }
    }

    /// Until the batches end (true), or it is time for the last writes (false).
    async fn carry(
        &mut self,
        publisher: &Publisher<Parcel>,
        deadline: watch::Receiver<Option<Instant>>,
    ) -> bool {
        let mut ending = std::pin::pin!(passed(deadline.clone(), |_| Instant::now()));
        let mut passed = std::pin::pin!(passed(deadline, last_writes));
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let takes = self.board.takes();
            self.settle(takes);
            self.copies.begin(takes, self.works && self.can_append());
            let waits = !self.held.is_empty() || !self.backlog.is_empty() || self.copies.is_watching();
            let fresh = self.held.front().filter(|_| takes).map(|held| held.batch.body.len());
            let may_draw = takes && self.held.is_empty();
            let divert_at = self.divert_at();
            let has_room = self.has_room();
            select! {
                biased;
                () = &mut passed => return false,
                () = &mut ending, if !self.is_ending => self.is_ending = true,
                Some(appended) = self.appends.join_next() => match appended {
                    Ok(appended) => self.appended(publisher, appended),
                    Err(error) => self.panicked(&error),
                },
                Some(copied) = self.copies.next() => self.copied(copied),
                changed = self.state.changed(), if self.state_is_told => {
                    self.state_is_told = changed.is_ok();
                    self.note_state();
                }
                Some(place) = reserve(publisher, fresh) => {
                    if let Some(Held { batch, row, .. }) = self.held.pop_front() {
                        self.in_hand -= batch.body.len();
                        self.publish(place, batch, row);
                    }
                }
                () = at(divert_at) => self.divert(takes),
                batch = self.delivered.batches.recv(), if has_room => match batch {
                    Some(batch) => self.arrived(publisher, batch),
                    None => return true,
                },
                next = self.backlog.next(publisher, may_draw) => match next {
                    Next::Read(read) => self.has_read(read),
                    Next::Turn(turn) => {
                        let (ledger, episode) = (&self.delivered.ledger, &mut self.episode);
                        self.backlog.draw(turn, |drawn| {
                            ledger.recover(drawn.unknown);
                            ledger.draw(drawn.beacons);
                            episode.drew(drawn.beacons);
                        });
                    }
                },
                _ = look.tick(), if waits => {}
            }
        }
    }

    /// Whether another fresh batch can be taken in hand. One that is nowhere on disk and waits, waits for all behind it.
    fn has_room(&self) -> bool {
        self.held.len() + self.appends.len() < MOST_HELD
            && self.in_hand < MOST_HELD_OCTETS
            && self.held.iter().all(|held| held.row.is_some())
    }

    /// A batch comes from the batcher.
    fn arrived(&mut self, publisher: &Publisher<Parcel>, mut batch: Batch) {
        self.delivered.readings.batch_beacons.observe(batch.count as f64);
        if !self.delivered.writes_ahead {
            self.offer(publisher, batch, None);
        } else if self.can_append() {
            self.append(batch);
        } else {
            forget_spooled(&mut batch.tickets);
            self.offer(publisher, batch, None);
        }
    }

    /// Whether a batch waits for room at the publisher before it goes to the spool.
    fn waits(&self) -> bool {
        !self.is_spooling && !self.is_ending
    }

    /// From when on the spool may be asked. While it does not work it is asked for one batch at a time, now and then: a
    /// disk that hangs must not keep more from the publisher. `None`: when it has answered.
    fn append_from(&self) -> Option<Instant> {
        (self.works || self.appends.is_empty()).then_some(self.append_at)
    }

    fn can_append(&self) -> bool {
        self.append_from().is_some_and(|from| Instant::now() >= from)
    }

    fn append(&mut self, batch: Batch) {
        self.in_hand += batch.body.len();
        self.appending.push((batch.id, batch.count));
        self.backlog.expect();
        let spool = self.spool.clone();
        let patience = self.patience.as_ref().map(watch::Sender::subscribe);
        self.appends.spawn(async move {
            let row = select! {
                biased;
                row = spool.append(&batch) => row,
                () = over(patience) => Err(Refused::TimedOut),
            };
            Appended { batch, row }
        });
    }

    /// A batch is in the spool, or was refused by it.
    fn appended(&mut self, publisher: &Publisher<Parcel>, appended: Appended) {
        let Appended { mut batch, row } = appended;
        self.in_hand -= batch.body.len();
        self.appending.retain(|(id, _)| *id != batch.id);
        match row {
            Ok(row) => {
                self.delivered.readings.appended();
                self.backlog.appended(row);
                self.delivered.ledger.spool(batch.count);
                Ticket::resolve_spooled(&mut batch.tickets);
                self.offer(publisher, batch, Some(row));
            }
            Err(refused) => {
                self.delivered.readings.refused(refused);
                self.append_at = Instant::now() + PAUSE;
                forget_spooled(&mut batch.tickets);
                self.offer(publisher, batch, None);
            }
        }
    }

    /// A copy of what the publisher has is in the spool, or was refused by it. The backlog never reads it.
    fn copied(&mut self, copied: Result<Result<Copied, Refused>, JoinError>) {
        match copied {
            Ok(Ok(Copied { row, is_in_flight })) => {
                self.delivered.readings.appended();
                self.backlog.appended(row);
                self.backlog.hand(row);
                if !is_in_flight {
                    self.spool.remove(row);
                    self.delivered.readings.removed();
                }
            }
            Ok(Err(refused)) => {
                self.delivered.readings.refused(refused);
                self.append_at = Instant::now() + PAUSE;
            }
            Err(error) => self.panicked(&error),
        }
    }

    fn panicked(&self, error: &JoinError) {
        tracing::error!(
            destination = self.delivered.name,
            %error,
            "writing a batch to the spool panicked; this is a defect in beacon-edge, please report it"
        );
    }

    /// A fresh batch goes to the publisher if there is room; else it waits for some, or is left to the spool.
    fn offer(&mut self, publisher: &Publisher<Parcel>, batch: Batch, row: Option<Row>) {
        let takes = self.board.takes();
        let octets = batch.body.len();
        if self.held.is_empty()
            && takes
            && let Some(place) = publisher.try_reserve(octets)
        {
            return self.publish(place, batch, row);
        }
        match row {
            Some(row) if !self.waits() => {
                self.backlog.leave(row, batch);
                return self.episode.begin(self.why);
            }
            None if !self.waits() && self.can_append() => return self.append(batch),
            Some(row) => self.backlog.hand(row),
            None => {}
        }
        self.in_hand += octets;
        self.held.push_back(Held { batch, row, since: Instant::now() });
    }

    fn publish(&mut self, place: Place<'_, Parcel>, batch: Batch, row: Option<Row>) {
        // No confirmation can be recorded before this: it needs this thread.
        match row {
            Some(row) => {
                self.backlog.hand(row);
                self.delivered.ledger.draw(batch.count);
            }
            None => {
                self.delivered.ledger.seal(batch.count);
                self.flights.begin(&batch);
            }
        }
        place.publish(Parcel::new(batch, row).message());
    }

    /// When what is held has waited for long enough.
    fn divert_at(&self) -> Option<Instant> {
        let held = self.held.front()?;
        let after = if self.waits() { self.delivered.config.spool.after } else { Duration::ZERO };
        let due = held.since + after;
        if held.row.is_some() { Some(due) } else { Some(due.max(self.append_from()?)) }
    }

    /// What is held has waited for long enough: it goes to the spool, or stays there.
    fn divert(&mut self, takes: bool) {
        self.is_spooling = true;
        self.why = if takes { Why::TooSlow } else { Why::NoBroker };
        for Held { batch, row, since } in std::mem::take(&mut self.held) {
            self.in_hand -= batch.body.len();
            match row {
                Some(row) => {
                    self.backlog.take_back(row, batch);
                    self.episode.begin(self.why);
                }
                None if self.can_append() => self.append(batch),
                None => {
                    self.in_hand += batch.body.len();
                    self.held.push_back(Held { batch, row, since });
                }
            }
        }
    }

    /// Reads when there is something to read for; notes when all is drained.
    fn settle(&mut self, takes: bool) {
        if !self.backlog.is_empty() {
            if takes && self.held.is_empty() {
                self.backlog.begin_reading(!self.appends.is_empty());
            }
            return;
        }
        if !self.held.is_empty() {
            return;
        }
        if self.appends.is_empty() {
            self.backlog.pass_all();
        }
        // Without write-ahead, what is being written becomes a part of the backlog.
        if self.appends.is_empty() || self.delivered.writes_ahead {
            self.is_spooling = false;
            self.episode.end();
        }
    }

    fn has_read(&mut self, read: Read) {
        let (appending, copies) = (&self.appending, &self.copies);
        let missing = self.backlog.has_read(read, |id| {
            appending.iter().any(|(appending, _)| *appending == id) || copies.is_writing(id)
        });
        let Some((batches, beacons)) = missing else { return };
        tracing::error!(
            destination = self.delivered.name,
            batches,
            beacons,
            "batches in the spool could not be read back and are lost to this run; files that were set aside are beside it"
        );
        self.delivered.ledger.drop_beacons(DropReason::SpoolUnreadable, beacons);
    }

    /// Takes note of the spool's state, and of what it has found of an earlier run.
    fn note_state(&mut self) {
        let state = self.state.borrow_and_update().clone();
        self.works = state == State::Working;
        if self.works {
            self.append_at = Instant::now();
        }
        let found = self.spool.recovered();
        let batches = found.batches.saturating_sub(self.recovered.batches);
        let beacons = found.beacons.saturating_sub(self.recovered.beacons);
        if batches > 0 {
            self.delivered.ledger.recover(beacons);
            self.backlog.recover(batches, beacons);
            self.episode.recovered(batches, beacons);
        }
        self.recovered = found;
    }
}

/// Tickets that wait for the spool wait in vain.
fn forget_spooled(tickets: &mut Vec<Ticket>) {
    tickets.retain(|ticket| ticket.ack() != Ack::Spooled);
}

/// Waits for a place for so many octets; forever if there is nothing to place.
async fn reserve<'a>(publisher: &'a Publisher<Parcel>, octets: Option<usize>) -> Option<Place<'a, Parcel>> {
    match octets {
        Some(octets) => publisher.reserve(octets).await,
        None => pending().await,
    }
}

/// Completes when the sender is gone.
async fn over(patience: Option<watch::Receiver<()>>) {
    if let Some(mut patience) = patience {
        while patience.changed().await.is_ok() {}
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => pending().await,
    }
}
