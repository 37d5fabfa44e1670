//! Ctrl-C ends a run early and keeps its result.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::Error;

/// A flag that is raised once and seen by every part of a run; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    raised: AtomicBool,
    notify: Notify,
}

impl Interrupt {
    /// Raises the flag at SIGINT, SIGTERM or SIGHUP, as long as the current tokio runtime runs.
    ///
    /// # Errors
    /// When the system takes no signal handler.
    pub fn on_signals() -> Result<Self, Error> {
        let interrupt = Self::default();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut stream = signal(kind).map_err(Error::io("signal handler"))?;
            let interrupt = interrupt.clone();
            tokio::spawn(async move {
                if stream.recv().await.is_some() {
                    interrupt.raise();
                }
            });
        }
        Ok(interrupt)
    }

    /// Raises the flag and wakes all who wait for it.
    pub fn raise(&self) {
        self.shared.raised.store(true, Ordering::Release);
        self.shared.notify.notify_waiters();
    }

    /// Whether the flag is up.
    pub fn is_raised(&self) -> bool {
        self.shared.raised.load(Ordering::Relaxed)
    }

    /// Waits until the flag is up. Cancel safe.
    pub async fn raised(&self) {
        let notified = self.shared.notify.notified();
        tokio::pin!(notified);
        // Enabled before the flag is read, so that a raise in between is not missed.
        notified.as_mut().enable();
        if !self.is_raised() {
            notified.await;
        }
    }

    /// Sleeps for `time`, or until the flag is up; says whether the whole time has passed. Cancel safe.
    pub async fn sleep(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.raised() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_raised_flag_ends_a_sleep_and_stays_up() {
        let interrupt = Interrupt::default();
        assert!(interrupt.sleep(Duration::from_millis(1)).await);
        let other = interrupt.clone();
        let sleeper = tokio::spawn(async move { other.sleep(Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        interrupt.raise();
        assert!(!sleeper.await.unwrap());
        interrupt.raised().await;
        assert!(interrupt.is_raised());
    }
}
