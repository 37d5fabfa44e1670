//! The result of many runs: for machines, for people, and as the table of guarantees.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::{
    faults::{
        fault::Fault,
        mode::Mode,
        trial::{Outcome, Trial},
    },
    report::{grouped, rounded},
};

/// What came of many runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Name and version of the broker.
    pub broker: String,
    /// Whether it ended early.
    pub interrupted: bool,
    /// Runs that were judged.
    pub schedules: u64,
    /// Beacons sent in them.
    pub beacons: u64,
    /// The table.
    pub cells: Vec<Cell>,
    /// Runs that could not be judged.
    pub failures: Vec<Failure>,
    /// Runs that were.
    pub outcomes: Vec<Outcome>,
    #[serde(skip)]
    missing: BTreeMap<(Mode, Fault), String>,
}

/// A run that could not be judged: the broker or the edge did not do what a schedule needs.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// What was run.
    #[serde(flatten)]
    pub trial: Trial,
    /// What went wrong.
    pub reason: String,
}

/// One cell of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Its row.
    pub mode: Mode,
    /// Its column.
    pub fault: Fault,
    /// Why there are no figures.
    pub not_measured: Option<String>,
    /// Runs that were judged.
    pub schedules: u64,
    /// Runs that could not be.
    pub failures: u64,
    /// Beacons sent.
    pub issued: u64,
    /// Those that became obligations.
    pub promised: u64,
    /// Those answered with less than is promised.
    pub refused: u64,
    /// Obligations that never came.
    pub lost: u64,
    /// Of them, those that went with an edge that was killed.
    pub lost_with_a_killed_edge: u64,
    /// How long before the kill the oldest of these had been answered.
    pub oldest_lost_ms: Option<u32>,
    /// What the edges counted as dropped.
    pub counted: u64,
    /// Beacons that came once more than needed.
    pub duplicates: u64,
    /// The longest time from the last fault to the last confirmation.
    pub slowest_drain_s: f64,
    /// Runs in which the edge did not keep its promise.
    pub broken: u64,
    /// What measures it again.
    pub command: String,
}

impl Report {
    /// Notes why a cell has no figures.
    pub(crate) fn not_measured(&mut self, cell: (Mode, Fault), reason: &str) {
        self.missing.insert(cell, reason.to_owned());
    }

    /// Adds the runs up.
    pub(crate) fn finish(&mut self) {
        self.schedules = self.outcomes.len() as u64;
        self.beacons = self.outcomes.iter().map(|outcome| outcome.verdict.issued).sum();
        let mut cells: BTreeMap<(Mode, Fault), Cell> = BTreeMap::new();
        let mut seeds: BTreeMap<(Mode, Fault), (u64, u64)> = BTreeMap::new();
        for (&(mode, fault), reason) in &self.missing {
            cells.entry((mode, fault)).or_insert_with(|| Cell::new(mode, fault)).not_measured =
                Some(reason.clone());
        }
        let mut seen = |trial: &Trial| {
            let range = seeds.entry((trial.mode, trial.fault)).or_insert((trial.seed, trial.seed));
            *range = (range.0.min(trial.seed), range.1.max(trial.seed));
            format!(
                "loadtest faults --mode {} --fault {} --seeds {}..{} --beacons {} --rate {}",
                trial.mode.name(),
                trial.fault.name(),
                range.0,
                range.1,
                trial.beacons,
                trial.rate
            )
        };
        for outcome in &self.outcomes {
            let Outcome { trial, verdict, drained_s, .. } = outcome;
            let (mode, fault) = (trial.mode, trial.fault);
            let cell = cells.entry((mode, fault)).or_insert_with(|| Cell::new(mode, fault));
            cell.schedules += 1;
            cell.issued += verdict.issued;
            cell.promised += verdict.promised;
            cell.refused += verdict.refused;
            cell.lost += verdict.lost;
            cell.lost_with_a_killed_edge += verdict.lost_with_a_killed_edge;
            cell.oldest_lost_ms = cell.oldest_lost_ms.max(verdict.oldest_lost_ms);
            cell.counted += verdict.counted.values().sum::<u64>();
            cell.duplicates += verdict.duplicates;
            cell.slowest_drain_s = rounded(cell.slowest_drain_s.max(*drained_s), 2);
            cell.broken += u64::from(!verdict.violations.is_empty());
            cell.command = seen(trial);
        }
        for Failure { trial, .. } in &self.failures {
            let (mode, fault) = (trial.mode, trial.fault);
            let cell = cells.entry((mode, fault)).or_insert_with(|| Cell::new(mode, fault));
            cell.failures += 1;
            cell.command = seen(trial);
        }
        self.cells = cells.into_values().collect();
    }

    /// Why the command fails in the end, if it does.
    pub fn complaint(&self) -> Option<String> {
        let broken = self.outcomes.iter().filter(|outcome| !outcome.verdict.violations.is_empty()).count();
        if broken == 0 && self.failures.is_empty() {
            return None;
        }
        Some(format!(
            "of {} schedules {broken} broke their promise and {} could not be judged",
            self.outcomes.len() + self.failures.len(),
            self.failures.len()
        ))
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<11} {:<14} {:>5} {:>11} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7}  verdict\n",
            "mode", "fault", "runs", "promised", "lost", "dropped", "refused", "twice", "oldest", "drain"
        );
        for cell in &self.cells {
            let (mode, fault) = (cell.mode.name(), cell.fault.name());
            if let Some(reason) = cell.not_measured.as_ref().filter(|_| cell.schedules == 0) {
                writeln!(text, "{mode:<11} {fault:<14} {reason}").ok();
                continue;
            }
            writeln!(
                text,
                "{mode:<11} {fault:<14} {:>5} {:>11} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7}  {}",
                cell.schedules,
                grouped(cell.promised),
                grouped(cell.lost),
                grouped(cell.counted),
                grouped(cell.refused),
                grouped(cell.duplicates),
                cell.oldest_lost_ms.map_or_else(|| "-".into(), |ms| format!("{ms} ms")),
                format!("{:.1} s", cell.slowest_drain_s),
                cell.verdict(),
            )
            .ok();
        }
        let ended = if self.interrupted { "; interrupted" } else { "" };
        writeln!(
            text,
            "{} schedules, {} beacons, {}{ended}",
            grouped(self.schedules),
            grouped(self.beacons),
            self.broker
        )
        .ok();
        for Failure { trial, reason } in &self.failures {
            let (mode, fault, seed) = (trial.mode.name(), trial.fault.name(), trial.seed);
            writeln!(text, "not judged: {mode} {fault} seed {seed}: {reason}").ok();
        }
        text
    }

    /// The table of guarantees: modes down, faults across, and below it each cell with its command.
    pub fn markdown(&self) -> String {
        let mut faults: Vec<Fault> = self.cells.iter().map(|cell| cell.fault).collect();
        faults.sort_unstable();
        faults.dedup();
        let mut modes: Vec<Mode> = self.cells.iter().map(|cell| cell.mode).collect();
        modes.sort_unstable();
        modes.dedup();
        let mut text = format!(
            "Obligations lost, of how many; {} schedules with {} beacons in all, {}.\n\n| mode |",
            grouped(self.schedules),
            grouped(self.beacons),
            self.broker
        );
        faults.iter().for_each(|fault| write!(text, " {} |", fault.title()).unwrap_or_default());
        text.push_str("\n|---|");
        faults.iter().for_each(|_| text.push_str("---|"));
        for mode in modes {
            write!(text, "\n| {} |", mode.title()).ok();
            for &fault in &faults {
                let cell = self.cells.iter().find(|cell| (cell.mode, cell.fault) == (mode, fault));
                write!(text, " {} |", cell.map_or_else(|| "–".into(), Cell::short)).ok();
            }
        }
        text.push_str(
            "\n\n| mode | fault | schedules | beacons | promised | lost | oldest lost | dropped, counted | refused | came twice | slowest drain | command |\n\
             |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n",
        );
        for cell in self.cells.iter().filter(|cell| cell.schedules > 0) {
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} s | `{}` |",
                cell.mode.name(),
                cell.fault.title(),
                cell.schedules,
                grouped(cell.issued),
                grouped(cell.promised),
                grouped(cell.lost),
                cell.oldest_lost_ms.map_or_else(|| "–".into(), |ms| format!("{ms} ms")),
                grouped(cell.counted),
                grouped(cell.refused),
                grouped(cell.duplicates),
                cell.slowest_drain_s,
                cell.command,
            )
            .ok();
        }
        text
    }
}

impl Cell {
    fn new(mode: Mode, fault: Fault) -> Self {
        Self {
            mode,
            fault,
            not_measured: None,
            schedules: 0,
            failures: 0,
            issued: 0,
            promised: 0,
            refused: 0,
            lost: 0,
            lost_with_a_killed_edge: 0,
            oldest_lost_ms: None,
            counted: 0,
            duplicates: 0,
            slowest_drain_s: 0.0,
            broken: 0,
            command: String::new(),
        }
    }

    fn verdict(&self) -> String {
        match (self.broken, self.failures) {
            (0, 0) => "kept".into(),
            (0, failures) => format!("{failures} NOT JUDGED"),
            (broken, _) => format!("BROKEN in {broken}"),
        }
    }

    /// What fits into the table.
    fn short(&self) -> String {
        if self.schedules == 0 {
            return self.not_measured.clone().unwrap_or_else(|| "–".into());
        }
        let mut text = format!("{} of {}", grouped(self.lost), grouped(self.promised));
        match (self.lost, self.lost_with_a_killed_edge) {
            (0, _) => {}
            (_, 0) => text.push_str(", counted"),
            (lost, tail) if lost == tail => {
                write!(text, ", answered at most {} ms before", self.oldest_lost_ms.unwrap_or(0)).ok();
            }
            (lost, tail) => write!(text, ", {} of them counted", grouped(lost - tail)).unwrap_or_default(),
        }
        if self.broken > 0 {
            write!(text, " (**broken** in {})", self.broken).ok();
        }
        text
    }
}
