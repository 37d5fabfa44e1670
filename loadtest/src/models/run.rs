//! The course of a run: rounds in which the models take turns, then the deaths of the broker.

use std::time::{Duration, Instant};

use tokio::runtime;

use super::{
    Args, Failure, Model, Plan,
    broker::Broker,
    csv,
    death::Died,
    enclosure::{Enclosure, MemoryLimit},
    eta::Eta,
    redis,
    report::{Death, Load, Report, Round, Spread},
    round::{Stage, measure_time, open_files, search_time},
};
use crate::{
    Error,
    interrupt::Interrupt,
    report::{grouped, human_us, publish, rounded},
};

/// RabbitMQ's own default: what it may use of the memory that there is.
const WATERMARK: f64 = 0.4;

/// What the servers are made of, for the report.
pub(super) const LIBRARIES: &[&str] = &["hyper", "lapin", "redis-protocol", "stompwire", "tokio"];

/// What the common rate is of the slowest model's.
const COMMON: f64 = 0.5;

/// Carries out `loadtest models`: checks the arguments, runs, and writes the result. Ctrl-C ends it early with a result.
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
    if let Some(path) = &args.csv {
        std::fs::write(path, csv::csv(&report))
            .map_err(|source| Error::Output { path: path.clone(), source })?;
    }
    if let Some(path) = &args.html {
        std::fs::write(path, report.html()).map_err(|source| Error::Output { path: path.clone(), source })?;
    }
    publish(&report, &report.table(), args.json.as_ref())?;
    match report.failure {
        Some(failure) => Err(Error::Model(failure)),
        None => Ok(()),
    }
}

/// Runs `plan`; when `interrupt` is raised it ends within seconds, with what was measured until then. Not cancel safe.
///
/// # Errors
/// Why the run could not be made. A model that fails on the way is told in the report instead.
pub async fn run(plan: &Plan, interrupt: &Interrupt) -> Result<Report, Error> {
    open_files(plan)?;
    let start = Instant::now();
    let mut report = Report::new(plan);
    let enclosure = plan.memory.and_then(|octets| enclose(octets, &mut report));
    // RabbitMQ sees the machine's memory, not the control group's.
    let watermark = plan.memory.map(|octets| (octets as f64 * WATERMARK) as u64);
    let broker = Broker::start(watermark).await?;
    let mut versions = vec![("RabbitMQ", Some(broker.version()))];
    versions.push(("Redis", plan.redis.as_deref().and_then(redis::version)));
    for (name, version) in versions {
        if let Some(version) = version {
            report.machine = report.machine.with_version(name, &version);
        }
    }
    if let Some(enclosure) = &enclosure {
        for pid in broker.processes() {
            enclosure.admit(pid).map_err(Error::Model)?;
        }
    }
    let stage = Stage { plan, broker: &broker, enclosure: enclosure.as_ref(), interrupt };
    let mut course = Course { stage, eta: Eta::new(planned(plan)), report: &mut report };
    course.rounds().await;
    course.deaths().await;
    drop(course);
    if let (Some(limit), Some(enclosure)) = (&mut report.memory_limit, &enclosure) {
        limit.killed = enclosure.killed();
    }
    drop(broker);
    report.summarise();
    report.interrupted = interrupt.is_raised();
    report.elapsed_s = rounded(start.elapsed().as_secs_f64(), 1);
    report.note();
    Ok(report)
}

fn enclose(octets: u64, report: &mut Report) -> Option<Enclosure> {
    let enclosure = Enclosure::new(octets);
    let how = match &enclosure {
        Ok(enclosure) => enclosure.describe(),
        Err(reason) => {
            eprintln!("loadtest: --memory is not enforced: {reason}");
            reason.clone()
        }
    };
    report.memory_limit = Some(MemoryLimit { octets, enforced: enclosure.is_ok(), how, killed: None });
    enclosure.ok()
}

fn planned(plan: &Plan) -> Duration {
    let models = plan.models.len() as u32;
    let round = |number| (search_time(plan, number) + measure_time(plan)) * models;
    let with_deaths = plan.models.iter().filter(|model| model.reaches_the_broker()).count() as u32;
    round(1) + round(2) * (plan.rounds as u32 - 1) + death_time(plan) * with_deaths * plan.deaths as u32
}

fn death_time(plan: &Plan) -> Duration {
    plan.death_duration.max(Duration::from_secs(9)) + Duration::from_secs(8)
}

struct Course<'a> {
    stage: Stage<'a>,
    eta: Eta,
    report: &'a mut Report,
}

impl Course<'_> {
    fn plan(&self) -> &Plan {
        self.stage.plan
    }

    fn over(&self) -> bool {
        self.stage.interrupt.is_raised() || self.report.failure.is_some()
    }

    /// The models that have not failed, each with its place in the report.
    fn players(&self) -> Vec<(usize, Model)> {
        let models = self.plan().models.iter().copied().enumerate();
        models.filter(|&(place, _)| self.report.models[place].failure.is_none()).collect()
    }

    async fn rounds(&mut self) {
        for round in 1..=self.plan().rounds {
            let label = format!("round {round}/{}", self.plan().rounds);
            for (place, model) in self.players() {
                if self.over() {
                    return;
                }
                self.search(place, model, round, &label).await;
            }
            if self.report.common_rate.is_none() {
                self.report.common_rate = self.common_rate();
            }
            let Some(rate) = self.report.common_rate else { continue };
            for (place, model) in self.players() {
                if self.over() {
                    return;
                }
                self.compare(place, model, rate, &label).await;
            }
        }
    }

    async fn search(&mut self, place: usize, model: Model, round: usize, label: &str) {
        self.eta.now(&format!("{label}, {}: search", model.key()));
        let found = self.report.models[place].found_before(round);
        let outcome = self.stage.search(model, found).await;
        let Some(searched) = self.judge(place, label, outcome).await else { return };
        let found = searched
            .rate
            .map_or("sustains nothing".to_owned(), |rate| format!("sustains {}/s", grouped(rate as u64)));
        self.report.models[place].rounds.push(Round::new(round, &searched));
        self.eta.done(search_time(self.stage.plan, round), &format!("{label}, {}: {found}", model.key()));
    }

    async fn compare(&mut self, place: usize, model: Model, rate: f64, label: &str) {
        self.eta.now(&format!("{label}, {}: at {rate:.0}/s", model.key()));
        let outcome = self.stage.at(model, rate).await;
        let Some(taken) = self.judge(place, label, outcome).await else { return };
        let load = Load::new(&taken);
        let text = format!("{label}, {}: p99 {} at {rate:.0}/s", model.key(), human_us(load.latency.p99_us));
        if let Some(round) = self.report.models[place].rounds.last_mut() {
            round.at_common = Some(load);
        }
        self.eta.done(measure_time(self.stage.plan), &text);
    }

    async fn deaths(&mut self) {
        let Some(rate) = self.report.common_rate else { return };
        for death in 1..=self.plan().deaths {
            for (place, model) in self.players() {
                if !model.reaches_the_broker() {
                    continue;
                }
                if self.over() {
                    return;
                }
                let label = format!("death {death}/{}, {}", self.plan().deaths, model.key());
                self.eta.now(&label);
                let outcome = self.stage.death(model, rate).await;
                let Some(died) = self.judge::<Died>(place, &label, outcome).await else { continue };
                let text = format!(
                    "{label}: {} of {} answered are lost",
                    grouped(died.verdict.missing),
                    grouped(died.verdict.answered)
                );
                self.report.models[place].deaths.push(Death::new(died));
                self.eta.done(death_time(self.stage.plan), &text);
            }
        }
    }

    /// What was measured; a failure is told in the report, and the model is left out from then on. So is one under which
    /// the broker has ended by itself; the others get a new broker.
    async fn judge<T>(
        &mut self,
        place: usize,
        label: &str,
        outcome: Result<Option<T>, Failure>,
    ) -> Option<T> {
        // What breaks because everything is being ended is no news.
        if self.over() {
            return outcome.ok().flatten();
        }
        let failure = if self.stage.broker.is_gone() {
            format!("RabbitMQ has ended by itself ({label}): its log, or the kernel's, says why")
        } else {
            match outcome {
                Ok(taken) => return taken,
                Err(failure) => failure.to_string(),
            }
        };
        let row = &mut self.report.models[place];
        eprintln!("loadtest: {}: {failure}", row.model);
        row.failure = Some(failure);
        if self.stage.broker.is_gone()
            && let Err(failure) = self.stage.revive().await
        {
            self.report.failure =
                Some(format!("RabbitMQ has ended by itself and does not come back: {failure}"));
        }
        None
    }

    /// A share of what the slowest has sustained.
    fn common_rate(&self) -> Option<f64> {
        let rates = self.report.models.iter().filter_map(|row| row.rounds.first()?.sustained_rate);
        rates.reduce(f64::min).map(|slowest| (slowest * COMMON).round().max(1.0))
    }
}

impl Report {
    /// Says what a reader of the numbers should know.
    fn note(&mut self) {
        let mut notes = Vec::new();
        if self.interrupted {
            notes.push("the run was interrupted: medians are of the rounds that were complete".to_owned());
        }
        if let Some(failure) = &self.failure {
            notes.push(format!("the run could not go on: {failure}"));
        }
        if let Some(limit) = &self.memory_limit {
            if !limit.enforced {
                notes.push(format!("--memory was NOT enforced: {}", limit.how));
            }
            if let Some(killed) = limit.killed.filter(|&killed| killed > 0) {
                notes.push(format!("the kernel killed {killed} processes for want of memory"));
            }
        }
        if self.models.iter().any(|row| row.median.as_ref().is_some_and(|median| median.rounds < 5)) {
            notes.push("fewer than 5 rounds: treat the figures as a first look".to_owned());
        }
        if self.models.iter().any(|row| row.model == Model::RedisFront.key()) {
            notes.push(
                "redis-front is half of a model: its beacons are in Redis and stay there, confirmed is Redis' reply"
                    .to_owned(),
            );
        }
        if let Some(Spread { median, low, high }) = self.packed_to_front {
            notes.push(format!(
                "sustained by edge-packed ÷ redis-front: × {median:.2} ({low:.2} … {high:.2} in the rounds)"
            ));
        }
        for row in &self.models {
            if let Some(failure) = &row.failure {
                notes.push(format!("{}: {failure}", row.model));
            }
            if row.rounds.iter().any(|round| round.capped) {
                notes.push(format!("{}: the search ended at --max-rate", row.model));
            }
        }
        let late = |load: &Option<Load>| load.as_ref().is_some_and(|load| !load.generator_kept_up);
        let late: Vec<String> = self
            .models
            .iter()
            .filter_map(|row| {
                let rounds = row.rounds.iter();
                let rounds =
                    rounds.filter(|round| late(&round.at_sustained) || late(&round.at_common)).count();
                (rounds > 0).then(|| format!("{} in {rounds} of {} rounds", row.model, row.rounds.len()))
            })
            .collect();
        if !late.is_empty() {
            notes.push(format!(
                "the load itself was late, 1 % of it by more than 1 ms, which is in the answer times: {}",
                late.join(", ")
            ));
        }
        self.notes = notes;
    }
}
