use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{
    message::{Message, Tag},
    options::Bounds,
    refusal::Refusal,
    subscription::Verdict,
};

/// Transactions that one connection may have open.
const MAX_TRANSACTIONS: usize = 64;
/// What a step costs beside the message in it.
const STEP_OCTETS: usize = 128;

/// What a frame does to the queues, now or at COMMIT.
#[derive(Debug)]
pub(super) enum Step {
    Publish(Arc<Message>),
    Settle { tag: Tag, subscription_id: Option<String>, verdict: Verdict },
}

/// The open transactions of one connection; together they hold no more than one queue may.
#[derive(Debug)]
pub(super) struct Transactions {
    open: HashMap<String, Transaction>,
    max_octets: usize,
    octets: usize,
}

#[derive(Debug, Default)]
struct Transaction {
    steps: VecDeque<Step>,
    octets: usize,
}

impl Transactions {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self { open: HashMap::new(), max_octets: bounds.max_octets, octets: 0 }
    }

    pub(super) fn begin(&mut self, name: &str) -> Result<(), Refusal> {
        if self.open.contains_key(name) {
            return Err(Refusal::TransactionExists(name.into()));
        }
        if self.open.len() >= MAX_TRANSACTIONS {
            return Err(Refusal::TooManyTransactions(MAX_TRANSACTIONS));
        }
        self.open.insert(name.into(), Transaction::default());
        Ok(())
    }

    pub(super) fn add(&mut self, name: &str, step: Step) -> Result<(), Refusal> {
        let transaction = self.open.get_mut(name).ok_or_else(|| Refusal::NoTransaction(name.into()))?;
        let octets = STEP_OCTETS + if let Step::Publish(message) = &step { message.octets } else { 0 };
        if self.octets + octets > self.max_octets {
            return Err(Refusal::TransactionsFull);
        }
        self.octets += octets;
        transaction.octets += octets;
        transaction.steps.push_back(step);
        Ok(())
    }

    /// Ends a transaction. Its steps, in order, are the caller's to take or to drop.
    pub(super) fn end(&mut self, name: &str) -> Result<VecDeque<Step>, Refusal> {
        let transaction = self.open.remove(name).ok_or_else(|| Refusal::NoTransaction(name.into()))?;
        self.octets -= transaction.octets;
        Ok(transaction.steps)
    }
}
