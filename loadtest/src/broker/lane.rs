//! One connection: publishing within its window, or consuming. The same for every client library.

use std::{
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{
    select,
    task::yield_now,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    broker::{
        driver::{Consumer, Driver, Failure, Link, Publisher, Settled},
        flight::Flight,
        payload::{Stamp, Template},
        seen::Seen,
    },
    http::pacer::Pacer,
    report::LatencyHistogram,
};

/// How often a lane looks at the phase and at its connection.
const TICK: Duration = Duration::from_millis(20);
/// Messages that are handed over before confirms are looked at again.
const BURST: usize = 64;
/// The longest wait for a library to take a message, and for a connection.
const STUCK: Duration = Duration::from_secs(10);
/// Octets of bodies that a connection may have unconfirmed, whatever the window says.
pub(crate) const WINDOW_OCTETS: usize = 16 << 20;

/// Where a round stands. Each phase lasts until the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    Connecting,
    WarmUp,
    Measuring,
    /// Nothing is published any more; confirms and messages are still taken.
    Draining,
    Stopped,
}

/// What the lanes of a round share with the one who directs it.
#[derive(Debug)]
pub(crate) struct Shared {
    origin: Instant,
    phase: AtomicU8,
    /// Lanes that are connected.
    pub(crate) connected: AtomicUsize,
    /// Publishing lanes that have nothing in flight and publish no more.
    pub(crate) settled_lanes: AtomicUsize,
    /// Messages handed to the libraries.
    pub(crate) published: AtomicU64,
    /// Messages confirmed; without confirms: written.
    pub(crate) confirmed: AtomicU64,
    /// Messages that the broker refused.
    pub(crate) refused: AtomicU64,
    /// Nanoseconds during which a message was due and the window was full, over all publishing lanes.
    pub(crate) waited: AtomicU64,
    /// Messages that have arrived, with duplicates.
    pub(crate) received: AtomicU64,
    /// Messages on their way through the queue that publishers wait at; `u64::MAX` if nobody consumes.
    backlog: u64,
    failure: Mutex<Option<Failure>>,
}

impl Shared {
    pub(crate) fn new(backlog: u64) -> Self {
        Self {
            origin: Instant::now(),
            phase: AtomicU8::new(Phase::Connecting as u8),
            connected: AtomicUsize::new(0),
            settled_lanes: AtomicUsize::new(0),
            published: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            received: AtomicU64::new(0),
            backlog,
            failure: Mutex::new(None),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Connecting,
            1 => Phase::WarmUp,
            2 => Phase::Measuring,
            3 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    /// Enters a phase; never goes back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    /// Notes why the round cannot go on; the first reason counts.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publishes(&self) -> bool {
        matches!(self.phase(), Phase::WarmUp | Phase::Measuring)
    }

    fn backlog_is_full(&self) -> bool {
        let on_their_way =
            self.published.load(Ordering::Relaxed).saturating_sub(self.received.load(Ordering::Relaxed));
        self.backlog != u64::MAX && on_their_way >= self.backlog
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The origin of all times of the round.
    pub(crate) fn origin(&self) -> Instant {
        self.origin
    }
}

/// What all lanes of a round are told.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) link: Link,
    pub(crate) template: Template,
    /// Octets of a body.
    pub(crate) body: usize,
    /// Lanes that publish.
    pub(crate) lanes: usize,
    /// Messages a second over all lanes, if not as many as the window lets through.
    pub(crate) rate: Option<f64>,
    /// Messages in all, if not as many as there is time for.
    pub(crate) messages: Option<u64>,
    /// Acknowledge each so many messages.
    pub(crate) ack_every: usize,
}

/// What a publishing lane has measured.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// From the moment of sending, or at a fixed rate from when it was due, to the confirm.
    pub(crate) latency: LatencyHistogram,
    /// At a fixed rate: how late messages left because the window was full or this program was late.
    pub(crate) delay: LatencyHistogram,
    /// Not settled at the end.
    pub(crate) unsettled: u64,
}

/// What a consuming lane has measured.
#[derive(Debug)]
pub(crate) struct Consumed {
    pub(crate) latency: LatencyHistogram,
    pub(crate) seen: Seen,
}

/// Publishes until the phase says otherwise, then waits for what is in flight.
pub(crate) async fn publish<D: Driver>(
    lane: usize,
    place: usize,
    order: Arc<Order>,
    shared: Arc<Shared>,
    pacer: Rc<Pacer>,
) -> Published {
    let mut measured = Published::default();
    match connect(D::publisher(&order.link), &shared).await {
        Some(mut publisher) => {
            let mut lane = Lane {
                number: lane,
                place,
                order: &order,
                shared: &shared,
                pacer: &pacer,
                flight: Flight::default(),
                start: None,
                full_since: None,
            };
            if let Err(failure) = lane.run(&mut publisher, &mut measured).await {
                shared.fail(failure);
            }
            measured.unsettled = lane.flight.len() as u64;
            shared.settled_lanes.fetch_add(1, Ordering::Relaxed);
            // Its connection stays until the consumers are done, so that its octets can be counted.
            while shared.phase() < Phase::Stopped {
                tokio::time::sleep(TICK).await;
            }
            drop(timeout(STUCK, publisher.close()).await);
        }
        None => {
            shared.settled_lanes.fetch_add(1, Ordering::Relaxed);
        }
    }
    measured
}

struct Lane<'a> {
    number: usize,
    place: usize,
    order: &'a Order,
    shared: &'a Shared,
    pacer: &'a Pacer,
    flight: Flight,
    /// When the first message is due, at a fixed rate.
    start: Option<u64>,
    /// Since when a message is due and the window is full, as far as it is not in `waited`.
    full_since: Option<u64>,
}

impl Lane<'_> {
    async fn run(&mut self, publisher: &mut impl Publisher, measured: &mut Published) -> Result<(), Failure> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settled = Vec::new();
        loop {
            let next = self.fill(publisher, measured).await?;
            if self.flight.len() == 0 && self.is_done() {
                return Ok(());
            }
            let due = if let Next::At(due) = next { due } else { u64::MAX };
            let (pacer, shared, place) = (self.pacer, self.shared, self.place);
            select! {
                biased;
                outcome = publisher.settled(&mut settled) => {
                    outcome?;
                    self.settle(&mut settled, measured);
                }
                _ = tick.tick() => {
                    publisher.health()?;
                    if shared.phase() == Phase::Stopped {
                        return Ok(());
                    }
                }
                () = due_at(pacer, shared, place, due), if due != u64::MAX => {}
                // Lets the library write what it was given.
                () = yield_now(), if next == Next::Now => {}
            }
        }
    }

    /// Publishes what is due and fits; says when there is more.
    async fn fill(
        &mut self,
        publisher: &mut impl Publisher,
        measured: &mut Published,
    ) -> Result<Next, Failure> {
        for _ in 0..BURST {
            if self.is_done() || self.shared.backlog_is_full() {
                self.note_wait(false);
                return Ok(Next::Unknown);
            }
            let now = self.shared.now();
            let number = self.flight.next();
            let due = self.due(number, now);
            if due > now {
                self.note_wait(false);
                return Ok(Next::At(due));
            }
            let is_full = !self.has_room();
            self.note_wait(is_full);
            if is_full {
                return Ok(Next::Unknown);
            }
            if self.order.rate.is_some() {
                measured.delay.record(now - due);
            }
            let sequence = number * self.order.lanes as u64 + self.number as u64;
            let Ok(sequence) = u32::try_from(sequence) else {
                return Err(Failure("more messages than 4 octets can number: shorten --time".to_owned()));
            };
            let body = self.order.template.body(Stamp { sequence, time: due });
            self.flight.push(due);
            match timeout(STUCK, publisher.publish(number, body)).await {
                Ok(outcome) => outcome?,
                Err(_) => return Err(Failure("the broker has taken nothing for 10 s".to_owned())),
            }
            self.shared.published.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Next::Now)
    }

    /// Adds the time since the last look to what was waited for the window, if it was full then.
    fn note_wait(&mut self, is_full: bool) {
        if is_full || self.full_since.is_some() {
            let now = self.shared.now();
            if let Some(since) = self.full_since {
                self.shared.waited.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
            }
            self.full_since = is_full.then_some(now);
        }
    }

    fn settle(&mut self, settled: &mut Vec<Settled>, measured: &mut Published) {
        let now = self.shared.now();
        // Without confirms this is only the time until it was written.
        let measures = self.order.link.confirms && self.shared.phase() == Phase::Measuring;
        for one in settled.drain(..) {
            let mut count = 0;
            self.flight.settle(one, |sent| {
                count += 1;
                if measures {
                    measured.latency.record(now.saturating_sub(sent));
                }
            });
            let counter = match one {
                Settled::Refused(_) => &self.shared.refused,
                _ => &self.shared.confirmed,
            };
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Whether nothing more is to be published.
    fn is_done(&self) -> bool {
        !self.shared.publishes()
            || self.order.messages.is_some_and(|all| {
                let (lanes, own) = (self.order.lanes as u64, self.number as u64);
                self.flight.next() >= all / lanes + u64::from(own < all % lanes)
            })
    }

    fn has_room(&self) -> bool {
        let open = self.flight.len();
        open < self.order.link.window && (open == 0 || (open + 1) * self.order.body <= WINDOW_OCTETS)
    }

    /// When a message is to leave: now, or at a fixed rate when its turn is, whether there is room or not.
    fn due(&mut self, number: u64, now: u64) -> u64 {
        let Some(rate) = self.order.rate else { return now };
        let interval = 1e9 * self.order.lanes as f64 / rate;
        // Lanes take turns, so that they do not send all at once.
        let first = interval * self.number as f64 / self.order.lanes as f64;
        let start = *self.start.get_or_insert(now);
        start + (first + interval * number as f64) as u64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Now,
    At(u64),
    /// Something has to happen first.
    Unknown,
}

/// Completes at `due`.
async fn due_at(pacer: &Pacer, shared: &Shared, place: usize, due: u64) {
    let mut asleep = false;
    std::future::poll_fn(|cx| {
        if shared.now() >= due {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut asleep, true) {
            pacer.wake_at(place, due, cx.waker());
        }
        Poll::Pending
    })
    .await;
}

/// Consumes until the round is over.
pub(crate) async fn consume<D: Driver>(order: Arc<Order>, shared: Arc<Shared>) -> Consumed {
    let mut measured = Consumed { latency: LatencyHistogram::default(), seen: Seen::new(order.lanes) };
    if let Some(mut consumer) = connect(D::consumer(&order.link), &shared).await {
        if let Err(failure) = take(&mut consumer, &order, &shared, &mut measured).await {
            shared.fail(failure);
        }
        drop(timeout(STUCK, consumer.close()).await);
    }
    measured
}

async fn take(
    consumer: &mut impl Consumer,
    order: &Order,
    shared: &Shared,
    measured: &mut Consumed,
) -> Result<(), Failure> {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unacknowledged = 0;
    loop {
        select! {
            biased;
            arrived = consumer.next() => {
                let arrived = arrived?;
                let now = shared.now();
                match arrived.stamp {
                    Some(stamp) if arrived.octets == order.body => {
                        measured.seen.note(stamp.sequence, shared.published.load(Ordering::Relaxed) + 1);
                        if shared.phase() == Phase::Measuring {
                            measured.latency.record(now.saturating_sub(stamp.time));
                        }
                    }
                    _ => measured.seen.note(u32::MAX, 0),
                }
                shared.received.fetch_add(1, Ordering::Relaxed);
                unacknowledged += 1;
                if unacknowledged >= order.ack_every {
                    unacknowledged = 0;
                    consumer.acknowledge().await?;
                }
            }
            _ = tick.tick() => {
                consumer.health()?;
                // What has come in ones and twos is acknowledged too.
                unacknowledged = 0;
                consumer.acknowledge().await?;
                if shared.phase() == Phase::Stopped {
                    return Ok(());
                }
            }
        }
        if shared.phase() == Phase::Stopped {
            consumer.acknowledge().await?;
            return Ok(());
        }
    }
}

/// Connects and waits for the round to begin.
async fn connect<T>(connecting: impl Future<Output = Result<T, Failure>>, shared: &Shared) -> Option<T> {
    let connected = match timeout(STUCK, connecting).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(failure)) => {
            shared.fail(failure);
            return None;
        }
        Err(_) => {
            shared.fail(Failure("no connection within 10 s".to_owned()));
            return None;
        }
    };
    shared.connected.fetch_add(1, Ordering::Relaxed);
    while shared.phase() == Phase::Connecting {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Some(connected)
}
