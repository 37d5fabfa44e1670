//! The judge: what was issued and promised, what came out, and what the edges said of themselves, held against what the
//! mode allows. It only compares; so it can be fed histories that never happened.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::faults::{book::Book, consumer::Delivered, edge::Reading, fault::Fault, mode::Mode};

/// Beacons of a batch that was sent, and not confirmed when it was counted as dropped: the broker may have them.
const UNSURE: [&str; 3] = ["shutdown_in_flight", "given_up", "dead_lettered"];

/// All that is known of a run.
#[derive(Debug)]
pub(crate) struct History<'a> {
    pub(crate) mode: Mode,
    pub(crate) fault: Fault,
    pub(crate) book: &'a Book,
    pub(crate) delivered: &'a Delivered,
    /// The edge's processes, in order; the last one ended in good order after everything else.
    pub(crate) lives: &'a [Life],
    /// Whether every beacon was confirmed or counted within the bound, and the queue was taken empty.
    pub(crate) is_drained: bool,
    /// Readings that did not add up, as they were taken.
    pub(crate) unconserved: &'a [String],
}

/// One process of the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) end: End,
    /// What it said last: all of it, unless it was killed.
    pub(crate) reading: Reading,
}

/// How a process of the edge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By SIGTERM, with this exit status.
    Terminated(Option<i32>),
    /// By SIGKILL. Answers of this process that came in from `since_ms` (from which on it may have had unconfirmed
    /// beacons) to `until_ms` (when the next process answered), in milliseconds since the start of the run.
    Killed { since_ms: u32, until_ms: u32, at_ms: u32 },
}

/// What the judge found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verdict {
    /// Beacons sent.
    pub issued: u64,
    /// Of those, the ones that became obligations.
    pub promised: u64,
    /// Answered with less than the mode promises (503, or an image with the status unconfirmed).
    pub refused: u64,
    /// Different beacons at the far end.
    pub delivered: u64,
    /// Beacons that came more than once, each time after the first.
    pub duplicates: u64,
    /// Obligations that never came.
    pub lost: u64,
    /// Of those, the ones that a killed edge had answered last.
    pub lost_with_a_killed_edge: u64,
    /// How long before its edge was killed the oldest of these had been answered.
    pub oldest_lost_ms: Option<u32>,
    /// What the edges counted as dropped, by reason.
    pub counted: BTreeMap<String, u64>,
    /// Batches that were sent again, as the edges counted them.
    pub resent_batches: u64,
    /// What is not as it was promised; empty if all is.
    pub violations: Vec<String>,
}

/// Judges a run.
pub(crate) fn judge(history: &History<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let counts = history.book.counts();
    (verdict.issued, verdict.promised, verdict.refused) = (counts.issued, counts.promised, counts.refused);
    verdict.duplicates = history.delivered.duplicates;
    for life in history.lives {
        for (reason, count) in &life.reading.dropped {
            *verdict.counted.entry(reason.clone()).or_default() += count;
        }
        verdict.resent_batches += life.reading.resent;
    }
    obligations(history, &mut verdict);
    payloads(history, &mut verdict);
    accounts(history, &mut verdict);
    if !history.is_drained {
        verdict
            .violations
            .push("not everything was confirmed or counted within the bound after the last fault".into());
    }
    verdict
}

/// Every obligation came out, but for what the mode allows.
fn obligations(history: &History<'_>, verdict: &mut Verdict) {
    let mut invented = 0;
    for place in 0..history.book.shape().beacons() {
        let came = history.delivered.beacons.has(place);
        verdict.delivered += u64::from(came);
        invented += u64::from(came && !history.book.is_issued(place));
        let Some(promised_ms) = history.book.promised_ms(place).filter(|_| !came) else { continue };
        verdict.lost += 1;
        let age = history.lives.iter().find_map(|life| match life.end {
            End::Killed { since_ms, until_ms, at_ms } => {
                (since_ms..=until_ms).contains(&promised_ms).then(|| at_ms.saturating_sub(promised_ms))
            }
            End::Terminated(_) => None,
        });
        verdict.lost_with_a_killed_edge += u64::from(age.is_some());
        verdict.oldest_lost_ms = verdict.oldest_lost_ms.max(age);
    }
    if invented > 0 {
        verdict.violations.push(format!("{invented} beacons came that were never sent"));
    }
    let allowed = history.mode.allows(history.fault);
    let tail = verdict.lost_with_a_killed_edge;
    if tail > 0 && !allowed.tail {
        verdict.violations.push(format!("{tail} obligations were lost with an edge that was killed"));
    }
    let others = verdict.lost - tail;
    let counted: u64 = verdict.counted.values().sum();
    if others > 0 && !allowed.counted {
        verdict.violations.push(format!(
            "{others} obligations were lost, where none may be (the edge counts {counted} as dropped)"
        ));
    } else if others > counted {
        verdict.violations.push(format!(
            "{others} obligations were lost, of which the edge counts only {counted} as dropped"
        ));
    }
}

/// What came out is what went in.
fn payloads(history: &History<'_>, verdict: &mut Verdict) {
    let Delivered { corrupt, foreign, example, .. } = history.delivered;
    let example = example.as_deref().unwrap_or_default();
    if *corrupt > 0 {
        verdict.violations.push(format!("{corrupt} lines or messages are damaged; the first: {example}"));
    }
    if *foreign > 0 {
        verdict
            .violations
            .push(format!("{foreign} lines are of no beacon of this run; the first: {example}"));
    }
}

/// What the edges say adds up, with itself and with what both ends saw.
fn accounts(history: &History<'_>, verdict: &mut Verdict) {
    let Verdict { issued, promised, delivered, violations, .. } = verdict;
    if let Some(first) = history.unconserved.first() {
        let count = history.unconserved.len();
        violations.push(format!("{count} readings do not add up; the first: {first}"));
    }
    let mut left = 0;
    let mut sum = Reading::default();
    let (mut unsure, mut sure) = (0, 0);
    for (number, life) in history.lives.iter().enumerate() {
        let reading = &life.reading;
        if !reading.is_conserved() {
            violations.push(format!("process {number} does not add up: {reading:?}"));
        }
        if let End::Terminated(status) = life.end {
            let kept_back = reading.dropped.keys().any(|reason| reason.starts_with("shutdown_"));
            match (status, kept_back) {
                (Some(0), false) | (Some(3), _) => {}
                (Some(0), true) => {
                    violations.push(format!("process {number} says that nothing was left: {reading:?}"));
                }
                _ => violations.push(format!("process {number} ended with exit status {status:?}")),
            }
        }
        let was_killed = |life: &Life| matches!(life.end, End::Killed { .. });
        let before = number.checked_sub(1).map(|before| &history.lives[before]);
        if !before.is_some_and(was_killed) && reading.recovered != left {
            violations.push(format!(
                "process {number} found {} beacons in the spool, where {left} had been left",
                reading.recovered
            ));
        }
        left = reading.spooled;
        sum.accepted += reading.accepted;
        sum.confirmed += reading.confirmed;
        for (reason, count) in &reading.dropped {
            *(if UNSURE.contains(&reason.as_str()) { &mut unsure } else { &mut sure }) += count;
        }
    }
    if history.lives.iter().any(|life| matches!(life.end, End::Killed { .. })) {
        // What a killed process did after its last reading is known to nobody.
        return;
    }
    if !(*promised..=*issued).contains(&sum.accepted) {
        violations.push(format!(
            "the edge accepted {}, where {issued} were sent and {promised} answered positively",
            sum.accepted
        ));
    }
    // In the end nothing is under way: what was accepted came out or was dropped.
    if history.is_drained && !(sum.accepted..=sum.accepted + unsure).contains(&(*delivered + sure + unsure)) {
        violations.push(format!(
            "of {} accepted beacons {delivered} came out, and {} are counted as dropped",
            sum.accepted,
            sure + unsure
        ));
    }
    if sum.confirmed > *delivered {
        violations.push(format!("{} are counted as confirmed, and only {delivered} came out", sum.confirmed));
    }
}

#[cfg(test)]
mod tests;
