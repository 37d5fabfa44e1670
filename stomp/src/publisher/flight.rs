use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Retained;
use crate::client::Room;

/// The messages that are in flight over a lane's present connection, by key, and so by age.
pub(super) struct Flight<T> {
    messages: BTreeMap<u64, InFlight<T>>,
    bytes: usize,
    next_key: u64,
    newest_confirmed: u64,
    last_receipt: Instant,
}

struct InFlight<T> {
    retained: Retained<T>,
    _room: Room,
}

impl<T> Flight<T> {
    pub(super) fn new() -> Self {
        Self {
            messages: BTreeMap::new(),
            bytes: 0,
            next_key: 1,
            newest_confirmed: 0,
            last_receipt: Instant::now(),
        }
    }

    /// A message leaves; returns its key.
    pub(super) fn add(&mut self, retained: Retained<T>, room: Room) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        self.bytes += retained.message.body.len();
        self.messages.insert(key, InFlight { retained, _room: room });
        key
    }

    /// A message is done with.
    pub(super) fn remove(&mut self, key: u64) -> Option<Retained<T>> {
        let InFlight { retained, .. } = self.messages.remove(&key)?;
        self.bytes -= retained.message.body.len();
        Some(retained)
    }

    /// A RECEIPT came for it.
    pub(super) fn confirmed(&mut self, key: u64) {
        self.newest_confirmed = self.newest_confirmed.max(key);
        self.last_receipt = Instant::now();
    }

    /// All messages, oldest first; none is in flight any more.
    pub(super) fn take_all(&mut self) -> Vec<Retained<T>> {
        self.bytes = 0;
        std::mem::take(&mut self.messages).into_values().map(|in_flight| in_flight.retained).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the message that may be what kills connections is out. It flies alone.
    pub(super) fn holds_suspect(&self) -> bool {
        self.messages.first_key_value().is_some_and(|(_, oldest)| oldest.retained.is_suspect())
    }

    /// The age of the oldest message, and whether later ones have been receipted.
    pub(super) fn oldest(&self) -> Option<(Duration, bool)> {
        let (&key, oldest) = self.messages.first_key_value()?;
        Some((oldest.retained.sent_at.elapsed(), key < self.newest_confirmed))
    }

    /// When the oldest message was sent.
    pub(super) fn oldest_sent(&self) -> Option<Instant> {
        self.messages.first_key_value().map(|(_, oldest)| oldest.retained.sent_at)
    }

    /// For how long no receipt has come although one was due: since the last one, or since the message after it was
    /// sent. Messages overtaken by others do not count, theirs are lost.
    pub(super) fn without_receipt(&self) -> Duration {
        let Some((_, next)) = self.messages.range(self.newest_confirmed + 1..).next() else {
            return Duration::ZERO;
        };
        next.retained.sent_at.max(self.last_receipt).elapsed()
    }
}
