//! Many runs, one after the other, on one broker.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use tokio::{runtime, task::spawn_blocking};

use crate::{
    Error,
    faults::{
        args::{Args, Plan},
        disk::SmallDisk,
        fault::Fault,
        markdown, measure,
        mode::Mode,
        power::Tracer,
        report::{Failure, Report},
        rig::Rig,
        trial::{Outcome, Trial},
    },
    interrupt::Interrupt,
    limits::allow_open_files,
    progress::Progress,
    report::{grouped, publish},
};

/// Open files beside the connections that send: both ends of the proxy, the broker's pipes, the logs.
const OTHER_FILES: u64 = 256;

/// Carries out `loadtest faults`: checks the arguments, runs, and writes the result. Ctrl-C ends it early with a result.
///
/// # Errors
/// Why there is no result, or [`Error::Broken`] after the result has been written; see [`Error`].
pub fn command(args: Args) -> Result<(), Error> {
    if let Some(measure) = args.measure {
        return measure::command(measure);
    }
    let plan = Plan::check(&args)?;
    args.markdown.as_deref().map_or(Ok(()), markdown::check)?;
    let report = with_interrupt(move |interrupt| run(&plan, interrupt))?;
    publish(&report, &report.table(), args.report.as_ref())?;
    if let Some(path) = &args.markdown {
        markdown::update(path, &report.markdown())?;
    }
    match report.complaint() {
        Some(complaint) => Err(Error::Broken(complaint)),
        None => Ok(()),
    }
}

/// Runs something that blocks while a runtime listens for signals.
pub(crate) fn with_interrupt<T: Send + 'static>(
    work: impl FnOnce(&Interrupt) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("runtime"))?;
    runtime.block_on(async {
        let interrupt = Interrupt::on_signals()?;
        spawn_blocking(move || work(&interrupt)).await.map_err(|error| Error::Io {
            what: "thread of the judge",
            source: std::io::Error::other(error),
        })?
    })
}

/// Makes the runs of `plan`; when `interrupt` is raised it ends within seconds, with what was judged until then. Blocks.
///
/// # Errors
/// Why no run could be made. What goes wrong in one of them is in the report.
pub fn run(plan: &Plan, interrupt: &Interrupt) -> Result<Report, Error> {
    let connections = plan.trials.iter().map(|trial| trial.connections).max().unwrap_or(0);
    allow_open_files(u64::from(connections) + OTHER_FILES)?;
    let mut report = Report::default();
    let mut trials = Vec::with_capacity(plan.trials.len());
    let mut reasons = BTreeMap::new();
    for trial in &plan.trials {
        let cell = (trial.mode, trial.fault);
        let reason = reasons.entry(cell).or_insert_with(|| cannot(trial.mode, trial.fault));
        match reason {
            None => trials.push(*trial),
            Some(reason) => report.not_measured(cell, reason),
        }
    }
    let mut rig = Rig::new(&plan.program);
    let show = Show::new(plan.progress, trials.len());
    for (number, trial) in trials.iter().enumerate() {
        if interrupt.is_raised() {
            break;
        }
        show.before(number, trial, &report);
        // Without brokers there is nothing to judge, and no other run will find them.
        report.broker = format!("RabbitMQ {}", rig.brokers(trial.fault)?.node().version());
        let run = u32::try_from(number).unwrap_or(u32::MAX);
        match trial.run(&rig, run, plan, interrupt) {
            Ok(Some(outcome)) => {
                show.after(&outcome);
                report.outcomes.push(outcome);
            }
            Ok(None) => break,
            Err(error) => {
                let reason = error.to_string();
                show.line(&format!("{}: {reason}", name(trial)));
                report.failures.push(Failure { trial: *trial, reason });
                // Whatever state it left the broker in.
                rig = Rig::new(&plan.program);
            }
        }
    }
    report.interrupted = interrupt.is_raised();
    report.finish();
    Ok(report)
}

/// Why this machine, or this mode, has nothing to measure in a cell.
fn cannot(mode: Mode, fault: Fault) -> Option<String> {
    match fault {
        Fault::DiskFull if !mode.has_spool() => Some("nothing is on disk".into()),
        Fault::DiskFull => {
            let folder = tempfile::tempdir().ok()?;
            let error = SmallDisk::mount(&folder.path().join("disk"), 1 << 20).err()?;
            Some(format!("not measured: {error}"))
        }
        Fault::PowerCut if mode.has_spool() => {
            Tracer::check().err().map(|reason| format!("not measured: {reason}"))
        }
        _ => None,
    }
}

fn name(trial: &Trial) -> String {
    format!("{} {} seed {}", trial.mode.name(), trial.fault.name(), trial.seed)
}

/// What is told meanwhile: a line for each run, and on a terminal a bar with the time left.
struct Show {
    progress: Option<Progress>,
    total: usize,
    start: Instant,
}

impl Show {
    fn new(is_shown: bool, total: usize) -> Self {
        let progress = is_shown.then(|| Progress::start("faults".into(), total as u64));
        Self { progress, total, start: Instant::now() }
    }

    fn before(&self, number: usize, trial: &Trial, report: &Report) {
        let Some(progress) = &self.progress else { return };
        let beacons: u64 = report.outcomes.iter().map(|outcome| outcome.verdict.issued).sum();
        let left = (number > 0).then(|| {
            let each = self.start.elapsed().div_f64(number as f64);
            Duration::from_secs(each.mul_f64((self.total - number) as f64).as_secs())
        });
        let left = left.map_or_else(String::new, |left| format!(", {left:?} left"));
        progress.say(
            number as u64,
            format!("{number}/{}, {} beacons{left}; {}", self.total, grouped(beacons), name(trial)),
        );
    }

    fn after(&self, outcome: &Outcome) {
        let Outcome { trial, steps, verdict, undone_octets, drained_s, took_s } = outcome;
        let undone =
            undone_octets.map_or_else(String::new, |octets| format!(", {} octets undone", grouped(octets)));
        let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
        self.line(&format!(
            "{}: {}\n  {} promised of {}, {} lost, {} counted as dropped, {} duplicates, drained in {drained_s:.1} s, \
             took {took_s:.1} s{undone}",
            name(trial),
            steps.join("; "),
            grouped(verdict.promised),
            grouped(verdict.issued),
            grouped(verdict.lost),
            grouped(verdict.counted.values().sum()),
            grouped(verdict.duplicates),
        ));
        for violation in &verdict.violations {
            self.line(&format!("  BROKEN: {violation}"));
        }
    }

    fn line(&self, text: &str) {
        match &self.progress {
            Some(progress) if stderr().is_terminal() => progress.above(text),
            Some(_) => eprintln!("{text}"),
            None => {}
        }
    }
}
