use std::{
    collections::VecDeque,
    future::pending,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use stompwire::publisher::{Place, Publisher};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep_until,
};
use uuid::Uuid;

use super::{
    pace::Pace,
    parcel::Parcel,
    pressure::Pressure,
    rows::{Promised, Rows},
};
use crate::{
    batch::Batch,
    config::DestinationConfig,
    spool::{Refused, Row, Spool},
};

/// Rows read at once: few, so that an append does not wait long behind a read.
const READ_ROWS: usize = 16;
const READ_OCTETS: usize = 1 << 20;
/// After a read that failed.
const PAUSE: Duration = Duration::from_millis(250);
/// After a read that brought nothing yet.
const SHORT_PAUSE: Duration = Duration::from_millis(25);

pub(super) type Read = Result<Vec<(Row, Batch)>, Refused>;

/// What is in the spool and not with the publisher, nor in hand: read oldest first, and given to the publisher within a
/// share of its windows and at a steady rate, which is lower while threads here wait for a core. A burst would be paid by
/// the answers: by all that a batch costs here, and by all that it costs a broker on the same machine.
pub(super) struct Backlog {
    spool: Spool,
    batches: u64,
    beacons: u64,
    /// It grew since the last read began, or may have.
    has_grown: bool,
    rows: Rows,
    newest: Option<Row>,
    promised: Promised,
    share: Share,
    pace: Pace,
    pressure: Pressure,
    /// Rows that were read and wait for their share.
    ahead: VecDeque<(Row, Batch)>,
    reading: Option<Pin<Box<dyn Future<Output = Read> + Send>>>,
    read_at: Instant,
}

/// The share of the windows for batches out of the spool.
struct Share {
    frames: Arc<Semaphore>,
    octets: Arc<Semaphore>,
    most_octets: u32,
}

pub(super) enum Next<'a> {
    Read(Read),
    Turn(Turn<'a>),
}

/// What a batch out of the spool needs to be sent: its part of the share, and its place at the publisher.
pub(super) struct Turn<'a> {
    share: [OwnedSemaphorePermit; 2],
    place: Place<'a, Parcel>,
}

/// A batch that went from the spool to the publisher.
pub(super) struct Drawn {
    pub(super) beacons: u64,
    /// How many of them nobody knew of.
    pub(super) unknown: u64,
}

impl Backlog {
    pub(super) fn new(spool: Spool, config: &DestinationConfig) -> Self {
        let part = |each: usize| {
            (each.saturating_mul(config.connections) as f64 * config.spool.drain_share) as usize
        };
        Self {
            spool,
            batches: 0,
            beacons: 0,
            has_grown: false,
            rows: Rows::default(),
            newest: None,
            promised: Promised::default(),
            share: Share::new(part(config.window_frames), part(config.window_bytes)),
            pace: Pace::new(config.spool.drain_rate as u64),
            pressure: Pressure::new(),
            ahead: VecDeque::new(),
            reading: None,
            read_at: Instant::now(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// Batches of an earlier run were found.
    pub(super) fn recover(&mut self, batches: u64, beacons: u64) {
        self.batches += batches;
        self.beacons += beacons;
        self.has_grown = true;
    }

    /// A batch is about to be appended: a read may find it before its append is told.
    pub(super) fn expect(&mut self) {
        self.has_grown = true;
    }

    /// A row was appended. It is in hand, until it is left.
    pub(super) fn appended(&mut self, row: Row) {
        self.newest = self.newest.max(Some(row));
    }

    /// A row that was appended is with the publisher, or waits for it in hand.
    pub(super) fn hand(&mut self, row: Row) {
        self.rows.hand(row);
    }

    /// A row that was appended is left to the spool.
    pub(super) fn leave(&mut self, row: Row, batch: Batch) {
        self.count(batch.count);
        self.promised.keep(row, batch.tickets);
    }

    /// A row that waited in hand is left to the spool.
    pub(super) fn take_back(&mut self, row: Row, batch: Batch) {
        if self.rows.take_back(row) {
            self.leave(row, batch);
        } else {
            // It was read over. It is in memory, so it need not be read again.
            self.count(batch.count);
            self.ahead.push_back((row, batch));
        }
    }

    fn count(&mut self, beacons: u64) {
        self.batches += 1;
        self.beacons += beacons;
        self.has_grown = true;
    }

    /// There is no backlog, nothing is being appended and nothing is in hand.
    pub(super) fn pass_all(&mut self) {
        if let Some(newest) = self.newest {
            self.rows.pass_all(newest);
        }
    }

    /// Begins to read if what was read is used up. `is_appending`: appends are under way.
    pub(super) fn begin_reading(&mut self, is_appending: bool) {
        if self.is_empty()
            || !self.ahead.is_empty()
            || self.reading.is_some()
            || Instant::now() < self.read_at
        {
            return;
        }
        self.has_grown = is_appending;
        let (spool, after) = (self.spool.clone(), self.rows.cursor());
        self.reading = Some(Box::pin(async move { spool.read(after, READ_ROWS, READ_OCTETS).await }));
    }

    /// What comes next: a read that has ended or, if it `may_draw`, the turn of the next row. Cancel safe.
    pub(super) async fn next<'a>(&mut self, publisher: &'a Publisher<Parcel>, may_draw: bool) -> Next<'a> {
        if let Some(reading) = &mut self.reading {
            return Next::Read(reading.await);
        }
        let front = self.ahead.front().filter(|_| may_draw).map(|(_, batch)| batch.body.len());
        let Some(octets) = front else { return pending().await };
        if let Some(due) = self.pace.due(Instant::now()) {
            sleep_until(due.into()).await;
        }
        if let Some(share) = self.share.part(octets).await
            && let Some(place) = publisher.reserve(octets).await
        {
            return Next::Turn(Turn { share, place });
        }
        pending().await
    }

    /// Takes what was read, up to the first that is being appended. Returns the batches and beacons that should be in the
    /// spool and are not.
    pub(super) fn has_read(&mut self, read: Read, is_appending: impl Fn(Uuid) -> bool) -> Option<(u64, u64)> {
        self.reading = None;
        let now = Instant::now();
        let Ok(read) = read else {
            self.read_at = now + PAUSE;
            return None;
        };
        if read.is_empty() && !self.has_grown {
            return Some((std::mem::take(&mut self.batches), std::mem::take(&mut self.beacons)));
        }
        let before = self.rows.cursor();
        for (row, batch) in read {
            if is_appending(batch.id) {
                // Its append will be told in a moment, and then it will be known whose it is.
                break;
            }
            if self.rows.pass(row) {
                self.ahead.push_back((row, batch));
            }
        }
        if self.rows.cursor() == before {
            self.read_at = now + SHORT_PAUSE;
        }
        None
    }

    /// Gives the next row to the publisher, behind all fresh batches. `note` is told before.
    pub(super) fn draw(&mut self, turn: Turn<'_>, note: impl FnOnce(&Drawn)) {
        let Some((row, mut batch)) = self.ahead.pop_front() else { return };
        let now = Instant::now();
        self.pace.ease(self.pressure.share(now));
        self.pace.spend(batch.body.len(), now);
        let unknown = batch.count.saturating_sub(self.beacons);
        self.batches = self.batches.saturating_sub(1);
        self.beacons = self.beacons.saturating_sub(batch.count);
        batch.tickets.append(&mut self.promised.take(row));
        note(&Drawn { beacons: batch.count, unknown });
        turn.place.publish_behind(Parcel::drawn(batch, row, turn.share).message());
    }
}

impl Share {
    fn new(frames: usize, octets: usize) -> Self {
        let frames = frames.clamp(1, Semaphore::MAX_PERMITS);
        let octets = octets.clamp(1, u32::MAX as usize);
        Self {
            frames: Arc::new(Semaphore::new(frames)),
            octets: Arc::new(Semaphore::new(octets)),
            most_octets: octets as u32,
        }
    }

    /// Waits for a part; one that is larger than the share takes all of it.
    async fn part(&self, octets: usize) -> Option<[OwnedSemaphorePermit; 2]> {
        let octets = u32::try_from(octets).unwrap_or(u32::MAX).min(self.most_octets);
        let frame = Arc::clone(&self.frames).acquire_owned().await.ok()?;
        Some([frame, Arc::clone(&self.octets).acquire_many_owned(octets).await.ok()?])
    }
}
