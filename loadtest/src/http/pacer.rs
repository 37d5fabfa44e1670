//! Wakes connections at the moment their next request is due.
//!
//! tokio's timer rounds up to a millisecond, which would show as latency. A `timerfd` is good to some microseconds; one
//! serves all connections of a thread. Setting it and being woken by it takes longer than to send a request on a virtual
//! machine, so at high rates it is set for a few requests together, and every answer that arrives is a chance to look for
//! what is due meanwhile.
//!
//! At very high rates even that is too much: a thread that is woken by every answer spends more on waking than on sending.
//! Then it sleeps from tick to tick ([`Ticks`]), deaf to its sockets in between, and takes all answers and sends all that is
//! due at once. Due times do not change by that, so what a tick delays is in the latency and in the delay of sending.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::BinaryHeap,
    os::fd::{AsFd, AsRawFd, RawFd},
    task::Waker,
    time::{Duration, Instant},
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::{io::unix::AsyncFd, task::yield_now};

use crate::Error;

/// The shortest time between two alarms, in nanoseconds: below the time that a wake-up takes in any case.
const QUANTUM_NS: u64 = 50_000;

/// The time from one tick to the next.
const TICK: Duration = Duration::from_micros(100);

/// A thread goes by ticks where at least this many of its requests fall due in each: 40,000 in a second.
const WORTH_A_TICK: f64 = 4.0;

/// The alarm clock of one thread's connections.
#[derive(Debug)]
pub(crate) struct Pacer {
    clock: Clock,
    origin: Instant,
    sleepers: RefCell<Sleepers>,
}

/// What tells the pacer that time has passed.
#[derive(Debug)]
enum Clock {
    Alarm(AsyncFd<Timer>),
    Ticks(Ticks),
}

/// Makes the whole thread sleep until the next tick.
#[derive(Debug)]
struct Ticks(TimerFd);

#[derive(Debug)]
struct Sleepers {
    /// Nanoseconds since the origin, and who is to be woken then.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    wakers: Vec<Option<Waker>>,
    /// What the timer is set to; `u64::MAX` when it is not.
    armed: u64,
    /// No alarm before this.
    next_alarm: u64,
}

impl Pacer {
    /// A pacer for connections numbered below `connections`, without ticks; times count from `origin`.
    ///
    /// # Errors
    /// When the system has no timer to give, or when called outside of a tokio runtime with I/O.
    pub(crate) fn new(connections: usize, origin: Instant) -> Result<Self, Error> {
        Self::for_rate(connections, 0.0, origin)
    }

    /// The same, with ticks if that is the better way to send `rate` requests per second over all of `connections`.
    ///
    /// # Errors
    /// As [`Pacer::new`].
    pub(crate) fn for_rate(connections: usize, rate: f64, origin: Instant) -> Result<Self, Error> {
        let clock = if goes_by_ticks(rate) { Clock::Ticks(Ticks::start()?) } else { Clock::Alarm(alarm()?) };
        Ok(Self { clock, origin, sleepers: RefCell::new(Sleepers::new(connections)) })
    }

    /// Has `waker` woken at `due` (nanoseconds since the origin), in place of an earlier one of this connection.
    pub(crate) fn wake_at(&self, connection: usize, due: u64, waker: &Waker) {
        let mut sleepers = self.sleepers.borrow_mut();
        sleepers.add(connection, due, waker);
        if let Clock::Alarm(timer) = &self.clock
            && due.max(sleepers.next_alarm) < sleepers.armed
        {
            self.arm(timer, &mut sleepers, due);
        }
    }

    /// Wakes connections as they fall due; never returns. Has to be a task of its own: with ticks the thread sleeps in it,
    /// and tasks that are ready come before only if they are its equals. Cancel safe.
    pub(crate) async fn run(&self) {
        match &self.clock {
            Clock::Alarm(timer) => self.run_by_alarms(timer).await,
            Clock::Ticks(ticks) => self.run_by_ticks(ticks).await,
        }
    }

    /// Each time it yields, the runtime looks at all sockets once and runs every task that is ready before this one.
    async fn run_by_ticks(&self, ticks: &Ticks) {
        loop {
            ticks.sleep();
            // First the answers: the longer they lie, the longer they seem to have taken.
            yield_now().await;
            self.sleepers.borrow_mut().wake_due(self.now());
            yield_now().await;
        }
    }

    async fn run_by_alarms(&self, timer: &AsyncFd<Timer>) {
        loop {
            match timer.readable().await {
                // The expiry is not read: setting the timer again clears it.
                Ok(mut ready) => ready.clear_ready(),
                // The runtime is going down, and with it all that could be woken.
                Err(_) => return std::future::pending().await,
            }
            let now = self.now();
            {
                let mut sleepers = self.sleepers.borrow_mut();
                sleepers.armed = u64::MAX;
                sleepers.next_alarm = now + QUANTUM_NS;
            }
            let mut sleepers = self.sleepers.borrow_mut();
            sleepers.wake_due(now);
            if let Some(&Reverse((due, _))) = sleepers.due.peek() {
                self.arm(timer, &mut sleepers, due);
            }
        }
    }

    /// Wakes connections that are due at `now`, unless they are to wait for the tick; cheap when there are none.
    pub(crate) fn wake_due(&self, now: u64) {
        if matches!(self.clock, Clock::Alarm(_)) {
            self.sleepers.borrow_mut().wake_due(now);
        }
    }

    /// Wakes everybody, due or not.
    pub(crate) fn wake_all(&self) {
        let mut sleepers = self.sleepers.borrow_mut();
        sleepers.due.clear();
        sleepers.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    fn arm(&self, timer: &AsyncFd<Timer>, sleepers: &mut Sleepers, due: u64) {
        sleepers.armed = due.max(sleepers.next_alarm);
        // Zero would disarm the timer.
        let wait = Duration::from_nanos(sleepers.armed.saturating_sub(self.now()).max(1));
        let once = Expiration::OneShot(TimeSpec::from(wait));
        let set = timer.get_ref().0.set(once, TimerSetTimeFlags::empty());
        debug_assert!(set.is_ok(), "an open timer takes any positive time: {set:?}");
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Sleepers {
    fn new(connections: usize) -> Self {
        Self {
            due: BinaryHeap::with_capacity(connections),
            wakers: vec![None; connections],
            armed: u64::MAX,
            next_alarm: 0,
        }
    }

    fn add(&mut self, connection: usize, due: u64, waker: &Waker) {
        let place = &mut self.wakers[connection];
        if !place.as_ref().is_some_and(|earlier| earlier.will_wake(waker)) {
            *place = Some(waker.clone());
        }
        self.due.push(Reverse((due, connection)));
    }

    fn wake_due(&mut self, now: u64) {
        while let Some(&Reverse((due, connection))) = self.due.peek()
            && due <= now
        {
            self.due.pop();
            if let Some(waker) = &self.wakers[connection] {
                waker.wake_by_ref();
            }
        }
    }
}

impl Ticks {
    fn start() -> Result<Self, Error> {
        let failed = |errno: nix::Error| Error::Io { what: "timer", source: errno.into() };
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).map_err(failed)?;
        let ticks = Expiration::Interval(TimeSpec::from(TICK));
        timer.set(ticks, TimerSetTimeFlags::empty()).map_err(failed)?;
        Ok(Self(timer))
    }

    /// Blocks the thread until the next tick; not at all when one has passed since the last call.
    fn sleep(&self) {
        let slept = self.0.wait();
        debug_assert!(slept.is_ok(), "a timer that is set expires: {slept:?}");
    }
}

fn alarm() -> Result<AsyncFd<Timer>, Error> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)
        .map_err(|errno| Error::Io { what: "timer", source: errno.into() })?;
    #[expect(
        deprecated,
        reason = "its successor differs only in being an unsafe function, which this workspace forbids; what that \
                  asks for holds: `Timer` owns its descriptor and always returns the same one"
    )]
    AsyncFd::new(Timer(timer)).map_err(Error::io("timer"))
}

/// Whether a thread that sends `rate` requests per second goes by ticks.
fn goes_by_ticks(rate: f64) -> bool {
    rate * TICK.as_secs_f64() >= WORTH_A_TICK
}

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Poll, Wake},
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn all_that_is_due_is_woken_together_once_and_nobody_early() {
        let woken: Vec<Arc<Woken>> = (0..5).map(|_| Arc::default()).collect();
        let counts = || woken.iter().map(|one| one.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let mut sleepers = Sleepers::new(5);
        for (connection, due) in [(0, 130), (1, 100), (2, 99), (3, 101), (4, 250)] {
            sleepers.add(connection, due, &woken[connection].clone().into());
        }
        for (now, expected) in [
            (98, [0, 0, 0, 0, 0]),
            (100, [0, 1, 1, 0, 0]),
            (100, [0, 1, 1, 0, 0]),
            (249, [1, 1, 1, 1, 0]),
            (250, [1; 5]),
            (u64::MAX, [1; 5]),
        ] {
            sleepers.wake_due(now);
            assert_eq!(counts(), expected, "at {now}");
        }
        sleepers.add(2, 300, &woken[2].clone().into());
        sleepers.wake_due(300);
        assert_eq!(counts(), [1, 1, 2, 1, 1], "a connection sleeps again and again");
    }

    #[test]
    fn a_thread_goes_by_ticks_where_several_requests_share_one() {
        for (rate, ticks) in [(1.0, false), (39_999.0, false), (40_000.0, true), (1e7, true)] {
            assert_eq!(goes_by_ticks(rate), ticks, "{rate}/s");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn sleepers_wake_in_order_and_never_early() {
        for rate in [100.0, 1e6] {
            in_order(Pacer::for_rate(3, rate, Instant::now()).unwrap()).await;
        }
    }

    async fn in_order(pacer: Pacer) {
        let order = RefCell::new(Vec::new());
        let sleeper = |connection: usize, due: u64| {
            let (pacer, order) = (&pacer, &order);
            let mut asleep = false;
            poll_fn(move |cx| {
                if pacer.now() >= due {
                    order.borrow_mut().push((connection, pacer.now() - due));
                    return Poll::Ready(());
                }
                if !std::mem::replace(&mut asleep, true) {
                    pacer.wake_at(connection, due, cx.waker());
                }
                Poll::Pending
            })
        };
        let all = async { tokio::join!(sleeper(0, 9_000_000), sleeper(1, 3_000_000), sleeper(2, 3_100_000)) };
        tokio::select! {
            _ = all => {}
            () = pacer.run() => unreachable!("it never returns"),
            () = tokio::time::sleep(Duration::from_secs(5)) => panic!("nobody was woken"),
        }
        let order = order.into_inner();
        assert_eq!(order.iter().map(|&(connection, _)| connection).collect::<Vec<_>>(), [1, 2, 0]);
    }
}
