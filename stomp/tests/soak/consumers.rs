//! Those who consume, in every way there is. A message counts as consumed when it is acknowledged: one that was taken and
//! whose acknowledgement was refused, or that was nacked, must come again.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use stompwire::client::{
    AckMode, Client, ClientBuilder, Message, SendError, Subscribe, Subscription, Unconfirmed,
};
use tokio::{sync::watch, time::timeout};

use crate::{
    LIMIT, Roll, Stage,
    ledger::{Id, Ledger},
};

/// Nothing came for so long: what is held is acknowledged, or all is done.
const IDLE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One verdict a message; some with a receipt, some in a transaction, some a NACK.
    Individual,
    /// One verdict for several.
    Cumulative,
    /// The client acknowledges what is taken.
    OnTake,
}

pub(crate) struct Task {
    pub(crate) index: usize,
    pub(crate) kind: Kind,
    pub(crate) destination: String,
    pub(crate) builder: ClientBuilder,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) roll: Arc<Roll>,
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) rng: fastrand::Rng,
}

type Held = Vec<(Id, Message)>;

impl Task {
    pub(crate) async fn run(mut self) {
        let mut client = self.client();
        let mut messages = self.subscribe(&client).await;
        let mut held = Held::new();
        // How many are to be held before they are acknowledged together.
        let mut together = 1;
        let mut is_calm = false;
        loop {
            if !is_calm && *self.stage.borrow() >= Stage::Healed {
                is_calm = true;
                self.ledger.calm.fetch_add(1, Relaxed);
            }
            let mut is_idle = false;
            match timeout(IDLE, messages.next()).await {
                Ok(Some(Ok(message))) => {
                    if let Some(id) = self.ledger.open(&message) {
                        held.push((id, message));
                    }
                    if held.len() >= together {
                        self.settle(&client, &messages, &mut held).await;
                        together = self.how_many_together();
                    }
                }
                Ok(end) => {
                    self.ledger.wrong(format!("consumer {}: its subscription ended: {end:?}", self.index));
                    return;
                }
                Err(_) if !held.is_empty() => self.settle(&client, &messages, &mut held).await,
                Err(_) if *self.stage.borrow() >= Stage::Drained => break,
                Err(_) => is_idle = true,
            }
            // The more so when nothing comes, since then the connection may be lost just now.
            if self.now_and_then(if is_idle { 3 } else { 1500 }) {
                held.clear();
                self.ledger.resubscribed.fetch_add(1, Relaxed);
                if self.rng.bool() {
                    self.unsubscribe(messages).await;
                } else {
                    drop(messages);
                }
                // An ACK of RabbitMQ's mode `client` is for the whole connection, for what was left behind too.
                if self.kind == Kind::Cumulative {
                    self.close(client).await;
                    client = self.client();
                }
                messages = self.subscribe(&client).await;
            }
        }
        self.unsubscribe(messages).await;
        self.close(client).await;
    }

    fn client(&self) -> Client {
        let client = self.builder.clone().start().unwrap();
        self.roll.enter(self.index, &client);
        client
    }

    async fn close(&self, client: Client) {
        self.roll.leave(self.index, &self.ledger);
        // In the midst of faults the connection may be lost meanwhile, but closing must not take for ever.
        let must_succeed = *self.stage.borrow() >= Stage::Drained;
        match timeout(LIMIT / 2, client.close(LIMIT)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) if !must_succeed => {}
            other => self.ledger.wrong(format!("consumer {} cannot be closed: {other:?}", self.index)),
        }
    }

    async fn subscribe(&self, client: &Client) -> Subscription {
        let subscribe = Subscribe::to(&self.destination).with_prefetch(50);
        let subscribe = match self.kind {
            Kind::Individual => subscribe,
            Kind::Cumulative => subscribe.with_ack(AckMode::Client),
            Kind::OnTake => subscribe.acknowledged_on_take(),
        };
        loop {
            match self.in_time("SUBSCRIBE", client.subscribe(subscribe.clone())).await {
                Ok(messages) => return messages,
                Err(error) => self.expect_passing("cannot subscribe", &error),
            }
        }
    }

    async fn unsubscribe(&self, messages: Subscription) {
        if let Err(error) = self.in_time("UNSUBSCRIBE", messages.unsubscribe()).await {
            self.expect_passing("cannot unsubscribe", &error);
        }
    }

    fn how_many_together(&mut self) -> usize {
        match self.kind {
            Kind::Individual if self.rng.u32(..20) == 0 => 5,
            Kind::Individual | Kind::OnTake => 1,
            Kind::Cumulative => self.rng.usize(1..20),
        }
    }

    /// True once in so many times, as long as there are faults.
    fn now_and_then(&mut self, times: u32) -> bool {
        *self.stage.borrow() == Stage::Faults && self.rng.u32(..times) == 0
    }

    /// Gives a verdict on all that is held.
    async fn settle(&mut self, client: &Client, messages: &Subscription, held: &mut Held) {
        let mut held = std::mem::take(held);
        if self.kind == Kind::OnTake {
            return self.consume(&held);
        }
        if self.now_and_then(300) {
            self.ledger.nacks.fetch_add(held.len() as u64, Relaxed);
            return match self.kind {
                Kind::Individual => {
                    for (_, message) in &held {
                        self.note(messages.nack(message).await);
                    }
                }
                _ => drop(self.note(messages.nack(&held[held.len() - 1].1).await)),
            };
        }
        if self.kind == Kind::Cumulative {
            let last = &held[held.len() - 1].1;
            if self.note(messages.ack(last).await) {
                self.consume(&held);
            }
        } else if held.len() > 1 {
            self.commit(client, messages, held).await;
        } else if self.rng.u32(..10) == 0 {
            let (_, message) = &held[0];
            let outcome = match messages.ack_with_receipt(message).await {
                Ok(receipt) => {
                    self.ledger.receipts_asked.fetch_add(1, Relaxed);
                    let outcome = self.in_time("the receipt of an ACK", receipt).await;
                    self.ledger.receipts_resolved.fetch_add(1, Relaxed);
                    outcome
                }
                Err(error) => Err(error.into()),
            };
            self.consume_unless_not_sent(&held, outcome);
        } else if let Some((id, message)) = held.pop()
            && self.note(messages.ack(&message).await)
        {
            self.ledger.consume(id);
        }
    }

    /// All of them in a transaction; one by one if it fails, since some may have come over the present connection.
    async fn commit(&self, client: &Client, messages: &Subscription, held: Held) {
        match self.in_time("a transaction", self.transact(client, messages, &held)).await {
            Err(error) if error.was_never_sent() => {
                self.expect_passing("cannot commit", &error);
                for (id, message) in held {
                    if self.note(messages.ack(&message).await) {
                        self.ledger.consume(id);
                    }
                }
            }
            outcome => self.consume_unless_not_sent(&held, outcome),
        }
    }

    async fn transact(
        &self,
        client: &Client,
        messages: &Subscription,
        held: &Held,
    ) -> Result<(), Unconfirmed> {
        // Without a BEGIN nothing was acknowledged, whatever became of it.
        let transaction = client.begin().await.map_err(|_| SendError::Stale)?;
        for (_, message) in held {
            transaction.ack(messages, message).await?;
        }
        self.ledger.transactions.fetch_add(1, Relaxed);
        transaction.commit().await
    }

    /// Where the outcome is not known the server may be done with the messages.
    fn consume_unless_not_sent(&self, held: &Held, outcome: Result<(), Unconfirmed>) {
        let error = match outcome {
            Ok(()) => return self.consume(held),
            Err(error) => error,
        };
        self.expect_passing("cannot acknowledge", &error);
        if !error.was_never_sent() {
            self.consume(held);
        }
    }

    fn consume(&self, held: &Held) {
        held.iter().for_each(|(id, _)| self.ledger.consume(*id));
    }

    /// Whether it was queued. If not, it must be the connection's fault.
    fn note(&self, result: Result<(), SendError>) -> bool {
        match result {
            Ok(()) => true,
            Err(error) => {
                self.ledger.acks_stale.fetch_add(u64::from(matches!(error, SendError::Stale)), Relaxed);
                self.expect_passing("cannot give a verdict", &error.into());
                false
            }
        }
    }

    fn expect_passing(&self, what: &str, error: &Unconfirmed) {
        let is_stale = matches!(error, Unconfirmed::NotSent(SendError::Stale));
        if !is_stale && !error.is_retryable() {
            self.ledger.wrong(format!("consumer {}: {what}: {error}", self.index));
        }
    }

    async fn in_time<T>(
        &self,
        what: &str,
        operation: impl Future<Output = Result<T, Unconfirmed>>,
    ) -> Result<T, Unconfirmed> {
        timeout(LIMIT, operation).await.unwrap_or_else(|_| {
            self.ledger.wrong(format!("consumer {}: {what} never resolved", self.index));
            Err(Unconfirmed::TimedOut)
        })
    }
}
