use std::{
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    select,
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};

use super::{
    ConnectionState, PoolOptions, PoolStatus,
    seats::{Move, Seat, Seats},
    status::ConnectionStatus,
};
use crate::client::{Client, ConnectionError};

/// How often a connection looks whether it should move.
const TICK: Duration = Duration::from_millis(250);

/// What the keepers of a pool have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: PoolOptions,
    pub(super) seats: Arc<Seats>,
    pub(super) status: watch::Sender<PoolStatus>,
    slots: Mutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    open: Vec<Option<Arc<Pooled>>>,
    /// Where the search for the least used one begins.
    turn: usize,
}

/// A connection and how many use it.
#[derive(Debug)]
struct Pooled {
    client: Client,
    users: AtomicUsize,
    idle: Notify,
}

/// A connection on loan from a [`Pool`](super::Pool); a [`Client`] in every other respect. Given back when it is
/// dropped: take one for each piece of work rather than keeping it.
///
/// One that is kept, for a subscription say, is closed under its holder when the connection moves and
/// [`PoolOptions::drain_timeout`] has passed; [`PoolOptions::rebalance`] `None` prevents that. A clone of the client
/// inside is no loan: the pool does not wait for it.
#[derive(Debug)]
pub struct PooledClient {
    pooled: Arc<Pooled>,
}

/// Sees to it that there is one connection.
pub(super) struct Keeper {
    index: usize,
    shared: Arc<Shared>,
    closing: watch::Receiver<Option<Instant>>,
    /// Old connections that wait for those who use them.
    drains: JoinSet<()>,
}

/// Why a keeper stopped looking after a connection.
enum End {
    Lost(ConnectionError),
    Moved(Arc<Pooled>, Seat),
    /// The pool is being closed: be done by then.
    Closing(Instant),
}

impl Shared {
    pub(super) fn new(options: PoolOptions) -> Self {
        let connections = options.connections.max(1);
        Self {
            seats: Arc::new(Seats::new(options.brokers.clone(), options.backoff, options.rebalance)),
            status: watch::Sender::new(PoolStatus::new(connections)),
            slots: Mutex::new(Slots { open: vec![None; connections], turn: 0 }),
            options,
        }
    }

    /// The connection with the fewest users; ties go round.
    pub(super) fn pick(&self) -> Option<PooledClient> {
        let mut slots = self.slots();
        let len = slots.open.len();
        let turn = slots.turn;
        let users = |i: usize| slots.open[i].as_ref().map(|pooled| pooled.users.load(Ordering::Relaxed));
        let (_, best) = (turn..turn + len)
            .filter_map(|i| Some((users(i % len)?, i % len)))
            .min_by_key(|&(users, _)| users)?;
        slots.turn = (best + 1) % len;
        // Counted under the lock, so that a drain that begins now sees it.
        slots.open[best].as_ref().map(PooledClient::new)
    }

    fn put(&self, index: usize, pooled: Option<Arc<Pooled>>) -> Option<Arc<Pooled>> {
        match self.slots().open.get_mut(index) {
            Some(slot) => std::mem::replace(slot, pooled),
            None => None,
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // No code that can panic runs under the lock.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PooledClient {
    fn new(pooled: &Arc<Pooled>) -> Self {
        pooled.users.fetch_add(1, Ordering::Relaxed);
        Self { pooled: Arc::clone(pooled) }
    }
}

impl Deref for PooledClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.pooled.client
    }
}

impl Drop for PooledClient {
    fn drop(&mut self) {
        if self.pooled.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.pooled.idle.notify_one();
        }
    }
}

impl Keeper {
    pub(super) fn new(index: usize, shared: Arc<Shared>, closing: watch::Receiver<Option<Instant>>) -> Self {
        Self { index, shared, closing, drains: JoinSet::new() }
    }

    pub(super) async fn run(mut self) {
        let mut last_cause = String::new();
        let mut held = None;
        let until = loop {
            let end = match held.take() {
                Some((pooled, seat)) => self.look_after(pooled, seat).await,
                None => match self.connect().await {
                    Ok((pooled, seat)) => End::Moved(pooled, seat),
                    Err(end) => end,
                },
            };
            match end {
                End::Moved(pooled, seat) => held = Some((pooled, seat)),
                End::Lost(cause) => {
                    self.note(&cause, &mut last_cause);
                    let pause = self.shared.seats.failover_pause();
                    if let Err(End::Closing(until)) = or_closing(&mut self.closing, sleep(pause)).await {
                        break until;
                    }
                }
                End::Closing(until) => break until,
            }
        };
        // What waits for its users has its own deadline; the pool's may be nearer.
        let drained = async { while self.drains.join_next().await.is_some() {} };
        drop(timeout_at(until, drained).await);
        self.enter(ConnectionState::Closed);
    }

    async fn connect(&mut self) -> Result<(Arc<Pooled>, Seat), End> {
        let shared = Arc::clone(&self.shared);
        let attempt = or_closing(&mut self.closing, shared.seats.claim()).await?;
        let broker = attempt.broker().map(ToString::to_string).unwrap_or_default();
        self.update(|status| status.broker = broker);
        self.enter(ConnectionState::Connecting);
        let connecting = attempt.connect(shared.options.connect.clone());
        let (client, seat) = or_closing(&mut self.closing, connecting).await?.map_err(End::Lost)?;
        Ok((self.connected(client, &seat), seat))
    }

    async fn look_after(&mut self, pooled: Arc<Pooled>, mut seat: Seat) -> End {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing = self.closing.clone();
        let end = loop {
            let proposed = select! {
                biased;
                cause = pooled.client.ended() => break End::Lost(cause),
                until = closed(&mut closing) => break End::Closing(until),
                _ = tick.tick() => {
                    seat.age();
                    seat.propose_move()
                }
            };
            let Some((attempt, moving)) = proposed else { continue };
            let connecting = attempt.connect(self.shared.options.connect.clone());
            let connected = select! {
                biased;
                cause = pooled.client.ended() => break End::Lost(cause),
                until = closed(&mut closing) => break End::Closing(until),
                connected = connecting => connected,
            };
            match connected {
                Ok((client, new_seat)) => {
                    let new = self.moved(client, &new_seat, seat, moving);
                    return End::Moved(new, new_seat);
                }
                Err(cause) => {
                    self.shared.status.send_modify(|status| status.failures += 1);
                    crate::log::debug!(%cause, "the broker to move to is not back yet");
                }
            }
        };
        self.shared.put(self.index, None);
        match &end {
            End::Lost(cause) => {
                // It has ended, and so have all receipts; nobody can use it any more.
                seat.lost(cause);
            }
            End::Closing(until) => {
                let left = until.saturating_duration_since(Instant::now());
                pooled.retire(left).await;
            }
            End::Moved(..) => {}
        }
        end
    }

    /// From now on the new connection is handed out. The old one keeps its seat, and the move lasts, until it is
    /// drained.
    fn moved(&mut self, client: Client, new_seat: &Seat, old_seat: Seat, moving: Move) -> Arc<Pooled> {
        let from = old_seat.broker().map(ToString::to_string).unwrap_or_default();
        let to = new_seat.broker().map(ToString::to_string).unwrap_or_default();
        crate::log::info!(from, to, "a connection moves to a broker that has come back");
        let drain = self.shared.options.drain_timeout;
        let old = self.shared.put(self.index, None);
        let new = self.connected(client, new_seat);
        self.shared.status.send_modify(|status| status.rebalanced += 1);
        self.drains.spawn(async move {
            let _held = (old_seat, moving);
            if let Some(old) = old {
                old.retire(drain).await;
            }
        });
        while self.drains.try_join_next().is_some() {}
        new
    }

    fn connected(&self, client: Client, seat: &Seat) -> Arc<Pooled> {
        let pooled = Arc::new(Pooled { client, users: AtomicUsize::new(0), idle: Notify::new() });
        self.shared.put(self.index, Some(Arc::clone(&pooled)));
        let broker = seat.broker().map(ToString::to_string).unwrap_or_default();
        crate::log::info!(
            broker,
            server = pooled
                .client
                .connected()
                .and_then(|connected| connected.server.clone())
                .as_deref()
                .unwrap_or("?"),
            "connected to the broker"
        );
        self.shared.status.send_modify(|status| status.connects += 1);
        self.update(|status| {
            status.broker = broker;
            status.last_error = None;
        });
        self.enter(ConnectionState::Connected);
        pooled
    }

    /// Shows why there is no connection. A cause that lasts is logged once.
    fn note(&self, cause: &ConnectionError, last_cause: &mut String) {
        let cause = cause.to_string();
        if cause == *last_cause {
            crate::log::debug!(cause, "still no connection to the broker");
        } else {
            crate::log::warn!(cause, "no connection to the broker");
            last_cause.clone_from(&cause);
        }
        self.shared.status.send_modify(|status| status.failures += 1);
        self.update(|status| status.last_error = Some(cause));
        self.enter(ConnectionState::BackingOff);
    }

    fn update(&self, change: impl FnOnce(&mut ConnectionStatus)) {
        self.shared.status.send_modify(|status| {
            if let Some(connection) = status.connections.get_mut(self.index) {
                change(connection);
            }
        });
    }

    fn enter(&self, state: ConnectionState) {
        self.update(|status| {
            if status.state != state {
                status.state = state;
                status.since = std::time::Instant::now();
            }
        });
    }
}

impl Pooled {
    /// Waits for those who use it, then for its receipts, and closes it; `within` for all of that.
    async fn retire(&self, within: Duration) {
        let start = Instant::now();
        let idle = async {
            while self.users.load(Ordering::Acquire) > 0 {
                self.idle.notified().await;
            }
        };
        // Who still uses it then is told by the client that it was closed.
        select! {
            () = idle => {}
            _ = self.client.ended() => {}
            () = sleep(within) => {}
        }
        let left = within.saturating_sub(start.elapsed());
        if timeout(left, self.client.clone().close(left)).await.is_err() {
            self.client.abort();
        }
    }
}

async fn or_closing<F: Future>(
    closing: &mut watch::Receiver<Option<Instant>>,
    what: F,
) -> Result<F::Output, End> {
    select! {
        biased;
        until = closed(closing) => Err(End::Closing(until)),
        output = what => Ok(output),
    }
}

/// Completes when the pool is being closed: be done by then.
async fn closed(closing: &mut watch::Receiver<Option<Instant>>) -> Instant {
    match closing.wait_for(Option::is_some).await {
        Ok(until) => until.unwrap_or_else(Instant::now),
        Err(_) => Instant::now(),
    }
}
