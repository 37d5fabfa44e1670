//! One thread's part of a phase: its connections send, and what comes of it is counted here.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use crate::{
    Error,
    http::{
        answered::AnsweredBuffer,
        beacon::Beacons,
        connection::{Connection, Exchange, Failure, ReadBuffer},
        fleet::Limit,
        pacer::Pacer,
        stats::Stats,
        worker::Phase,
    },
};

/// Where nothing else ends a phase, a connection that cannot be opened for this long is given up.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Sequence numbers of one phase, handed out to all threads: each once, without gaps.
#[derive(Debug)]
pub(crate) struct Sequence {
    next: AtomicU64,
    end: u64,
}

impl Sequence {
    /// The numbers from `first` up to and without `end`.
    pub(crate) fn new(first: u64, end: u64) -> Self {
        Self { next: AtomicU64::new(first), end }
    }

    /// The first number that was not handed out.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(self.end)
    }

    fn take(&self) -> Option<u64> {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        (seq < self.end).then_some(seq)
    }
}

/// Counts for the progress bar, each on its own cache line because each thread writes its own all the time.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Live {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// One thread's part of a phase.
#[derive(Debug)]
pub(crate) struct Lane {
    /// The phase's start; all times in nanoseconds count from it.
    origin: Instant,
    /// When to stop sending; moved forward by an interrupt.
    end_ns: Cell<u64>,
    interrupted: Cell<bool>,
    limit: Limit,
    /// Open loop: nanoseconds from one request of the whole run to the next.
    interval_ns: Option<f64>,
    /// Connections of all threads together.
    connections: usize,
    timeout: Duration,
    /// Requests on a connection before it is closed.
    churn: u64,
    pacer: Option<Pacer>,
    sequence: Arc<Sequence>,
    beacons: Arc<Beacons>,
    buffer: ReadBuffer,
    stats: RefCell<Stats>,
    /// When the last answer or failure was seen.
    last_ns: Cell<u64>,
    answered: RefCell<Option<AnsweredBuffer>>,
    live: Arc<[Live]>,
    thread: usize,
}

impl Lane {
    /// The part of thread `thread` in `phase`.
    ///
    /// # Errors
    /// When an open loop finds no timer.
    pub(crate) fn new(phase: Phase, thread: usize, own_connections: usize) -> Result<Rc<Self>, Error> {
        let end_ns = match phase.limit {
            Limit::Duration(duration) => nanoseconds(duration),
            Limit::Requests(_) | Limit::OnePerConnection => u64::MAX,
        };
        let pacer = match phase.rate {
            Some(rate) => {
                let share = own_connections as f64 / phase.connections.max(1) as f64;
                Some(Pacer::for_rate(own_connections, rate * share, phase.origin)?)
            }
            None => None,
        };
        Ok(Rc::new(Self {
            origin: phase.origin,
            end_ns: Cell::new(end_ns),
            interrupted: Cell::new(false),
            limit: phase.limit,
            interval_ns: phase.rate.map(interval_ns),
            connections: phase.connections,
            pacer,
            timeout: phase.timeout,
            churn: phase.churn,
            sequence: phase.sequence,
            beacons: phase.beacons,
            buffer: ReadBuffer::default(),
            stats: RefCell::default(),
            last_ns: Cell::new(0),
            answered: RefCell::new(phase.answered),
            live: phase.live,
            thread,
        }))
    }

    /// Has `connection`, number `own` of this thread and `number` of all, do its part.
    pub(crate) async fn drive(
        self: Rc<Self>,
        mut connection: Connection,
        own: usize,
        number: usize,
    ) -> Connection {
        connection.request.reserve(self.beacons.longest());
        match (self.limit, self.interval_ns) {
            (Limit::OnePerConnection, _) => self.send_one(&mut connection).await,
            (_, None) => self.closed_loop(&mut connection).await,
            (_, Some(interval_ns)) => self.open_loop(&mut connection, own, number, interval_ns).await,
        }
        connection
    }

    /// Runs what an open loop needs beside its connections, as a task of its own ([`Pacer::run`]); never returns there.
    /// Cancel safe.
    pub(crate) async fn pace(self: Rc<Self>) {
        if let Some(pacer) = &self.pacer {
            pacer.run().await;
        }
    }

    /// Sends nothing more from now on; what is under way is still awaited.
    pub(crate) fn stop(&self) {
        self.interrupted.set(true);
        self.end_ns.set(self.end_ns.get().min(self.now()));
        if let Some(pacer) = &self.pacer {
            pacer.wake_all();
        }
    }

    /// What was counted, and the measured time: until sending stopped, or until the last answer where a number of
    /// requests was asked for.
    pub(crate) fn finish(&self) -> (Stats, Duration) {
        let mut stats = self.stats.take();
        self.answered.take();
        stats.failures.abandoned += stats.sent - stats.answered - stats.failures.total();
        let end_ns = self.end_ns.get();
        let window_ns = if end_ns == u64::MAX { self.last_ns.get() } else { end_ns };
        (stats, Duration::from_nanos(window_ns))
    }

    async fn closed_loop(&self, connection: &mut Connection) {
        loop {
            // A connection that was closed on purpose is opened again at the expense of the request that needs it.
            let from = self.is_churned(connection).then(|| self.now());
            if !connection.is_open() && !self.reopen(connection).await {
                return;
            }
            let now = self.now();
            if now >= self.end_ns.get() {
                return;
            }
            let Some(seq) = self.sequence.take() else { return };
            self.exchange(connection, seq, from.unwrap_or(now), now).await;
        }
    }

    /// Requests `number`, `number + connections`, … of the schedule, none of which is left out: what cannot be sent when
    /// it is due is sent as soon as it can, and its latency counts from when it was due.
    async fn open_loop(&self, connection: &mut Connection, own: usize, number: usize, interval_ns: f64) {
        let requests = if let Limit::Requests(requests) = self.limit { requests } else { u64::MAX };
        for place in (number as u64..requests).step_by(self.connections) {
            let due_ns = due_ns(place, interval_ns);
            if due_ns >= self.end_ns.get() {
                return;
            }
            // One that was closed on purpose is opened when it is needed.
            let churned = self.is_churned(connection);
            if !churned && !connection.is_open() && !self.reopen(connection).await {
                return;
            }
            let mut free = false;
            while self.now() < due_ns {
                free = self.sleep_until(connection, own, due_ns).await;
                let lost = !churned && !connection.is_open();
                if self.interrupted.get() || (lost && !self.reopen(connection).await) {
                    return;
                }
            }
            // A request that is due before the end is sent, however late its wake-up; one that had to wait for an answer
            // until after the end is not.
            let now = self.now();
            if !free && now >= self.end_ns.get() {
                return;
            }
            if !connection.is_open() && !self.reopen(connection).await {
                return;
            }
            let Some(seq) = self.sequence.take() else { return };
            if free {
                self.stats.borrow_mut().send_delay.record(now.saturating_sub(due_ns));
            } else {
                self.stats.borrow_mut().sent_behind_schedule += 1;
            }
            let now = if churned { self.now() } else { now };
            self.exchange(connection, seq, due_ns, now).await;
        }
    }

    async fn send_one(&self, connection: &mut Connection) {
        if (connection.is_open() || self.reopen(connection).await)
            && !self.is_over()
            && let Some(seq) = self.sequence.take()
        {
            let now = self.now();
            self.exchange(connection, seq, now, now).await;
        }
    }

    /// One request, sent at `now_ns`, and its answer, counted; its latency counts from `from_ns`.
    async fn exchange(&self, connection: &mut Connection, seq: u64, from_ns: u64, now_ns: u64) {
        let last = connection.used + 1 >= self.churn;
        self.beacons.render(seq, last, &mut connection.request);
        self.stats.borrow_mut().sent += 1;
        let deadline = self.origin + Duration::from_nanos(now_ns) + self.timeout;
        let Exchange { outcome, octets_sent, octets_received } =
            connection.exchange(&self.buffer, deadline).await;
        if last {
            connection.close();
        }
        let now_ns = self.now();
        self.last_ns.set(now_ns);
        if let Some(pacer) = &self.pacer {
            pacer.wake_due(now_ns);
        }

        let stats = &mut *self.stats.borrow_mut();
        stats.octets_sent += octets_sent;
        stats.octets_received += octets_received;
        match outcome {
            Ok(response) => {
                stats.answer(response.status, now_ns.saturating_sub(from_ns));
                stats.answered_late += u64::from(now_ns > self.end_ns.get());
                if response.status / 100 == 2
                    && let Some(answered) = &mut *self.answered.borrow_mut()
                {
                    answered.push(seq);
                }
                self.live[self.thread].answered.store(stats.answered, Ordering::Relaxed);
            }
            Err(failure) => {
                match failure {
                    Failure::Closed => stats.failures.closed += 1,
                    Failure::Timeout => stats.failures.timeout += 1,
                    Failure::Malformed => stats.failures.malformed += 1,
                }
                self.live[self.thread].failed.store(stats.failures.total(), Ordering::Relaxed);
            }
        }
    }

    /// Opens a closed connection; `false` when the phase is over before that, or when it is given up.
    async fn reopen(&self, connection: &mut Connection) -> bool {
        let since = Instant::now();
        loop {
            let left = Duration::from_nanos(self.end_ns.get().saturating_sub(self.now()));
            let pause = connection.pause().min(left);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            if self.is_over() {
                return false;
            }
            let planned = self.is_churned(connection);
            if connection.open().await.is_ok() {
                let connects = &mut self.stats.borrow_mut().connects;
                if planned {
                    connects.planned += 1;
                } else {
                    connects.reconnects += 1;
                }
                return true;
            }
            self.stats.borrow_mut().connects.failed += 1;
            if self.end_ns.get() == u64::MAX && since.elapsed() > GIVE_UP {
                self.stats.borrow_mut().connects.given_up += 1;
                return false;
            }
        }
    }

    /// Sleeps until `due_ns`, or until the connection is closed by the server or the phase by an interrupt; says
    /// whether it slept undisturbed.
    async fn sleep_until(&self, connection: &mut Connection, own: usize, due_ns: u64) -> bool {
        let Some(pacer) = &self.pacer else { return false };
        let mut asleep = false;
        let undisturbed = poll_fn(|cx| {
            if self.interrupted.get() || connection.poll_idle(cx).is_ready() {
                return Poll::Ready(false);
            }
            if self.now() >= due_ns {
                return Poll::Ready(true);
            }
            if !std::mem::replace(&mut asleep, true) {
                pacer.wake_at(own, due_ns, cx.waker());
            }
            Poll::Pending
        });
        undisturbed.await
    }

    /// Whether the connection was closed because it has had its share of requests.
    fn is_churned(&self, connection: &Connection) -> bool {
        !connection.is_open() && connection.used >= self.churn
    }

    fn is_over(&self) -> bool {
        // A phase without an end in time needs no look at the clock.
        let end_ns = self.end_ns.get();
        end_ns != u64::MAX && self.now() >= end_ns
    }

    fn now(&self) -> u64 {
        nanoseconds(self.origin.elapsed())
    }
}

/// How many requests at `rate` per second are due before `window` is over.
pub(crate) fn due_within(rate: f64, window: Duration) -> u64 {
    let (interval_ns, end_ns) = (interval_ns(rate), nanoseconds(window));
    // The quotient may be off by one where due times are cut to whole nanoseconds.
    let near = (end_ns as f64 / interval_ns) as u64;
    (near.saturating_sub(1)..=near + 1)
        .find(|&place| due_ns(place, interval_ns) >= end_ns)
        .unwrap_or(near + 2)
}

fn interval_ns(rate: f64) -> f64 {
    1e9 / rate
}

/// When request `place` of the schedule is due, the first one at once.
fn due_ns(place: u64, interval_ns: f64) -> u64 {
    (place as f64 * interval_ns) as u64
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_due_as_the_loop_would_send() {
        for (rate, window, due) in [
            (1000.0, Duration::from_secs(1), 1000),
            (1000.0, Duration::from_micros(1_000_001), 1001),
            (3.0, Duration::from_secs(10), 30),
            (7777.7, Duration::from_millis(333), 2590),
            (0.5, Duration::from_secs(1), 1),
            (10.0, Duration::ZERO, 0),
            (1e7, Duration::from_secs(3), 30_000_000),
        ] {
            assert_eq!(due_within(rate, window), due, "{rate}/s for {window:?}");
            let interval_ns = interval_ns(rate);
            let sent = (0..).take_while(|&place| due_ns(place, interval_ns) < nanoseconds(window)).count();
            assert_eq!(sent as u64, due, "{rate}/s for {window:?}");
        }
    }

    #[test]
    fn a_sequence_hands_out_each_number_once_and_stops() {
        let sequence = Sequence::new(5, 8);
        let taken: Vec<u64> = std::iter::from_fn(|| sequence.take()).collect();
        assert_eq!(taken, [5, 6, 7]);
        assert_eq!((sequence.take(), sequence.next()), (None, 8));
    }
}
