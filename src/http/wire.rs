//! What hyper reads from and writes to: the socket, and octets that were already read from it. It also keeps the
//! connection's [`Phase`], because reads and flushes are where the phase changes.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// A request. Nothing of it has come.
    #[default]
    Idle,
    /// The rest of a request's head.
    Head,
    /// A request's body, which `service.rs` limits.
    Body,
    /// The client to take its answer.
    Answer,
}

/// Where a connection stands. Shared by its wire, its service and its task.
#[derive(Debug, Default)]
pub(super) struct Progress {
    phase: Cell<Phase>,
    requests: Cell<u64>,
    unread: Cell<bool>,
}

impl Progress {
    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// How many requests have begun.
    pub(super) fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Whether some request was answered without reading the whole of it.
    pub(super) fn has_unread(&self) -> bool {
        self.unread.get()
    }

    /// A head is complete.
    pub(super) fn begin(&self) {
        self.requests.set(self.requests.get() + 1);
        self.phase.set(Phase::Body);
    }

    /// The answer is ready to be written.
    pub(super) fn answer(&self) {
        self.phase.set(Phase::Answer);
    }

    /// The answer does not wait for the rest of the request.
    pub(super) fn leave_unread(&self) {
        self.unread.set(true);
    }

    fn received(&self) {
        if self.phase.get() == Phase::Idle {
            self.phase.set(Phase::Head);
        }
    }

    /// hyper flushes once all it had to write is with the socket.
    fn flushed(&self) {
        if self.phase.get() == Phase::Answer {
            self.phase.set(Phase::Idle);
        }
    }
}

/// A socket for hyper.
pub(super) struct Wire {
    socket: TokioIo<TcpStream>,
    already_read: Bytes,
    progress: Rc<Progress>,
}

impl Wire {
    /// `already_read` comes before what the socket gives.
    pub(super) fn new(socket: TcpStream, already_read: Bytes, progress: Rc<Progress>) -> Self {
        progress.phase.set(if already_read.is_empty() { Phase::Idle } else { Phase::Head });
        Self { socket: TokioIo::new(socket), already_read, progress }
    }

    /// The socket itself. `already_read` is gone: hyper has taken it with its first reads.
    pub(super) fn into_socket(self) -> TcpStream {
        self.socket.into_inner()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.already_read.is_empty() {
            let n = self.already_read.len().min(buf.remaining());
            buf.put_slice(&self.already_read[..n]);
            self.already_read.advance(n);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() {
            self.progress.received();
        }
        read
    }
}

/// `is_write_vectored` stays false: hyper then copies the 43 octets of a body behind the head and writes once, which
/// costs less than a vectored write.
impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.flushed();
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
