use alloc::collections::BTreeMap;

use super::Time;

/// Frames that wait for their RECEIPT. Each resolves by its own id and by nothing else: a RECEIPT says nothing of
/// earlier frames. `T` is whatever the caller wants back.
#[derive(Debug)]
pub struct Receipts<T> {
    last_id: u64,
    /// Ids ascend with time, so the first entry is the oldest.
    waiting: BTreeMap<u64, Waiting<T>>,
    newest_resolved: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    token: T,
    since: Time,
}

impl<T> Default for Receipts<T> {
    fn default() -> Self {
        Self { last_id: 0, waiting: BTreeMap::new(), newest_resolved: 0 }
    }
}

impl<T> Receipts<T> {
    /// The id that [`Receipts::insert`] will give next.
    #[must_use]
    pub const fn next_id(&self) -> u64 {
        self.last_id + 1
    }

    /// Waits for a RECEIPT of the next id from `now` on. Returns the id.
    pub fn insert(&mut self, token: T, now: Time) -> u64 {
        self.last_id += 1;
        self.waiting.insert(self.last_id, Waiting { token, since: now });
        self.last_id
    }

    /// Takes what waits for this id.
    pub fn resolve(&mut self, id: u64) -> Option<T> {
        let waiting = self.waiting.remove(&id)?;
        self.newest_resolved = self.newest_resolved.max(id);
        Some(waiting.token)
    }

    /// Takes the oldest if it has waited since `before` or longer.
    pub fn expire(&mut self, before: Time) -> Option<T> {
        let oldest = self.waiting.first_entry()?;
        (oldest.get().since <= before).then(|| oldest.remove().token)
    }

    /// Takes everything, oldest first.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        core::mem::take(&mut self.waiting).into_values().map(|waiting| waiting.token)
    }

    /// Since when the oldest waits.
    #[must_use]
    pub fn oldest_since(&self) -> Option<Time> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.since)
    }

    /// Whether a frame sent later than the oldest waiting one has been receipted: then the broker is alive and the
    /// oldest one's receipt is probably lost.
    #[must_use]
    pub fn oldest_is_overtaken(&self) -> bool {
        self.waiting.first_key_value().is_some_and(|(&id, _)| id < self.newest_resolved)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const fn at(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    #[test]
    fn each_resolves_by_its_own_id_in_any_order() {
        let mut receipts = Receipts::default();
        let ids: Vec<u64> = (0..4).map(|token| receipts.insert(token, at(token))).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        assert_eq!(receipts.resolve(3), Some(2));
        assert_eq!(receipts.resolve(3), None, "a second RECEIPT of one id resolves nothing");
        assert_eq!(receipts.resolve(9), None);
        assert!(receipts.oldest_is_overtaken());
        assert_eq!(receipts.oldest_since(), Some(at(0)));
        assert_eq!(receipts.expire(at(1)), Some(0));
        assert_eq!(receipts.expire(at(0)), None);
        assert_eq!(receipts.drain().collect::<Vec<_>>(), [1, 3]);
        assert!(receipts.is_empty());
    }
}
