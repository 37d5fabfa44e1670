//! Workers, requests and answers, the same for every sink.

use std::{
    convert::Infallible,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{Arc, mpsc::SyncSender},
    thread,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{CACHE_CONTROL, CONTENT_TYPE, EXPIRES, HeaderValue, PRAGMA, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use stompwire::client::BrokerUrl;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::{Builder, LocalOptions},
    task::spawn_local,
};

use super::{
    args::{ServerArgs, SinkKind},
    counts::{Counts, tell},
    direct::{Direct, Recipe},
    line::line,
    redis::{List, Push},
    ring::Ring,
    slots::Slots,
};
use crate::{
    Error,
    cores::{Core, bind_thread},
};

const BACKLOG: u32 = 4096;
const MOST_BODY: usize = 64 * 1024;

#[rustfmt::skip]
static GIF: [u8; 43] = [
    b'G', b'I', b'F', b'8', b'9', b'a', 1, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF,
    0x21, 0xF9, 4, 1, 0, 0, 0, 0, 0x2C, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x44, 1, 0, 0x3B,
];

/// Where a worker's lines go.
#[derive(Debug)]
enum Sink {
    Direct(Slots<Direct>, bool),
    Redis(Slots<Push>),
    Ring(Ring),
}

/// What a worker's connections share.
#[derive(Debug)]
struct Worker {
    sink: Sink,
    counts: Arc<Counts>,
}

/// Starts the workers and serves for good.
pub(super) fn run(args: &ServerArgs) -> Result<(), Error> {
    let counts = Arc::new(Counts::default());
    let sinks = sinks(args, &counts)?;
    let first = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = first.local_addr().map_err(Error::io("listener"))?;
    let (report, ready) = std::sync::mpsc::sync_channel(args.workers);
    let mut first = Some(first);
    for (number, sink) in sinks.into_iter().enumerate() {
        let socket = first.take().map_or_else(|| bound(address), Ok)?;
        let (counts, report) = (counts.clone(), report.clone());
        let core = args.pin.then_some(Core::FromLast(number));
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || work(core, socket, sink, counts, &report))
            .map_err(Error::io("thread of a worker"))?;
    }
    for _ in 0..args.workers {
        let started = ready.recv().unwrap_or_else(|_| Err(std::io::Error::other("a worker has ended")));
        started.map_err(Error::io("a worker"))?;
    }
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::io("runtime"))?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(Error::io("listener for the counts"))?;
        let counts_at = listener.local_addr().map_err(Error::io("listener for the counts"))?;
        println!("listening http={address} counts={counts_at}");
        std::io::stdout().flush().map_err(Error::io("standard output"))?;
        tell(listener, counts).await;
        Ok(())
    })
}

/// How the sink of a worker is made, in the worker's own thread.
type MakeSink = Box<dyn FnOnce() -> Sink + Send>;

fn sinks(args: &ServerArgs, counts: &Arc<Counts>) -> Result<Vec<MakeSink>, Error> {
    let url = || {
        args.stomp
            .parse::<BrokerUrl>()
            .map_err(|error| Error::Argument(format!("--stomp {}: {error}", args.stomp)))
    };
    let pool = args.pool.max(1);
    let ring = match args.sink {
        SinkKind::Ring => Some(Ring::start(args, url()?, counts.clone())?),
        _ => None,
    };
    (0..args.workers)
        .map(|_| -> Result<MakeSink, Error> {
            Ok(match (args.sink, &ring) {
                (SinkKind::Redis, _) => {
                    let address = args
                        .redis
                        .ok_or_else(|| Error::Argument("--sink redis needs --redis ADDRESS".to_owned()))?;
                    let list = List { address, key: args.key.clone() };
                    Box::new(move || Sink::Redis(Slots::new(list, pool)))
                }
                (_, Some(ring)) => {
                    let ring = ring.clone();
                    Box::new(move || Sink::Ring(ring))
                }
                (kind, None) => {
                    let with_receipts = kind == SinkKind::Direct;
                    let recipe = Recipe { url: url()?, destination: args.destination.clone(), with_receipts };
                    Box::new(move || Sink::Direct(Slots::new(recipe, pool), with_receipts))
                }
            })
        })
        .collect()
}

fn bound(address: SocketAddr) -> Result<TcpSocket, Error> {
    let bind = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    bind().map_err(Error::io("listener"))
}

fn work(
    core: Option<Core>,
    socket: TcpSocket,
    sink: MakeSink,
    counts: Arc<Counts>,
    report: &SyncSender<std::io::Result<()>>,
) {
    if let Some(core) = core
        && let Err(error) = bind_thread(core)
    {
        return drop(report.send(Err(std::io::Error::other(error))));
    }
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return drop(report.send(Err(error))),
    };
    runtime.block_on(async move {
        let listener = match socket.listen(BACKLOG) {
            Ok(listener) => listener,
            Err(error) => return drop(report.send(Err(error))),
        };
        let worker = Rc::new(Worker { sink: sink(), counts });
        drop(report.send(Ok(())));
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    spawn_local(serve(stream, peer, worker.clone()));
                }
                // Out of file descriptors, or a connection that is gone: both pass.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    });
}

async fn serve(stream: TcpStream, peer: SocketAddr, worker: Rc<Worker>) {
    // A failure costs latency, not correctness.
    stream.set_nodelay(true).unwrap_or_default();
    let ip: Rc<str> = peer.ip().to_string().into();
    let service = service_fn(move |request| answer(request, worker.clone(), ip.clone()));
    // A connection that breaks concerns its client alone.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(
    request: Request<Incoming>,
    worker: Rc<Worker>,
    ip: Rc<str>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let octets = if body.is_end_stream() {
        Bytes::new()
    } else {
        match Limited::new(body, MOST_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Ok(refusal(StatusCode::PAYLOAD_TOO_LARGE)),
        }
    };
    let line = line(&parts, &ip, &octets);
    Ok(if worker.put(line).await { pixel() } else { refusal(StatusCode::SERVICE_UNAVAILABLE) })
}

impl Worker {
    /// Whether the line is where this design promises it to be when it answers.
    async fn put(&self, line: Bytes) -> bool {
        let done = match &self.sink {
            Sink::Ring(ring) => return ring.put(line, &self.counts).await,
            Sink::Direct(slots, _) => slots.put(line).await.is_ok(),
            Sink::Redis(slots) => slots.put(line).await.is_ok(),
        };
        if done {
            self.counts.accept(1);
            if matches!(self.sink, Sink::Direct(_, true)) {
                self.counts.confirm(1);
            }
        }
        done
    }
}

/// The same octets as beacon-edge's answer.
fn pixel() -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(&GIF)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache, private, max-age=0"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(EXPIRES, HeaderValue::from_static("0"));
    answer
}

fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}
