//! The watch: says in the log that beacons are being dropped or refused, at a bounded rate, and when it has ended; and
//! what becomes of the brokers (`health.rs`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    health::Teller,
    ledger::{DropReason, Snapshot},
    metrics::Observed,
    ring::Ring,
};

/// How often the counters are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// At most one warning per destination in this time.
const QUIET: Duration = Duration::from_secs(10);

/// The running thread. Dropped, it stops by itself.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watch {
    /// Watches these destinations.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(destinations: Vec<Observed>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("watch".into()).spawn(move || {
            let mut watched: Vec<Watched> = destinations.into_iter().map(Watched::new).collect();
            while !stopped.load(Ordering::Relaxed) {
                thread::park_timeout(LOOK);
                let now = Instant::now();
                watched.iter_mut().for_each(|watched| watched.look(now));
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops after a last look, and waits for it.
    pub fn stop(mut self) {
        self.signal();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the watch thread panicked; this is a defect in beacon-edge, please report it");
        }
    }

    fn signal(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.signal();
    }
}

struct Watched {
    name: String,
    ring: Arc<Ring>,
    observed: Observed,
    brokers: Teller,
    /// What has been told.
    told: Snapshot,
    last_warning: Option<Instant>,
}

impl Watched {
    fn new(observed: Observed) -> Self {
        let (name, ring) = (observed.name.clone(), Arc::clone(&observed.ring));
        let brokers = Teller::new(name.clone());
        Self { name, ring, observed, brokers, told: Snapshot::default(), last_warning: None }
    }

    fn look(&mut self, now: Instant) {
        self.brokers.look(&self.observed.read(), now);
        self.look_at_drops(now);
    }

    fn look_at_drops(&mut self, now: Instant) {
        if self.last_warning.is_some_and(|last| now.duration_since(last) < QUIET) {
            return;
        }
        let seen = self.ring.ledger().snapshot();
        // What is dropped by a shutdown is told by the shutdown.
        let lost = |snapshot: &Snapshot| {
            [DropReason::RingFull, DropReason::Evicted].map(|reason| snapshot.dropped_for(reason))
        };
        let ([full, evicted], [told_full, told_evicted]) = (lost(&seen), lost(&self.told));
        let rejected = seen.rejected - self.told.rejected;
        let dropped = full + evicted - told_full - told_evicted;
        let destination = &self.name;
        if dropped + rejected > 0 {
            let level = self.ring.level();
            tracing::warn!(
                destination,
                dropped,
                rejected,
                ring_beacons = level.beacons,
                ring_bytes = level.bytes,
                "the ring is full: the broker takes less than arrives; see /readyz, or enlarge ring.max_beacons and ring.max_bytes"
            );
            self.last_warning = Some(now);
            self.told = seen;
        } else if self.last_warning.take().is_some() {
            tracing::info!(destination, "the ring has room again: no beacon was dropped or refused for 10 s");
        }
    }
}
