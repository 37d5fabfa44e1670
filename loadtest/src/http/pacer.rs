//! Wakes connections at the moment their next request is due.
//!
//! tokio's timer rounds up to a millisecond, which would show as latency. A `timerfd` is good to some microseconds; one
//! serves all connections of a thread. Setting it and being woken by it takes longer than to send a request on a virtual
//! machine, so at high rates it is set for a few requests together, and every answer that arrives is a chance to look for
//! what is due meanwhile.

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
use tokio::io::unix::AsyncFd;

use crate::Error;

/// The shortest time between two alarms, in nanoseconds: below the time that a wake-up takes in any case.
const QUANTUM_NS: u64 = 50_000;

/// The alarm clock of one thread's connections.
#[derive(Debug)]
pub(crate) struct Pacer {
    timer: AsyncFd<Timer>,
    origin: Instant,
    sleepers: RefCell<Sleepers>,
}

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
    /// A pacer for connections numbered below `connections`; times count from `origin`.
    ///
    /// # Errors
    /// When the system has no timer to give, or when called outside of a tokio runtime with I/O.
    pub(crate) fn new(connections: usize, origin: Instant) -> Result<Self, Error> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)
            .map_err(|errno| Error::Io { what: "timer", source: errno.into() })?;
        #[expect(
            deprecated,
            reason = "its successor differs only in being an unsafe function, which this workspace forbids; what that \
                      asks for holds: `Timer` owns its descriptor and always returns the same one"
        )]
        let timer = AsyncFd::new(Timer(timer)).map_err(Error::io("timer"))?;
        Ok(Self {
            timer,
            origin,
            sleepers: RefCell::new(Sleepers {
                due: BinaryHeap::with_capacity(connections),
                wakers: vec![None; connections],
                armed: u64::MAX,
                next_alarm: 0,
            }),
        })
    }

    /// Has `waker` woken at `due` (nanoseconds since the origin), in place of an earlier one of this connection.
    pub(crate) fn wake_at(&self, connection: usize, due: u64, waker: &Waker) {
        let mut sleepers = self.sleepers.borrow_mut();
        sleepers.wakers[connection] = Some(waker.clone());
        sleepers.due.push(Reverse((due, connection)));
        if due.max(sleepers.next_alarm) < sleepers.armed {
            self.arm(&mut sleepers, due);
        }
    }

    /// Wakes connections as they fall due; never returns. Cancel safe.
    pub(crate) async fn run(&self) {
        loop {
            match self.timer.readable().await {
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
            self.wake_due(now);
            let mut sleepers = self.sleepers.borrow_mut();
            if let Some(&Reverse((due, _))) = sleepers.due.peek() {
                self.arm(&mut sleepers, due);
            }
        }
    }

    /// Wakes connections that are due at `now`; cheap when there are none.
    pub(crate) fn wake_due(&self, now: u64) {
        let mut sleepers = self.sleepers.borrow_mut();
        while let Some(&Reverse((due, connection))) = sleepers.due.peek()
            && due <= now
        {
            sleepers.due.pop();
            if let Some(waker) = sleepers.wakers[connection].take() {
                waker.wake();
            }
        }
    }

    /// Wakes everybody, due or not.
    pub(crate) fn wake_all(&self) {
        let mut sleepers = self.sleepers.borrow_mut();
        sleepers.due.clear();
        sleepers.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    fn arm(&self, sleepers: &mut Sleepers, due: u64) {
        sleepers.armed = due.max(sleepers.next_alarm);
        // Zero would disarm the timer.
        let wait = Duration::from_nanos(sleepers.armed.saturating_sub(self.now()).max(1));
        let once = Expiration::OneShot(TimeSpec::from(wait));
        let set = self.timer.get_ref().0.set(once, TimerSetTimeFlags::empty());
        debug_assert!(set.is_ok(), "an open timer takes any positive time: {set:?}");
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
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
    use std::{future::poll_fn, task::Poll};

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn sleepers_wake_in_order_and_never_early() {
        let pacer = Pacer::new(3, Instant::now()).unwrap();
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
