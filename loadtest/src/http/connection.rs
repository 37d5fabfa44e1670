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
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout},
};

use crate::http::response::{Response, ResponseParser};

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
    stream: Option<TcpStream>,
    parser: ResponseParser,
    /// The request being sent; filled by the caller before [`Connection::exchange`].
    pub(crate) request: Vec<u8>,
    /// Fires at the deadline of this request or of an earlier one, and is set again only then: a timer that is set for
    /// every request would cost more than the rest of the bookkeeping.
    alarm: Pin<Box<Sleep>>,
    failures_in_a_row: u32,
}

impl Connection {
    /// A connection that is not open yet. Needs a tokio runtime with time.
    pub(crate) fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self {
            address,
            timeout,
            stream: None,
            parser: ResponseParser::default(),
            request: Vec::new(),
            alarm: Box::pin(sleep_until(Instant::now() + timeout)),
            failures_in_a_row: 0,
        }
    }

    /// Whether it is open as far as this side knows.
    pub(crate) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether it is open, after a look at whether the server has closed it.
    pub(crate) fn check_open(&mut self) -> bool {
        let Some(stream) = &self.stream else { return false };
        let open =
            matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        if !open {
            self.stream = None;
        }
        open
    }

    /// Opens it, once, within its timeout. Cancel safe.
    pub(crate) async fn open(&mut self) -> io::Result<()> {
        let opened = match timeout(self.timeout, TcpStream::connect(self.address)).await {
            Ok(connected) => connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match opened {
            Ok(stream) => {
                self.stream = Some(stream);
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
        let Self { stream, parser, request, alarm, .. } = self;
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
        let Some(stream) = &self.stream else { return Poll::Pending };
        loop {
            let ready = ready!(stream.poll_read_ready(cx));
            let mut octet = [0];
            match ready.and_then(|()| stream.try_read(&mut octet)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => {
                    self.stream = None;
                    // So that a server that closes whatever it accepts is not dialled in a tight loop.
                    self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                    return Poll::Ready(());
                }
            }
        }
    }
}

fn poll_write_all(
    stream: &mut TcpStream,
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
    stream: &mut TcpStream,
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
        let mut connection = Connection::new(SocketAddr::from(([127, 0, 0, 1], 9)), Duration::from_secs(1));
        assert_eq!(connection.pause(), Duration::ZERO);
        for (failures, longest_ms) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 500), (u32::MAX, 500)] {
            connection.failures_in_a_row = failures;
            let pause = connection.pause();
            let longest = Duration::from_millis(longest_ms);
            assert!(longest / 2 <= pause && pause <= longest, "{failures} failures: {pause:?}");
        }
    }
}
