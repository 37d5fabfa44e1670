//! One round: one protocol at one setting, from connecting to the last confirm.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime, task::LocalSet};

use crate::{
    broker::{
        director::Director,
        driver::{Amqprs, Driver, Failure, Lapin, Link, Stomp},
        lane::{Consumed, Order, Phase, Published, Shared, consume, publish},
        payload::Template,
        seen::{Integrity, Seen},
        setting::{Mode, Protocol, Setting},
        wire::Traffic,
    },
    cpu::Process,
    http::pacer::Pacer,
    interrupt::Interrupt,
    report::LatencyHistogram,
};

/// How often the director looks.
pub(super) const LOOK: Duration = Duration::from_millis(5);
/// The longest wait for confirms at the end.
pub(super) const DRAIN: Duration = Duration::from_secs(10);
/// How long a runtime may take to end; what a library leaves running ends with it.
const END: Duration = Duration::from_secs(1);
/// Octets on their way through a queue that is consumed, before publishers wait.
const BACKLOG_OCTETS: usize = 64 << 20;

/// What a round is to be.
#[derive(Debug)]
pub(crate) struct RoundOrder<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) setting: Setting,
    pub(crate) link: Link,
    pub(crate) port: u16,
    pub(crate) mode: Mode,
    pub(crate) consumers: usize,
    pub(crate) threads: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) ack_every: usize,
    /// Messages in the queue beforehand, in mode `consume`.
    pub(crate) prefill: u64,
    pub(crate) warmup: Duration,
    pub(crate) time: Duration,
    /// The broker's process.
    pub(crate) broker: Option<&'a Process>,
}

/// What a round came to. Counts are those of the measured time.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) window: Duration,
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    pub(crate) refused: u64,
    pub(crate) received: u64,
    pub(crate) confirm_latency: LatencyHistogram,
    pub(crate) end_to_end_latency: LatencyHistogram,
    pub(crate) send_delay: LatencyHistogram,
    pub(crate) client_cpu: Duration,
    pub(crate) broker_cpu: Option<Duration>,
    pub(crate) traffic: Option<Traffic>,
    /// For how long a message was due and the window was full, of all publishing connections together.
    pub(crate) waited: Duration,
    /// Without a confirm at the end of the round.
    pub(crate) unconfirmed: u64,
    /// With a consumer, over the whole round.
    pub(crate) integrity: Option<Integrity>,
    pub(crate) failure: Option<String>,
}

/// Where a round stands, for the progress bar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) elapsed: Duration,
    pub(crate) done: u64,
    pub(crate) in_flight: u64,
}

impl RoundOrder<'_> {
    /// Carries it out; `watch` is told now and then where it stands. Ends early, with what was measured, when a
    /// connection fails and when `interrupt` is raised.
    pub(crate) fn run(&self, interrupt: &Interrupt, watch: &mut dyn FnMut(Standing)) -> Measured {
        let publishers = if self.mode == Mode::Consume { 0 } else { self.setting.connections };
        let consumers = if self.mode == Mode::Publish { 0 } else { self.consumers };
        self.with_lanes(publishers, consumers, None, |director| director.measure(self, interrupt, watch))
    }

    /// Fills the queue with `prefill` messages, confirmed.
    pub(crate) fn fill(&self, interrupt: &Interrupt) -> Result<(), Failure> {
        let measured = self.with_lanes(self.setting.connections, 0, Some(self.prefill), |director| {
            director.gather(interrupt);
            let shared = &director.shared;
            shared.enter(Phase::WarmUp);
            let mut last = (0, Instant::now());
            while shared.settled_lanes.load(Ordering::Relaxed) < director.publishers
                && shared.failure().is_none()
                && !interrupt.is_raised()
                && last.1.elapsed() < DRAIN
            {
                let confirmed = shared.confirmed.load(Ordering::Relaxed);
                if confirmed > last.0 {
                    last = (confirmed, Instant::now());
                }
                thread::sleep(LOOK);
            }
            Measured { confirmed: shared.confirmed.load(Ordering::Relaxed), ..Measured::default() }
        });
        match measured.failure {
            Some(failure) => Err(Failure(failure)),
            None if measured.confirmed < self.prefill && !interrupt.is_raised() => Err(Failure(format!(
                "only {} of {} messages were confirmed",
                measured.confirmed, self.prefill
            ))),
            None => Ok(()),
        }
    }

    /// Runs lanes on their threads while `direct` decides what they do, and adds up what they have measured.
    fn with_lanes(
        &self,
        publishers: usize,
        consumers: usize,
        messages: Option<u64>,
        direct: impl FnOnce(&Director) -> Measured,
    ) -> Measured {
        let backlog = if publishers > 0 && consumers > 0 {
            let least = (self.setting.window * publishers * 2) as u64;
            ((BACKLOG_OCTETS / self.setting.body) as u64).max(least)
        } else {
            u64::MAX
        };
        let shared = Arc::new(Shared::new(backlog));
        let order = Arc::new(Order {
            link: self.link.clone(),
            template: Template::new(&self.setting),
            body: self.setting.body,
            lanes: self.setting.connections,
            rate: if messages.is_some() { None } else { self.rate },
            messages,
            ack_every: self.ack_every,
        });
        if self.mode == Mode::Consume && messages.is_none() {
            shared.published.store(self.prefill, Ordering::Relaxed);
        }
        let director = Director { shared: shared.clone(), publishers, consumers };
        let threads = self.threads.min((publishers + consumers).max(1));
        let (mut measured, shares) = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .filter_map(|thread| {
                    let share = Share { thread, threads, publishers, consumers };
                    let (order, theirs) = (order.clone(), shared.clone());
                    let work = match self.protocol {
                        Protocol::Stomp => work::<Stomp>,
                        Protocol::Lapin => work::<Lapin>,
                        Protocol::Amqprs => work::<Amqprs>,
                    };
                    let builder = thread::Builder::new().name(format!("lanes-{thread}"));
                    match builder.spawn_scoped(scope, move || work(share, order, theirs)) {
                        Ok(worker) => Some(worker),
                        Err(error) => {
                            shared.fail(Failure(format!("thread: {error}")));
                            None
                        }
                    }
                })
                .collect();
            let measured = direct(&director);
            shared.enter(Phase::Stopped);
            let shares: Vec<_> = workers
                .into_iter()
                .filter_map(|worker| {
                    let share = worker.join();
                    if share.is_err() {
                        shared.fail(Failure("a client library panicked".to_owned()));
                    }
                    share.ok()
                })
                .collect();
            (measured, shares)
        });
        let mut seen = Seen::new(self.setting.connections);
        let mut alone = None;
        for share in shares {
            for lane in share.published {
                measured.confirm_latency.merge(&lane.latency);
                measured.send_delay.merge(&lane.delay);
                measured.unconfirmed += lane.unsettled;
            }
            for lane in share.consumed {
                measured.end_to_end_latency.merge(&lane.latency);
                seen.merge(&lane.seen);
                alone = Some(lane.seen);
            }
        }
        if consumers > 0 {
            let expected = match (self.mode, self.link.confirms) {
                (Mode::Consume, _) => self.prefill,
                (_, true) => shared.confirmed.load(Ordering::Relaxed),
                (_, false) => shared.published.load(Ordering::Relaxed),
            };
            let of = if consumers == 1 { alone.as_ref().unwrap_or(&seen) } else { &seen };
            // A consume-only round may end with its time, and then says nothing of what is still in the queue.
            let ended_early = self.mode == Mode::Consume && of.distinct() < expected;
            let mut integrity = of.integrity(expected, consumers);
            if ended_early {
                integrity.lost = 0;
            }
            measured.integrity = Some(integrity);
        }
        measured.failure = shared.failure().map(|failure| failure.0);
        measured
    }
}

/// Which lanes run on a thread: every `threads`-th.
#[derive(Debug, Clone, Copy)]
struct Share {
    thread: usize,
    threads: usize,
    publishers: usize,
    consumers: usize,
}

#[derive(Debug, Default)]
struct ShareMeasured {
    published: Vec<Published>,
    consumed: Vec<Consumed>,
}

/// Runs a thread's share of the lanes on a runtime of its own.
fn work<D: Driver>(share: Share, order: Arc<Order>, shared: Arc<Shared>) -> ShareMeasured {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            shared.fail(Failure(format!("runtime: {error}")));
            return ShareMeasured::default();
        }
    };
    let local = LocalSet::new();
    let mine = |count: usize| (share.thread..count).step_by(share.threads);
    let measured = local.block_on(&runtime, async {
        let pacer = match Pacer::new(share.publishers, shared.origin()) {
            Ok(pacer) => Rc::new(pacer),
            Err(error) => {
                shared.fail(Failure(error.to_string()));
                return ShareMeasured::default();
            }
        };
        let lanes: Vec<_> = mine(share.publishers)
            .map(|lane| {
                tokio::task::spawn_local(publish::<D>(
                    lane,
                    lane,
                    order.clone(),
                    shared.clone(),
                    pacer.clone(),
                ))
            })
            .collect();
        let consumers: Vec<_> = mine(share.consumers)
            .map(|_| tokio::task::spawn_local(consume::<D>(order.clone(), shared.clone())))
            .collect();
        let alarm = tokio::task::spawn_local(async move { pacer.run().await });
        let mut measured = ShareMeasured::default();
        for lane in lanes {
            match lane.await {
                Ok(lane) => measured.published.push(lane),
                Err(_) => shared.fail(Failure("a client library panicked".to_owned())),
            }
        }
        for consumer in consumers {
            match consumer.await {
                Ok(consumer) => measured.consumed.push(consumer),
                Err(_) => shared.fail(Failure("a client library panicked".to_owned())),
            }
        }
        alarm.abort();
        measured
    });
    drop(local);
    runtime.shutdown_timeout(END);
    measured
}
