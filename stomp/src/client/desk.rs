use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc, watch};

use super::{
    ConnectionError, SendError, State, SubscriptionError,
    driver::{Command, Outgoing, Payload},
    mailbox::Mailbox,
};
use crate::proto::{AckMode, Subscribe};

/// What the task keeps over its connections: who asks, and who listens.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) commands: mpsc::Receiver<Command>,
    /// Room for commands taken at once, kept.
    pub(super) taken: Vec<Command>,
    pub(super) subscriptions: BTreeMap<u64, Registered>,
    /// The order to close has come, or nobody is left to give one.
    pub(super) is_closing: bool,
    wake: mpsc::Receiver<()>,
    counter: Arc<Counter>,
    state: watch::Sender<State>,
    times: Times,
}

/// A subscription, as it must be made anew after a reconnect.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) subscribe: Subscribe,
    pub(super) mailbox: Arc<Mailbox>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) close_timeout: Duration,
    pub(super) receipt_timeout: Option<Duration>,
}

/// The part of the desk that handles reach without waiting.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) frames: Arc<Semaphore>,
    pub(super) bytes: Arc<Semaphore>,
    /// What dropped subscriptions and transactions still have to say; bounded by their number.
    left_behind: Mutex<Vec<Outgoing>>,
    wake: mpsc::Sender<()>,
}

impl Counter {
    pub(super) fn leave_behind(&self, outgoing: Outgoing) {
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner).push(outgoing);
        self.wake();
    }

    /// Has the task look at the desk again.
    pub(super) fn wake(&self) {
        // Full: it is about to look. Closed: it is gone.
        self.wake.try_send(()).unwrap_or_default();
    }
}

impl Desk {
    pub(super) fn new(
        windows: (usize, usize),
        commands: mpsc::Receiver<Command>,
        state: watch::Sender<State>,
        times: Times,
    ) -> (Self, Arc<Counter>) {
        let (sender, wake) = mpsc::channel(1);
        let counter = Arc::new(Counter {
            frames: Arc::new(Semaphore::new(windows.0)),
            bytes: Arc::new(Semaphore::new(windows.1)),
            left_behind: Mutex::default(),
            wake: sender,
        });
        let desk = Self {
            commands,
            taken: Vec::new(),
            subscriptions: BTreeMap::new(),
            is_closing: false,
            wake,
            counter: Arc::clone(&counter),
            state,
            times,
        };
        (desk, counter)
    }

    pub(super) fn enter(&self, state: State) {
        self.state.send_replace(state);
    }

    pub(super) const fn close_timeout(&self) -> Duration {
        self.times.close_timeout
    }

    pub(super) const fn receipt_timeout(&self) -> Option<Duration> {
        self.times.receipt_timeout
    }

    /// Whether a handle wants the desk looked at.
    pub(super) fn poll_wake(&mut self, cx: &mut Context<'_>) -> bool {
        matches!(self.wake.poll_recv(cx), Poll::Ready(Some(())))
    }

    pub(super) fn take_left_behind(&self) -> Vec<Outgoing> {
        std::mem::take(&mut self.counter.left_behind.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The subscriptions whose messages are acknowledged by being taken.
    pub(super) fn acknowledging(&self) -> impl Iterator<Item = u64> + '_ {
        let acks = |registered: &Registered| registered.subscribe.acks_on_take;
        self.subscriptions.iter().filter(move |(_, registered)| acks(registered)).map(|(id, _)| *id)
    }

    pub(super) fn connection_lost(&self) {
        for Registered { subscribe, mailbox } in self.subscriptions.values() {
            mailbox.connection_lost(subscribe.ack != AckMode::Auto);
        }
    }

    /// Serves the handles while there is no connection: what is dropped goes, what is sent is refused. Completes with
    /// the order to close. Cancel safe.
    pub(super) async fn serve_unconnected(&mut self, cause: &ConnectionError) {
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    None | Some(Command::Close { .. }) => return,
                    Some(command) => {
                        if let Command::One(Outgoing { payload: Payload::Unsubscribe(id), .. }) = &command {
                            self.subscriptions.remove(id);
                        }
                        command.refuse(&SendError::NotConnected(cause.clone()));
                    }
                },
                Some(()) = self.wake.recv() => {}
            }
            self.drop_left_behind();
        }
    }

    fn drop_left_behind(&mut self) {
        for outgoing in self.take_left_behind() {
            if let Payload::Unsubscribe(id) = outgoing.payload {
                self.subscriptions.remove(&id);
            }
        }
    }

    /// The end: tells everybody who waits. Nothing is taken any more.
    pub(super) fn finish(&mut self, cause: &ConnectionError) {
        if self.state.borrow().is_closed() {
            return;
        }
        self.enter(State::Closed { cause: cause.clone() });
        self.counter.frames.close();
        self.counter.bytes.close();
        self.commands.close();
        let error = SendError::Closed(cause.clone());
        while let Ok(command) = self.commands.try_recv() {
            command.refuse(&error);
        }
        for Registered { mailbox, .. } in std::mem::take(&mut self.subscriptions).into_values() {
            let by_us = matches!(cause, ConnectionError::ClosedByUs);
            mailbox.end((!by_us).then(|| SubscriptionError::Closed(cause.clone())));
        }
    }
}

impl Drop for Desk {
    /// Also when the task is aborted.
    fn drop(&mut self) {
        self.finish(&ConnectionError::ClosedByUs);
    }
}
