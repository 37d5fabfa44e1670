//! One load on one model, and what came of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Failure, cast::Cast, counts::Counts, memory};
use crate::{
    cpu::Process,
    http::{
        answered::AnsweredLog,
        beacon::Beacons,
        fleet::{Fleet, Limit, PhaseOrder, PhaseResult},
    },
    interrupt::Interrupt,
};

/// How long a model may take to confirm what it has accepted, once no more comes.
const DRAIN: Duration = Duration::from_secs(15);

/// How often it is asked meanwhile.
const ASK: Duration = Duration::from_millis(5);

/// Of the beacons accepted in the second half of a probe, those that may be unconfirmed more at its end than at its
/// middle.
const GROWTH: f64 = 0.02;

/// The same for models that accept in bursts: what comes in during so many seconds.
const BURST_S: f64 = 0.02;

/// Of the requests that were due, those that have to be answered with 2xx.
const ANSWERED: f64 = 0.99;

/// A model under load.
#[derive(Debug)]
pub(crate) struct Stand<'a> {
    pub(crate) cast: &'a Cast,
    pub(crate) fleet: &'a Fleet,
    pub(crate) beacons: Arc<Beacons>,
    pub(crate) interrupt: &'a Interrupt,
}

/// What came of a load.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// What the clients saw.
    pub(crate) phase: PhaseResult,
    /// Requests per second that were asked for; a closed loop without.
    pub(crate) rate: Option<f64>,
    /// Counts in the middle, and shortly before the end.
    pub(crate) middle: Counts,
    pub(crate) end: Counts,
    /// Between the two.
    pub(crate) between: Duration,
    /// Accepted in all.
    pub(crate) accepted: u64,
    /// Whether all of it was confirmed within the time for that.
    pub(crate) drained: bool,
    /// What each process used, until all was confirmed.
    pub(crate) uses: Vec<Use>,
}

/// What a process used.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    pub(crate) name: String,
    pub(crate) cpu: Duration,
    pub(crate) peak: Option<u64>,
}

impl Stand<'_> {
    /// Sends for `duration`, at `rate` or as fast as answers come, numbered from `first_seq`. `None` when it was
    /// interrupted.
    pub(crate) async fn take(
        &self,
        rate: Option<f64>,
        duration: Duration,
        first_seq: &mut u64,
        answered: Option<&AnsweredLog>,
    ) -> Result<Option<Taken>, Failure> {
        let order = PhaseOrder {
            beacons: self.beacons.clone(),
            limit: Limit::Duration(duration),
            rate,
            first_seq: *first_seq,
            answered,
            label: None,
        };
        self.cast.forget().await?;
        let processes = self.cast.processes();
        let before = self.cast.counts().await?;
        let cpu_before = cpu(&processes)?;
        processes.iter().for_each(|process| memory::forget_peak(process.pid()));
        let (phase, samples) = tokio::join!(self.fleet.run(order), self.sample(duration));
        let phase = phase?;
        *first_seq = phase.next_seq;
        let Some((middle, end, between)) = samples? else { return Ok(None) };
        let drained = self.drain().await?;
        if self.interrupt.is_raised() {
            return Ok(None);
        }
        let uses =
            processes.iter().zip(cpu(&processes)?).zip(cpu_before).map(|((process, after), before)| Use {
                name: process.name().to_owned(),
                cpu: after.saturating_sub(before),
                peak: memory::peak(process.pid()),
            });
        let accepted = self.cast.counts().await?.accepted.saturating_sub(before.accepted);
        let uses = uses.collect();
        let taken = Taken { phase, rate, middle, end, between, accepted, drained, uses };
        self.cast.check_list(accepted, taken.refused()).await?;
        Ok(Some(taken))
    }

    /// Counts in the middle and shortly before the end; `None` when interrupted.
    async fn sample(&self, duration: Duration) -> Result<Option<(Counts, Counts, Duration)>, Failure> {
        if !self.interrupt.sleep(duration / 2).await {
            return Ok(None);
        }
        let middle_at = Instant::now();
        let middle = self.cast.counts().await?;
        let rest = (duration * 45 / 100).saturating_sub(middle_at.elapsed());
        if !self.interrupt.sleep(rest).await {
            return Ok(None);
        }
        let end_at = Instant::now();
        Ok(Some((middle, self.cast.counts().await?, end_at - middle_at)))
    }

    /// Waits until everything accepted is confirmed; says whether it was.
    async fn drain(&self) -> Result<bool, Failure> {
        let deadline = Instant::now() + DRAIN;
        loop {
            if self.cast.counts().await?.backlog() == 0 {
                return Ok(true);
            }
            if Instant::now() >= deadline || !self.interrupt.sleep(ASK).await {
                return Ok(false);
            }
        }
    }
}

impl Taken {
    /// Answers that were no 2xx, and requests without an answer.
    pub(crate) fn refused(&self) -> u64 {
        self.phase.stats.sent.saturating_sub(self.phase.stats.succeeded)
    }

    /// By how much the backlog grew, in beacons per second of the second half.
    pub(crate) fn growth_per_second(&self) -> f64 {
        let grown = self.end.backlog() as f64 - self.middle.backlog() as f64;
        grown / self.between.as_secs_f64().max(1e-3)
    }

    /// Beacons confirmed per second of the second half.
    pub(crate) fn confirmed_per_second(&self) -> f64 {
        let confirmed = self.end.confirmed.saturating_sub(self.middle.confirmed);
        confirmed as f64 / self.between.as_secs_f64().max(1e-3)
    }

    /// Whether this rate can go on for ever: (nearly) all requests are answered well, and what is unconfirmed does not
    /// grow.
    pub(crate) fn is_sustained(&self) -> bool {
        let Some(rate) = self.rate else { return false };
        let due = self.phase.due as f64;
        let in_time = (self.phase.stats.succeeded
            - self.phase.stats.answered_late.min(self.phase.stats.succeeded)) as f64;
        let accepted = self.end.accepted.saturating_sub(self.middle.accepted) as f64;
        let grown = self.end.backlog() as f64 - self.middle.backlog() as f64;
        self.drained
            && in_time >= due * ANSWERED
            && self.refused() as f64 <= due * (1.0 - ANSWERED)
            && grown <= accepted * GROWTH + rate * BURST_S
    }
}

fn cpu(processes: &[Process]) -> Result<Vec<Duration>, Failure> {
    processes.iter().map(|process| Ok(process.cpu_time()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(due: u64, succeeded: u64, middle: (u64, u64), end: (u64, u64)) -> Taken {
        let mut phase = PhaseResult { due, ..PhaseResult::default() };
        phase.stats.sent = due;
        phase.stats.succeeded = succeeded;
        let counts = |(accepted, confirmed)| Counts { accepted, confirmed };
        Taken {
            phase,
            rate: Some(due as f64),
            middle: counts(middle),
            end: counts(end),
            between: Duration::from_millis(500),
            accepted: succeeded,
            drained: true,
            uses: Vec::new(),
        }
    }

    #[test]
    fn a_rate_is_sustained_when_answers_come_and_the_backlog_does_not_grow() {
        assert!(taken(10_000, 10_000, (5000, 4900), (10_000, 9900)).is_sustained());
        assert!(taken(10_000, 9_950, (5000, 5000), (9950, 9800)).is_sustained());
        let growing = taken(10_000, 10_000, (5000, 4900), (10_000, 9000));
        assert!(!growing.is_sustained());
        assert!((growing.growth_per_second() - 1800.0).abs() < 1e-6);
        assert!((growing.confirmed_per_second() - 8200.0).abs() < 1e-6);
        assert!(!taken(10_000, 9_000, (4500, 4500), (9000, 9000)).is_sustained());
        let undrained = Taken { drained: false, ..taken(10_000, 10_000, (5000, 5000), (10_000, 10_000)) };
        assert!(!undrained.is_sustained());
    }
}
