use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{Notify, futures::Notified, watch};

use super::Retained;

/// Messages that no lane holds: new ones at the back, those of a lost connection at the front again, those that are to
/// go behind all others apart, and those that may be what kills connections aside for a while.
///
/// Bounded by the publisher's windows, since every message holds its room from before it comes here until it is
/// confirmed.
#[derive(Debug)]
pub(super) struct Backlog<T> {
    state: Mutex<State<T>>,
    arrived: Notify,
    done: watch::Sender<bool>,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<Retained<T>>,
    /// Taken when nothing else waits.
    behind: VecDeque<Retained<T>>,
    /// Suspects that must wait before they are tried again.
    deferred: Vec<(Instant, Retained<T>)>,
    /// Messages that a lane has in flight; they may come back.
    out: usize,
    /// No new ones will come.
    finished: bool,
}

/// What a lane gets when it asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pull {
    /// Messages were appended, all there were.
    All,
    /// The next message does not fit (some before it may have been appended).
    NoRoom,
}

impl<T> Backlog<T> {
    pub(super) fn new() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            behind: VecDeque::new(),
            deferred: Vec::new(),
            out: 0,
            finished: false,
        };
        Self { state: Mutex::new(state), arrived: Notify::new(), done: watch::Sender::new(false) }
    }

    pub(super) fn push(&self, message: Retained<T>) {
        self.lock().waiting.push_back(message);
        self.arrived.notify_one();
    }

    /// Puts a message behind all others, those that come later too.
    pub(super) fn push_behind(&self, message: Retained<T>) {
        self.lock().behind.push_back(message);
        self.arrived.notify_one();
    }

    /// Puts messages of a lost connection back, oldest first, before everything that was not sent yet.
    pub(super) fn give_back(&self, messages: impl DoubleEndedIterator<Item = Retained<T>>) {
        let mut state = self.lock();
        for message in messages.rev() {
            state.out -= 1;
            state.waiting.push_front(message);
        }
        drop(state);
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// Puts a message back, to be sent again some time after `until` and after all that wait then.
    pub(super) fn defer(&self, message: Retained<T>, until: Instant) {
        let mut state = self.lock();
        state.out -= 1;
        state.deferred.push((until, message));
    }

    /// `n` messages are done with.
    pub(super) fn settled(&self, n: usize) {
        let mut state = self.lock();
        state.out -= n;
        let done = state.is_done();
        drop(state);
        if done {
            self.done.send_replace(true);
        }
    }

    /// Moves messages to `into` for as long as `fits` accepts them.
    pub(super) fn pull(
        &self,
        into: &mut Vec<Retained<T>>,
        mut fits: impl FnMut(&Retained<T>) -> bool,
    ) -> Pull {
        let mut state = self.lock();
        state.readmit();
        while let Some(front) = state.next().front() {
            if !fits(front) {
                drop(state);
                // The wake-up that brought us here belongs to a lane with room.
                self.arrived.notify_one();
                return Pull::NoRoom;
            }
            into.extend(state.next().pop_front());
            state.out += 1;
        }
        Pull::All
    }

    /// Completes when messages have come since this was called. Cancel safe: a wake-up that was received is passed on.
    pub(super) fn arrival(&self) -> Notified<'_> {
        self.arrived.notified()
    }

    /// No new messages will come.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        let done = state.is_done();
        drop(state);
        if done {
            self.done.send_replace(true);
        }
    }

    /// Turns true when all is confirmed and no more will come.
    pub(super) fn done(&self) -> watch::Receiver<bool> {
        self.done.subscribe()
    }

    /// Everything that is left.
    pub(super) fn take_all(&self) -> VecDeque<Retained<T>> {
        let mut state = self.lock();
        let mut all = std::mem::take(&mut state.waiting);
        all.append(&mut state.behind);
        all.extend(std::mem::take(&mut state.deferred).into_iter().map(|(_, message)| message));
        all
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn is_done(&self) -> bool {
        self.finished
            && self.waiting.is_empty()
            && self.behind.is_empty()
            && self.deferred.is_empty()
            && self.out == 0
    }

    /// The queue whose turn it is.
    fn next(&mut self) -> &mut VecDeque<Retained<T>> {
        if self.waiting.is_empty() { &mut self.behind } else { &mut self.waiting }
    }

    /// Lets those in again that have waited for long enough.
    fn readmit(&mut self) {
        if self.deferred.is_empty() {
            return;
        }
        let now = Instant::now();
        let due = self.deferred.extract_if(.., |(until, _)| *until <= now);
        self.waiting.extend(due.map(|(_, message)| message));
    }
}
