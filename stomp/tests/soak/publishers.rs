//! Those who publish: every message is sent until it is confirmed, under one id.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use stompwire::{
    Backoff, Frame, Headers,
    client::{BrokerUrl, Client, Receipt, Window},
    publisher::{LaneState, Message, Outcome, Publisher, PublisherOptions},
};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    LIMIT, Stage,
    ledger::{Id, Ledger, body, name},
};

/// Messages a publisher issues in a [`beat`]: 8 × 4 × 100/s = 3,200/s in all.
const AT_ONCE: usize = 4;
/// Receipts that a publisher lets be pending.
const PENDING: usize = 200;

pub(crate) struct Task {
    pub(crate) index: usize,
    pub(crate) destination: String,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stage: watch::Receiver<Stage>,
}

fn beat() -> Interval {
    let mut beat = interval(Duration::from_millis(10));
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    beat
}

impl Task {
    /// With a client's receipts. The client is given back, for the judge and to be closed.
    pub(crate) async fn with_client(self, client: Client) -> Client {
        let mut beat = beat();
        let mut pending = VecDeque::new();
        let mut again = VecDeque::new();
        loop {
            let issues = *self.stage.borrow() == Stage::Faults;
            if !issues && pending.is_empty() && again.is_empty() {
                return client;
            }
            beat.tick().await;
            let due = if issues { AT_ONCE } else { 0 } + again.len();
            for _ in 0..due {
                let id = again.pop_front().unwrap_or_else(|| self.ledger.issue(self.index));
                match client.send_with_receipt(self.frame(id)).await {
                    Ok(receipt) => {
                        self.ledger.receipts_asked.fetch_add(1, Relaxed);
                        pending.push_back((id, receipt));
                    }
                    Err(error) if error.is_retryable() => again.push_back(id),
                    Err(error) => self.ledger.wrong(format!("{id:?} cannot be sent: {error}")),
                }
                while pending.len() >= PENDING {
                    self.settle(&mut pending, &mut again).await;
                }
            }
            if !issues {
                while !pending.is_empty() {
                    self.settle(&mut pending, &mut again).await;
                }
            }
        }
    }

    fn frame(&self, id: Id) -> Frame {
        Frame::send(&self.destination, body(id))
            .with_header("persistent", "true")
            .with_header("amqp-message-id", &name(id))
    }

    /// The outcome of the oldest.
    async fn settle(&self, pending: &mut VecDeque<(Id, Receipt)>, again: &mut VecDeque<Id>) {
        let Some((id, receipt)) = pending.pop_front() else { return };
        let Ok(outcome) = timeout(LIMIT, receipt).await else {
            self.ledger.wrong(format!("the receipt of {id:?} never resolved"));
            return;
        };
        self.ledger.receipts_resolved.fetch_add(1, Relaxed);
        match outcome {
            Ok(()) => self.ledger.confirm(id),
            Err(error) if error.is_retryable() => {
                if !error.was_never_sent() {
                    self.ledger.sent_again.fetch_add(1, Relaxed);
                }
                again.push_back(id);
            }
            Err(error) => self.ledger.wrong(format!("{id:?} cannot be confirmed: {error}")),
        }
    }

    /// With a publisher, which sends again by itself.
    pub(crate) async fn with_publisher(mut self, url: BrokerUrl) {
        let mut options = PublisherOptions::new(vec![url], &self.destination);
        options.connect = crate::options();
        options.connect.window = Window { frames: PENDING, ..Window::default() };
        options.backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_millis(500) };
        options.receipt_timeout = Duration::from_secs(10);
        let (publisher, mut outcomes) = Publisher::start(options).unwrap();
        let ledger = Arc::clone(&self.ledger);
        let reading = tokio::spawn(async move {
            while let Some(outcome) = outcomes.recv().await {
                ledger.receipts_resolved.fetch_add(1, Relaxed);
                match outcome {
                    Outcome::Confirmed { token, .. } => ledger.confirm(token),
                    other => ledger.wrong(format!("not confirmed by the publisher: {other:?}")),
                }
            }
        });
        let mut beat = beat();
        while *self.stage.borrow() == Stage::Faults {
            beat.tick().await;
            for _ in 0..AT_ONCE {
                let id = self.ledger.issue(self.index);
                self.ledger.receipts_asked.fetch_add(1, Relaxed);
                let message =
                    Message { id: name(id), headers: Headers::new(), body: body(id).into(), token: id };
                if timeout(LIMIT, publisher.publish(message)).await.is_err() {
                    self.ledger.wrong(format!("no room for {id:?} within {LIMIT:?}"));
                }
            }
        }
        let connected = async {
            while publisher.lanes().iter().any(|lane| lane.state != LaneState::Connected) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(LIMIT, connected).await.is_err() {
            self.ledger.wrong(format!("a publisher is not connected in the end: {:?}", publisher.lanes()));
        }
        // Its connections live on until the clients' are looked at too.
        drop(self.stage.wait_for(|stage| *stage >= Stage::Drained).await);
        let totals = publisher.board().totals();
        publisher.close(LIMIT).await;
        if timeout(LIMIT, reading).await.is_err() {
            self.ledger.wrong("the outcomes of a closed publisher do not end".into());
        }
        self.ledger.sent_again.fetch_add(totals.resent, Relaxed);
        self.ledger.reconnects.fetch_add(totals.connects.saturating_sub(1), Relaxed);
    }
}
