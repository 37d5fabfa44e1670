//! The course of a run: idle connections, warm-up, measurement; or rounds against a reference.

use std::{sync::Arc, time::Duration};

use tokio::{runtime, time::Instant};

use crate::{
    Error,
    cpu::Process,
    http::{
        Target,
        answered::AnsweredLog,
        args::{Args, Plan},
        beacon::{Beacons, WARMUP_SEQ},
        fleet::{Fleet, FleetOptions, Limit, PhaseOrder, PhaseResult},
        idle::IdleHold,
        reference,
        report::Report,
        slow::SlowClients,
        verification::Verification,
    },
    interrupt::Interrupt,
    limits::allow_open_files,
    report::publish,
};

/// Open files needed beside the connections: runtimes, timers, result files, standard streams.
const OTHER_FILES: u64 = 64;

/// Carries out `loadtest http`: checks the arguments, runs, and writes the result. Ctrl-C ends it early with a result.
///
/// # Errors
/// Why there is no result; see [`Error`].
pub fn command(args: Args) -> Result<(), Error> {
    let plan = Plan::check(&args)?;
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("runtime"))?;
    let report = runtime.block_on(async {
        let interrupt = Interrupt::on_signals()?;
        run(&plan, &interrupt).await
    })?;
    publish(&report, &report.table(), args.json.as_ref())?;
    match &report.verify {
        Some(verdict) if !verdict.conserved => Err(Error::NotConserved { missing: verdict.missing }),
        _ => Ok(()),
    }
}

/// Runs `plan`; when `interrupt` is raised it ends within about a second, with what was measured until then.
/// Needs a tokio runtime with time. Not cancel safe.
///
/// # Errors
/// Why the run could not be made. What the server does wrong is in the report instead.
pub async fn run(plan: &Plan, interrupt: &Interrupt) -> Result<Report, Error> {
    let slow = plan.slow.map_or(0, |(connections, _)| connections);
    allow_open_files((plan.connections + plan.idle.unwrap_or(0) + slow) as u64 + OTHER_FILES)?;
    let verification = match &plan.verify {
        Some(verify) => Some(Verification::start(verify, plan).await?),
        None => None,
    };
    let noted =
        plan.answered.as_deref().or(verification.as_ref().map(|verification| verification.answered()));
    let answered = noted.map(AnsweredLog::create).transpose()?;
    let run = Run { plan, interrupt, answered: answered.as_ref() };
    let report = match plan.reference_rounds {
        Some(rounds) => reference::compare(&run, rounds).await,
        None => run.single().await,
    };
    if let Some(answered) = answered {
        answered.finish()?;
    }
    let mut report = report?;
    if let Some(verification) = verification {
        report.verify = Some(verification.finish(plan).await?);
    }
    Ok(report)
}

/// What the parts of a run share.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) answered: Option<&'a AnsweredLog>,
}

/// What was measured on one server, in one phase or in several added up.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// What was sent and answered.
    pub phase: PhaseResult,
    /// What each process used, in the order given; `None` for one that ended.
    pub processes: Vec<Option<ProcessUse>>,
}

/// What a process used while it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessUse {
    /// User and system time.
    pub cpu: Duration,
    /// How long it was measured.
    pub wall: Duration,
    /// Resident octets at the start.
    pub resident_before: u64,
    /// Resident octets at the end.
    pub resident_after: u64,
}

impl Measured {
    /// Adds another measurement of the same server and processes.
    pub fn merge(&mut self, other: &Self) {
        if self.processes.is_empty() {
            self.processes.clone_from(&other.processes);
        } else {
            for (sum, part) in self.processes.iter_mut().zip(&other.processes) {
                *sum = sum.zip(*part).map(|(sum, part)| ProcessUse {
                    cpu: sum.cpu + part.cpu,
                    wall: sum.wall + part.wall,
                    resident_before: sum.resident_before,
                    resident_after: part.resident_after,
                });
            }
        }
        self.phase.merge(&other.phase);
    }

    /// CPU of the first process in microseconds per answer.
    pub fn cpu_us_per_request(&self) -> Option<f64> {
        self.processes
            .first()
            .copied()
            .flatten()
            .and_then(|used| per_request_us(used.cpu, self.phase.stats.answered))
    }
}

/// `cpu` in microseconds for each of `answers`; `None` of none.
pub(crate) fn per_request_us(cpu: Duration, answers: u64) -> Option<f64> {
    (answers > 0).then(|| cpu.as_secs_f64() * 1e6 / answers as f64)
}

impl Run<'_> {
    /// Idle connections if asked for, then load if asked for.
    async fn single(&self) -> Result<Report, Error> {
        let plan = self.plan;
        let idle = match plan.idle {
            Some(connections) => Some(IdleHold::open(self, connections).await?),
            None => None,
        };
        let first_seq = idle.as_ref().map_or(plan.first_seq, IdleHold::next_seq);
        let mut measured = Measured::default();
        let mut slow_figures = None;
        measured.phase.next_seq = first_seq;
        if plan.connections > 0 {
            let beacons = Arc::new(Beacons::new(&plan.target, &plan.mix));
            let fleet = Fleet::connect(plan.fleet(), self.interrupt).await?;
            let slow = match plan.slow {
                Some((connections, pace)) => {
                    Some(SlowClients::start(connections, pace, beacons.clone(), &plan.fleet())?)
                }
                None => None,
            };
            let side = Side { fleet: &fleet, beacons, processes: &plan.processes, settle: plan.settle };
            side.warm_up(self).await?;
            measured = side.measure(self, first_seq, self.answered, "sending").await?;
            fleet.close();
            slow_figures = slow.map(SlowClients::finish);
        } else if let Limit::Duration(duration) = plan.limit {
            self.interrupt.sleep(duration).await;
        }
        let idle = match idle {
            Some(hold) => Some(hold.finish().await?),
            None => None,
        };
        let mut report = Report::new(plan, measured, idle, None, self.interrupt.is_raised());
        report.slow = slow_figures;
        Ok(report)
    }

    /// The title of a progress bar, if one is wanted.
    pub(crate) fn label(&self, text: &str) -> Option<String> {
        self.plan.progress.then(|| text.to_owned())
    }
}

/// One server under load: its connections, what is sent, and whose CPU it is.
#[derive(Debug)]
pub(crate) struct Side<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) beacons: Arc<Beacons>,
    pub(crate) processes: &'a [Process],
    /// How long the server may go on with what it has accepted before its CPU is read.
    pub(crate) settle: Duration,
}

impl Side<'_> {
    /// Sends for the plan's warm-up time and forgets what came of it, once the server has settled.
    pub(crate) async fn warm_up(&self, run: &Run<'_>) -> Result<(), Error> {
        if run.plan.warmup.is_zero() {
            return Ok(());
        }
        let order = PhaseOrder {
            beacons: self.beacons.clone(),
            limit: Limit::Duration(run.plan.warmup),
            rate: run.plan.rate,
            first_seq: WARMUP_SEQ,
            answered: None,
            label: run.label("warm-up"),
        };
        self.fleet.run(order).await?;
        self.settle(run).await;
        Ok(())
    }

    /// Sends as the plan says and measures.
    pub(crate) async fn measure(
        &self,
        run: &Run<'_>,
        first_seq: u64,
        answered: Option<&AnsweredLog>,
        label: &str,
    ) -> Result<Measured, Error> {
        let order = PhaseOrder {
            beacons: self.beacons.clone(),
            limit: run.plan.limit,
            rate: run.plan.rate,
            first_seq,
            answered,
            label: run.label(label),
        };
        let start = Instant::now();
        let before: Vec<_> = self.processes.iter().map(reading).collect();
        let phase = self.fleet.run(order).await?;
        self.settle(run).await;
        let after = self.processes.iter().map(reading);
        let wall = start.elapsed();
        let processes = before.into_iter().zip(after).map(|(before, after)| {
            let ((cpu_before, resident_before), (cpu_after, resident_after)) = before.zip(after)?;
            Some(ProcessUse {
                cpu: cpu_after.saturating_sub(cpu_before),
                wall,
                resident_before,
                resident_after,
            })
        });
        Ok(Measured { phase, processes: processes.collect() })
    }

    async fn settle(&self, run: &Run<'_>) {
        if !self.processes.is_empty() {
            run.interrupt.sleep(self.settle).await;
        }
    }
}

/// CPU time and resident octets, unless the process has ended.
fn reading(process: &Process) -> Option<(Duration, u64)> {
    Some((process.cpu_time().ok()?, process.resident_octets().ok()?))
}

/// A fleet like the plan's, to another server.
pub(crate) fn fleet_to(plan: &Plan, target: &Target) -> FleetOptions {
    FleetOptions { address: target.address, ..plan.fleet() }
}
