use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::message::Message;

/// What is known of one queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QueueInfo {
    /// Messages that wait for a consumer.
    pub messages: usize,
    /// Their octets: header names, header values and bodies.
    pub octets: usize,
    /// Messages that are with a consumer and wait for its ACK.
    pub unacked: usize,
    /// Messages ever sent to it. Always messages + unacked + acknowledged + dropped + purged.
    pub published_total: u64,
    /// Messages discarded because the queue was full.
    pub dropped_total: u64,
    /// Subscriptions.
    pub consumers: usize,
}

/// The messages of one queue, in the order they were sent.
///
/// What comes back from a consumer is older than anything never taken, so both can be kept apart: taking and adding
/// cost O(1), giving back O(log n).
#[derive(Debug, Default)]
pub(super) struct Queue {
    fresh: VecDeque<Entry>,
    returned: BTreeMap<u64, Entry>,
    next_number: u64,
    waiting_octets: usize,
    unacked: usize,
    unacked_octets: usize,
    published_total: u64,
    dropped_total: u64,
    pub(super) consumers: usize,
    /// Subscriptions that may take a message, in the order of their turns.
    pub(super) turns: VecDeque<(u64, u64)>,
}

/// A message in its place.
#[derive(Debug)]
pub(super) struct Entry {
    number: u64,
    pub(super) message: Arc<Message>,
    pub(super) redelivered: bool,
}

impl Queue {
    pub(super) fn push(&mut self, message: Arc<Message>) {
        self.published_total += 1;
        self.waiting_octets += message.octets;
        self.fresh.push_back(Entry { number: self.next_number, message, redelivered: false });
        self.next_number += 1;
    }

    /// Counts a message that is discarded instead of pushed.
    pub(super) fn push_nowhere(&mut self) {
        self.published_total += 1;
        self.dropped_total += 1;
    }

    /// Takes the oldest for a consumer that will acknowledge it.
    pub(super) fn lend(&mut self) -> Option<Entry> {
        let entry = self.take()?;
        self.unacked += 1;
        self.unacked_octets += entry.message.octets;
        Some(entry)
    }

    /// Takes the oldest for good.
    pub(super) fn take(&mut self) -> Option<Entry> {
        let entry = match self.returned.pop_first() {
            Some((_, entry)) => entry,
            None => self.fresh.pop_front()?,
        };
        self.waiting_octets -= entry.message.octets;
        Some(entry)
    }

    /// Discards the oldest that waits. Returns its octets.
    pub(super) fn drop_head(&mut self) -> Option<usize> {
        let entry = self.take()?;
        self.dropped_total += 1;
        Some(entry.message.octets)
    }

    /// A lent message was acknowledged. Returns its octets.
    pub(super) fn settle(&mut self, entry: &Entry) -> usize {
        self.unacked -= 1;
        self.unacked_octets -= entry.message.octets;
        entry.message.octets
    }

    /// A lent message comes back to its place.
    pub(super) fn give_back(&mut self, mut entry: Entry) {
        self.waiting_octets += self.settle(&entry);
        entry.redelivered = true;
        self.returned.insert(entry.number, entry);
    }

    /// Discards all that wait, uncounted. Returns how many and their octets.
    pub(super) fn purge(&mut self) -> (usize, usize) {
        let purged = (self.waiting(), self.waiting_octets);
        self.fresh = VecDeque::new();
        self.returned.clear();
        self.waiting_octets = 0;
        purged
    }

    /// The newest `count` that wait, oldest first.
    pub(super) fn newest(&self, count: usize) -> Vec<Arc<Message>> {
        let waiting = self.returned.values().chain(&self.fresh);
        let mut newest: Vec<_> = waiting.rev().take(count).map(|entry| Arc::clone(&entry.message)).collect();
        newest.reverse();
        newest
    }

    pub(super) fn waiting(&self) -> usize {
        self.fresh.len() + self.returned.len()
    }

    /// Messages held, lent ones included.
    pub(super) fn held(&self) -> usize {
        self.waiting() + self.unacked
    }

    /// Octets held, lent messages included.
    pub(super) fn held_octets(&self) -> usize {
        self.waiting_octets + self.unacked_octets
    }

    pub(super) fn info(&self) -> QueueInfo {
        QueueInfo {
            messages: self.waiting(),
            octets: self.waiting_octets,
            unacked: self.unacked,
            published_total: self.published_total,
            dropped_total: self.dropped_total,
            consumers: self.consumers,
        }
    }
}
