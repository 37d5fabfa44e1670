//! One connection, from accept to close.
//!
//! While a connection is idle it is *parked*: a bare socket, about 1 KiB of memory in all. hyper's connection, with its two
//! buffers of 8 KiB, is built when the first octets of a request are there and kept until the connection has been
//! idle for [`WARM`], or less when there are more than [`MOST_WARM`]. So a busy client pays nothing for this and 10,000
//! idle ones cost no buffers.
//!
//! Every wait has a limit: for the head of a request, for an answer to leave, for the next request. (`service.rs`
//! limits the body.) One timer serves all of them; see [`Alarm`].

use std::future::{Future as _, poll_fn};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::{Error, StatusCode};
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::answer::HEAD_TOO_LATE;
use super::service::Front;
use super::wire::{Phase, Wire};
use super::worker::Place;

/// How long an idle connection keeps its buffers.
const WARM: Duration = Duration::from_secs(2);
/// How many connections of a worker may keep them: about 16 KiB each. Beyond that a connection is parked as soon as
/// it is idle, so that 10,000 clients who come at once do not leave 160 MiB of buffers in the allocator.
const MOST_WARM: usize = 512;
/// How long an idle connection may still bring a request at shutdown: one may be under way already, and closing
/// would reset it.
const GRACE: Duration = Duration::from_millis(50);
/// How long, and how many octets, to go on reading from a client that was answered before all it sent was read.
/// Closing at once would reset the connection, and the client might never see the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_OCTETS: usize = 16 * 1024 * 1024;

type Connection = http1::Connection<Wire, Front>;

/// Serves `socket` until either side has enough. Cancelling it closes the connection.
pub(super) async fn drive(mut socket: TcpStream, peer: IpAddr, place: Place) {
    let (worker, link) = (Rc::clone(&place.worker), Rc::clone(&place.link));
    let ip: Rc<str> = peer.to_canonical().to_string().into();
    let mut timer = pin!(sleep(Duration::ZERO));
    let mut patience = worker.shared.head_timeout;
    let mut head = Bytes::new();
    loop {
        if head.is_empty() {
            worker.registry.park(&link);
            worker.stats().parked.set(worker.registry.parked());
            let awoken = park(&socket, timer.as_mut(), patience, &place).await;
            worker.registry.unpark(&link);
            worker.stats().parked.set(worker.registry.parked());
            let Some(first) = awoken else { return };
            head = first;
        }
        // Boxed, so that a parked connection does not keep room for it.
        let front = Front::new(Rc::clone(&worker), Rc::clone(&link.progress), Rc::clone(&ip));
        match Box::pin(serve(socket, head, front, timer.as_mut(), &place)).await {
            End::Idle(_, rest) if rest.is_empty() && worker.is_stopping() => return,
            End::Idle(idle, rest) => (socket, head) = (idle, rest),
            End::Linger(socket) => return linger(socket).await,
            End::Closed => return,
        }
        patience = worker.shared.keep_alive_timeout;
    }
}

/// Waits for the first octets of a request. None when the connection is to be closed.
async fn park(
    socket: &TcpStream,
    mut timer: Pin<&mut Sleep>,
    patience: Duration,
    place: &Place,
) -> Option<Bytes> {
    let mut is_last_call = place.worker.is_stopping();
    timer.as_mut().reset(Instant::now() + if is_last_call { GRACE } else { patience });
    poll_fn(|cx| {
        place.link.watch(cx);
        while socket.poll_read_ready(cx).is_ready() {
            // On the stack, and large enough for most requests.
            let mut buf = [0; 2048];
            match socket.try_read(&mut buf) {
                Ok(0) => return Poll::Ready(None),
                Ok(n) => return Poll::Ready(Some(Bytes::copy_from_slice(&buf[..n]))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(None),
            }
        }
        if place.link.is_evicted() {
            return Poll::Ready(None);
        }
        if place.worker.is_stopping() && !is_last_call {
            is_last_call = true;
            timer.as_mut().reset(Instant::now() + GRACE);
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// How hyper's part of a connection ended.
enum End {
    /// It is idle. The octets were read already and belong to the next request.
    Idle(TcpStream, Bytes),
    /// It is answered and shut down; the client may still be sending.
    Linger(TcpStream),
    /// Nothing is left to do.
    Closed,
}

async fn serve(socket: TcpStream, head: Bytes, front: Front, timer: Pin<&mut Sleep>, place: &Place) -> End {
    let wire = Wire::new(socket, head, Rc::clone(&place.link.progress));
    let mut connection = place.worker.builder.serve_connection(wire, front);
    let mut alarm = Alarm { timer, armed: None };
    place.worker.warm.set(place.worker.warm.get() + 1);
    let outcome = poll_fn(|cx| poll(&mut connection, &mut alarm, place, cx)).await;
    place.worker.warm.set(place.worker.warm.get() - 1);

    let stats = place.worker.stats();
    match outcome {
        Outcome::Idle => {
            let parts = connection.into_parts();
            // Copied, because even an empty `read_buf` keeps the whole buffer of 8 KiB.
            End::Idle(parts.io.into_socket(), Bytes::copy_from_slice(&parts.read_buf))
        }
        Outcome::HeadTooLate => {
            stats.timeouts.add(1);
            stats.response(StatusCode::REQUEST_TIMEOUT);
            let socket = connection.into_parts().io.into_socket();
            // A client that takes a head's time to send it may take its answer now or never.
            drop(socket.try_write(HEAD_TOO_LATE));
            End::Linger(socket)
        }
        Outcome::AnswerTooLate => {
            stats.timeouts.add(1);
            End::Closed
        }
        Outcome::Ended(result) => {
            let malformed = result.err().and_then(|error| refusal(&error));
            malformed.iter().for_each(|status| stats.response(*status));
            if malformed.is_some() || place.link.progress.has_unread() {
                End::Linger(connection.into_parts().io.into_socket())
            } else {
                End::Closed
            }
        }
    }
}

enum Outcome {
    Idle,
    HeadTooLate,
    AnswerTooLate,
    Ended(Result<(), Error>),
}

fn poll(
    connection: &mut Connection,
    alarm: &mut Alarm<'_>,
    place: &Place,
    cx: &mut Context<'_>,
) -> Poll<Outcome> {
    let (worker, progress) = (&place.worker, &place.link.progress);
    place.link.watch(cx);
    loop {
        if let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
            return Poll::Ready(Outcome::Ended(result));
        }
        let is_stopping = worker.is_stopping();
        let wait = Wait { phase: progress.phase(), requests: progress.requests(), is_stopping };
        let limit = match wait.phase {
            Phase::Idle if is_stopping => GRACE,
            Phase::Idle if worker.warm.get() > MOST_WARM => return Poll::Ready(retire(connection, cx)),
            // Short limits (in tests, mostly) leave no time to stay warm.
            Phase::Idle => WARM.min(worker.shared.keep_alive_timeout / 2),
            Phase::Head => worker.shared.head_timeout,
            Phase::Body => return Poll::Pending,
            Phase::Answer => worker.shared.body_timeout,
        };
        let began = ready!(alarm.poll(wait, limit, cx));
        alarm.disarm();
        match wait.phase {
            Phase::Head => return Poll::Ready(Outcome::HeadTooLate),
            Phase::Body | Phase::Answer => return Poll::Ready(Outcome::AnswerTooLate),
            // There were requests meanwhile: it is warm.
            Phase::Idle if began.requests != wait.requests && !is_stopping => {}
            Phase::Idle => return Poll::Ready(retire(connection, cx)),
        }
    }
}

/// Ends hyper's part of an idle connection, at once and without a word on the wire.
fn retire(connection: &mut Connection, cx: &mut Context<'_>) -> Outcome {
    Pin::new(&mut *connection).graceful_shutdown();
    match connection.poll_without_shutdown(cx) {
        Poll::Ready(Ok(())) => Outcome::Idle,
        Poll::Ready(Err(error)) => Outcome::Ended(Err(error)),
        // hyper has nothing to wait for when it is idle; if it should, closing is the safe end.
        Poll::Pending => Outcome::Ended(Ok(())),
    }
}

/// What a connection waits for: the next thing, of the request after so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wait {
    phase: Phase,
    requests: u64,
    is_stopping: bool,
}

/// The timer of a connection. Setting it reads the clock and takes a lock, so it is left alone while a connection
/// is idle between requests that arrive whole: it then rings too early, which the caller sees from the wait it was
/// set for.
struct Alarm<'a> {
    timer: Pin<&'a mut Sleep>,
    armed: Option<Wait>,
}

impl Alarm<'_> {
    /// Ready when the timer rings, with the wait it was set for. Sets it to `limit` from now if it is set for
    /// another wait than `wait`.
    fn poll(&mut self, wait: Wait, limit: Duration, cx: &mut Context<'_>) -> Poll<Wait> {
        match self.armed {
            Some(armed) if armed == wait || armed.is_idle() && wait.is_idle() => {
                // Its waker is this task's since it was set.
                if self.timer.is_elapsed() { Poll::Ready(armed) } else { Poll::Pending }
            }
            _ => {
                self.timer.as_mut().reset(Instant::now() + limit);
                self.armed = Some(wait);
                self.timer.as_mut().poll(cx).map(|()| wait)
            }
        }
    }

    /// Lets the next poll set the timer anew.
    fn disarm(&mut self) {
        self.armed = None;
    }
}

impl Wait {
    fn is_idle(self) -> bool {
        self.phase == Phase::Idle && !self.is_stopping
    }
}

/// The answer that hyper itself gave to a head it could not accept.
fn refusal(error: &Error) -> Option<StatusCode> {
    if error.is_parse_too_large() {
        Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    } else {
        error.is_parse().then_some(StatusCode::BAD_REQUEST)
    }
}

/// Reads what a client still sends, so that it sees the answer before the connection is gone.
async fn linger(mut socket: TcpStream) {
    let read_on = async {
        // It may be shut down already, and the client may be gone: then reading ends at once.
        drop(poll_fn(|cx| Pin::new(&mut socket).poll_shutdown(cx)).await);
        let mut octets = 0;
        while octets < LINGER_OCTETS && socket.readable().await.is_ok() {
            let mut sink = [0; 4096];
            match socket.try_read(&mut sink) {
                Ok(0) => return,
                Ok(n) => octets += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    drop(timeout(LINGER, read_on).await);
}
