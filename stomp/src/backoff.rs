use std::time::Duration;

/// Exponential pauses with full jitter: attempt `n` waits a random time up to `min × 2ⁿ`, at most `max`, at least a
/// quarter of that bound, so that many clients of one broker do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first pause.
    pub min: Duration,
    /// The bound of every later pause.
    pub max: Duration,
}

impl Default for Backoff {
    /// 100 ms to 10 s.
    fn default() -> Self {
        Self { min: Duration::from_millis(100), max: Duration::from_secs(10) }
    }
}

impl Backoff {
    /// The pause after `failures` failures in a row (at least one).
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        self.pause_at(failures, fastrand::f64())
    }

    /// The same with the chance handed in: from 0 for the shortest pause to 1 for the longest.
    pub(crate) fn pause_at(&self, failures: u32, chance: f64) -> Duration {
        let bound = self.bound(failures);
        bound / 4 + bound.mul_f64(0.75 * chance)
    }

    /// The longest pause after so many failures.
    pub(crate) fn bound(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.min.saturating_mul(1 << doublings).min(self.max.max(self.min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_differ() {
        let backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(2) };
        for (failures, bound) in [(1, 100), (2, 200), (5, 1600), (6, 2000), (u32::MAX, 2000)] {
            let bound = Duration::from_millis(bound);
            let pauses: Vec<Duration> = (0..50).map(|_| backoff.pause(failures)).collect();
            assert!(
                pauses.iter().all(|&pause| bound / 4 <= pause && pause <= bound),
                "{failures}: {pauses:?}"
            );
            assert!(pauses.iter().any(|pause| pause != &pauses[0]), "no jitter");
        }
    }
}
