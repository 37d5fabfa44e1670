//! Connections over several brokers, kept alive: failover, backoff with jitter, and an even spread.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use stompwire::{Frame, pool::{Pool, PoolOptions}};
//!
//! let brokers = vec!["stomp://app:secret@rabbit-1/".parse()?, "stomp://app:secret@rabbit-2/".parse()?];
//! let mut options = PoolOptions::new(brokers);
//! options.connections = 4;
//! let pool = Pool::connect(options, Duration::from_secs(10)).await?;
//! let receipt = {
//!     let client = pool.client(Duration::from_secs(1)).await?; // any `Client`; given back when it is dropped
//!     client.send_with_receipt(Frame::send("/queue/orders", "one")).await?
//! };
//! receipt.await?; // does not need the loan
//! pool.close(Duration::from_secs(5)).await;
//! # Ok(()) }
//! ```
//!
//! - A connection that is refused or lost is made at another broker at once, whatever the pause of the first. A broker
//!   that is silent is found out by its heart-beats.
//! - A broker that failed sees one attempt at a time, after pauses that grow ([`Backoff`](crate::Backoff)), however
//!   many connections want to go there. One that accepts connections and then drops them keeps its pauses until a
//!   connection has lasted.
//! - When it is back, connections move to it one at a time, with a pause in between: the new one is made first, the old
//!   one is closed when nobody uses it and its receipts are here. Nothing moves when the spread is even.
//! - Frames sent are not sent again: a receipt says what is known of its frame. For messages that must arrive, see
//!   [`publisher`](crate::publisher), which stands on the same ground.

mod keeper;
mod options;
mod roster;
mod seats;
mod status;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use self::keeper::{Keeper, Shared};

pub use keeper::PooledClient;
pub use options::PoolOptions;
pub use status::{BrokerStatus, ConnectionState, ConnectionStatus, PoolError, PoolStatus};

pub(crate) use seats::{Move, Seat, Seats};

/// Connections to brokers, each looked after by a task. See the module's text.
///
/// Dropping it ends its tasks at once; connections on loan live until they are given back.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    closing: watch::Sender<Option<Instant>>,
    /// Empty once it is being closed.
    keepers: Mutex<JoinSet<()>>,
}

impl Pool {
    /// Starts the tasks on the current tokio runtime. They connect at once and keep trying; without a broker in the
    /// options there will never be a connection.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(options: PoolOptions) -> Self {
        let shared = Arc::new(Shared::new(options));
        let (closing, watch_closing) = watch::channel(None);
        let mut keepers = JoinSet::new();
        for index in 0..shared.options.connections.max(1) {
            keepers.spawn(Keeper::new(index, Arc::clone(&shared), watch_closing.clone()).run());
        }
        Self { shared, closing, keepers: Mutex::new(keepers) }
    }

    /// [`Pool::start`], and waits until there is a first connection. Cancel safe: the pool ends with the future.
    ///
    /// # Errors
    /// [`PoolError::NoConnection`]: none was there in time. The pool has ended.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(options: PoolOptions, within: Duration) -> Result<Self, PoolError> {
        let pool = Self::start(options);
        pool.client(within).await?;
        Ok(pool)
    }

    /// The connection with the fewest users; waits for one if there is none. Cancel safe.
    ///
    /// A connection can be lost the moment after; its sends and receipts say so.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn client(&self, within: Duration) -> Result<PooledClient, PoolError> {
        // Before the first look, so that no change is missed.
        let mut changes = self.shared.status.subscribe();
        let picked = timeout(within, async {
            loop {
                if self.closing.borrow().is_some() {
                    return Err(PoolError::Closed);
                }
                if let Some(client) = self.shared.pick() {
                    return Ok(client);
                }
                // The sender is ours.
                drop(changes.changed().await);
            }
        });
        match picked.await {
            Ok(result) => result,
            Err(_) => Err(PoolError::NoConnection { within, last_error: self.status().last_error() }),
        }
    }

    /// The connection with the fewest users, if there is one now and the pool is not being closed.
    #[must_use]
    pub fn try_client(&self) -> Option<PooledClient> {
        if self.closing.borrow().is_some() { None } else { self.shared.pick() }
    }

    /// Where each connection stands.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.shared.status.borrow().clone()
    }

    /// The same, to be told of changes. It outlives the pool.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<PoolStatus> {
        self.shared.status.subscribe()
    }

    /// What is known of each broker, in the order of the options.
    #[must_use]
    pub fn brokers(&self) -> Vec<BrokerStatus> {
        self.shared.seats.readings()
    }

    /// Hands out no more connections, waits until those on loan are given back and their receipts are here, and closes
    /// them; all that within `deadline`, after which they are cut. Called again, it returns at once. Not cancel safe:
    /// dropped before it is done, it leaves connections on loan to those who have them, and ends the tasks.
    pub async fn close(&self, deadline: Duration) {
        self.closing.send_if_modified(|closing| {
            let first = closing.is_none();
            closing.get_or_insert_with(|| Instant::now() + deadline);
            first
        });
        // Nothing that can panic runs under the lock.
        let mut keepers = std::mem::take(&mut *self.keepers.lock().unwrap_or_else(PoisonError::into_inner));
        while keepers.join_next().await.is_some() {}
    }
}
