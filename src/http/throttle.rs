//! Warnings at a bounded rate: what happens per connection must not be logged per connection.

use std::cell::Cell;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(10);

/// Lets one warning pass per 10 s and counts the others. For one thread.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    next: Cell<Option<Instant>>,
    held: Cell<u64>,
}

impl Throttle {
    /// Whether to warn now; if so, how many warnings were held back since the last one.
    pub(super) fn pass(&self, now: Instant) -> Option<u64> {
        if self.next.get().is_some_and(|next| now < next) {
            self.held.set(self.held.get() + 1);
            return None;
        }
        self.next.set(Some(now + PAUSE));
        Some(self.held.replace(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_passes_and_the_others_are_counted() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.pass(start), Some(0));
        assert_eq!(throttle.pass(start), None);
        assert_eq!(throttle.pass(start + PAUSE / 2), None);
        assert_eq!(throttle.pass(start + PAUSE), Some(2));
        assert_eq!(throttle.pass(start + PAUSE * 2), Some(0));
    }
}
