//! Trouble: what cannot be used is told once, set aside if it has to be, and tried again with pauses.

use std::time::{Duration, Instant};

use super::{
    Level, State,
    aside::set_aside,
    open::{Missing, Unusable},
    store::Store,
    thread::{IDLE, Worker},
};

/// Pauses between attempts when the file cannot be used.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// Why nothing can be appended.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) reason: String,
    pub(super) is_space: bool,
    pub(super) retry_at: Instant,
}

impl Worker {
    /// The file did not do what it should.
    pub(super) fn has_failed(&mut self, unusable: Unusable) {
        match unusable {
            // The transaction is rolled back; nothing else is wrong.
            Unusable::NoSpace(reason) => self.is_in_trouble(reason, true),
            Unusable::Disk(reason) => {
                if let Some(store) = self.store.take() {
                    self.before = Some(store.before());
                    store.abandon();
                }
                self.is_in_trouble(reason, false);
            }
            Unusable::Spoiled(reason) => {
                if let Some(store) = self.store.take() {
                    self.before = Some(store.before());
                    store.abandon();
                }
                // Not at once: a disk that spoils every file must not be given many.
                self.backoff = self.backoff.max(IDLE);
                if self.set_aside(&reason) {
                    self.is_in_trouble(format!("its file was set aside: {reason}"), false);
                }
            }
        }
    }

    pub(super) fn is_in_trouble(&mut self, reason: String, is_space: bool) {
        let retry_at = Instant::now() + self.backoff;
        self.trouble = Some(Trouble { reason, is_space, retry_at });
        self.remove_at = self.remove_at.map(|_| retry_at);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    pub(super) fn try_again(&mut self) {
        let Some(trouble) = &self.trouble else { return };
        if trouble.retry_at > Instant::now() {
            return;
        }
        if self.store.is_none() {
            self.trouble = None;
            self.open();
        } else if self.free_space.is_ample() {
            self.trouble = None;
        } else {
            let reason = trouble.reason.clone();
            self.is_in_trouble(reason, true);
        }
    }

    /// Opens the file, or a new one in the place of one that is set aside.
    pub(super) fn open(&mut self) {
        let opened = match self.open_store() {
            Err(Unusable::Spoiled(reason)) if self.missing == Missing::Make => {
                if !self.set_aside(&reason) {
                    return;
                }
                self.open_store()
            }
            opened => opened,
        };
        match opened {
            Ok(store) => self.has_opened(store),
            Err(Unusable::NoSpace(reason)) => self.is_in_trouble(reason, true),
            Err(Unusable::Disk(reason) | Unusable::Spoiled(reason)) => self.is_in_trouble(reason, false),
        }
    }

    fn open_store(&self) -> Result<Store, Unusable> {
        Store::open(&self.options, self.missing, self.before)
    }

    fn has_opened(&mut self, store: Store) {
        let (level, is_ours) = (store.totals().level, store.is_ours());
        self.shared.change(|figures| match self.before {
            None => figures.recovered = level,
            Some(_) if is_ours => {}
            // Another process had it meanwhile.
            Some(before) => {
                let known = before.totals.level;
                figures.recovered.batches += level.batches.saturating_sub(known.batches);
                figures.recovered.beacons += level.beacons.saturating_sub(known.beacons);
                figures.recovered.octets += level.octets.saturating_sub(known.octets);
                figures.damage.beacons += known.beacons.saturating_sub(level.beacons);
            }
        });
        self.before = Some(store.before());
        self.store = Some(store);
        self.rest_at = Some(Instant::now() + IDLE);
        self.publish_figures();
    }

    /// True if the file is out of the way.
    fn set_aside(&mut self, reason: &str) -> bool {
        if self.missing == Missing::Fail {
            self.is_in_trouble(reason.to_owned(), false);
            return false;
        }
        match set_aside(&self.options.path) {
            Ok((target, deleted)) => {
                let lost = self.before.map_or(0, |before| before.totals.level.beacons);
                tracing::error!(
                    destination = self.name(),
                    reason,
                    beacons = lost,
                    file = %target.display(),
                    "the spool's file cannot be used and was set aside; a new one takes its place; see docs/spool.md for what can be saved"
                );
                if !deleted.is_empty() {
                    tracing::warn!(
                        destination = self.name(),
                        ?deleted,
                        "older files that had been set aside were deleted to keep their number bounded"
                    );
                }
                self.removed.clear();
                self.damaged.clear();
                self.remove_at = None;
                if let Some(before) = &mut self.before {
                    before.totals.level = Level::default();
                }
                self.shared.change(|figures| {
                    figures.damage.files += 1;
                    figures.damage.beacons += lost;
                    figures.level = Level::default();
                });
                true
            }
            Err(error) => {
                self.is_in_trouble(format!("{reason}, and it cannot be set aside: {error}"), false);
                false
            }
        }
    }

    /// Tells the state, and logs it if it is another one.
    pub(super) fn settle(&mut self) {
        self.is_full &= self.is_nearly_full();
        let state = match &self.trouble {
            Some(trouble) => State::Failing(trouble.reason.as_str().into()),
            None if self.is_full => State::Full,
            None => State::Working,
        };
        if !self.shared.set_state(state.clone()) {
            return;
        }
        let (destination, file) = (self.name(), self.options.path.display());
        let level = self.shared.figures().level;
        match state {
            State::Working => tracing::info!(
                destination,
                %file,
                batches = level.batches,
                beacons = level.beacons,
                octets = level.octets,
                "the spool works"
            ),
            State::Full => tracing::warn!(
                destination,
                %file,
                beacons = level.beacons,
                max_bytes = self.options.max_bytes,
                "the spool is full: beacons wait on the ring, and spool.overflow decides at its bound, until the broker has taken some; see /readyz, or enlarge spool.max_bytes"
            ),
            State::Failing(reason) => tracing::error!(
                destination,
                %file,
                %reason,
                "the spool takes nothing: beacons wait on the ring, and spool.overflow decides at its bound; set right what the reason says, it is tried again by itself"
            ),
        }
    }

    /// Less than an eighth is free.
    pub(super) fn is_nearly_full(&self) -> bool {
        let max = self.options.max_bytes;
        self.store.as_ref().is_some_and(|store| store.used_bytes() > max - max / 8)
    }
}
