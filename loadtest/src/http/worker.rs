//! One thread of a fleet: its runtime, its connections, and the phases that it is told to run.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::sleep_until,
};

use crate::{
    Error,
    cores::{Core, bind_thread},
    cpu::thread_cpu_time,
    http::{
        answered::AnsweredBuffer,
        beacon::Beacons,
        connection::Connection,
        fleet::{FleetOptions, Limit},
        lane::{Lane, Live, Sequence},
        stats::Stats,
    },
    interrupt::Interrupt,
};

/// How many connections of a thread are opened at the same time, and how many idle ones send at the same time: below
/// the queue of pending connections that servers commonly have.
const OPENING: usize = 64;

/// How long an interrupted phase waits for answers that are under way.
const INTERRUPTED_GRACE: Duration = Duration::from_secs(1);

/// What a thread is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Run a phase and say what was counted in which measured time.
    Run(Phase, oneshot::Sender<Result<(Stats, Duration), Error>>),
    /// Say how many connections the server has not closed.
    CountOpen(oneshot::Sender<usize>),
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
    pub(crate) churn: u64,
}

/// What a thread of the fleet does from its start to its end.
pub(crate) fn work(
    number: usize,
    options: &FleetOptions,
    interrupt: &Interrupt,
    mut inbox: mpsc::Receiver<Order>,
    opened: oneshot::Sender<Result<(), Error>>,
) {
    if options.pin
        && let Err(error) = bind_thread(Core::FromFirst(number))
    {
        // Nobody to tell means that the run is over.
        opened.send(Err(error)).unwrap_or_default();
        return;
    }
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(source) => {
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
    // Ends when it is dropped.
    let mut pacing = JoinSet::new();
    pacing.spawn_local(lane.clone().pace());
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
    connections.resize_with(count, || Connection::new(options));

    let (mut stats, window) = lane.finish();
    stats.generator_cpu = thread_cpu_time().saturating_sub(cpu_before);
    stats.generator_busy = stats.generator_cpu.as_secs_f64() / start.elapsed().as_secs_f64().max(1e-9);
    Ok((stats, window))
}

async fn open_all(options: &FleetOptions, count: usize) -> Result<Vec<Connection>, Error> {
    let mut connections = Vec::with_capacity(count);
    let mut opening = JoinSet::new();
    let mut asked = 0;
    while connections.len() < count {
        while asked < count && opening.len() < OPENING {
            let mut connection = Connection::new(options);
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

/// A thread that is gone, by a panic or because its runtime is.
pub(crate) fn thread_died(cause: impl Display) -> Error {
    Error::Io { what: "thread for the load", source: std::io::Error::other(cause.to_string()) }
}
