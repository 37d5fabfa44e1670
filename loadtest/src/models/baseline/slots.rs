//! A pool of connections, each used by one request at a time, as nginx' `cosocket` pools are: a request takes an idle
//! one, or opens one while there are fewer than the pool may have, or waits for one.

use std::{cell::RefCell, future::Future, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

/// The longest that one request may take, waiting for a connection included.
const LIMIT: Duration = Duration::from_secs(5);

/// Something that is used for one request after another.
pub(super) trait Connection: Sized {
    /// How one is opened.
    type Recipe;

    /// Opens one. May be dropped at any time.
    fn open(recipe: &Self::Recipe) -> impl Future<Output = std::io::Result<Self>>;

    /// Sends `line` and waits for what the pool's server says to it. Not cancel safe: after that the connection is
    /// closed.
    fn put(&mut self, line: bytes::Bytes) -> impl Future<Output = std::io::Result<()>>;
}

/// The pool of one worker.
#[derive(Debug)]
pub(super) struct Slots<C: Connection> {
    recipe: C::Recipe,
    idle: RefCell<Vec<C>>,
    room: Semaphore,
}

impl<C: Connection> Slots<C> {
    /// A pool of at most `size` connections, none of them open yet.
    pub(super) fn new(recipe: C::Recipe, size: usize) -> Self {
        Self { recipe, idle: RefCell::default(), room: Semaphore::new(size) }
    }

    /// Puts `line` through a connection that nobody else uses meanwhile. A connection that fails is closed.
    pub(super) async fn put(&self, line: bytes::Bytes) -> std::io::Result<()> {
        let work = async {
            let _place = self.room.acquire().await.map_err(std::io::Error::other)?;
            // The one used last: its buffers are in the cache.
            let idle = self.idle.borrow_mut().pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => C::open(&self.recipe).await?,
            };
            connection.put(line).await?;
            self.idle.borrow_mut().push(connection);
            Ok(())
        };
        timeout_at(Instant::now() + LIMIT, work)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }
}
