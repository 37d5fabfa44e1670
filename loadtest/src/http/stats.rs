//! What one phase of a run counted: kept per thread without locks, merged afterwards.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::report::LatencyHistogram;

/// Counts of one phase.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Requests sent, those included whose connection broke before all of it was written.
    pub sent: u64,
    /// Whole answers, whatever their status.
    pub answered: u64,
    /// Answers with status 2xx.
    pub succeeded: u64,
    /// Of the answers, those that came after the phase had stopped sending.
    pub answered_late: u64,
    /// Requests without an answer, by what became of them.
    pub failures: Failures,
    /// Attempts to connect that failed, and connections given up after ten seconds of them.
    pub connects: Connects,
    /// Octets written, heads included.
    pub octets_sent: u64,
    /// Octets read, heads included.
    pub octets_received: u64,
    /// Time from sending (closed loop) or from the intended moment of sending (open loop) to the whole answer.
    pub latency: LatencyHistogram,
    /// Open loop: how late the generator itself sent on connections that were free.
    pub send_delay: LatencyHistogram,
    /// Open loop: requests sent late because their connection still awaited an answer, or had to be opened again.
    pub sent_behind_schedule: u64,
    /// CPU time of the generator's threads.
    pub generator_cpu: Duration,
    /// Highest share of its time that a thread of the generator was busy (0 to 1).
    pub generator_busy: f64,
    /// Answers by status, for 0 to 599.
    statuses: Vec<u64>,
}

/// Requests without an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// The server closed or reset the connection before the answer was whole.
    pub closed: u64,
    /// No whole answer within `--timeout`.
    pub timeout: u64,
    /// The answer was not one that a beacon server may send.
    pub malformed: u64,
    /// Given up when the run was interrupted.
    pub abandoned: u64,
}

impl Failures {
    /// All of them together.
    pub fn total(&self) -> u64 {
        self.closed + self.timeout + self.malformed + self.abandoned
    }
}

/// What it took to stay connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Connects {
    /// Connections opened in place of those that had had their share of requests (`--churn`).
    pub planned: u64,
    /// Connections opened again after the server had closed them or an error had.
    pub reconnects: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Connections given up for the rest of the phase.
    pub given_up: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            sent: 0,
            answered: 0,
            succeeded: 0,
            answered_late: 0,
            failures: Failures::default(),
            connects: Connects::default(),
            octets_sent: 0,
            octets_received: 0,
            latency: LatencyHistogram::default(),
            send_delay: LatencyHistogram::default(),
            sent_behind_schedule: 0,
            generator_cpu: Duration::ZERO,
            generator_busy: 0.0,
            statuses: vec![0; 600],
        }
    }
}

impl Stats {
    /// Counts an answer of `status` that took `latency_ns`.
    pub fn answer(&mut self, status: u16, latency_ns: u64) {
        self.answered += 1;
        self.succeeded += u64::from(status / 100 == 2);
        if let Some(count) = self.statuses.get_mut(usize::from(status)) {
            *count += 1;
        }
        self.latency.record(latency_ns);
    }

    /// How many answers had each status that occurred.
    pub fn statuses(&self) -> BTreeMap<u16, u64> {
        (0..)
            .zip(&self.statuses)
            .filter(|&(_, &count)| count > 0)
            .map(|(status, &count)| (status, count))
            .collect()
    }

    /// Adds what another thread, or another phase, counted.
    pub fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.succeeded += other.succeeded;
        self.answered_late += other.answered_late;
        self.failures.closed += other.failures.closed;
        self.failures.timeout += other.failures.timeout;
        self.failures.malformed += other.failures.malformed;
        self.failures.abandoned += other.failures.abandoned;
        self.connects.planned += other.connects.planned;
        self.connects.reconnects += other.connects.reconnects;
        self.connects.failed += other.connects.failed;
        self.connects.given_up += other.connects.given_up;
        self.octets_sent += other.octets_sent;
        self.octets_received += other.octets_received;
        self.latency.merge(&other.latency);
        self.send_delay.merge(&other.send_delay);
        self.sent_behind_schedule += other.sent_behind_schedule;
        self.generator_cpu += other.generator_cpu;
        self.generator_busy = self.generator_busy.max(other.generator_busy);
        for (sum, count) in self.statuses.iter_mut().zip(&other.statuses) {
            *sum += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_status_and_merge_adds_all_of_it() {
        let mut a = Stats::default();
        a.answer(200, 1_000_000);
        a.answer(503, 2_000_000);
        a.failures.timeout = 2;
        a.generator_busy = 0.5;
        let mut b = Stats::default();
        b.answer(204, 3_000_000);
        b.failures.closed = 1;
        b.generator_busy = 0.25;
        a.merge(&b);
        assert_eq!((a.answered, a.succeeded), (3, 2));
        assert_eq!(a.statuses(), BTreeMap::from([(200, 1), (204, 1), (503, 1)]));
        assert_eq!(a.failures.total(), 3);
        assert_eq!(a.latency.count(), 3);
        assert!((a.generator_busy - 0.5).abs() < 1e-9);
    }
}
