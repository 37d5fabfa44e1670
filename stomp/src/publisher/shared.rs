use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    select,
    sync::{mpsc, watch},
    time::timeout,
};

use super::{Outcome, PublisherOptions, Retained, backlog::Backlog, status::Board};
use crate::pool::Seats;

/// For a reader of the outcomes that does not read while the publisher is being closed.
const TELL: Duration = Duration::from_secs(5);

/// What the lanes of a publisher have in common.
#[derive(Debug)]
pub(super) struct Shared<T> {
    pub(super) options: PublisherOptions,
    pub(super) backlog: Backlog<T>,
    pub(super) board: Arc<Board>,
    pub(super) seats: Arc<Seats>,
    outcomes: mpsc::Sender<Outcome<T>>,
    /// The reader of the outcomes did not read when it was waited for at the end.
    deaf: AtomicBool,
}

impl<T> Shared<T> {
    pub(super) fn new(options: PublisherOptions, outcomes: mpsc::Sender<Outcome<T>>) -> Self {
        let seats = Arc::new(Seats::new(options.brokers.clone(), options.backoff, options.rebalance));
        Self {
            backlog: Backlog::new(),
            board: Arc::new(Board::new(options.connections.max(1), Arc::clone(&seats))),
            seats,
            options,
            outcomes,
            deaf: AtomicBool::new(false),
        }
    }

    /// Tells an outcome. A reader that has gone wants none; one that does not read makes the lane wait, but once the
    /// publisher is stopped not for long, and not for every message.
    pub(super) async fn tell(&self, outcome: Outcome<T>, stopped: &mut watch::Receiver<bool>) {
        let permit = select! {
            biased;
            permit = self.outcomes.reserve() => permit.ok(),
            () = turned(stopped) => self.last_permit().await,
        };
        if let Some(permit) = permit {
            permit.send(outcome);
        }
    }

    /// Tells that the publisher was stopped before a message was confirmed.
    pub(super) async fn abandon(&self, retained: Retained<T>) {
        let Retained { message, attempts, .. } = retained;
        if let Some(permit) = self.last_permit().await {
            permit.send(Outcome::Abandoned { token: message.token, attempts });
        }
    }

    async fn last_permit(&self) -> Option<mpsc::Permit<'_, Outcome<T>>> {
        let within = if self.deaf.load(Ordering::Relaxed) { Duration::ZERO } else { TELL };
        let permit = timeout(within, self.outcomes.reserve()).await;
        self.deaf.store(permit.is_err(), Ordering::Relaxed);
        permit.ok()?.ok()
    }
}

/// Completes when the flag is set, or its owner is gone.
pub(super) async fn turned(flag: &mut watch::Receiver<bool>) {
    drop(flag.wait_for(|turned| *turned).await);
}
