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
const LOOK: Duration = Duration::from_millis(5);
/// The longest wait for all lanes to connect.
const CONNECT: Duration = Duration::from_secs(15);
/// The longest wait for confirms at the end, and for messages that do not come any more.
const DRAIN: Duration = Duration::from_secs(10);
const NOTHING_MORE: Duration = Duration::from_secs(2);
/// The same after Ctrl-C.
const HURRY: Duration = Duration::from_millis(500);
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

/// The one who says what phase it is.
struct Director {
    shared: Arc<Shared>,
    publishers: usize,
    consumers: usize,
}

/// Everything that is read at the two ends of the measured time.
struct Reading {
    at: Instant,
    published: u64,
    confirmed: u64,
    refused: u64,
    received: u64,
    waited: u64,
    client: Option<Duration>,
    broker: Option<Duration>,
    traffic: Option<Traffic>,
}

impl Director {
    /// Waits until all lanes are connected.
    fn gather(&self, interrupt: &Interrupt) {
        let start = Instant::now();
        while self.shared.connected.load(Ordering::Relaxed) < self.publishers + self.consumers {
            if start.elapsed() > CONNECT {
                self.shared.fail(Failure("not all connections were made within 15 s".to_owned()));
            }
            if self.is_over(interrupt) {
                break;
            }
            thread::sleep(LOOK);
        }
    }

    fn measure(
        &self,
        order: &RoundOrder<'_>,
        interrupt: &Interrupt,
        watch: &mut dyn FnMut(Standing),
    ) -> Measured {
        let own = i32::try_from(std::process::id()).ok().and_then(|pid| Process::attach(None, pid).ok());
        self.gather(interrupt);
        // What a full queue holds is consumed once: a warm-up would take it from the measurement.
        let warmup = if order.mode == Mode::Consume { Duration::ZERO } else { order.warmup };
        if !warmup.is_zero() {
            self.shared.enter(Phase::WarmUp);
            self.wait(order, Instant::now(), warmup, interrupt, watch);
        }
        let before = self.read(order, own.as_ref());
        self.shared.enter(Phase::Measuring);
        self.wait(order, Instant::now(), order.time, interrupt, watch);
        let after = self.read(order, own.as_ref());
        self.shared.enter(Phase::Draining);
        self.drain(order, interrupt);
        let less = |after: Option<Duration>, before: Option<Duration>| {
            after.zip(before).map(|(after, before)| after.saturating_sub(before))
        };
        Measured {
            window: after.at - before.at,
            published: after.published - before.published,
            confirmed: after.confirmed - before.confirmed,
            refused: after.refused - before.refused,
            received: after.received - before.received,
            waited: Duration::from_nanos(after.waited - before.waited),
            client_cpu: less(after.client, before.client).unwrap_or_default(),
            broker_cpu: less(after.broker, before.broker),
            traffic: after.traffic.zip(before.traffic).map(|(after, before)| Traffic {
                sent: after.sent.saturating_sub(before.sent),
                received: after.received.saturating_sub(before.received),
            }),
            ..Measured::default()
        }
    }

    /// Waits until `until` after `start`, or until there is nothing left to wait for.
    fn wait(
        &self,
        order: &RoundOrder<'_>,
        start: Instant,
        until: Duration,
        interrupt: &Interrupt,
        watch: &mut dyn FnMut(Standing),
    ) {
        let mut last_told = Instant::now();
        while let Some(left) = until.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            let all_taken =
                order.mode == Mode::Consume && self.shared.received.load(Ordering::Relaxed) >= order.prefill;
            if all_taken || self.is_over(interrupt) {
                return;
            }
            if last_told.elapsed() > Duration::from_millis(100) {
                last_told = Instant::now();
                watch(self.standing(order, start.elapsed()));
            }
            thread::sleep(left.min(LOOK));
        }
    }

    /// Lets what is in flight be confirmed, and what is confirmed arrive.
    fn drain(&self, order: &RoundOrder<'_>, interrupt: &Interrupt) {
        let start = Instant::now();
        let limit = || if interrupt.is_raised() { HURRY } else { DRAIN };
        while self.shared.settled_lanes.load(Ordering::Relaxed) < self.publishers
            && self.shared.failure().is_none()
            && start.elapsed() < limit()
        {
            thread::sleep(LOOK);
        }
        if self.consumers == 0 || order.mode == Mode::Consume {
            return;
        }
        let counter = if order.link.confirms { &self.shared.confirmed } else { &self.shared.published };
        let mut last = (0, Instant::now());
        while self.shared.failure().is_none() {
            let received = self.shared.received.load(Ordering::Relaxed);
            if received > last.0 {
                last = (received, Instant::now());
            }
            let patience = if interrupt.is_raised() { HURRY } else { NOTHING_MORE };
            if received >= counter.load(Ordering::Relaxed) || last.1.elapsed() > patience {
                return;
            }
            thread::sleep(LOOK);
        }
    }

    fn read(&self, order: &RoundOrder<'_>, own: Option<&Process>) -> Reading {
        let cpu = |process: Option<&Process>| process.and_then(|process| process.cpu_time().ok());
        let traffic = Traffic::to_port(order.port);
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Reading {
            client: cpu(own),
            broker: cpu(order.broker),
            traffic,
            published: count(&self.shared.published),
            confirmed: count(&self.shared.confirmed),
            refused: count(&self.shared.refused),
            received: count(&self.shared.received),
            waited: count(&self.shared.waited),
            at: Instant::now(),
        }
    }

    fn standing(&self, order: &RoundOrder<'_>, elapsed: Duration) -> Standing {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (published, confirmed) = (count(&self.shared.published), count(&self.shared.confirmed));
        let done = if order.mode == Mode::Consume { count(&self.shared.received) } else { confirmed };
        Standing { elapsed, done, in_flight: published.saturating_sub(done) }
    }

    fn is_over(&self, interrupt: &Interrupt) -> bool {
        interrupt.is_raised() || self.shared.failure().is_some()
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
