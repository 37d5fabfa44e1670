//! Connections spread over threads, each with a runtime of its own, that run one phase after another.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use crate::{
    Error,
    http::{
        answered::AnsweredLog,
        beacon::{Beacons, SEQ_DIGITS},
        lane::{self, Live, Sequence},
        stats::Stats,
        tls::Tls,
        worker::{Order, Phase, thread_died, work},
    },
    interrupt::Interrupt,
    progress::Progress,
};

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
    /// TLS, if it is spoken.
    pub tls: Option<Tls>,
    /// Requests on a connection before it is closed and another one is opened.
    pub churn: Option<u64>,
    /// Whether thread n is bound to the n-th core from the first.
    pub pin: bool,
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

impl Fleet {
    /// Opens all connections; an interrupt ends its phases early. Not cancel safe: threads may be left until they find
    /// out that nobody waits for them.
    ///
    /// # Errors
    /// [`Error::Connect`] when one of them cannot be opened.
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
                churn: self.options.churn.unwrap_or(u64::MAX),
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
            Ok::<_, Error>(result)
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
