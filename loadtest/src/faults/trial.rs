//! One run: an edge in one mode, under one seed's faults, from its first beacon to the verdict.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use serde::Serialize;
use tempfile::TempDir;

use crate::{
    Error,
    faults::{
        Plan,
        book::Shape,
        consumer::Consumer,
        disk::SmallDisk,
        edge::{Edge, Reading, free_ports},
        fault::{Action, Fault, Step},
        judge::{End, History, Life, Verdict, judge},
        load::{Load, Order},
        mode::{Mode, Site, configuration},
        power::Tracer,
        proxy::Proxy,
        rig::{Brokers, Rig},
        schedule,
    },
    interrupt::Interrupt,
};

/// For so long everything is swallowed before the broker is cut off: batches are to be in flight then.
const SWALLOWED: Duration = Duration::from_millis(200);
/// How long before a kill an answered beacon has left the edge's memory: with a broker at hand it has been confirmed, with a
/// spool it has at least been written.
const SETTLED_WITHIN_MS: u32 = 3000;
/// And how long later, at most, what was written is on disk, where no answer promises that.
const SYNCED_WITHIN_MS: u32 = 2000;
/// How long a power cut waits for a checkpoint of the spool: there is one every 8 MiB that are written to its log.
const CHECKPOINT: Duration = Duration::from_secs(3);
/// How often the edge's account is looked at.
const SCRAPE_EVERY: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(5);
/// The edge's own deadline is 5 s.
const TERMINATE_LIMIT: Duration = Duration::from_secs(20);
/// How long a queue may take to be taken empty once everything in it was confirmed.
const CONSUME_LIMIT: Duration = Duration::from_secs(60);

/// What is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trial {
    /// The row of the table.
    pub mode: Mode,
    /// Its column.
    pub fault: Fault,
    /// What the schedule is drawn from.
    pub seed: u64,
    /// Beacons to send; rounded up so that each connection sends the same number.
    pub beacons: u64,
    /// Beacons a second.
    pub rate: f64,
    /// Connections that send.
    pub connections: u32,
}

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was run.
    #[serde(flatten)]
    pub trial: Trial,
    /// What was done, and when.
    pub steps: Vec<Step>,
    /// What the judge found.
    pub verdict: Verdict,
    /// Octets of the spool's files that no fsync had covered at a power cut; none where nothing was traced.
    pub undone_octets: Option<u64>,
    /// From the end of the last fault, or of sending if that was later, to the last confirmation.
    pub drained_s: f64,
    /// From the first beacon to the verdict.
    pub took_s: f64,
}

impl Trial {
    /// Runs it. `None` when it was interrupted. `run` tells its beacons from those of others. What a convicted edge wrote is
    /// kept, and its place told, if the plan shows progress.
    ///
    /// # Errors
    /// When the run could not be made: the broker, the system, or an edge that ended by itself.
    pub(crate) fn run(
        &self,
        rig: &Rig,
        run: u32,
        plan: &Plan,
        interrupt: &Interrupt,
    ) -> Result<Option<Outcome>, Error> {
        let steps = schedule::draw(self.mode, self.fault, self.seed);
        let mut stage = Stage::set(*self, rig, run, interrupt)?;
        for step in &steps {
            if !stage.reach(step.at)? || !stage.perform(step)? {
                return Ok(None);
            }
        }
        if !stage.reach(f64::INFINITY)? {
            return Ok(None);
        }
        stage.finish(steps, plan)
    }

    /// Small where the ring is to overflow, or where there is a spool behind it.
    fn ring(&self) -> usize {
        let overflows = matches!(
            self.fault,
            Fault::BrokerOutage | Fault::Alarm | Fault::Network | Fault::Mixed | Fault::DiskFull
        );
        if overflows || self.mode.has_spool() { 20_000 } else { 262_144 }
    }
}

/// Everything of one run that is in motion. The order of the fields is the order of their end.
struct Stage<'a> {
    trial: Trial,
    brokers: &'a Brokers,
    interrupt: &'a Interrupt,
    origin: Instant,
    load: Load,
    consumer: Consumer,
    edge: Edge,
    tracer: Option<Tracer>,
    undone: Option<u64>,
    proxies: Vec<Proxy>,
    disk: Option<SmallDisk>,
    folder: TempDir,
    queue: String,
    shape: Shape,
    lives: Vec<Life>,
    last: Reading,
    last_scrape: Instant,
    unconserved: Vec<String>,
    /// When no broker took anything: from and to, in milliseconds since the origin.
    outages: Vec<(u32, u32)>,
}

impl<'a> Stage<'a> {
    fn set(trial: Trial, rig: &'a Rig, run: u32, interrupt: &'a Interrupt) -> Result<Self, Error> {
        let queue = format!("faults-{run}");
        let brokers = rig.brokers(trial.fault)?;
        brokers.declare(&queue)?;
        let proxies = brokers.addresses().into_iter().map(Proxy::start).collect::<Result<Vec<_>, _>>()?;
        let folder = tempfile::Builder::new()
            .prefix("beacon-faults-")
            .tempdir()
            .map_err(Error::io("folder for a run"))?;
        let spool = folder.path().join("spool");
        let disk =
            if trial.fault == Fault::DiskFull { Some(SmallDisk::mount(&spool, 64 << 20)?) } else { None };
        let [http, admin] = free_ports()?;
        let urls: Vec<String> = proxies.iter().map(|proxy| brokers.url(proxy.address())).collect();
        let site = Site { http, admin, brokers: &urls, queue: &queue, spool: &spool, ring: trial.ring() };
        let config = folder.path().join("edge.toml");
        fs::write(&config, configuration(trial.mode, site))
            .map_err(Error::io("configuration of the edge"))?;
        let traced = trial.fault == Fault::PowerCut && trial.mode.has_spool();
        let tracer = traced.then(|| Tracer::new(folder.path(), &spool));
        let prefix = tracer.as_ref().map(Tracer::prefix).unwrap_or_default();
        let edge = Edge::start(rig.program(), &config, &folder.path().join("edge.log"), admin, prefix)?;

        let shape = Shape::of(trial.beacons, trial.connections);
        let direct = brokers.addresses().into_iter().map(|address| brokers.url(address).parse());
        let direct = direct
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::Argument(format!("the broker's URL: {error}")))?;
        let consumer = Consumer::start(direct, &queue, run, shape)?;
        let origin = Instant::now();
        let order = Order { address: http, run, shape, rate: trial.rate, mode: trial.mode, origin };
        Ok(Self {
            trial,
            brokers,
            interrupt,
            origin,
            load: Load::start(order)?,
            consumer,
            edge,
            tracer,
            undone: None,
            proxies,
            disk,
            folder,
            queue,
            shape,
            lives: Vec::new(),
            last: Reading::default(),
            last_scrape: origin,
            unconserved: Vec::new(),
            outages: Vec::new(),
        })
    }

    /// Waits until this share of the beacons has been sent, or all of them; `false` when interrupted.
    fn reach(&mut self, share: f64) -> Result<bool, Error> {
        let wanted = share * self.shape.beacons() as f64;
        loop {
            if self.load.is_done()
                || self.load.live().sent.load(std::sync::atomic::Ordering::Relaxed) as f64 >= wanted
            {
                return Ok(true);
            }
            if !self.look()? {
                return Ok(false);
            }
        }
    }

    /// Lets `time` pass; `false` when interrupted.
    fn pass(&mut self, time: Duration) -> Result<bool, Error> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if !self.look()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A short sleep, and from time to time a look at the edge's account.
    fn look(&mut self) -> Result<bool, Error> {
        if self.interrupt.is_raised() {
            return Ok(false);
        }
        sleep(LOOK);
        if self.last_scrape.elapsed() >= SCRAPE_EVERY && self.edge.pid() != 0 {
            self.scrape()?;
        }
        Ok(true)
    }

    fn scrape(&mut self) -> Result<(), Error> {
        if let Some(status) = self.edge.exit_status()? {
            return Err(Error::Edge { reason: format!("ended by itself: {status}"), log: self.edge.log() });
        }
        let text = self.edge.scrape()?;
        self.last_scrape = Instant::now();
        self.last = Reading::from_metrics(&text).unwrap_or_default();
        if !self.last.is_conserved() {
            self.unconserved.push(format!("{:?}", self.last));
        }
        Ok(())
    }

    /// Does what a step says, to its end; `false` when interrupted.
    fn perform(&mut self, step: &Step) -> Result<bool, Error> {
        let from = self.now_ms();
        let is_cut_off = !step.cut_off.is_zero();
        if is_cut_off {
            self.proxies.iter().for_each(|proxy| proxy.black_hole());
            if !self.pass(SWALLOWED)? {
                return Ok(false);
            }
            self.proxies.iter().for_each(|proxy| proxy.refuse());
            if !self.pass(step.cut_off)? {
                return Ok(false);
            }
            self.outages.push((from, u32::MAX));
        }
        let goes_on = self.act(step)?;
        let is_of_the_edge = matches!(
            step.action,
            Action::Sigterm | Action::Sigkill | Action::PowerCut | Action::PowerCutInCheckpoint
        );
        if is_cut_off || !is_of_the_edge {
            self.proxies.iter().for_each(|proxy| proxy.heal());
            self.outages.retain(|outage| outage.1 != u32::MAX);
            self.outages.push((from, self.now_ms()));
        }
        Ok(goes_on)
    }

    fn act(&mut self, step: &Step) -> Result<bool, Error> {
        let brokers = self.brokers;
        let node = brokers.node();
        match step.action {
            Action::Sigterm => {
                let status = self.edge.terminate(TERMINATE_LIMIT)?;
                let reading = self.farewell()?;
                self.lives.push(Life { end: End::Terminated(status.code()), reading });
                self.away(step.hold)
            }
            Action::Sigkill | Action::PowerCut | Action::PowerCutInCheckpoint => {
                if let (Action::PowerCutInCheckpoint, Some(tracer)) = (step.action, &self.tracer) {
                    tracer.await_checkpoint(CHECKPOINT)?;
                }
                let at_ms = self.now_ms();
                let since_ms = self.unsettled_since(at_ms);
                let pid = self.edge.pid();
                self.edge.kill()?;
                if let Some(tracer) = &self.tracer {
                    *self.undone.get_or_insert(0) += tracer.undo(pid, self.trial.seed)?;
                }
                let reading = std::mem::take(&mut self.last);
                let goes_on = self.away(step.hold)?;
                let end = End::Killed { since_ms, until_ms: self.now_ms(), at_ms };
                self.lives.push(Life { end, reading });
                Ok(goes_on)
            }
            Action::BrokerKill => {
                node.kill().map_err(Error::broker)?;
                self.broker_away(step.hold)
            }
            Action::BrokerStop => {
                node.stop().map_err(Error::broker)?;
                self.broker_away(step.hold)
            }
            Action::BrokerStopApp => {
                node.stop_app().map_err(Error::broker)?;
                let goes_on = self.pass(step.hold)?;
                node.start_app().map_err(Error::broker)?;
                Ok(goes_on)
            }
            Action::MemoryAlarm | Action::DiskAlarm => {
                let set = |on| match step.action {
                    Action::MemoryAlarm => node.set_memory_alarm(on),
                    _ => node.set_disk_alarm(on),
                };
                set(true).map_err(Error::broker)?;
                let goes_on = self.pass(step.hold)?;
                set(false).map_err(Error::broker)?;
                Ok(goes_on)
            }
            Action::Cut => {
                self.proxies.iter().for_each(|proxy| proxy.cut());
                Ok(true)
            }
            Action::Reset => {
                self.proxies.iter().for_each(|proxy| proxy.reset());
                Ok(true)
            }
            Action::BlackHole => {
                self.proxies.iter().for_each(|proxy| proxy.black_hole());
                self.pass(step.hold)
            }
            Action::Delay(ms) => {
                let delay = Duration::from_millis(u64::from(ms));
                self.proxies.iter().for_each(|proxy| proxy.delay(delay));
                self.pass(step.hold)
            }
            Action::Throttle(rate) => {
                self.proxies.iter().for_each(|proxy| proxy.throttle(rate));
                self.pass(step.hold)
            }
            Action::DiskFull => {
                self.proxies.iter().for_each(|proxy| proxy.refuse());
                if let Some(disk) = &self.disk {
                    disk.fill()?;
                }
                let goes_on = self.pass(step.hold)?;
                if let Some(disk) = &self.disk {
                    disk.free()?;
                }
                Ok(goes_on)
            }
            Action::NodeKill => {
                let (cluster, leader) = brokers.leader(&self.queue)?;
                leader.kill().map_err(Error::broker)?;
                let goes_on = self.pass(step.hold)?;
                leader.start_again().map_err(Error::broker)?;
                cluster.wait_until_whole().map_err(Error::broker)?;
                Ok(goes_on)
            }
        }
    }

    /// A new edge after some time.
    fn away(&mut self, hold: Duration) -> Result<bool, Error> {
        let goes_on = self.interrupt_sleep(hold);
        self.edge.start_again()?;
        self.last = Reading::default();
        Ok(goes_on)
    }

    fn broker_away(&mut self, hold: Duration) -> Result<bool, Error> {
        let goes_on = self.pass(hold)?;
        self.brokers.node().start_again().map_err(Error::broker)?;
        Ok(goes_on)
    }

    fn interrupt_sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.interrupt.is_raised() {
            sleep(LOOK);
        }
        !self.interrupt.is_raised()
    }

    /// The account in the last line of an edge that has ended by SIGTERM.
    fn farewell(&mut self) -> Result<Reading, Error> {
        let log = self.edge.log();
        let resent = std::mem::take(&mut self.last).resent;
        match Reading::from_farewell(&log) {
            Some(reading) => Ok(Reading { resent, ..reading }),
            None => Err(Error::Edge { reason: "ended without its last line".into(), log }),
        }
    }

    /// From when on an edge that is killed now may have answered beacons that are in its memory alone, or at a power cut
    /// not on disk.
    fn unsettled_since(&self, at_ms: u32) -> u32 {
        let since = at_ms.saturating_sub(SETTLED_WITHIN_MS);
        let Trial { mode, fault, .. } = self.trial;
        match (mode.has_spool(), fault) {
            (true, Fault::PowerCut) => since.saturating_sub(SYNCED_WITHIN_MS),
            // However long the outage: what is in flight is copied.
            (true, _) => since,
            (false, _) => self.outages.iter().rev().fold(since, |since, &(from, to)| {
                if to >= since { since.min(from.saturating_sub(SETTLED_WITHIN_MS)) } else { since }
            }),
        }
    }

    fn now_ms(&self) -> u32 {
        u32::try_from(self.origin.elapsed().as_millis()).unwrap_or(u32::MAX)
    }

    /// Waits until everything is confirmed and consumed, ends the edge, and has the judge look at it.
    fn finish(mut self, steps: Vec<Step>, plan: &Plan) -> Result<Option<Outcome>, Error> {
        self.proxies.iter().for_each(|proxy| proxy.heal());
        let calm = Instant::now();
        let mut is_drained = true;
        loop {
            self.scrape()?;
            if self.last.pending == 0 && self.last.spooled == 0 {
                break;
            }
            if calm.elapsed() > plan.settle {
                is_drained = false;
                break;
            }
            if !self.pass(Duration::from_millis(20))? {
                return Ok(None);
            }
        }
        let drained = calm.elapsed();
        is_drained &= self.is_consumed()?;
        if self.interrupt.is_raised() {
            return Ok(None);
        }
        let status = self.edge.terminate(TERMINATE_LIMIT)?;
        let reading = self.farewell()?;
        self.lives.push(Life { end: End::Terminated(status.code()), reading });
        let delivered = self.consumer.finish()?;
        let book = self.load.join()?;
        let verdict = judge(&History {
            mode: self.trial.mode,
            fault: self.trial.fault,
            book: &book,
            delivered: &delivered,
            lives: &self.lives,
            is_drained,
            unconserved: &self.unconserved,
        });
        self.brokers.vhost().delete_queue(&self.queue).map_err(Error::broker)?;
        let took_s = self.origin.elapsed().as_secs_f64();
        if plan.progress && !verdict.violations.is_empty() {
            let kept = self.folder.keep();
            eprintln!("what the edge wrote is in {}", kept.display());
        }
        Ok(Some(Outcome {
            trial: self.trial,
            steps,
            verdict,
            undone_octets: self.undone,
            drained_s: drained.as_secs_f64(),
            took_s,
        }))
    }

    /// Waits until the queue holds nothing, acknowledged or not; `false` at the limit.
    fn is_consumed(&mut self) -> Result<bool, Error> {
        let start = Instant::now();
        let mut seen = self.consumer.lines();
        let mut progress = start;
        while progress.elapsed() < CONSUME_LIMIT && !self.interrupt.is_raised() {
            // A queue that has just come back may not answer yet.
            if self.brokers.vhost().queue_depth(&self.queue).is_ok_and(|depth| depth == 0) {
                return Ok(true);
            }
            if self.consumer.lines() != seen {
                (seen, progress) = (self.consumer.lines(), Instant::now());
            }
            sleep(2 * LOOK);
        }
        Ok(false)
    }
}
