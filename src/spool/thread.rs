//! The thread of a spool: what waits is done together; trouble is told once, and tried again.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Refused, Row, SpoolOptions, Synchronous,
    aside::folder,
    disk::FreeSpace,
    open::{Missing, Unusable},
    repair::{BACKOFF_MIN, Trouble},
    shared::{Command, Draft, Range, Shared, Written},
    store::{Before, Committed, Group, Store},
};
use crate::batch::Batch;

/// Most batches in one transaction.
const GROUP_BATCHES: usize = 512;
/// A transaction is closed when it has so many octets of bodies.
const GROUP_OCTETS: usize = 4 << 20;
/// Most rows that one transaction deletes.
const GROUP_REMOVED: usize = 4096;
/// How long a removed row waits for an append to be deleted with.
const REMOVE: Duration = Duration::from_millis(50);
/// What an idle thread does now and then: looks at the disk, empties the write-ahead log, gives space back.
pub(super) const IDLE: Duration = Duration::from_secs(1);
/// At most one shrinking in this time.
const SHRINK: Duration = Duration::from_secs(10);

type Read = oneshot::Sender<Result<Vec<(Row, Batch)>, Refused>>;

/// Who waits for an append.
#[derive(Debug)]
struct Waiting {
    reply: oneshot::Sender<Result<Written, Refused>>,
    /// Its place in the queue, given back when it has its answer.
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) options: SpoolOptions,
    /// Whether files are made, and set aside, as need be; or only the one that is there is used.
    pub(super) missing: Missing,
    pub(super) shared: Arc<Shared>,
    commands: Receiver<Command>,
    pub(super) store: Option<Store>,
    /// What this process knows of the file from when it was last open.
    pub(super) before: Option<Before>,
    pub(super) removed: BTreeSet<Row>,
    pub(super) damaged: BTreeSet<Row>,
    pub(super) free_space: FreeSpace,
    pub(super) trouble: Option<Trouble>,
    pub(super) is_full: bool,
    pub(super) backoff: Duration,
    pub(super) remove_at: Option<Instant>,
    shrunk_at: Option<Instant>,
    /// When the file's name was last looked at.
    looked_at: Option<Instant>,
    /// When the write-ahead log is emptied.
    pub(super) rest_at: Option<Instant>,
}

/// What is done together.
#[derive(Debug, Default)]
struct Turn {
    appends: Vec<(Draft, Waiting)>,
    reads: Vec<(Range, Read, OwnedSemaphorePermit)>,
    octets: usize,
}

impl Worker {
    pub(super) fn new(
        options: SpoolOptions,
        missing: Missing,
        shared: Arc<Shared>,
        commands: Receiver<Command>,
    ) -> Self {
        let free_space = FreeSpace::new(folder(&options.path).to_owned(), options.min_free_bytes);
        Self {
            options,
            missing,
            shared,
            commands,
            store: None,
            before: None,
            removed: BTreeSet::new(),
            damaged: BTreeSet::new(),
            free_space,
            trouble: None,
            is_full: false,
            backoff: BACKOFF_MIN,
            remove_at: None,
            shrunk_at: None,
            looked_at: None,
            rest_at: None,
        }
    }

    pub(super) fn run(mut self, opened: &Sender<()>) {
        self.open();
        self.settle();
        // Nobody may wait any more.
        opened.send(()).unwrap_or_default();
        loop {
            let mut turn = Turn::default();
            let pause = self.next_look().saturating_duration_since(Instant::now());
            match self.commands.recv_timeout(pause) {
                Ok(command) => turn.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while turn.has_room()
                && let Ok(command) = self.commands.try_recv()
            {
                turn.take(command);
            }
            let is_closing = self.shared.is_closing();
            self.work(turn, is_closing);
            self.tidy();
            self.settle();
            let is_done = self.removed.is_empty() || self.trouble.is_some();
            if is_closing && self.commands.is_empty() && is_done {
                break;
            }
        }
        self.end();
    }

    /// When there is something to do without being asked.
    fn next_look(&self) -> Instant {
        let retry = self.trouble.as_ref().map(|trouble| trouble.retry_at);
        let timers = [self.remove_at.filter(|_| self.store.is_some()), retry];
        timers.into_iter().flatten().fold(Instant::now() + IDLE, Instant::min)
    }

    fn work(&mut self, turn: Turn, is_closing: bool) {
        self.note_removed();
        self.try_again();
        let is_due = self.remove_at.is_some_and(|at| is_closing || at <= Instant::now());
        if !turn.appends.is_empty() || is_due {
            self.commit(turn.appends);
        }
        for (range, reply, _place) in turn.reads {
            let read = self.read(range);
            // Who asked may have gone.
            drop(reply.send(read));
        }
    }

    fn note_removed(&mut self) {
        self.removed.extend(self.shared.take_removed());
        if !self.removed.is_empty() && self.remove_at.is_none() {
            self.remove_at = Some(Instant::now() + REMOVE);
        }
    }

    fn commit(&mut self, appends: Vec<(Draft, Waiting)>) {
        // Who has gone meanwhile would have its row removed again.
        let wanted = appends.into_iter().filter(|(_, waiting)| !waiting.reply.is_closed());
        let (mut drafts, mut waiting): (Vec<_>, Vec<_>) = wanted.unzip();
        if let Some(refused) = self.refusal(&drafts) {
            drafts.clear();
            self.settle();
            refuse(std::mem::take(&mut waiting), refused);
        }
        let removed: Vec<Row> = self.removed.iter().copied().take(GROUP_REMOVED).collect();
        let damaged: Vec<Row> = self.damaged.iter().copied().take(GROUP_REMOVED).collect();
        if removed.is_empty() && damaged.is_empty() && drafts.is_empty() {
            return;
        }
        let Some(store) = &mut self.store else { return refuse(waiting, Refused::Failing) };
        match store.commit(Group { removed: &removed, damaged: &damaged, drafts: &drafts }) {
            Ok(committed) => {
                self.removed.retain(|row| removed.binary_search(row).is_err());
                self.damaged.retain(|row| damaged.binary_search(row).is_err());
                let is_more = !self.removed.is_empty() || !self.damaged.is_empty();
                self.remove_at = is_more.then(Instant::now);
                self.has_committed(&committed, waiting);
            }
            Err(error) => {
                let unusable = Unusable::from(error);
                let is_space = matches!(unusable, Unusable::NoSpace(_));
                self.has_failed(unusable);
                self.settle();
                refuse(waiting, if is_space { Refused::NoSpace } else { Refused::Failing });
            }
        }
    }

    fn has_committed(&mut self, committed: &Committed, waiting: Vec<Waiting>) {
        let soon = Instant::now() + IDLE;
        self.rest_at = match self.options.synchronous {
            // Everything is on disk already: when there is nothing else to do.
            Synchronous::Full => Some(soon),
            Synchronous::Normal => self.rest_at.or(Some(soon)),
        };
        let damaged = committed.damaged;
        if damaged.batches > 0 {
            self.shared.change(|figures| {
                figures.damage.batches += damaged.batches;
                figures.damage.beacons += damaged.beacons;
            });
            tracing::error!(
                destination = self.name(),
                batches = damaged.batches,
                beacons = damaged.beacons,
                file = %self.options.path.display(),
                "batches in the spool do not match their CRC and were set aside in its table `damaged`; check the disk"
            );
        }
        if committed.rows.iter().any(Option::is_none) {
            self.is_full |= self.is_nearly_full();
        }
        if committed.rows.iter().any(Option::is_some) {
            self.backoff = BACKOFF_MIN;
        }
        // Before the replies: who has one finds its reason in figures and state.
        self.publish_figures();
        self.settle();
        for (waiting, row) in waiting.into_iter().zip(&committed.rows) {
            let answer = row.map(|row| Written::new(row, Arc::clone(&self.shared))).ok_or(Refused::Full);
            // When nobody waits any more it is dropped here, which removes the row again.
            drop(waiting.reply.send(answer));
        }
    }

    fn read(&mut self, range: Range) -> Result<Vec<(Row, Batch)>, Refused> {
        self.note_removed();
        let store = self.store.as_ref().ok_or(Refused::Failing)?;
        match store.read(range, |row| self.removed.contains(&row) || self.damaged.contains(&row)) {
            Ok(found) => {
                if !found.damaged.is_empty() {
                    self.remove_at.get_or_insert_with(Instant::now);
                    self.damaged.extend(found.damaged);
                }
                Ok(found.batches)
            }
            Err(error) => {
                self.has_failed(error.into());
                self.settle();
                Err(Refused::Failing)
            }
        }
    }

    /// Why these cannot be appended, known without trying.
    fn refusal(&mut self, drafts: &[Draft]) -> Option<Refused> {
        if let Some(trouble) = &self.trouble {
            return Some(if trouble.is_space { Refused::NoSpace } else { Refused::Failing });
        }
        let octets = drafts.iter().map(|draft| draft.body.len() as u64).sum();
        if drafts.is_empty() || self.free_space.is_enough_for(octets) {
            return None;
        }
        let floor = self.free_space.floor();
        self.is_in_trouble(format!("less than {floor} octets would be free on its disk"), true);
        Some(Refused::NoSpace)
    }

    /// Keeps the write-ahead log short, and gives space back. Nobody waits for this.
    fn tidy(&mut self) {
        let now = Instant::now();
        let Some(store) = &mut self.store else { return };
        if self.looked_at.is_none_or(|at| now - at >= IDLE) {
            self.looked_at = Some(now);
            if !store.is_in_place() {
                return self
                    .has_failed(Unusable::Disk("its file was moved or deleted while it was used".into()));
            }
        }
        let done = if store.is_worth_shrinking() && self.shrunk_at.is_none_or(|at| now - at >= SHRINK) {
            self.shrunk_at = Some(now);
            store.shrink()
        } else if store.has_long_log() {
            store.shorten_log()
        } else if self.rest_at.is_some_and(|at| at <= now) {
            self.rest_at = None;
            store.rest()
        } else {
            return;
        };
        match done.map_err(Unusable::from) {
            // It can wait. An append that cannot will say so.
            Err(Unusable::NoSpace(_)) | Ok(()) => self.publish_figures(),
            Err(unusable) => self.has_failed(unusable),
        }
    }

    pub(super) fn publish_figures(&self) {
        let Some(store) = &self.store else { return };
        self.shared.change(|figures| {
            figures.level = store.totals().level;
            figures.used = store.used_bytes();
        });
    }

    pub(super) fn name(&self) -> &str {
        &self.shared.name
    }

    fn end(&mut self) {
        let Some(store) = self.store.take() else { return };
        if let Err(error) = store.close() {
            tracing::warn!(
                destination = self.name(),
                file = %self.options.path.display(),
                %error,
                "the spool's file was not closed properly; its content is kept and found at the next start"
            );
        }
    }
}

impl Turn {
    fn has_room(&self) -> bool {
        self.appends.len() < GROUP_BATCHES && self.octets < GROUP_OCTETS && self.reads.len() < GROUP_BATCHES
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Append { draft, reply, place } => {
                self.octets += draft.body.len();
                self.appends.push((draft, Waiting { reply, _place: place }));
            }
            Command::Read { range, reply, place } => self.reads.push((range, reply, place)),
            Command::Wake => {}
            #[cfg(test)]
            Command::Hang(end) => drop(end.recv()),
        }
    }
}

fn refuse(waiting: Vec<Waiting>, refused: Refused) {
    for waiting in waiting {
        // Who asked may have gone.
        drop(waiting.reply.send(Err(refused)));
    }
}

/// The name of the destination whose spool this is.
pub(super) fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
