//! The course of a run: points, at each point rounds, in each round the clients in turns.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{runtime, sync::oneshot};

use crate::{
    Error,
    broker::{
        Args, Plan,
        driver::Link,
        progress::Progress,
        report::{Gathering, Point, Report},
        round::{Measured, RoundOrder},
        server::Server,
        setting::{Mode, Protocol, QueueKind, Setting, Sweep},
    },
    interrupt::Interrupt,
    limits::allow_open_files,
    machine::Machine,
    report::publish,
};

/// What a queue that nobody consumes keeps: its newest messages.
const KEEP_OCTETS: u64 = 256 << 20;
/// What a round takes beside warm-up and measuring: connecting, draining, the queue.
const AROUND: Duration = Duration::from_millis(300);
/// Open files beside a few for each connection.
const OTHER_FILES: u64 = 128;

/// Carries out `loadtest broker`: checks the arguments, runs, and writes the results. Ctrl-C ends it early with a result.
///
/// # Errors
/// Why there is no result, or why it is incomplete: a broker that went away. See [`Error`].
pub fn command(args: Args) -> Result<(), Error> {
    let plan = Plan::check(&args)?;
    let signals = Signals::listen()?;
    let report = run(&plan, &signals.interrupt)?;
    // All that was asked for is written before the run is called a failure.
    publish(&report, &report.table(), args.json.as_ref())?;
    if let Some(path) = &args.csv {
        write(path, &report.csv())?;
    }
    if let Some(path) = &args.html {
        write(path, &report.page().to_html())?;
    }
    match report.failure {
        Some(failure) => Err(Error::Broker(failure)),
        None => Ok(()),
    }
}

/// Runs `plan`. When `interrupt` is raised, or the broker goes away, it ends within seconds, with what was measured until
/// then. Blocks; to be called outside of a runtime.
///
/// # Errors
/// Why the run could not be made.
pub fn run(plan: &Plan, interrupt: &Interrupt) -> Result<Report, Error> {
    let most = plan.points.iter().map(|(_, point)| point.connections).max().unwrap_or(1);
    allow_open_files(((most + plan.consumers.unwrap_or(most)) * 4 + plan.threads * 8) as u64 + OTHER_FILES)?;
    let server = match &plan.endpoints {
        Some(endpoints) => Server::given(endpoints.clone(), plan.broker.clone()),
        None => Server::private(&plan.broker_config)?,
    };
    let mut machine = Machine::read().with_libraries(&["lapin", "amqprs", "stompwire"]);
    if let Some(version) = server.version() {
        machine = machine.with_version("RabbitMQ", version);
    }
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let turns: usize = plan.points.iter().map(|(sweep, _)| protocols_at(plan, *sweep).len()).sum();
    let rounds = turns * plan.rounds;
    let progress = Progress::start(rounds as u64, plan.warmup + plan.time + AROUND, plan.progress);
    let report = Report::new(plan, machine, server.facts.clone(), unix);
    let mut run =
        Run { plan, interrupt, server: &server, progress, start: Instant::now(), report, queues: 0 };
    run.all_points();
    let Run { mut report, .. } = run;
    report.interrupted = interrupt.is_raised();
    report.observe();
    Ok(report)
}

struct Run<'a> {
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    server: &'a Server,
    progress: Progress,
    start: Instant,
    report: Report,
    queues: usize,
}

impl Run<'_> {
    fn all_points(&mut self) {
        for (sweep, setting) in &self.plan.points {
            let protocols = protocols_at(self.plan, *sweep);
            let mut gatherings: Vec<Gathering> = protocols.into_iter().map(Gathering::new).collect();
            self.rounds(setting, &mut gatherings);
            let amqp = gatherings
                .iter()
                .find(|gathering| gathering.protocol != Protocol::Stomp)
                .map(|gathering| &*gathering.rounds);
            let clients: Vec<_> = gatherings
                .iter()
                .filter(|gathering| !gathering.rounds.is_empty())
                .map(|gathering| gathering.finish(setting, amqp))
                .collect();
            if !clients.is_empty() {
                let consumers = self.consumers(setting);
                self.report.points.push(Point { sweep: *sweep, setting: *setting, consumers, clients });
            }
            if self.is_over() {
                return;
            }
        }
    }

    fn rounds(&mut self, setting: &Setting, gatherings: &mut [Gathering]) {
        for number in 1..=self.plan.rounds {
            // Each client is the first in its turn, so that none has the better place.
            let first = (number - 1) % gatherings.len().max(1);
            for place in 0..gatherings.len() {
                if self.is_over() {
                    return;
                }
                let gathering = &mut gatherings[(first + place) % gatherings.len()];
                let began = self.start.elapsed();
                let measured = self.round(gathering.protocol, setting);
                self.progress.next();
                // A round that was cut short says nothing that could be compared.
                if self.interrupt.is_raised() && measured.window < self.plan.time {
                    return;
                }
                if let Some(failure) = &measured.failure {
                    self.report.failure = Some(format!("{}: {failure}", gathering.protocol.title()));
                }
                gathering.add(number, began, (self.plan.mode, setting.connections), &measured);
            }
        }
    }

    /// One round over a queue of its own.
    fn round(&mut self, protocol: Protocol, setting: &Setting) -> Measured {
        let plan = self.plan;
        let failed = |failure: String| Measured { failure: Some(failure), ..Measured::default() };
        let Some(port) = self.server.endpoints.port(protocol) else {
            return failed("no URI was given for it".to_owned());
        };
        self.queues += 1;
        let queue = format!("loadtest-{}-{}", std::process::id(), self.queues);
        let durable = plan.persistent || setting.queue != QueueKind::Classic;
        let keep = (plan.mode == Mode::Publish).then_some(KEEP_OCTETS);
        if let Err(failure) = self.server.declare(&queue, setting.queue, durable, keep) {
            return failed(failure.0);
        }
        let order = RoundOrder {
            protocol,
            setting: *setting,
            link: Link {
                endpoints: self.server.endpoints.clone(),
                queue: queue.clone(),
                kind: setting.queue,
                persistent: plan.persistent,
                confirms: plan.confirms,
                window: setting.window,
                prefetch: plan.prefetch,
            },
            port,
            mode: plan.mode,
            consumers: self.consumers(setting),
            threads: plan.threads,
            rate: plan.rate,
            ack_every: plan.ack_every,
            prefill: self.prefill(setting),
            warmup: plan.warmup,
            time: plan.time,
            broker: self.server.process.as_ref(),
        };
        let text = format!("{} at {setting}", protocol.title());
        self.progress.point(&text);
        let filled = if plan.mode == Mode::Consume { order.fill(self.interrupt) } else { Ok(()) };
        let progress = &self.progress;
        let mut measured = match filled {
            Ok(()) => order.run(self.interrupt, &mut |standing| progress.update(&text, standing)),
            Err(failure) => failed(failure.0),
        };
        if let Err(failure) = self.server.delete(&queue)
            && measured.failure.is_none()
        {
            measured.failure = Some(failure.0);
        }
        measured
    }

    fn consumers(&self, setting: &Setting) -> usize {
        match self.plan.mode {
            Mode::Publish => 0,
            Mode::Both | Mode::Consume => self.plan.consumers.unwrap_or(setting.connections),
        }
    }

    fn prefill(&self, setting: &Setting) -> u64 {
        let fits = KEEP_OCTETS / setting.body as u64;
        self.plan.prefill.unwrap_or(100_000.min(fits)).max(1)
    }

    fn is_over(&self) -> bool {
        self.interrupt.is_raised() || self.report.failure.is_some()
    }
}

/// The clients at the points of a sweep.
fn protocols_at(plan: &Plan, sweep: Option<Sweep>) -> Vec<Protocol> {
    match sweep {
        Some(Sweep::Factors) => vec![Protocol::Stomp],
        _ => plan.protocols.clone(),
    }
}

/// Signals are heard on a thread of their own, since the run blocks.
struct Signals {
    interrupt: Interrupt,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Signals {
    fn listen() -> Result<Self, Error> {
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("runtime"))?;
        let interrupt = {
            let _guard = runtime.enter();
            Interrupt::on_signals()?
        };
        let (end, ended) = oneshot::channel();
        let listen = move || {
            runtime.block_on(async { ended.await.unwrap_or_default() });
        };
        let thread = thread::Builder::new()
            .name("signals".to_owned())
            .spawn(listen)
            .map_err(Error::io("thread for signals"))?;
        Ok(Self { interrupt, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It only waits, and cannot panic.
            thread.join().unwrap_or_default();
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Output { path: path.to_owned(), source })
}
