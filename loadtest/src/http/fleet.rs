//! Connections spread over threads, each with a runtime of its own, that run one phase after another.

use std::{
    fmt::Display,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};

use crate::{
    Error,
    cpu::thread_cpu_time,
    http::{
        answered::{AnsweredBuffer, AnsweredLog},
        beacon::{Beacons, SEQ_DIGITS},
        connection::Connection,
        lane::{self, Lane, Live, Sequence},
        stats::Stats,
    },
    interrupt::Interrupt,
    progress::Progress,
};

/// How many connections of a thread are opened at the same time, and how many idle ones send at the same time: below
/// the queue of pending connections that servers commonly have.
const OPENING: usize = 64;

/// How long an interrupted phase waits for answers that are under way.
const INTERRUPTED_GRACE: Duration = Duration::from_secs(1);

/// When a phase ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// After this many requests, all connections together.
    Requests(u64),
    /// When so much time has passed.
    Duration(Duration),
    /// When each connection has sent one request, few of them at a time.
    OnePerConnection,
}

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Where it connects to.
    pub address: SocketAddr,
    /// Connections, over all threads.
    pub connections: usize,
    /// Threads, at least one.
    pub threads: usize,
    /// The longest wait for a connection or an answer.
    pub timeout: Duration,
}

/// What a fleet is to do.
#[derive(Debug)]
pub struct PhaseOrder<'a> {
    /// What it sends.
    pub beacons: Arc<Beacons>,
    /// When it ends.
    pub limit: Limit,
    /// Requests per second of an open loop; a closed loop without.
    pub rate: Option<f64>,
    /// The first sequence number.
    pub first_seq: u64,
    /// Where answered numbers are noted.
    pub answered: Option<&'a AnsweredLog>,
    /// Title of the progress bar; none without.
    pub label: Option<String>,
}

/// What became of a phase.
#[derive(Debug, Clone, Default)]
pub struct PhaseResult {
    /// What was counted.
    pub stats: Stats,
    /// The measured time: until sending stopped, or until the last answer where a number of requests was asked for.
    pub window: Duration,
    /// The first sequence number that was not sent.
    pub next_seq: u64,
    /// Open loop: requests that were due within the measured time.
    pub due: u64,
}

impl PhaseResult {
    /// Answers per second within the measured time.
    pub fn requests_per_second(&self) -> f64 {
        let seconds = self.window.as_secs_f64();
        if seconds > 0.0 { (self.stats.answered - self.stats.answered_late) as f64 / seconds } else { 0.0 }
    }

    /// Adds what came of another phase like this one; the sequence goes on from there.
    pub fn merge(&mut self, other: &Self) {
        self.stats.merge(&other.stats);
        self.window += other.window;
        self.next_seq = other.next_seq;
        self.due += other.due;
    }
}

/// One thread's copy of what is to be done.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) origin: Instant,
    pub(crate) beacons: Arc<Beacons>,
    pub(crate) limit: Limit,
    pub(crate) rate: Option<f64>,
    pub(crate) sequence: Arc<Sequence>,
    pub(crate) answered: Option<AnsweredBuffer>,
    pub(crate) live: Arc<[Live]>,
    pub(crate) connections: usize,
    pub(crate) timeout: Duration,
}

/// Open connections, ready to run phases.
#[derive(Debug)]
pub struct Fleet {
    options: FleetOptions,
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Order {
    Run(Phase, oneshot::Sender<Result<(Stats, Duration), Error>>),
    CountOpen(oneshot::Sender<usize>),
}

impl Fleet {
    /// Opens all connections; an interrupt ends its phases early.
    ///
    /// # Errors
    /// [`Error::Connect`] when one of them cannot be opened. Not cancel safe: threads may be left until they find out.
    pub async fn connect(options: FleetOptions, interrupt: &Interrupt) -> Result<Self, Error> {
        let mut workers = Vec::with_capacity(options.threads);
        let mut opened = Vec::with_capacity(options.threads);
        for number in 0..options.threads {
            let (orders, inbox) = mpsc::channel(1);
            let (report, done) = oneshot::channel();
            let (options, interrupt) = (options.clone(), interrupt.clone());
            let thread = thread::Builder::new()
                .name(format!("load-{number}"))
                .spawn(move || work(number, &options, &interrupt, inbox, report))
                .map_err(Error::io("thread for the load"))?;
            workers.push(Worker { orders, thread });
            opened.push(done);
        }
        let fleet = Self { options, workers };
        let mut outcome = Ok(());
        for done in opened {
            let opened = done.await.unwrap_or_else(|_| Err(thread_died("it panicked while connecting")));
            outcome = outcome.and(opened);
        }
        match outcome {
            Ok(()) => Ok(fleet),
            Err(error) => {
                fleet.close();
                Err(error)
            }
        }
    }

    /// Runs one phase to its end. Not cancel safe: a phase that has begun goes on.
    ///
    /// # Errors
    /// When a thread fails; what the server does wrong is counted instead.
    pub async fn run(&self, order: PhaseOrder<'_>) -> Result<PhaseResult, Error> {
        let end = match order.limit {
            Limit::Requests(requests) => order.first_seq.saturating_add(requests),
            Limit::OnePerConnection => order.first_seq.saturating_add(self.options.connections as u64),
            Limit::Duration(_) => u64::MAX,
        };
        let sequence = Arc::new(Sequence::new(order.first_seq, end.min(10u64.pow(SEQ_DIGITS as u32))));
        let live: Arc<[Live]> = self.workers.iter().map(|_| Live::default()).collect();
        let origin = Instant::now();
        let mut replies = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (reply, result) = oneshot::channel();
            let phase = Phase {
                origin,
                beacons: order.beacons.clone(),
                limit: order.limit,
                rate: order.rate,
                sequence: sequence.clone(),
                answered: order.answered.map(AnsweredLog::buffer),
                live: live.clone(),
                connections: self.options.connections,
                timeout: self.options.timeout,
            };
            worker.orders.send(Order::Run(phase, reply)).await.map_err(thread_died)?;
            replies.push(result);
        }

        let progress = self.show_progress(order.label, order.limit, &live, origin);
        let collect = async {
            let mut result = PhaseResult::default();
            for reply in replies {
                let (stats, window) = reply.await.map_err(thread_died)??;
                result.stats.merge(&stats);
                result.window = result.window.max(window);
            }
            Ok(result)
        };
        let mut result = tokio::select! {
            result = collect => result?,
            () = progress => unreachable!("the progress bar is shown until it is dropped"),
        };
        result.next_seq = sequence.next();
        if let Some(rate) = order.rate {
            let asked = if let Limit::Requests(requests) = order.limit { requests } else { u64::MAX };
            result.due = lane::due_within(rate, result.window).min(asked);
        }
        Ok(result)
    }

    /// How many connections the server has not closed.
    ///
    /// # Errors
    /// When a thread has failed.
    pub async fn count_open(&self) -> Result<usize, Error> {
        let mut open = 0;
        for worker in &self.workers {
            let (reply, count) = oneshot::channel();
            worker.orders.send(Order::CountOpen(reply)).await.map_err(thread_died)?;
            open += count.await.map_err(thread_died)?;
        }
        Ok(open)
    }

    /// Closes all connections and ends the threads.
    pub fn close(self) {
        for Worker { orders, thread } in self.workers {
            drop(orders);
            // A thread that panicked has been reported by the phase it did so in.
            thread.join().unwrap_or_default();
        }
    }

    /// Never returns, so that the phase's end ends it.
    async fn show_progress(&self, label: Option<String>, limit: Limit, live: &[Live], origin: Instant) {
        let Some(label) = label else { return std::future::pending().await };
        let total = match limit {
            Limit::Duration(duration) => duration.as_millis() as u64,
            Limit::Requests(requests) => requests,
            Limit::OnePerConnection => self.options.connections as u64,
        };
        let progress = Progress::start(label, total);
        let mut ticks = interval(Duration::from_millis(200));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let elapsed = origin.elapsed();
            let sum = |count: fn(&Live) -> u64| live.iter().map(count).sum::<u64>();
            let answered = sum(|live| live.answered.load(Ordering::Relaxed));
            let failed = sum(|live| live.failed.load(Ordering::Relaxed));
            let position = match limit {
                Limit::Duration(_) => elapsed.as_millis() as u64,
                _ => answered + failed,
            };
            progress.update(position, answered, failed, elapsed);
        }
    }
}

fn thread_died(cause: impl Display) -> Error {
    Error::Io { what: "thread for the load", source: std::io::Error::other(cause.to_string()) }
}

/// How far an interrupted phase has come with ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    CutOffAt(Instant),
    CutOff,
}

impl Stopping {
    /// Waits for the moment of [`Stopping::CutOffAt`]; forever otherwise.
    async fn cut_off(self) {
        match self {
            Self::CutOffAt(at) => sleep_until(at.into()).await,
            Self::No | Self::CutOff => std::future::pending().await,
        }
    }
}

/// What a thread of the fleet does from its start to its end.
fn work(
    number: usize,
    options: &FleetOptions,
    interrupt: &Interrupt,
    mut inbox: mpsc::Receiver<Order>,
    opened: oneshot::Sender<Result<(), Error>>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(source) => {
            // Nobody to tell means that the run is over.
            opened.send(Err(Error::Io { what: "runtime for the load", source })).unwrap_or_default();
            return;
        }
    };
    runtime.block_on(async {
        let numbers = (number..options.connections).step_by(options.threads);
        let mut connections = match open_all(options, numbers.len()).await {
            Ok(connections) => connections,
            Err(error) => {
                opened.send(Err(error)).unwrap_or_default();
                return;
            }
        };
        opened.send(Ok(())).unwrap_or_default();
        while let Some(order) = inbox.recv().await {
            match order {
                Order::Run(phase, reply) => {
                    let result = run_phase(&mut connections, phase, number, options, interrupt).await;
                    reply.send(result).unwrap_or_default();
                }
                Order::CountOpen(reply) => {
                    // What the server has closed by now, the runtime has seen: it has just looked for this order.
                    let open = connections.iter_mut().map(|one| usize::from(one.check_open())).sum();
                    reply.send(open).unwrap_or_default();
                }
            }
        }
    });
}

async fn open_all(options: &FleetOptions, count: usize) -> Result<Vec<Connection>, Error> {
    let mut connections = Vec::with_capacity(count);
    let mut opening = JoinSet::new();
    let mut asked = 0;
    while connections.len() < count {
        while asked < count && opening.len() < OPENING {
            let mut connection = Connection::new(options.address, options.timeout);
            opening.spawn_local(async move { connection.open().await.map(|()| connection) });
            asked += 1;
        }
        match opening.join_next().await {
            Some(Ok(opened)) => {
                let address = options.address;
                connections.push(opened.map_err(|source| Error::Connect { address, source })?);
            }
            Some(Err(error)) => return Err(thread_died(error)),
            None => break,
        }
    }
    Ok(connections)
}

/// Has every connection do its part of `phase`. In the end there are as many connections as before, but those that an
/// interrupt cut off are not open.
async fn run_phase(
    connections: &mut Vec<Connection>,
    phase: Phase,
    thread: usize,
    options: &FleetOptions,
    interrupt: &Interrupt,
) -> Result<(Stats, Duration), Error> {
    let count = connections.len();
    let at_once = if phase.limit == Limit::OnePerConnection { OPENING } else { count };
    let lane = Lane::new(phase, thread, count)?;
    let (start, cpu_before) = (Instant::now(), thread_cpu_time());

    let mut idle = std::mem::take(connections).into_iter().enumerate();
    let mut tasks = JoinSet::new();
    let mut stopping = Stopping::No;
    loop {
        while tasks.len() < at_once
            && let Some((own, connection)) = idle.next()
        {
            let number = thread + own * options.threads;
            tasks.spawn_local(lane.clone().drive(connection, own, number));
        }
        tokio::select! {
            joined = tasks.join_next() => match joined {
                Some(Ok(connection)) => connections.push(connection),
                Some(Err(error)) if error.is_panic() => return Err(thread_died(error)),
                Some(Err(_)) => {}
                None => break,
            },
            () = lane.pace() => {}
            () = interrupt.raised(), if stopping == Stopping::No => {
                lane.stop();
                stopping = Stopping::CutOffAt(Instant::now() + INTERRUPTED_GRACE);
            }
            () = stopping.cut_off() => {
                tasks.abort_all();
                stopping = Stopping::CutOff;
            }
        }
    }
    connections.resize_with(count, || Connection::new(options.address, options.timeout));

    let (mut stats, window) = lane.finish();
    stats.generator_cpu = thread_cpu_time().saturating_sub(cpu_before);
    stats.generator_busy = stats.generator_cpu.as_secs_f64() / start.elapsed().as_secs_f64().max(1e-9);
    Ok((stats, window))
}
