//! A proxy that speaks TLS, an in-memory broker, and a server that publishes to it.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
};

use stompwire::broker::Broker;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

/// Something that runs in a thread of its own until it is dropped.
struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Background {
    /// Runs what `start` makes once it has said its value.
    fn start<T, F>(start: impl FnOnce() -> F + Send + 'static) -> (Self, T)
    where
        T: Send + 'static,
        F: Future<Output = (T, std::pin::Pin<Box<dyn Future<Output = ()>>>)>,
    {
        let (stop, stopped) = oneshot::channel();
        let (say, said) = mpsc::channel();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (value, work) = start().await;
                say.send(value).unwrap();
                tokio::select! {
                    () = work => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("background".to_owned()).spawn(serve).unwrap();
        let value = said.recv().unwrap();
        (Self { stop: Some(stop), thread: Some(thread) }, value)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// An in-memory broker.
pub(crate) struct InMemory {
    pub(crate) url: String,
    _background: Background,
}

pub(crate) fn broker() -> InMemory {
    let (background, url) = Background::start(|| async {
        let broker = Broker::builder().start().await.unwrap();
        let url = broker.url();
        let forever: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
            let _broker = broker;
            std::future::pending::<()>().await;
        });
        (url, forever)
    });
    InMemory { url, _background: background }
}

/// A server that publishes what it takes, in packs; killed at the end.
pub(crate) struct Front {
    child: Child,
    pub(crate) address: String,
}

impl Front {
    pub(crate) fn start(broker: &str) -> Self {
        let arguments =
            "model-server --sink ring --window 64 --answer-at-once --pack 50 --destination /queue/beacons";
        let mut child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(arguments.split(' '))
            .args(["--stomp", broker])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("http=")).unwrap().to_owned();
        Self { child, address }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A TLS proxy with a certificate for `localhost` from an authority of its own.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    folder: TempDir,
    _background: Background,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("authority.pem"), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (background, address) = Background::start(move || async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let accept: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        // A client that does not trust us ends here.
                        let Ok(mut inside) = acceptor.accept(stream).await else { return };
                        let mut outside = TcpStream::connect(server).await.unwrap();
                        drop(copy_bidirectional(&mut inside, &mut outside).await);
                    });
                }
            });
            (address, accept)
        });
        Self { address, folder, _background: background }
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }
}
