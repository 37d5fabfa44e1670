use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use stompwire::broker::BrokerHandle;
use tokio::{
    sync::{Semaphore, oneshot},
    task::LocalSet,
    time::{sleep, timeout},
};

use super::{page::Page, reasons_against};
use crate::metrics::{self, DestinationReading, Metrics, Observed};

/// Scrapers and people: a few are enough, and a leak of them must not take the process's descriptors.
const MAX_CONNECTIONS: usize = 64;
/// A whole connection, since every answer closes it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure to accept, such as no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Beacons shown on the page.
const LATEST: usize = 10;

/// What the admin listener can see.
#[derive(Debug)]
pub struct View {
    /// The destinations.
    pub destinations: Vec<Observed>,
    /// Everything for `/metrics`.
    pub metrics: Metrics,
    /// The embedded broker, if there is one.
    pub embedded: Option<BrokerHandle>,
    /// The URL of a route, for the page.
    pub pixel: String,
    /// Set when the edge is going down.
    pub draining: Arc<AtomicBool>,
    /// When the edge was started.
    pub started: Instant,
}

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
#[error("admin.listen: cannot listen on {address}: {cause}")]
pub struct AdminError {
    address: SocketAddr,
    cause: std::io::Error,
}

/// The running listener.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Admin {
    /// Listens on `address` in a thread of its own.
    ///
    /// # Errors
    /// The address cannot be used, or the system has no thread left.
    pub fn start(address: SocketAddr, view: View) -> Result<Self, AdminError> {
        let error = |cause| AdminError { address, cause };
        let listener = TcpListener::bind(address).map_err(error)?;
        listener.set_nonblocking(true).map_err(error)?;
        let bound = listener.local_addr().map_err(error)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(error)?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            let view = Arc::new(view);
            LocalSet::new().block_on(&runtime, async move {
                tokio::select! {
                    () = accept(listener, view) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("admin".into()).spawn(serve).map_err(error)?;
        Ok(Self { address: bound, stop, thread })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops at once.
    pub fn stop(self) {
        // The thread may have ended by itself.
        self.stop.send(()).unwrap_or_default();
        if self.thread.join().is_err() {
            tracing::error!("the admin thread panicked; this is a defect in beacon-edge, please report it");
        }
    }
}

async fn accept(listener: TcpListener, view: Arc<View>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin listener could not be served");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let view = Arc::clone(&view);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let response = view.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A scraper that goes away is its own business.
            drop(timeout(CONNECTION_TIMEOUT, connection).await);
            drop(place);
        });
    }
}

impl View {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "alive\n".to_owned()),
            "/readyz" => {
                let reasons = self.reasons(&self.read());
                if reasons.is_empty() {
                    text(StatusCode::OK, "ready\n".to_owned())
                } else {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", reasons.join("\n")))
                }
            }
            "/metrics" => match self.metrics.render() {
                Ok(metrics) => answer(StatusCode::OK, metrics::CONTENT_TYPE, metrics),
                Err(_) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be encoded\n".to_owned())
                }
            },
            "/" => {
                let read = self.read();
                let latest = self.latest();
                let page = Page {
                    reasons: &self.reasons(&read),
                    destinations: &read,
                    pixel: &self.pixel,
                    latest: latest.as_deref(),
                    uptime_seconds: self.started.elapsed().as_secs(),
                };
                answer(StatusCode::OK, "text/html; charset=utf-8", page.render())
            }
            _ => text(StatusCode::NOT_FOUND, "here are /, /healthz, /readyz and /metrics\n".to_owned()),
        }
    }

    fn read(&self) -> Vec<(&str, DestinationReading)> {
        self.destinations.iter().map(|observed| (observed.name.as_str(), observed.read())).collect()
    }

    fn reasons(&self, read: &[(&str, DestinationReading)]) -> Vec<String> {
        reasons_against(read, self.draining.load(Ordering::Relaxed))
    }

    /// The newest lines at the embedded broker, newest first.
    fn latest(&self) -> Option<Vec<String>> {
        let broker = self.embedded.as_ref()?;
        let mut lines = Vec::new();
        for (queue, _) in broker.queues() {
            for message in broker.peek(&queue, LATEST).into_iter().rev() {
                let body = String::from_utf8_lossy(message.body());
                lines.extend(body.lines().rev().map(ToOwned::to_owned).take(LATEST));
            }
        }
        lines.truncate(LATEST);
        Some(lines)
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", body)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
