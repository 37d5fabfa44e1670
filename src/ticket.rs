//! Tickets: how the answer to a request learns what became of its beacon.
//!
//! A route with `ack = "spooled"` or `"confirmed"` gives each copy of its beacon a [`Ticket`], and answers when all of them
//! are resolved ([`Waiting`]). A ticket that is dropped unresolved, wherever that happens, counts as lost, so that no path
//! of a beacon can leave its request without an answer. Routes with `ack = "accepted"` have none of this.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What an answer promises: `routes.NAME.ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// The beacon is on the ring.
    #[default]
    Accepted,
    /// It is on disk, in the spool of every destination.
    Spooled,
    /// The brokers of every destination have confirmed it.
    Confirmed,
}

/// Why there is no promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// One beacon's answer waits for this, once per destination. One word; dropped unresolved, it counts as lost.
#[derive(Debug)]
pub struct Ticket(Arc<Wait>);

/// The answer's side: a future that is ready when every ticket is resolved, or one is lost. Cancel safe.
#[derive(Debug)]
pub struct Waiting(Arc<Wait>);

#[derive(Debug)]
struct Wait {
    ack: Ack,
    state: Mutex<State>,
}

/// A ticket is lost when it is dropped without having been resolved: when more are dropped than resolved.
#[derive(Debug, Default)]
struct State {
    issued: u32,
    resolved: u32,
    dropped: u32,
    /// The answer was given, or is not wanted any more.
    is_over: bool,
    waker: Option<Waker>,
}

impl Ack {
    /// A word for headers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Spooled => "spooled",
            Self::Confirmed => "confirmed",
        }
    }
}

impl Waiting {
    /// Waits for `ack`. Without a ticket there is nothing to wait for.
    #[must_use]
    pub fn new(ack: Ack) -> Self {
        Self(Arc::new(Wait { ack, state: Mutex::default() }))
    }

    /// One more ticket. All are to be issued before the future is polled.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.0.state.lock().issued += 1;
        Ticket(Arc::clone(&self.0))
    }
}

impl Future for Waiting {
    type Output = Result<(), Lost>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state.lock();
        let verdict = state.verdict();
        if verdict.is_none() {
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                waker => *waker = Some(cx.waker().clone()),
            }
        }
        verdict.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_over = true;
        state.waker = None;
    }
}

impl Ticket {
    /// What its answer waits for.
    #[must_use]
    pub fn ack(&self) -> Ack {
        self.0.ack
    }

    /// Whether an answer still waits for it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let state = self.0.state.lock();
        !state.is_over && state.verdict().is_none()
    }

    /// What its answer waits for has come about.
    pub fn resolve(self) {
        self.0.change(|state| state.resolved += 1);
    }

    /// Resolves those of `tickets` whose answers wait for the spool; the others are left.
    pub fn resolve_spooled(tickets: &mut Vec<Self>) {
        tickets.extract_if(.., |ticket| ticket.ack() == Ack::Spooled).for_each(Self::resolve);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.change(|state| state.dropped += 1);
    }
}

impl Wait {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let waker = if state.verdict().is_some() { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn verdict(&self) -> Option<Result<(), Lost>> {
        if self.dropped > self.resolved {
            Some(Err(Lost))
        } else {
            (self.resolved == self.issued).then_some(Ok(()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The state of the wait, and how often it has been woken.
    fn poll(waiting: &mut Waiting, wakes: &Arc<Wakes>) -> (Poll<Result<(), Lost>>, u32) {
        let waker = Waker::from(Arc::clone(wakes));
        let state = Pin::new(waiting).poll(&mut Context::from_waker(&waker));
        (state, wakes.0.load(Ordering::Relaxed))
    }

    #[test]
    fn a_ticket_takes_one_word_even_where_there_is_none() {
        assert_eq!(size_of::<Option<Ticket>>(), size_of::<usize>());
    }

    #[test]
    fn the_answer_waits_for_every_ticket_and_is_woken_once() {
        let (mut waiting, wakes) = (Waiting::new(Ack::Confirmed), Arc::default());
        let [first, second] = [waiting.ticket(), waiting.ticket()];
        assert_eq!(poll(&mut waiting, &wakes), (Poll::Pending, 0));
        first.resolve();
        assert_eq!(poll(&mut waiting, &wakes), (Poll::Pending, 0));
        std::thread::scope(|scope| drop(scope.spawn(|| second.resolve())));
        assert_eq!(poll(&mut waiting, &wakes), (Poll::Ready(Ok(())), 1));
    }

    #[test]
    fn one_dropped_ticket_is_a_lost_beacon_at_once_and_in_any_order() {
        for resolved_first in [false, true] {
            let (mut waiting, wakes) = (Waiting::new(Ack::Spooled), Arc::default());
            let [first, second, third] = [waiting.ticket(), waiting.ticket(), waiting.ticket()];
            assert_eq!(poll(&mut waiting, &wakes), (Poll::Pending, 0));
            if resolved_first {
                first.resolve();
                drop(second);
            } else {
                drop(second);
                first.resolve();
            }
            assert!(!third.is_wanted());
            assert_eq!(poll(&mut waiting, &wakes), (Poll::Ready(Err(Lost)), 1));
            third.resolve();
            assert_eq!(poll(&mut waiting, &wakes).0, Poll::Ready(Err(Lost)));
        }
    }

    #[test]
    fn a_ticket_knows_whether_somebody_waits() {
        let waiting = Waiting::new(Ack::Spooled);
        let ticket = waiting.ticket();
        assert!(ticket.is_wanted());
        drop(waiting);
        assert!(!ticket.is_wanted());
    }

    #[test]
    fn the_spool_resolves_those_that_wait_for_it() {
        let mut spooled = Waiting::new(Ack::Spooled);
        let mut confirmed = Waiting::new(Ack::Confirmed);
        let mut tickets = vec![spooled.ticket(), confirmed.ticket(), spooled.ticket()];
        Ticket::resolve_spooled(&mut tickets);
        assert_eq!(tickets.len(), 1);
        assert_eq!(poll(&mut spooled, &Arc::default()).0, Poll::Ready(Ok(())));
        assert_eq!(poll(&mut confirmed, &Arc::default()).0, Poll::Pending);
    }
}
