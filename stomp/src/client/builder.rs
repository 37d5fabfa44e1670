use std::{future::Future, io, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
};

use super::{
    BrokerUrl, Client, ConnectOptions, ConnectionError, Credentials, Reconnect, State, UrlError, Window,
    connector::{Brokers, Connector, Given, Made, introduce},
    desk::{Desk, Times},
    handle::{COMMANDS, Shared},
    options::CredentialsSource,
    supervisor::Supervisor,
};
use crate::proto::{HeartBeat, Version};

/// How a [`Client`] is to connect. Made by [`Client::builder`].
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use stompwire::client::{Client, Reconnect};
///
/// let client = Client::builder()
///     .broker("stomp://guest:guest@127.0.0.1:61613/")?
///     .reconnect(Reconnect::default().with_max_attempts(20))
///     .connect()
///     .await?;
/// # drop(client); Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until it connects"]
pub struct ClientBuilder {
    urls: Vec<BrokerUrl>,
    options: ConnectOptions,
    reconnect: Option<Reconnect>,
    credentials: Option<CredentialsSource>,
}

impl ClientBuilder {
    /// Adds a broker, or several as [`BrokerUrl::parse_list`] reads them: `stomp://user:password@one,two/vhost`. They are
    /// tried in turns, in this order.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn broker(self, urls: &str) -> Result<Self, UrlError> {
        Ok(self.brokers(BrokerUrl::parse_list(urls)?))
    }

    /// Adds brokers.
    pub fn brokers(mut self, urls: impl IntoIterator<Item = BrokerUrl>) -> Self {
        self.urls.extend(urls);
        self
    }

    /// All options at once; what is set by other methods later is changed in them.
    pub fn options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// What to offer in `heart-beat`.
    pub const fn heart_beat(mut self, heart_beat: HeartBeat) -> Self {
        self.options.session.heart_beat = heart_beat;
        self
    }

    /// How much may be sent and not yet receipted.
    pub const fn window(mut self, window: Window) -> Self {
        self.options.window = window;
        self
    }

    /// The versions to offer.
    pub fn versions(mut self, versions: impl IntoIterator<Item = Version>) -> Self {
        self.options.session.versions = versions.into_iter().collect();
        self
    }

    /// Come back after a lost connection: subscriptions are made anew, pending receipts resolve as
    /// [`Unconfirmed::ConnectionLost`](super::Unconfirmed::ConnectionLost), and sending again is the caller's choice (a
    /// [`Publisher`](crate::publisher::Publisher) makes it). Default: a lost connection is the client's end.
    pub const fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = Some(reconnect);
        self
    }

    /// Asks for login and passcode before every connection, for tokens that expire. They take the place of the URL's.
    /// An error is counted as a failed attempt; the session's connect timeout bounds the wait.
    pub fn credentials<F, R, E>(mut self, source: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.credentials = Some(CredentialsSource::new(source));
        self
    }

    /// Connects and shakes hands; with several brokers, to the first that lets us. Not even with
    /// [`ClientBuilder::reconnect`] is any of them tried twice: the caller is told what is wrong.
    ///
    /// Must be called within a tokio runtime with time and IO; the connection lives in a task of its own. Cancel safe:
    /// dropping the future closes the socket.
    ///
    /// # Errors
    /// [`ConnectionError`] of the last broker; bad credentials are a [`ConnectionError::ServerError`].
    pub async fn connect(self) -> Result<Client, ConnectionError> {
        let Parts { connector, options, reconnect } = self.into_parts()?;
        connect(connector, &options, reconnect).await
    }

    /// Returns a client at once and has it connect, and reconnect, in its own time (with the default [`Reconnect`] unless
    /// another was chosen). Sending waits for the connection, at most for the operation timeout.
    ///
    /// # Errors
    /// Only without a broker. What goes wrong later is seen in [`Client::state`].
    ///
    /// # Panics
    /// Outside a tokio runtime with time and IO.
    pub fn start(self) -> Result<Client, ConnectionError> {
        let Parts { connector, options, reconnect } = self.into_parts()?;
        let (mut client, supervisor) = prepare(connector, &options, Some(reconnect.unwrap_or_default()));
        client.run(supervisor.run(None));
        Ok(client)
    }

    /// Shakes hands over a transport of the caller's: a TLS stream of another library, a pipe, one end of
    /// `tokio::io::duplex`. There is no second one: a lost connection is the client's end. Otherwise as
    /// [`ClientBuilder::connect`].
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn connect_over<T>(self, transport: T) -> Result<Client, ConnectionError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut session = self.options.session.clone();
        introduce(&mut session, self.credentials.as_ref()).await?;
        connect(Given { transport: Some(transport), options: session }, &self.options, None).await
    }

    /// Like [`ClientBuilder::connect`], over transports that `make` makes, one for each connection, within the TCP
    /// timeout.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn connect_with<F, R, T>(self, make: F) -> Result<Client, ConnectionError>
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = io::Result<T>> + Send,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connector = Made { make, options: self.options.clone(), credentials: self.credentials };
        connect(connector, &self.options, self.reconnect).await
    }

    fn into_parts(self) -> Result<Parts, ConnectionError> {
        let Self { urls, options, reconnect, credentials } = self;
        if urls.is_empty() {
            let none = io::Error::new(io::ErrorKind::InvalidInput, "no broker was given");
            return Err(none.into());
        }
        let connector = Brokers { urls, options: options.clone(), credentials, next: 0, hangs_up: false };
        Ok(Parts { connector, options, reconnect })
    }
}

struct Parts {
    connector: Brokers,
    options: ConnectOptions,
    reconnect: Option<Reconnect>,
}

async fn connect<C: Connector>(
    connector: C,
    options: &ConnectOptions,
    reconnect: Option<Reconnect>,
) -> Result<Client, ConnectionError> {
    let (mut client, mut supervisor) = prepare(connector, options, reconnect);
    let first = supervisor.first().await?;
    client.run(supervisor.run(Some(first)));
    Ok(client)
}

fn prepare<C: Connector>(
    connector: C,
    options: &ConnectOptions,
    reconnect: Option<Reconnect>,
) -> (Client, Supervisor<C>) {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let (state, watch) = watch::channel(State::Connecting);
    let times = Times {
        close_timeout: options.session.close_timeout,
        receipt_timeout: options.session.receipt_timeout,
    };
    let windows = options.window.clamped();
    let (desk, counter) = Desk::new(windows, commands, state, times);
    let shared = Shared::new(counter, watch, windows.1, options);
    (Client::new(Arc::new(shared), sender), Supervisor::new(connector, desk, reconnect))
}
