use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{ConnectionError, Unconfirmed, mailbox::Mailbox};

/// The future RECEIPT of one frame. Resolves once, whatever happens to the connection: at the latest when the receipt
/// timeout has passed since the frame was queued for writing.
///
/// Cancel safe: dropping it changes nothing on the wire; the frame keeps its place in the window until its RECEIPT or
/// the connection's end.
#[derive(Debug)]
#[must_use = "without awaiting it nobody knows whether the frame was processed"]
pub struct Receipt {
    outcome: oneshot::Receiver<Result<(), Unconfirmed>>,
}

impl Future for Receipt {
    type Output = Result<(), Unconfirmed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The sender is only dropped unused when the connection's task is aborted or its runtime torn down.
        Poll::Ready(
            ready!(Pin::new(&mut self.outcome).poll(cx))
                .unwrap_or(Err(Unconfirmed::ConnectionLost(ConnectionError::ClosedByUs))),
        )
    }
}

/// One frame's claim: its place in the window, and who wants to know.
#[derive(Debug)]
pub(crate) struct Token {
    waiter: Waiter,
    /// The publisher keeps the room of its frames itself, until it has seen the outcome.
    _room: Option<Room>,
}

/// A place in the window; given back on drop.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) _frames: OwnedSemaphorePermit,
    pub(crate) _bytes: OwnedSemaphorePermit,
}

/// An outcome with the key its frame was sent under.
pub(crate) type Completion = (u64, Result<(), Unconfirmed>);

#[derive(Debug)]
enum Waiter {
    /// A [`Receipt`].
    One(oneshot::Sender<Result<(), Unconfirmed>>),
    /// The [`Receipt`] of a SUBSCRIBE: from then on the subscription is to be kept over reconnects.
    Subscriber(oneshot::Sender<Result<(), Unconfirmed>>, Arc<Mailbox>),
    /// The publisher: many outcomes through one channel, which has a slot for every frame of the window.
    Many { key: u64, completions: mpsc::Sender<Completion> },
}

impl Token {
    /// A token whose outcome goes to a channel. The caller bounds the frames in flight to the channel's capacity.
    pub(crate) const fn keyed(key: u64, completions: mpsc::Sender<Completion>) -> Self {
        Self { waiter: Waiter::Many { key, completions }, _room: None }
    }

    /// A token and the future that it resolves.
    pub(crate) fn with_receipt(room: Room) -> (Self, Receipt) {
        let (sender, outcome) = oneshot::channel();
        (Self { waiter: Waiter::One(sender), _room: Some(room) }, Receipt { outcome })
    }

    /// The same for SUBSCRIBE.
    pub(crate) fn for_subscription(room: Room, mailbox: Arc<Mailbox>) -> (Self, Receipt) {
        let (sender, outcome) = oneshot::channel();
        (Self { waiter: Waiter::Subscriber(sender, mailbox), _room: Some(room) }, Receipt { outcome })
    }

    /// Tells the outcome and gives the place in the window back. A waiter that has gone is fine.
    pub(crate) fn resolve(self, outcome: Result<(), Unconfirmed>) {
        match self.waiter {
            Waiter::One(sender) => drop(sender.send(outcome)),
            Waiter::Subscriber(sender, mailbox) => {
                if outcome.is_ok() {
                    mailbox.establish();
                }
                drop(sender.send(outcome));
            }
            Waiter::Many { key, completions } => drop(completions.try_send((key, outcome))),
        }
    }
}
