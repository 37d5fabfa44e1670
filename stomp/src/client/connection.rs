use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, mpsc, watch},
    task::AbortHandle,
};

use super::{
    BrokerUrl, ConnectOptions, ConnectionError, Receipt, SendError, Subscribe, Subscription, Unconfirmed,
    driver::{Command, Driver, Outgoing, Payload},
    receipt::{Room, Token},
    transport,
};
use crate::proto::{Connected, Encoder, Frame, Version};

/// Commands that may wait for the connection's task. Sending is bounded by the window long before this.
const COMMANDS: usize = 64;

/// A handle to one connection. Cheap to clone; when the last one is dropped the connection drains and closes.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
struct Shared {
    frames: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    window_bytes: usize,
    connected: Connected,
    encoder: Encoder,
    next_subscription: AtomicU64,
    ended: watch::Receiver<Option<ConnectionError>>,
    task: AbortHandle,
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

impl Client {
    /// Connects over the transport that the URL names and shakes hands, with vhost, login and passcode of the URL.
    ///
    /// Must be called within a tokio runtime with time and IO; the connection lives in a task of its own. Cancel safe:
    /// dropping the future closes the socket.
    ///
    /// # Errors
    /// [`ConnectionError`]; bad credentials are a [`ConnectionError::ServerError`].
    pub async fn connect(url: &BrokerUrl, options: ConnectOptions) -> Result<Self, ConnectionError> {
        let transport = transport::open(url, &options).await?;
        Self::over(transport, options.for_url(url)).await
    }

    /// Shakes hands over a transport of the caller's. Otherwise as [`Client::connect`].
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn over<T>(transport: T, options: ConnectOptions) -> Result<Self, ConnectionError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let window_frames = options.window.frames.clamp(1, Semaphore::MAX_PERMITS);
        let window_bytes = options.window.bytes.clamp(1, u32::MAX as usize);
        let frames = Arc::new(Semaphore::new(window_frames));
        let bytes = Arc::new(Semaphore::new(window_bytes));
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (ended_sender, ended) = watch::channel(None);
        let windows = [Arc::clone(&frames), Arc::clone(&bytes)];
        let mut driver = Driver::new(transport, options.session, receiver, windows, ended_sender)?;
        let connected = driver.handshake().await?;
        let encoder = driver.encoder();
        let task = tokio::spawn(driver.run()).abort_handle();
        let next_subscription = AtomicU64::new(1);
        let shared =
            Shared { frames, bytes, window_bytes, connected, encoder, next_subscription, ended, task };
        Ok(Self { shared: Arc::new(shared), commands })
    }

    /// What the server agreed to.
    #[must_use]
    pub fn connected(&self) -> &Connected {
        &self.shared.connected
    }

    /// The version in force.
    #[must_use]
    pub fn version(&self) -> Version {
        self.shared.connected.version
    }

    /// Queues a frame without a receipt; waits for room in the window's octets. Returns when it is queued, which says
    /// nothing of its fate. Cancel safe: queued or not at all.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, frame: Frame) -> Result<(), SendError> {
        let room = self.room(frame.body().len()).await?;
        self.command(Command::Frames(vec![Outgoing::plain(frame, room)])).await
    }

    /// Queues a frame that asks for a RECEIPT; waits for room in the window. Await the [`Receipt`] for the outcome;
    /// many can wait at once. Cancel safe: queued or not at all.
    ///
    /// # Errors
    /// [`SendError`]: the frame was not sent.
    pub async fn send_with_receipt(&self, frame: Frame) -> Result<Receipt, SendError> {
        let (token, receipt) = Token::with_receipt(self.room(frame.body().len()).await?);
        self.command(Command::Frames(vec![Outgoing::receipted(Payload::Frame(frame), token)])).await?;
        Ok(receipt)
    }

    /// Queues many frames, each with a receipt of its own; those that fit into the window together leave in one write.
    /// Not cancel safe: some of the frames may have been queued.
    ///
    /// # Errors
    /// [`SendBatchError`] holds the receipts of the frames that were taken.
    pub async fn send_batch(
        &self,
        frames: impl IntoIterator<Item = Frame>,
    ) -> Result<Vec<Receipt>, SendBatchError> {
        let mut receipts = Vec::new();
        let mut ready = Vec::new();
        for frame in frames {
            let len = frame.body().len();
            let fits = len <= self.shared.window_bytes;
            let room = match fits.then(|| self.try_room(len)).flatten() {
                Some(room) => Ok(room),
                None => {
                    // What is ready must go first: its receipts make the room we are about to wait for.
                    if let Err(cause) = self.command(Command::Frames(std::mem::take(&mut ready))).await {
                        return Err(SendBatchError { receipts, cause });
                    }
                    self.room(len).await
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
                    return match self.command(Command::Frames(ready)).await {
                        Ok(()) | Err(_) => Err(SendBatchError { receipts, cause }),
                    };
                }
            }
        }
        match self.command(Command::Frames(ready)).await {
            Ok(()) => Ok(receipts),
            Err(cause) => Err(SendBatchError { receipts, cause }),
        }
    }

    /// Subscribes; returns when the server has receipted it. Not cancel safe: the subscription may exist afterwards, and
    /// its messages are then thrown away until the connection ends.
    ///
    /// # Errors
    /// [`Unconfirmed`].
    pub async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription, Unconfirmed> {
        let not_sent = |error| match error {
            SendError::Closed(cause) => Unconfirmed::NotSent(cause),
            SendError::TooLarge { .. } => Unconfirmed::NotSent(ConnectionError::ClosedByUs),
        };
        let id = self.shared.next_subscription.fetch_add(1, Ordering::Relaxed).to_string();
        let (sender, messages) = mpsc::channel(subscribe.prefetch.into());
        let (token, receipt) = Token::with_receipt(self.room(0).await.map_err(not_sent)?);
        let frame = subscribe.frame(&id);
        let command = Command::Subscribe {
            id: id.clone(),
            destination: subscribe.destination,
            frame,
            token,
            messages: sender,
        };
        self.command(command).await.map_err(not_sent)?;
        receipt.await?;
        Ok(Subscription { client: self.clone(), id, messages })
    }

    /// Waits for every receipt that is pending, sends DISCONNECT, waits for its receipt (or for the server to hang up on
    /// it) and closes; all that within `deadline`. Frames sent by other handles meanwhile are refused. Cancel safe: the
    /// closing goes on.
    ///
    /// # Errors
    /// The connection ended otherwise. What was pending has been told.
    pub async fn close(self, deadline: Duration) -> Result<(), ConnectionError> {
        let mut ended = self.shared.ended.clone();
        // If the task is gone already, `ended` says why.
        drop(self.commands.send(Command::Close { within: deadline }).await);
        drop(self);
        let end = match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(ConnectionError::ClosedByUs),
            Err(_) => ConnectionError::ClosedByUs,
        };
        match end {
            ConnectionError::ClosedByUs => Ok(()),
            other => Err(other),
        }
    }

    /// Waits for the connection's end and says why. Cancel safe.
    pub async fn ended(&self) -> ConnectionError {
        let mut ended = self.shared.ended.clone();
        let cause = match ended.wait_for(Option::is_some).await {
            Ok(cause) => cause.clone(),
            Err(_) => None,
        };
        cause.unwrap_or(ConnectionError::ClosedByUs)
    }

    /// The encoder in force, for templates.
    pub(crate) fn encoder(&self) -> &Encoder {
        &self.shared.encoder
    }

    /// Closes the socket at once. Pending receipts resolve as lost; nothing more is written.
    pub fn abort(&self) {
        self.shared.task.abort();
    }

    /// Room for one frame if there is some now. A frame longer than the window takes all of it.
    pub(crate) fn try_room(&self, len: usize) -> Option<Room> {
        let permits = len.min(self.shared.window_bytes) as u32;
        let frames = Arc::clone(&self.shared.frames).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.shared.bytes).try_acquire_many_owned(permits).ok()?;
        Some(Room { _frames: frames, _bytes: bytes })
    }

    /// Hands frames over that have their room already.
    pub(crate) async fn submit(&self, frames: Vec<Outgoing>) -> Result<(), SendError> {
        self.command(Command::Frames(frames)).await
    }

    async fn room(&self, len: usize) -> Result<Room, SendError> {
        let window = self.shared.window_bytes;
        let permits = u32::try_from(len).ok().filter(|_| len <= window);
        let permits = permits.ok_or(SendError::TooLarge { len, window })?;
        let frames = Arc::clone(&self.shared.frames).acquire_owned().await.map_err(|_| self.closed())?;
        let bytes =
            Arc::clone(&self.shared.bytes).acquire_many_owned(permits).await.map_err(|_| self.closed())?;
        Ok(Room { _frames: frames, _bytes: bytes })
    }

    async fn command(&self, command: Command) -> Result<(), SendError> {
        if matches!(&command, Command::Frames(frames) if frames.is_empty()) {
            return Ok(());
        }
        self.commands.send(command).await.map_err(|_| self.closed())
    }

    fn closed(&self) -> SendError {
        SendError::Closed(self.shared.ended.borrow().clone().unwrap_or(ConnectionError::ClosedByUs))
    }
}

impl Outgoing {
    fn plain(frame: Frame, room: Room) -> Self {
        Self { payload: Payload::Frame(frame), claim: super::driver::Claim::Room(room) }
    }

    pub(crate) const fn receipted(payload: Payload, token: Token) -> Self {
        Self { payload, claim: super::driver::Claim::Token(token) }
    }
}
