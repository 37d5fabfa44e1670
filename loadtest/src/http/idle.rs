//! Connections that are opened, used once and then kept, to see what they cost in memory.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    Error,
    cpu::Process,
    http::{
        beacon::Beacons,
        fleet::{Fleet, FleetOptions, Limit, PhaseOrder},
        run::Run,
    },
    report::rounded,
};

/// Open idle connections.
#[derive(Debug)]
pub(crate) struct IdleHold<'a> {
    fleet: Fleet,
    connections: usize,
    answered: u64,
    next_seq: u64,
    processes: &'a [Process],
    before: Vec<Option<u64>>,
    opened: Vec<Option<u64>>,
}

/// What idle connections cost.
#[derive(Debug, Clone, Serialize)]
pub struct IdleFigures {
    /// Connections that were opened.
    pub connections: usize,
    /// Of these, those whose one request was answered.
    pub requests_answered: u64,
    /// Of these, those that the server had not closed at the end.
    pub open_at_end: usize,
    /// Memory of each process.
    pub processes: Vec<IdleMemory>,
}

/// Resident memory of a process; `null` after it has ended.
#[derive(Debug, Clone, Serialize)]
pub struct IdleMemory {
    /// Its label.
    pub name: String,
    /// Its process id.
    pub pid: i32,
    /// Before the first idle connection, in MiB.
    pub rss_before_mib: Option<f64>,
    /// When all had been opened and used once, in MiB.
    pub rss_opened_mib: Option<f64>,
    /// At the end, in MiB.
    pub rss_end_mib: Option<f64>,
    /// Growth from before to the end for each connection that was open, in octets.
    pub octets_per_connection: Option<f64>,
}

impl<'a> IdleHold<'a> {
    /// Opens `connections`, sends one request on each, a few at a time, and reads the memory before and after.
    pub(crate) async fn open(run: &Run<'a>, connections: usize) -> Result<Self, Error> {
        let plan = run.plan;
        let before = resident(&plan.processes);
        let options = FleetOptions { connections, ..plan.fleet() };
        let fleet = Fleet::connect(options, run.interrupt).await?;
        let order = PhaseOrder {
            beacons: Arc::new(Beacons::new(&plan.target, &plan.mix)),
            limit: Limit::OnePerConnection,
            rate: None,
            first_seq: plan.first_seq,
            answered: run.answered,
            label: run.label("idle"),
        };
        let phase = fleet.run(order).await?;
        Ok(Self {
            fleet,
            connections,
            answered: phase.stats.answered,
            next_seq: phase.next_seq,
            processes: &plan.processes,
            before,
            opened: resident(&plan.processes),
        })
    }

    /// The first sequence number that the idle connections did not use.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Reads the memory for the last time and closes the connections.
    pub(crate) async fn finish(self) -> Result<IdleFigures, Error> {
        let end = resident(self.processes);
        let open_at_end = self.fleet.count_open().await?;
        self.fleet.close();
        let processes = self.processes.iter().zip(&self.before).zip(self.opened.iter().zip(&end)).map(
            |((process, before), (opened, end))| IdleMemory {
                name: process.name().to_owned(),
                pid: process.pid(),
                rss_before_mib: before.map(mib),
                rss_opened_mib: opened.map(mib),
                rss_end_mib: end.map(mib),
                octets_per_connection: before
                    .zip(*end)
                    .filter(|_| open_at_end > 0)
                    .map(|(before, end)| rounded((end as f64 - before as f64) / open_at_end as f64, 0)),
            },
        );
        Ok(IdleFigures {
            connections: self.connections,
            requests_answered: self.answered,
            open_at_end,
            processes: processes.collect(),
        })
    }
}

/// Octets as MiB with two digits after the point.
pub(crate) fn mib(octets: u64) -> f64 {
    rounded(octets as f64 / f64::from(1 << 20), 2)
}

fn resident(processes: &[Process]) -> Vec<Option<u64>> {
    processes.iter().map(|process| process.resident_octets().ok()).collect()
}
