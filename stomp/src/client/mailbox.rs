use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{Message, SubscriptionError};
use crate::proto::{Frame, Subscribe};

/// Between the connection's task, which puts messages in and never waits, and the subscription, which takes them out.
/// Bounded by the subscription's credit, and what may exceed it.
#[derive(Debug)]
pub(crate) struct Mailbox {
    credit: usize,
    room: usize,
    acks_on_take: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Message>,
    waker: Option<Waker>,
    end: End,
    /// The server has receipted SUBSCRIBE once.
    established: bool,
    /// Messages taken and not acknowledged yet; only where messages are acknowledged by being taken.
    taken: Vec<Message>,
}

#[derive(Debug, Default)]
enum End {
    #[default]
    NotYet,
    /// To be told once.
    With(SubscriptionError),
    Told,
}

impl Mailbox {
    pub(crate) fn new(subscribe: &Subscribe) -> Self {
        let credit = subscribe.prefetch.max(1).into();
        let room = credit + usize::from(subscribe.excess);
        Self { credit, room, acks_on_take: subscribe.acks_on_take, state: Mutex::default() }
    }

    /// Adds a message. False if there is no room for it: the server sent more than it may.
    pub(crate) fn put(&self, message: Message) -> bool {
        let mut state = self.lock();
        if !matches!(state.end, End::NotYet) {
            return true;
        }
        if state.waiting.len() >= self.room || state.taken.len() >= self.room {
            return false;
        }
        state.waiting.push_back(message);
        let waker = state.waker.take();
        drop(state);
        wake(waker);
        true
    }

    /// The next message; `None` after the end. `true` with it when an ACK of what was taken is due.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<(Option<Result<Message, SubscriptionError>>, bool)> {
        let mut state = self.lock();
        let Some(message) = state.waiting.pop_front() else {
            return match std::mem::replace(&mut state.end, End::Told) {
                End::With(error) => Poll::Ready((Some(Err(error)), false)),
                End::Told => Poll::Ready((None, false)),
                End::NotYet => {
                    state.end = End::NotYet;
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        if self.acks_on_take {
            state.taken.push(message.clone());
        }
        // At half the credit, so that the server never has to stop, and the ACKs leave in one write.
        let due = self.acks_on_take && state.taken.len() >= self.credit.div_ceil(2);
        Poll::Ready((Some(Ok(message)), due))
    }

    /// The messages to acknowledge, if so many were taken that it is due, or in any case.
    pub(crate) fn take_due_acks(&self, in_any_case: bool) -> Vec<Message> {
        let mut state = self.lock();
        if !in_any_case && state.taken.len() < self.credit.div_ceil(2) {
            return Vec::new();
        }
        std::mem::take(&mut state.taken)
    }

    /// The connection was lost. Messages that wait here and were to be acknowledged will be delivered again: they go,
    /// so that none is seen twice for this reason.
    pub(crate) fn connection_lost(&self, delivered_again: bool) {
        let mut state = self.lock();
        if delivered_again {
            state.waiting.clear();
        }
        state.taken.clear();
    }

    /// Nothing more will come; what waits can still be taken. The first end counts.
    pub(crate) fn end(&self, error: Option<SubscriptionError>) {
        let mut state = self.lock();
        if matches!(state.end, End::NotYet) {
            state.end = error.map_or(End::Told, End::With);
        }
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    pub(crate) fn establish(&self) {
        self.lock().established = true;
    }

    pub(crate) fn is_established(&self) -> bool {
        self.lock().established
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Message {
    pub(crate) const fn new(frame: Frame, subscription: u64, connection: u64) -> Self {
        Self { frame, subscription, connection }
    }
}
