//! One keep-alive connection: sends a request, takes its answer, connects again when it has to.
//!
//! Nothing is allocated per request: the octets go out from a buffer of the connection's own and come in through one
//! that all connections of a thread share.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until, timeout},
};

use crate::http::{
    fleet::FleetOptions,
    response::{Response, ResponseParser},
    tls::{Stream, Tls},
};

/// The first pause before connecting again after a failure; it doubles with each one in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The longest pause before connecting again.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Octets of the read buffer that the connections of a thread share.
const READ_BUFFER: usize = 16 * 1024;

/// The read buffer that the connections of a thread share.
#[derive(Debug)]
pub(crate) struct ReadBuffer(RefCell<Box<[u8]>>);

impl Default for ReadBuffer {
    fn default() -> Self {
        Self(RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()))
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server closed or reset the connection.
    Closed,
    /// The time for the answer is over.
    Timeout,
    /// The answer is not one.
    Malformed,
}

/// What one exchange came to, and how many octets it moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    pub(crate) outcome: Result<Response, Failure>,
    pub(crate) octets_sent: u64,
    pub(crate) octets_received: u64,
}

/// A connection, open or not.
#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    timeout: Duration,
    tls: Option<Tls>,
    stream: Option<Stream>,
    parser: ResponseParser,
    /// The request being sent; filled by the caller before [`Connection::exchange`].
    pub(crate) request: Vec<u8>,
    /// Fires at the deadline of this request or of an earlier one, and is set again only then: a timer that is set for
    /// every request would cost more than the rest of the bookkeeping.
    alarm: Pin<Box<Sleep>>,
    failures_in_a_row: u32,
    /// Requests sent since it was opened.
    pub(crate) used: u64,
}

impl Connection {
    /// A connection that is not open yet. Needs a tokio runtime with time.
    pub(crate) fn new(options: &FleetOptions) -> Self {
        let timeout = options.timeout;
        Self {
            address: options.address,
            timeout,
            tls: options.tls.clone(),
            stream: None,
            parser: ResponseParser::default(),
            request: Vec::new(),
            alarm: Box::pin(sleep_until(Instant::now() + timeout)),
            failures_in_a_row: 0,
            used: 0,
        }
    }

    /// Closes it, in good order as far as the server is concerned.
    pub(crate) fn close(&mut self) {
        self.stream = None;
    }

    /// Whether it is open as far as this side knows.
    pub(crate) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether it is open, after a look at whether the server has closed it.
    pub(crate) fn check_open(&mut self) -> bool {
        self.poll_idle(&mut Context::from_waker(Waker::noop())).is_pending() && self.is_open()
    }

    /// Opens it, once, within its timeout. Cancel safe.
    pub(crate) async fn open(&mut self) -> io::Result<()> {
        let opened = timeout(self.timeout, Stream::open(self.address, self.tls.as_ref()))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match opened {
            Ok(stream) => {
                self.stream = Some(stream);
                self.used = 0;
                self.parser.reset();
                Ok(())
            }
            Err(error) => {
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                Err(error)
            }
        }
    }

    /// How long to wait before opening it again: nothing after an orderly close, else longer with every failure in a
    /// row, with jitter so that connections do not come back all at once.
    pub(crate) fn pause(&self) -> Duration {
        let Some(doublings) = self.failures_in_a_row.checked_sub(1) else { return Duration::ZERO };
        let longest = FIRST_PAUSE.saturating_mul(1 << doublings.min(10)).min(LONGEST_PAUSE);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Sends [`Connection::request`] and takes the answer, no later than `deadline`. After a failure, and after an answer with which the server
    /// ends the connection, it is closed. Not cancel safe: a dropped exchange leaves the connection of no use.
    pub(crate) async fn exchange(&mut self, buffer: &ReadBuffer, deadline: std::time::Instant) -> Exchange {
        let Self { stream, parser, request, alarm, used, .. } = self;
        *used += 1;
        let deadline = Instant::from_std(deadline);
        let (mut written, mut received) = (0, 0);
        let outcome = match stream {
            None => Err(Failure::Closed),
            Some(stream) => {
                poll_fn(|cx| {
                    if let Poll::Ready(Err(failure)) = poll_write_all(stream, cx, request, &mut written) {
                        return Poll::Ready(Err(failure));
                    }
                    if let Poll::Ready(done) = poll_response(stream, cx, parser, buffer, &mut received) {
                        return Poll::Ready(done);
                    }
                    poll_deadline(alarm, cx, deadline).map(|()| Err(Failure::Timeout))
                })
                .await
            }
        };
        // An answer before the end of the request is one with which the server takes no more of it.
        let close = outcome.map_or(true, |response| response.close) || written < request.len();
        if close {
            self.stream = None;
        }
        self.failures_in_a_row = if outcome.is_ok() { 0 } else { self.failures_in_a_row.saturating_add(1) };
        Exchange { outcome, octets_sent: written as u64, octets_received: received }
    }

    /// Watches an idle connection. Ready, and closed on this side, as soon as the server closes it or sends what nobody
    /// asked for; never ready while it is not open.
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &mut self.stream else { return Poll::Pending };
        // With TLS there may be records without data, such as session tickets: those are taken and no sign of anything.
        let mut octet = [0];
        drop(ready!(Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut octet))));
        self.stream = None;
        // So that a server that closes whatever it accepts is not dialled in a tight loop.
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        Poll::Ready(())
    }
}

fn poll_write_all(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    request: &[u8],
    written: &mut usize,
) -> Poll<Result<(), Failure>> {
    while *written < request.len() {
        match ready!(Pin::new(&mut *stream).poll_write(cx, &request[*written..])) {
            Ok(0) | Err(_) => return Poll::Ready(Err(Failure::Closed)),
            Ok(count) => *written += count,
        }
    }
    Poll::Ready(Ok(()))
}

fn poll_response(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    parser: &mut ResponseParser,
    buffer: &ReadBuffer,
    received: &mut u64,
) -> Poll<Result<Response, Failure>> {
    let mut buffer = buffer.0.borrow_mut();
    loop {
        let mut read = ReadBuf::new(&mut buffer);
        if ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)).is_err() || read.filled().is_empty() {
            return Poll::Ready(Err(Failure::Closed));
        }
        *received += read.filled().len() as u64;
        match parser.advance(read.filled()) {
            Ok(Some(response)) => return Poll::Ready(Ok(response)),
            Ok(None) => {}
            Err(_) => return Poll::Ready(Err(Failure::Malformed)),
        }
    }
}

fn poll_deadline(alarm: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
    loop {
        ready!(alarm.as_mut().poll(cx));
        if alarm.deadline() >= deadline {
            return Poll::Ready(());
        }
        alarm.as_mut().reset(deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_second() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        let mut connection = Connection::new(&FleetOptions {
            address: SocketAddr::from(([127, 0, 0, 1], 9)),
            connections: 1,
            threads: 1,
            timeout: Duration::from_secs(1),
            tls: None,
            churn: None,
            pin: false,
        });
        assert_eq!(connection.pause(), Duration::ZERO);
        for (failures, longest_ms) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 500), (u32::MAX, 500)] {
            connection.failures_in_a_row = failures;
            let pause = connection.pause();
            let longest = Duration::from_millis(longest_ms);
            assert!(longest / 2 <= pause && pause <= longest, "{failures} failures: {pause:?}");
        }
    }
}
