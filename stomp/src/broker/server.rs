use std::{
    fmt, io,
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{
    connection::{self, Connection},
    faults::{Admission, Faults},
    handle::BrokerHandle,
    hub::Hub,
    options::{BrokerBuilder, Options},
};

/// How long [`Broker::shutdown`] waits for connections to write what they have.
const SHUTDOWN: Duration = Duration::from_secs(3);
/// The pause after an accept that failed, and between tries to open the port again.
const AGAIN: Duration = Duration::from_millis(20);

/// A running broker. Dropping it ends it: the port and every connection are closed without further words.
///
/// Everything a [`BrokerHandle`] does, it does too.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use stompwire::broker::Broker;
///
/// let broker = Broker::builder().start().await?;
/// println!("STOMP at {}", broker.url());
/// broker.shutdown().await;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct Broker {
    handle: BrokerHandle,
    listener: JoinHandle<()>,
}

/// What the connections have in common.
pub(super) struct Shared {
    pub(super) address: SocketAddr,
    pub(super) options: Options,
    pub(super) faults: Faults,
    hub: Mutex<Hub>,
}

struct Listener {
    /// `None` while the port is closed on purpose.
    listener: Option<TcpListener>,
    connections: JoinSet<()>,
    shared: Arc<Shared>,
}

impl BrokerBuilder {
    /// Binds, and spawns the broker on the current tokio runtime, of any flavour.
    ///
    /// # Errors
    /// The port is taken; or the address is not loopback and [`BrokerBuilder::allow_remote`] was not called
    /// (`InvalidInput`).
    ///
    /// # Panics
    /// Outside a tokio runtime with input, output and time enabled.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it leaves nothing behind.
    pub async fn start(self) -> io::Result<Broker> {
        if !self.bind.ip().is_loopback() && !self.remote_allowed {
            let reason = format!("{} is not a loopback address; allow_remote() permits it", self.bind);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let listener = TcpListener::bind(self.bind).await?;
        let shared = Arc::new(Shared {
            address: listener.local_addr()?,
            hub: Mutex::new(Hub::new(self.options.bounds)),
            options: self.options,
            faults: Faults::new(),
        });
        crate::log::debug!(address = %shared.address, "the in-memory broker listens");
        let listener =
            Listener { listener: Some(listener), connections: JoinSet::new(), shared: Arc::clone(&shared) };
        Ok(Broker { handle: BrokerHandle::new(shared), listener: tokio::spawn(listener.run()) })
    }
}

impl Broker {
    /// A broker with the default options, to be changed.
    #[must_use]
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// A handle for others.
    #[must_use]
    pub fn handle(&self) -> BrokerHandle {
        self.handle.clone()
    }

    /// Ends the broker: frames are taken no more, what waits to be written is written, every connection and the port
    /// are closed. Takes 3 seconds at most; what is not done by then is cut off.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it cuts off what remains.
    pub async fn shutdown(mut self) {
        self.handle.faults().stop();
        match timeout(SHUTDOWN, &mut self.listener).await {
            Ok(Err(error)) if error.is_panic() => {
                crate::log::error!(%error, "the broker's listener panicked");
            }
            Ok(_) => {}
            Err(_) => crate::log::warn!("connections of the in-memory broker were cut off"),
        }
    }
}

impl Deref for Broker {
    type Target = BrokerHandle;

    fn deref(&self) -> &BrokerHandle {
        &self.handle
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The listener's task owns the connections' tasks: they end with it.
        self.listener.abort();
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("address", &self.handle.local_addr()).finish_non_exhaustive()
    }
}

impl Shared {
    /// A panic elsewhere while it was locked is no reason to stop serving: each change is made in one go.
    pub(super) fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    async fn run(mut self) {
        let mut control = self.shared.faults.watch();
        loop {
            let now = control.borrow_and_update().clone();
            if now.stopping {
                break;
            }
            self.open_or_close(now.admission).await;
            let reopening = self.listener.is_none() && now.admission != Admission::PortClosed;
            tokio::select! {
                changed = control.changed() => if changed.is_err() { break },
                accepted = accept(self.listener.as_ref()) => match accepted {
                    Ok((stream, address)) => self.admit(stream, address, control.borrow().admission),
                    Err(error) => {
                        crate::log::debug!(%error, "accept failed");
                        sleep(AGAIN).await;
                    }
                },
                Some(ended) = self.connections.join_next() => report(ended),
                () = sleep(AGAIN), if reopening => {}
            }
        }
        self.listener = None;
        while let Some(ended) = self.connections.join_next().await {
            report(ended);
        }
    }

    async fn open_or_close(&mut self, admission: Admission) {
        if admission == Admission::PortClosed {
            self.listener = None;
        } else if self.listener.is_none() {
            match TcpListener::bind(self.shared.address).await {
                Ok(listener) => self.listener = Some(listener),
                Err(error) => crate::log::debug!(%error, "the port cannot be opened again yet"),
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, address: SocketAddr, admission: Admission) {
        while let Some(ended) = self.connections.try_join_next() {
            report(ended);
        }
        if admission == Admission::Reset {
            // If the client is gone there is nothing to reset.
            stream.set_zero_linger().unwrap_or_default();
        } else if self.connections.len() >= self.shared.options.max_connections {
            crate::log::debug!(%address, "closed at once: as many connections as there may be");
        } else {
            // Without it small frames wait for the client's acknowledgements; if it fails they do.
            stream.set_nodelay(true).unwrap_or_default();
            // Made here: from now on it is among the connections that exist.
            let connection = Connection::new(address, Arc::clone(&self.shared));
            self.connections.spawn(connection::serve(connection, stream));
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        crate::log::error!(%error, "a connection of the in-memory broker failed");
    }
}
