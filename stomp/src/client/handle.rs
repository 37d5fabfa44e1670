use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::timeout,
};

use super::{
    BrokerUrl, ClientBuilder, ConnectOptions, ConnectionError, Receipt, SendError, State, Subscription,
    Transaction, Unconfirmed,
    desk::Counter,
    driver::{Command, Outgoing, Payload},
    mailbox::Mailbox,
    receipt::{Room, Token},
};
use crate::proto::{Connected, Encoder, Frame, SessionError, Subscribe, Version};

/// Commands that may wait for the connection's task. Sending is bounded by the window long before this.
pub(super) const COMMANDS: usize = 64;

/// A handle to one connection, or to one after the other if it was built to reconnect. Cheap to clone; when the last
/// handle, subscription and transaction are dropped the connection drains and closes.
///
/// Every method that waits has a limit: the operation timeout until a frame is queued, the receipt timeout from there to
/// its receipt (see [`ConnectOptions`]).
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
pub(super) struct Shared {
    counter: Arc<Counter>,
    state: watch::Receiver<State>,
    window_bytes: usize,
    operation_timeout: Duration,
    /// But for the version, which is agreed anew on each connection.
    encoder: Encoder,
    next_id: AtomicU64,
    task: OnceLock<AbortHandle>,
}

/// A batch that was taken in part only.
#[derive(Debug, thiserror::Error)]
#[error("{} frames were sent, the next was not taken: {cause}", receipts.len())]
pub struct SendBatchError {
    /// The receipts of the frames that were taken, in order.
    pub receipts: Vec<Receipt>,
    /// Why the next one was not.
    pub cause: SendError,
}

impl Shared {
    pub(super) fn new(
        counter: Arc<Counter>,
        state: watch::Receiver<State>,
        window_bytes: usize,
        options: &ConnectOptions,
    ) -> Self {
        Self {
            counter,
            state,
            window_bytes,
            operation_timeout: options.operation_timeout,
            encoder: Encoder::new(Version::V1_2)
                .with_escaped_connect(options.session.escape_connect)
                .with_content_length(options.session.content_length),
            next_id: AtomicU64::new(1),
            task: OnceLock::new(),
        }
    }
}

impl Client {
    /// A client to be described: brokers, options, whether it comes back.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects to one broker and shakes hands, with vhost, login and passcode of the URL. A lost connection is the
    /// client's end; [`Client::builder`] makes one that comes back.
    ///
    /// Must be called within a tokio runtime with time and IO; the connection lives in a task of its own. Cancel safe:
    /// dropping the future closes the socket.
    ///
    /// # Errors
    /// [`ConnectionError`]; bad credentials are a [`ConnectionError::ServerError`].
    pub async fn connect(url: &BrokerUrl, options: ConnectOptions) -> Result<Self, ConnectionError> {
        Self::builder().brokers([url.clone()]).options(options).connect().await
    }

    /// Shakes hands over a transport of the caller's. Otherwise as [`Client::connect`].
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn over<T>(transport: T, options: ConnectOptions) -> Result<Self, ConnectionError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::builder().options(options).connect_over(transport).await
    }

    /// Where the client stands, to be watched.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.clone()
    }

    /// What the server agreed to on the present connection; `None` while there is none.
    #[must_use]
    pub fn connected(&self) -> Option<Arc<Connected>> {
        match &*self.shared.state.borrow() {
            State::Connected { connected, .. } => Some(Arc::clone(connected)),
            _ => None,
        }
    }

    /// The version in force; `None` while there is no connection.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        Some(self.connected()?.version)
    }

    /// Queues a frame without a receipt; waits for a connection and for room in the window. Returns when it is queued,
    /// which says nothing of its fate. Cancel safe: queued or not at all.
    ///
    /// # Errors
    /// [`SendError`]. A frame that cannot be encoded is logged, as nobody can be told.
    pub async fn send(&self, frame: Frame) -> Result<(), SendError> {
        self.in_time(async {
            self.ready().await?;
            let room = self.room(frame.body().len()).await?;
            self.place().await?.send(Outgoing::plain(Payload::Frame(frame), room).into());
            Ok(())
        })
        .await
    }

    /// Queues a frame of any kind that asks for a RECEIPT; waits for a connection and for room in the window. Await the
    /// [`Receipt`] for the outcome; many can wait at once. Cancel safe: queued or not at all.
    ///
    /// # Errors
    /// [`SendError`]: the frame was not sent.
    pub async fn send_with_receipt(&self, frame: Frame) -> Result<Receipt, SendError> {
        let len = frame.body().len();
        self.in_time(self.receipted(Payload::Frame(frame), len, None)).await
    }

    /// Queues many frames, each with a receipt of its own; those that fit into the window together leave in one write.
    /// The operation timeout holds for each wait for room. Not cancel safe: some of the frames may have been queued.
    ///
    /// # Errors
    /// [`SendBatchError`] holds the receipts of the frames that were taken.
    pub async fn send_batch(
        &self,
        frames: impl IntoIterator<Item = Frame>,
    ) -> Result<Vec<Receipt>, SendBatchError> {
        let mut receipts = Vec::new();
        let mut ready = Vec::new();
        if let Err(cause) = self.in_time(self.ready()).await {
            return Err(SendBatchError { receipts, cause });
        }
        for frame in frames {
            let len = frame.body().len();
            let fits = len <= self.shared.window_bytes;
            let room = match fits.then(|| self.try_room(len)).flatten() {
                Some(room) => Ok(room),
                None => {
                    // What is ready must go first: its receipts make the room we are about to wait for.
                    if let Err(cause) = self.in_time(self.submit(std::mem::take(&mut ready))).await {
                        return Err(SendBatchError { receipts, cause });
                    }
                    self.in_time(self.room(len)).await
                }
            };
            match room {
                Ok(room) => {
                    let (token, receipt) = Token::with_receipt(room);
                    ready.push(Outgoing::receipted(Payload::Frame(frame), token));
                    receipts.push(receipt);
                }
                Err(cause) => {
                    // The frames made ready before it are still good.
                    return match self.in_time(self.submit(ready)).await {
                        Ok(()) | Err(_) => Err(SendBatchError { receipts, cause }),
                    };
                }
            }
        }
        match self.in_time(self.submit(ready)).await {
            Ok(()) => Ok(receipts),
            Err(cause) => Err(SendBatchError { receipts, cause }),
        }
    }

    /// Subscribes; returns when the server has receipted it. Cancel safe: a subscription that was begun is ended.
    ///
    /// # Errors
    /// [`Unconfirmed`].
    pub async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription, Unconfirmed> {
        let (subscription, receipt) = self
            .in_time(async {
                self.ready().await?;
                let room = self.room(0).await?;
                let place = self.place().await?;
                let id = self.next_id();
                let mailbox = Arc::new(Mailbox::new(&subscribe));
                let (token, receipt) = Token::for_subscription(room, Arc::clone(&mailbox));
                let subscription = Subscription {
                    client: self.clone(),
                    id,
                    ack: subscribe.ack,
                    mailbox: Arc::clone(&mailbox),
                    ended: false,
                };
                place.send(Command::Subscribe { id, subscribe, mailbox, token });
                Ok((subscription, receipt))
            })
            .await?;
        receipt.await?;
        Ok(subscription)
    }

    /// Begins a transaction; returns when the server has receipted it. Cancel safe: a transaction that was begun is
    /// aborted.
    ///
    /// # Errors
    /// [`Unconfirmed`].
    pub async fn begin(&self) -> Result<Transaction, Unconfirmed> {
        let (transaction, receipt) = self
            .in_time(async {
                let connection = self.ready().await?;
                let (token, receipt) = Token::with_receipt(self.room(0).await?);
                let place = self.place().await?;
                let id = self.next_id();
                let transaction = Transaction { client: self.clone(), id, connection, ended: false };
                place.send(Outgoing::receipted(Payload::Begin(id), token).only_on(connection).into());
                Ok((transaction, receipt))
            })
            .await?;
        receipt.await?;
        Ok(transaction)
    }

    /// Waits for every receipt that is pending, sends DISCONNECT, waits for its receipt and closes; all that within
    /// `deadline`. Frames sent by other handles meanwhile are refused. A connection that is lost meanwhile is not made anew.
    /// Cancel safe: the closing goes on.
    ///
    /// # Errors
    /// The connection ended otherwise. What was pending has been told.
    pub async fn close(self, deadline: Duration) -> Result<(), ConnectionError> {
        let mut state = self.state();
        // If the task is gone already, the state says why.
        let close = async {
            drop(self.commands.send(Command::Close { within: deadline }).await);
            state.wait_for(State::is_closed).await.map(|state| state.clone())
        };
        match timeout(deadline.saturating_add(GRACE), close).await {
            Ok(Ok(State::Closed { cause })) if !matches!(cause, ConnectionError::ClosedByUs) => Err(cause),
            Ok(_) => Ok(()),
            Err(_) => {
                self.abort();
                Err(SessionError::CloseTimeout(deadline).into())
            }
        }
    }

    /// Waits for the client's end and says why. Cancel safe.
    pub async fn ended(&self) -> ConnectionError {
        let mut state = self.state();
        match state.wait_for(State::is_closed).await.as_deref() {
            Ok(State::Closed { cause }) => cause.clone(),
            _ => ConnectionError::ClosedByUs,
        }
    }

    /// Closes the socket at once. Pending receipts resolve as lost; nothing more is written.
    pub fn abort(&self) {
        if let Some(task) = self.shared.task.get() {
            task.abort();
        }
    }

    pub(super) fn new(shared: Arc<Shared>, commands: mpsc::Sender<Command>) -> Self {
        Self { shared, commands }
    }

    pub(super) fn run(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task).abort_handle();
        // The builder calls it once.
        drop(self.shared.task.set(handle));
    }

    /// The encoder in force, for templates.
    pub(crate) fn encoder(&self) -> Encoder {
        self.shared.encoder.with_version(self.version().unwrap_or(Version::V1_2))
    }

    /// Room for one frame if there is some now. A frame longer than the window takes all of it.
    pub(crate) fn try_room(&self, len: usize) -> Option<Room> {
        let permits = len.min(self.shared.window_bytes) as u32;
        let frames = Arc::clone(&self.shared.counter.frames).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.shared.counter.bytes).try_acquire_many_owned(permits).ok()?;
        Some(Room { _frames: frames, _bytes: bytes })
    }

    /// Hands frames over that have their room already.
    pub(crate) async fn submit(&self, frames: Vec<Outgoing>) -> Result<(), SendError> {
        if !frames.is_empty() {
            self.place().await?.send(Command::Frames(frames));
        }
        Ok(())
    }

    /// Bounds what comes before a frame is queued by the operation timeout.
    pub(super) async fn in_time<T>(
        &self,
        what: impl Future<Output = Result<T, SendError>>,
    ) -> Result<T, SendError> {
        let limit = self.shared.operation_timeout;
        timeout(limit, what).await.unwrap_or(Err(SendError::TimedOut(limit)))
    }

    /// Queues a frame without a receipt, if need be for one connection only.
    pub(super) async fn send_payload(&self, payload: Payload, only_on: Option<u64>) -> Result<(), SendError> {
        let room = self.room(0).await?;
        let place = self.place().await?;
        self.check(only_on)?;
        place.send(Outgoing::plain(payload, room).only_on(only_on).into());
        Ok(())
    }

    /// Queues a frame with a receipt, if need be for one connection only.
    pub(super) async fn receipted(
        &self,
        payload: Payload,
        len: usize,
        only_on: Option<u64>,
    ) -> Result<Receipt, SendError> {
        self.ready().await?;
        let (token, receipt) = Token::with_receipt(self.room(len).await?);
        let place = self.place().await?;
        self.check(only_on)?;
        place.send(Outgoing::receipted(payload, token).only_on(only_on).into());
        Ok(receipt)
    }

    pub(super) async fn room(&self, len: usize) -> Result<Room, SendError> {
        let window = self.shared.window_bytes;
        let permits = u32::try_from(len).ok().filter(|_| len <= window);
        let permits = permits.ok_or(SendError::TooLarge { len, window })?;
        let Counter { frames, bytes, .. } = &*self.shared.counter;
        let frames = Arc::clone(frames).acquire_owned().await.map_err(|_| self.closed())?;
        let bytes = Arc::clone(bytes).acquire_many_owned(permits).await.map_err(|_| self.closed())?;
        Ok(Room { _frames: frames, _bytes: bytes })
    }

    /// A place among the commands.
    pub(super) async fn place(&self) -> Result<mpsc::Permit<'_, Command>, SendError> {
        self.commands.reserve().await.map_err(|_| self.closed())
    }

    /// The version of the connection with this number, if it is the present one.
    pub(super) fn version_of(&self, connection: u64) -> Result<Version, SendError> {
        match &*self.shared.state.borrow() {
            State::Connected { number, connected } if *number == connection => Ok(connected.version),
            State::Closed { cause } => Err(SendError::Closed(cause.clone())),
            _ => Err(SendError::Stale),
        }
    }

    /// Has the task look for due acknowledgements.
    pub(super) fn wake_task(&self) {
        self.shared.counter.wake();
    }

    /// For what is dropped: said as soon as the task comes to it.
    pub(super) fn leave_behind(&self, payload: Payload, only_on: Option<u64>) {
        self.shared.counter.leave_behind(Outgoing::left_behind(payload).only_on(only_on));
    }

    /// Waits until there is a connection; its number.
    async fn ready(&self) -> Result<u64, SendError> {
        if let State::Connected { number, .. } = &*self.shared.state.borrow() {
            return Ok(*number);
        }
        let mut state = self.state();
        let ready = state.wait_for(|state| state.is_connected() || state.is_closed()).await;
        match ready.as_deref() {
            Ok(State::Connected { number, .. }) => Ok(*number),
            Ok(State::Closed { cause }) => Err(SendError::Closed(cause.clone())),
            _ => Err(SendError::Closed(ConnectionError::ClosedByUs)),
        }
    }

    /// Whether a frame for that connection can still be sent.
    pub(super) fn check(&self, only_on: Option<u64>) -> Result<(), SendError> {
        only_on.map_or(Ok(()), |connection| self.version_of(connection).map(drop))
    }

    fn next_id(&self) -> u64 {
        self.shared.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn closed(&self) -> SendError {
        match &*self.shared.state.borrow() {
            State::Closed { cause } => SendError::Closed(cause.clone()),
            _ => SendError::Closed(ConnectionError::ClosedByUs),
        }
    }
}

/// What closing may take beyond its deadline, to tell everybody and to close the socket.
const GRACE: Duration = Duration::from_millis(500);
