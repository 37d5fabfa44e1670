use std::{future::Future, io};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{BrokerUrl, ConnectOptions, ConnectionError, link::Link, options::CredentialsSource, transport};
use crate::proto::{ClientOptions, Connected};

/// A transport to a broker.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

/// Makes connections, one attempt a call.
pub(super) trait Connector: Send + 'static {
    type Transport: Transport;

    /// A transport and how to introduce ourselves over it.
    fn open(
        &mut self,
    ) -> impl Future<Output = Result<(Self::Transport, ClientOptions), ConnectionError>> + Send;

    /// How many hosts take turns: after so many attempts every one has been tried.
    fn hosts(&self) -> usize {
        1
    }

    /// Whether the server may answer DISCONNECT by closing the transport opened last.
    fn hangs_up(&self) -> bool {
        false
    }

    /// The whole attempt, handshake included. Cancel safe: dropping the future closes the transport.
    fn connect(
        &mut self,
    ) -> impl Future<Output = Result<(Link<Self::Transport>, Connected), ConnectionError>> + Send {
        async {
            let (transport, options) = self.open().await?;
            let (mut link, connected) = Link::establish(transport, options).await?;
            link.hangs_up = self.hangs_up();
            Ok((link, connected))
        }
    }
}

/// The brokers of a list, in turns.
#[derive(Debug)]
pub(super) struct Brokers {
    pub(super) urls: Vec<BrokerUrl>,
    pub(super) options: ConnectOptions,
    pub(super) credentials: Option<CredentialsSource>,
    pub(super) next: usize,
    /// Of the transport opened last.
    pub(super) hangs_up: bool,
}

impl Connector for Brokers {
    type Transport = transport::Transport;

    async fn open(&mut self) -> Result<(transport::Transport, ClientOptions), ConnectionError> {
        let url = &self.urls[self.next % self.urls.len()];
        self.next = self.next.wrapping_add(1);
        let mut options = self.options.clone().for_url(url).session;
        introduce(&mut options, self.credentials.as_ref()).await?;
        let transport = transport::open(url, &self.options).await?;
        self.hangs_up = transport.hangs_up();
        Ok((transport, options))
    }

    fn hangs_up(&self) -> bool {
        self.hangs_up
    }

    fn hosts(&self) -> usize {
        self.urls.len()
    }
}

/// A transport of the caller's. It cannot be had twice.
#[derive(Debug)]
pub(super) struct Given<T> {
    pub(super) transport: Option<T>,
    pub(super) options: ClientOptions,
}

impl<T: Transport> Connector for Given<T> {
    type Transport = T;

    async fn open(&mut self) -> Result<(T, ClientOptions), ConnectionError> {
        let transport = self.transport.take().ok_or(ConnectionError::ClosedByServer)?;
        Ok((transport, self.options.clone()))
    }
}

/// Transports that the caller's function makes.
#[derive(Debug)]
pub(super) struct Made<F> {
    pub(super) make: F,
    pub(super) options: ConnectOptions,
    pub(super) credentials: Option<CredentialsSource>,
}

impl<F, R, T> Connector for Made<F>
where
    F: FnMut() -> R + Send + 'static,
    R: Future<Output = io::Result<T>> + Send,
    T: Transport,
{
    type Transport = T;

    async fn open(&mut self) -> Result<(T, ClientOptions), ConnectionError> {
        let mut options = self.options.session.clone();
        introduce(&mut options, self.credentials.as_ref()).await?;
        let limit = self.options.tcp_timeout;
        let made = timeout(limit, (self.make)()).await;
        Ok((made.map_err(|_| ConnectionError::ConnectTimeout(limit))??, options))
    }
}

/// Asks for login and passcode, within the connect timeout.
pub(super) async fn introduce(
    options: &mut ClientOptions,
    credentials: Option<&CredentialsSource>,
) -> Result<(), ConnectionError> {
    let Some(source) = credentials else { return Ok(()) };
    let limit = options.connect_timeout;
    let too_late =
        || ConnectionError::Credentials(format!("the callback took longer than {limit:?}").into_arc());
    let asked = timeout(limit, source.ask()).await.map_err(|_| too_late())?;
    asked.map_err(|error| ConnectionError::Credentials(error.into()))?.apply(options);
    Ok(())
}

trait IntoArc {
    fn into_arc(self) -> std::sync::Arc<dyn std::error::Error + Send + Sync>;
}

impl IntoArc for String {
    fn into_arc(self) -> std::sync::Arc<dyn std::error::Error + Send + Sync> {
        let boxed: Box<dyn std::error::Error + Send + Sync> = self.into();
        boxed.into()
    }
}
