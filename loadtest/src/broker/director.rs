//! The one who says what phase a round is in, and reads the counters at the two ends of the measured time.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    broker::{
        driver::Failure,
        lane::{Phase, Shared},
        round::{DRAIN, LOOK, Measured, RoundOrder, Standing},
        setting::Mode,
        wire::Traffic,
    },
    cpu::Process,
    interrupt::Interrupt,
};

/// The longest wait for all lanes to connect.
const CONNECT: Duration = Duration::from_secs(15);
/// The longest wait for messages that do not come any more.
const NOTHING_MORE: Duration = Duration::from_secs(2);
/// The longest waits after Ctrl-C.
const HURRY: Duration = Duration::from_millis(500);

/// The one who says what phase it is.
pub(super) struct Director {
    pub(super) shared: Arc<Shared>,
    pub(super) publishers: usize,
    pub(super) consumers: usize,
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
    pub(super) fn gather(&self, interrupt: &Interrupt) {
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

    pub(super) fn measure(
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
