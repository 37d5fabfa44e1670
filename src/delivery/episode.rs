use std::time::{Duration, Instant};

/// A beginning and its end are told at most once in this time: a broker that just about keeps up must not fill the log.
const QUIET: Duration = Duration::from_secs(10);

/// Why batches go to the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// No connection takes messages.
    NoBroker,
    /// The windows are full.
    TooSlow,
}

/// What the log says of what goes through a spool: once per change. What becomes of its file the spool tells itself.
#[derive(Debug)]
pub(super) struct Episode {
    destination: String,
    /// Since when there is something in the spool to be sent.
    since: Option<Instant>,
    drawn: u64,
    /// Whether the beginning was told, so that the end is too.
    is_told: bool,
    last_told: Option<Instant>,
}

impl Episode {
    pub(super) fn new(destination: &str) -> Self {
        Self { destination: destination.to_owned(), since: None, drawn: 0, is_told: false, last_told: None }
    }

    /// An earlier run left something.
    pub(super) fn recovered(&mut self, batches: u64, beacons: u64) {
        tracing::info!(
            destination = self.destination,
            batches,
            beacons,
            "the spool holds beacons of an earlier run; they are sent while nothing fresh waits"
        );
        self.since.get_or_insert_with(Instant::now);
        self.is_told = true;
    }

    /// Batches go to the spool, or stay there.
    pub(super) fn begin(&mut self, why: Why) {
        if self.since.is_some() {
            return;
        }
        let now = Instant::now();
        self.since = Some(now);
        self.is_told = self.last_told.is_none_or(|last| now.duration_since(last) >= QUIET);
        if !self.is_told {
            return;
        }
        self.last_told = Some(now);
        let destination = &self.destination;
        match why {
            Why::NoBroker => tracing::warn!(
                destination,
                "no broker takes messages: beacons go to the spool until one does; see /readyz"
            ),
            Why::TooSlow => tracing::warn!(
                destination,
                "the broker takes less than arrives: what it has no room for goes to the spool"
            ),
        }
    }

    /// So many beacons went from the spool to the publisher.
    pub(super) fn drew(&mut self, beacons: u64) {
        self.drawn += beacons;
    }

    /// Nothing is left in the spool to be sent.
    pub(super) fn end(&mut self) {
        let Some(since) = self.since.take() else { return };
        let beacons = std::mem::take(&mut self.drawn);
        if std::mem::take(&mut self.is_told) {
            let (destination, took) = (&self.destination, since.elapsed());
            tracing::info!(
                destination,
                beacons,
                ?took,
                "the spool is drained: all that was in it has been sent"
            );
        }
    }
}
