//! What the handles and the thread share: figures, the state, rows to remove, room for commands.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use uuid::Uuid;

use super::{Damage, Level, Refused, Row, State};
use crate::batch::Batch;

/// Room for commands, in places. A command takes one for each [`PLACE`] octets of its body, at least one.
pub(super) const PLACES: usize = 4096;
/// So that at most 16 MiB wait for the thread.
const PLACE: usize = 4096;

/// What the thread is asked for. Its place is given back when it has been answered.
#[derive(Debug)]
pub(super) enum Command {
    Append {
        draft: Draft,
        reply: oneshot::Sender<Result<Written, Refused>>,
        place: OwnedSemaphorePermit,
    },
    Read {
        range: Range,
        reply: oneshot::Sender<Result<Vec<(Row, Batch)>, Refused>>,
        place: OwnedSemaphorePermit,
    },
    /// There is something to remove, or it is time to end.
    Wake,
    /// The disk hangs until the sender of this is dropped.
    #[cfg(test)]
    Hang(crossbeam_channel::Receiver<()>),
}

/// A batch that is to become a row.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) id: Uuid,
    pub(super) count: u64,
    pub(super) body: Bytes,
}

/// Which rows are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) after: Option<Row>,
    pub(super) max_batches: usize,
    pub(super) max_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// The destination's name.
    pub(super) name: String,
    room: Arc<Semaphore>,
    removed: Mutex<Vec<Row>>,
    is_closing: AtomicBool,
    figures: Mutex<Figures>,
    state: watch::Sender<State>,
}

/// What is told of the file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figures {
    pub(super) level: Level,
    pub(super) recovered: Level,
    pub(super) damage: Damage,
    /// Octets of the file's pages that hold something.
    pub(super) used: u64,
}

impl Shared {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            room: Arc::new(Semaphore::new(PLACES)),
            removed: Mutex::default(),
            is_closing: AtomicBool::new(false),
            figures: Mutex::default(),
            state: watch::Sender::new(State::Failing("it is being opened".into())),
        }
    }

    /// Waits for the places of a command with a body this long.
    pub(super) async fn place(&self, octets: usize) -> Result<OwnedSemaphorePermit, Refused> {
        let places = octets.div_ceil(PLACE).clamp(1, PLACES) as u32;
        Arc::clone(&self.room).acquire_many_owned(places).await.map_err(|_| Refused::Closed)
    }

    /// Notes a row that is to go. True if it is the first one since the thread looked.
    pub(super) fn remove(&self, row: Row) -> bool {
        let mut removed = self.removed.lock();
        removed.push(row);
        removed.len() == 1
    }

    pub(super) fn take_removed(&self) -> Vec<Row> {
        std::mem::take(&mut self.removed.lock())
    }

    /// No more commands. The thread does those it has and ends.
    pub(super) fn close(&self) {
        self.room.close();
        self.is_closing.store(true, Ordering::Release);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    pub(super) fn figures(&self) -> Figures {
        *self.figures.lock()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.figures.lock());
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// True if the state is another one now.
    pub(super) fn set_state(&self, state: State) -> bool {
        self.state.send_if_modified(|now| {
            let is_new = *now != state;
            *now = state;
            is_new
        })
    }
}

/// A row on its way to the one who asked for it. If that one has gone meanwhile, the row is removed again.
#[derive(Debug)]
pub(super) struct Written {
    row: Option<Row>,
    shared: Arc<Shared>,
}

impl Written {
    pub(super) fn new(row: Row, shared: Arc<Shared>) -> Self {
        Self { row: Some(row), shared }
    }

    pub(super) fn take(mut self) -> Row {
        self.row.take().expect("it is there from the making to this one taking")
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(row) = self.row {
            // The thread looks again soon enough.
            self.shared.remove(row);
        }
    }
}
