use std::time::{Duration, Instant};

/// Most time that is made up for: timers are late by a millisecond or two, and a pause must not become a burst.
const MADE_UP: Duration = Duration::from_millis(5);

/// The share of its time that a thread may wait for a core ([`super::pressure`]) before a backlog goes slower, and the one
/// from which on it goes at its slowest: what a batch of it costs, here and at a broker on the same machine, is then
/// paid by the answers.
const ROOM: f64 = 0.1;
const NO_ROOM: f64 = 0.4;
/// The slowest, as a part of the rate: an outage has to end some day.
const LEAST: f64 = 0.125;

/// Spreads octets evenly over time.
#[derive(Debug)]
pub(super) struct Pace {
    /// Octets a second; 0 is no limit.
    rate: u64,
    /// The part of it that goes at present.
    part: f64,
    due: Instant,
}

impl Pace {
    pub(super) fn new(rate: u64) -> Self {
        Self { rate, part: 1.0, due: Instant::now() }
    }

    /// From now on the rate is one for threads that wait for a core for this share of their time.
    pub(super) fn ease(&mut self, share: f64) {
        let room = ((NO_ROOM - share) / (NO_ROOM - ROOM)).clamp(0.0, 1.0);
        self.part = LEAST + (1.0 - LEAST) * room;
    }

    /// When the next octets may go; `None` when they may at once.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        (self.rate > 0 && self.due > now).then_some(self.due)
    }

    /// So many octets go now.
    pub(super) fn spend(&mut self, octets: usize, now: Instant) {
        if self.rate > 0 {
            let earliest = now.checked_sub(MADE_UP).unwrap_or(now);
            let takes = Duration::from_secs_f64(octets as f64 / (self.rate as f64 * self.part));
            self.due = self.due.max(earliest) + takes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_spread_evenly_and_a_pause_is_no_burst() {
        let start = Instant::now();
        let mut pace = Pace { rate: 1_000_000, part: 1.0, due: start };
        let mut now = start;
        for _ in 0..100 {
            now = pace.due(now).unwrap_or(now);
            pace.spend(10_000, now);
        }
        assert_eq!(now - start, Duration::from_millis(990), "the first is free");
        now += Duration::from_secs(60);
        let burst =
            (0..100).take_while(|_| pace.due(now).is_none().then(|| pace.spend(1_000, now)).is_some());
        assert_eq!(burst.count(), 6, "five milliseconds, and the one that is due");
    }

    #[test]
    fn it_is_slower_the_longer_threads_wait_for_a_core_and_never_stands_still() {
        let start = Instant::now();
        for (share, seconds) in [(0.0, 1.0), (0.1, 1.0), (0.25, 1.0 / 0.5625), (0.4, 8.0), (1.0, 8.0)] {
            let mut pace = Pace { rate: 1_000_000, part: 1.0, due: start };
            pace.ease(share);
            pace.spend(1_000_000, start);
            let due = pace.due(start).unwrap_or(start) - start;
            assert!((due.as_secs_f64() - seconds).abs() < 1e-6, "{share}: {due:?}");
        }
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let now = Instant::now();
        let mut pace = Pace::new(0);
        pace.spend(usize::MAX, now);
        assert_eq!(pace.due(now), None);
    }
}
