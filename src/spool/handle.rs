//! The handle of a spool, and the thread's own.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot, watch},
    time::timeout,
};

use super::{
    Damage, Level, Refused, Row, SpoolOptions, State,
    open::Missing,
    shared::{Command, Draft, PLACES, Range, Shared},
    thread::{Worker, name_of},
};
use crate::batch::Batch;

/// The longest that an append or a read waits for the disk.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest that starting waits for the disk. After that the spool is failing, until the disk answers.
const OPEN: Duration = Duration::from_secs(5);

/// A handle to a spool. Clones are the same spool. Its thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Spool {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

/// The thread of a spool. Dropped, it does what is queued and ends by itself.
#[derive(Debug)]
pub struct SpoolThread {
    commands: Sender<Command>,
    shared: Arc<Shared>,
    ended: Receiver<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Spool {
    /// Starts the thread and opens the file, or makes it. A corrupt or foreign file is set aside. A disk that cannot be
    /// used is no error: the spool is then [`State::Failing`] and tries again. Blocks for at most 5 s.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(options: SpoolOptions) -> std::io::Result<(Self, SpoolThread)> {
        Self::start_with(options, Missing::Make)
    }

    /// The same with a file that has to be there, and is not set aside.
    pub(super) fn start_with(
        options: SpoolOptions,
        missing: Missing,
    ) -> std::io::Result<(Self, SpoolThread)> {
        // One slot more for a wake-up: what finds no slot finds an awake thread.
        let (sender, commands) = crossbeam_channel::bounded(PLACES + 1);
        let (opened, wait_opened) = crossbeam_channel::bounded(1);
        let (end, ended) = crossbeam_channel::bounded(1);
        let shared = Arc::new(Shared::new(name_of(&options.path)));
        let worker = Worker::new(options, missing, Arc::clone(&shared), commands);
        let thread = thread::Builder::new().name(format!("spool-{}", shared.name)).spawn(move || {
            // Dropped when the thread ends, even by a panic.
            let _end: Sender<()> = end;
            worker.run(&opened);
        })?;
        // Opened or not, and told by the state: there is nothing else to know here.
        let _told: Result<(), _> = wait_opened.recv_timeout(OPEN);
        let spool = Self { commands: sender.clone(), shared: Arc::clone(&shared) };
        Ok((spool, SpoolThread { commands: sender, shared, ended, thread: Some(thread) }))
    }

    /// Writes a batch behind all others. It is as durable as [`SpoolOptions::synchronous`] says when this returns. Many
    /// callers at once share a write. Waits for at most 10 s.
    ///
    /// Cancel safe: the batch of a dropped future is not written, or removed again.
    ///
    /// # Errors
    /// The batch is not in the spool, and never will be.
    pub async fn append(&self, batch: &Batch) -> Result<Row, Refused> {
        let draft = Draft { id: batch.id, count: batch.count, body: batch.body.clone() };
        let octets = draft.body.len();
        let written = self.ask(octets, |reply, place| Command::Append { draft, reply, place }).await?;
        Ok(written.take())
    }

    /// Removes a batch, soon and together with others. It is no longer read from now on. Never blocks. After a power cut
    /// it may be there again.
    pub fn remove(&self, row: Row) {
        if self.shared.remove(row) {
            // Without a slot the thread is awake.
            drop(self.commands.try_send(Command::Wake));
        }
    }

    /// Reads batches, the oldest first, from behind `after` or from the first: at most `max_batches`, and of `max_bytes`
    /// together (but one at least). Damaged batches are set aside and left out. Empty: there are no more. Waits for at
    /// most 10 s.
    ///
    /// Cancel safe: reading changes nothing.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub async fn read(
        &self,
        after: Option<Row>,
        max_batches: usize,
        max_bytes: usize,
    ) -> Result<Vec<(Row, Batch)>, Refused> {
        let range = Range { after, max_batches, max_bytes };
        self.ask(0, |reply, place| Command::Read { range, reply, place }).await
    }

    /// What is in the file now. A removed batch counts until it is deleted.
    #[must_use]
    pub fn level(&self) -> Level {
        self.shared.figures().level
    }

    /// What was in the file when it was first opened. All zero before that: see [`Spool::state`].
    #[must_use]
    pub fn recovered(&self) -> Level {
        self.shared.figures().recovered
    }

    /// What was found unusable since the start.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.shared.figures().damage
    }

    /// Octets of the file that are in use: what [`SpoolOptions::max_bytes`] bounds.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shared.figures().used
    }

    /// Whether it takes batches, and why not.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state()
    }

    /// The thread does nothing until what this returns is dropped, as if its disk did not answer.
    #[cfg(test)]
    pub(crate) fn hang(&self) -> Sender<()> {
        let (hang, end) = crossbeam_channel::bounded(0);
        self.commands.try_send(Command::Hang(end)).expect("a test leaves room");
        hang
    }

    /// Commands that wait for the thread.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.commands.len()
    }

    async fn ask<T>(
        &self,
        octets: usize,
        command: impl FnOnce(oneshot::Sender<Result<T, Refused>>, OwnedSemaphorePermit) -> Command,
    ) -> Result<T, Refused> {
        let answered = async {
            let place = self.shared.place(octets).await?;
            let (reply, answer) = oneshot::channel();
            self.commands.try_send(command(reply, place)).map_err(|_| Refused::Closed)?;
            answer.await.unwrap_or(Err(Refused::Closed))
        };
        timeout(ANSWER, answered).await.unwrap_or_else(|_| {
            // The thread is within a system call and cannot say it. It sets the state right when it is back.
            if self.shared.set_state(State::Failing("its disk does not answer".into())) {
                tracing::error!(
                    destination = self.shared.name,
                    "the spool's disk has not answered for {ANSWER:?}; its overflow policy acts; look at the disk"
                );
            }
            Err(Refused::TimedOut)
        })
    }
}

impl SpoolThread {
    /// Refuses what is asked from now on, writes what is queued, deletes what is removed, and closes the file. Waits for
    /// that until then, at most. Blocks.
    pub fn join(mut self, until: Instant) {
        self.close();
        let ended = self.ended.recv_deadline(until);
        if ended == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
            return tracing::error!(
                destination = self.shared.name,
                "the spool's file was not closed in time: its disk does not answer; what was appended is in it"
            );
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a spool's thread panicked; this is a defect in beacon-edge, please report it");
        }
    }

    fn close(&self) {
        self.shared.close();
        drop(self.commands.try_send(Command::Wake));
    }
}

impl Drop for SpoolThread {
    fn drop(&mut self) {
        self.close();
    }
}
