//! One connection: moves octets between transport and session, and keeps its time.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::{ConnectionError, receipt::Token};
use crate::proto::{ClientEvent, ClientOptions, ClientSession, Connected, Time};

/// Room for one read. RECEIPTs are some 40 octets: one read takes 1,500 of them.
const READ: usize = 64 * 1024;
/// For closing the transport's writing half, once all is said.
const SHUTDOWN: Duration = Duration::from_secs(1);

pub(super) struct Link<T> {
    transport: T,
    pub(super) session: ClientSession<Token>,
    input: BytesMut,
    needs_flush: bool,
    /// The server may answer DISCONNECT by closing the transport. Whatever asked for a receipt has it by then.
    pub(super) hangs_up: bool,
    /// Since when octets wait to be written and the transport takes none.
    stalled_since: Option<Time>,
    origin: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Link<T> {
    /// Shakes hands. The session's connect timeout bounds it. Cancel safe: dropping the future closes the transport.
    pub(super) async fn establish(
        transport: T,
        options: ClientOptions,
    ) -> Result<(Self, Connected), ConnectionError> {
        let mut link = Self {
            transport,
            session: ClientSession::new(options, Time::ZERO)?,
            input: BytesMut::new(),
            needs_flush: false,
            hangs_up: false,
            stalled_since: None,
            origin: Instant::now(),
            sleep: Box::pin(sleep_until(Instant::now())),
        };
        loop {
            poll_fn(|cx| {
                let read = link.poll_read(cx)?;
                let written = link.poll_write(cx)?;
                let timed = link.poll_time(cx, None)?;
                if read || written || timed { Poll::Ready(Ok(())) } else { Poll::Pending }
            })
            .await
            .map_err(|error: ConnectionError| error)?;
            match link.next_event()? {
                Some(ClientEvent::Connected(connected)) => return Ok((link, connected)),
                Some(ClientEvent::Error { frame, .. }) => {
                    return Err(ConnectionError::ServerError(frame.into()));
                }
                // Before CONNECTED the session lets nothing else through.
                Some(_) | None => {}
            }
        }
    }

    /// Reads what is there, once. True if there was something.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        self.input.reserve(READ);
        match poll_read_buf(Pin::new(&mut self.transport), cx, &mut self.input) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) if self.hangs_up && self.session.is_closing() && self.all_is_written() => {
                Err(ConnectionError::ClosedByUs)
            }
            Poll::Ready(Ok(0)) => Err(ConnectionError::ClosedByServer),
            Poll::Ready(Ok(_)) => {
                self.session.read(self.now());
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error.into()),
        }
    }

    /// The next event in what was read.
    pub(super) fn next_event(&mut self) -> Result<Option<ClientEvent<Token>>, ConnectionError> {
        let now = self.now();
        Ok(self.session.next_event(&mut self.input, now)?)
    }

    /// Writes what waits, once. True if the transport took something.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        if self.session.outbox().has_remaining() {
            return match poll_write_buf(Pin::new(&mut self.transport), cx, self.session.outbox()) {
                Poll::Pending => {
                    self.stalled_since = self.stalled_since.or_else(|| Some(self.now()));
                    Ok(false)
                }
                Poll::Ready(Ok(0)) => Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(_)) => {
                    self.session.wrote(self.now());
                    self.stalled_since = None;
                    self.needs_flush = true;
                    Ok(true)
                }
                Poll::Ready(Err(error)) => Err(error.into()),
            };
        }
        if self.needs_flush && Pin::new(&mut self.transport).poll_flush(cx)?.is_ready() {
            self.needs_flush = false;
        }
        Ok(false)
    }

    /// Acts on the time. True if something was due, `also` among it.
    pub(super) fn poll_time(
        &mut self,
        cx: &mut Context<'_>,
        also: Option<Time>,
    ) -> Result<bool, ConnectionError> {
        let Some(next) = [self.session.next_timeout(), also].into_iter().flatten().min() else {
            return Ok(false);
        };
        // Re-arming costs more than a spurious wake-up: a timer that is early enough stays as it is.
        let next = self.origin + next;
        if next < self.sleep.deadline() || self.sleep.is_elapsed() {
            self.sleep.as_mut().reset(next);
        }
        if self.sleep.as_mut().poll(cx).is_pending() {
            return Ok(false);
        }
        self.session.handle_timeout(self.now())?;
        Ok(true)
    }

    /// Since when the transport has taken nothing although there is something to write.
    pub(super) const fn stalled_since(&self) -> Option<Time> {
        self.stalled_since
    }

    fn all_is_written(&self) -> bool {
        self.session.outbox_len() == 0
    }

    /// Closes the writing half. Best effort: the peer may be gone, and all outcomes are told already.
    pub(super) async fn shutdown(mut self) {
        drop(timeout(SHUTDOWN, self.transport.shutdown()).await);
    }

    pub(super) fn now(&self) -> Time {
        self.origin.elapsed()
    }
}
