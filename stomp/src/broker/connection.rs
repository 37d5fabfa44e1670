use std::{collections::VecDeque, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    faults::{Closing, Control, Farewell, Faults},
    receipts::ReceiptDesk,
    server::Shared,
    transactions::{Step, Transactions},
};
use crate::proto::{Frame, ServerEvent, ServerSession, SessionError, Time};

/// How much is read at a time where there is much to read.
const READ: usize = 64 * 1024;
/// Room for a read otherwise, so that an idle connection costs little.
const FIRST_READ: usize = 4 * 1024;
/// How often a queue without room is looked at again.
const ROOM_AGAIN: Duration = Duration::from_millis(5);
/// How long what is to be written at the end may take.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// How long a client may take to close its side after the broker has closed its own; a fifth of it when the broker ends.
const LINGER: Duration = Duration::from_millis(500);
/// How long a client may read nothing of what waits to be written to it.
const STALL: Duration = Duration::from_secs(60);
/// Longer than anything here waits; then the timer is set anew.
const FAR: Duration = Duration::from_secs(3600);

/// One client. Its task owns the session and the socket, and waits for all at once: octets to read, room to write,
/// messages from the hub, the time, and the switches.
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) faults: Faults,
    pub(super) session: ServerSession,
    pub(super) receipts: ReceiptDesk,
    pub(super) transactions: Transactions,
    /// The switches as of the last look.
    pub(super) control_seen: Control,
    control: watch::Receiver<Control>,
    input: BytesMut,
    read_all_it_could: bool,
    wake: Arc<Notify>,
    has_mail: bool,
    /// Messages were put into the outbox and the hub does not know yet that they are written.
    owes_written: bool,
    blocked: Option<(Blocked, Time)>,
    /// The RECEIPT of DISCONNECT, kept back. What comes after a DISCONNECT is not looked at.
    farewell: Option<BytesMut>,
    /// Nothing is read any more: the outbox is to be written by this time, then comes the end.
    finish_by: Option<Time>,
    last_progress: Time,
    origin: Instant,
}

/// A frame that waits for room in a queue.
pub(super) struct Blocked {
    pub(super) frame: Frame,
    pub(super) steps: VecDeque<Step>,
}

/// How to let go of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// All is said: FIN, and what the client still sends is read for a while, since closing a socket with unread
    /// octets would reset it and could take the last frame from the client.
    Said,
    /// The client is gone.
    Gone,
    Reset,
}

enum Woken {
    Control(bool),
    Wrote(io::Result<usize>),
    Read(io::Result<usize>),
    Mail,
    Timer,
}

/// Serves one client until either side is done.
pub(super) async fn serve(mut connection: Connection, mut stream: TcpStream) {
    let ending = connection.drive(&mut stream).await;
    crate::log::debug!(connection = connection.id, ?ending, "connection ends");
    let linger = if connection.control_seen.stopping { LINGER / 5 } else { LINGER };
    // What it held goes back before the client can see the end.
    drop(connection);
    match ending {
        Ending::Said => say_goodbye(&mut stream, linger).await,
        // The client may be gone already: then there is nothing to reset.
        Ending::Reset => stream.set_zero_linger().unwrap_or_default(),
        Ending::Gone => {}
    }
}

impl Connection {
    pub(super) fn new(address: SocketAddr, shared: Arc<Shared>) -> Self {
        let wake = Arc::new(Notify::new());
        let mut control = shared.faults.watch();
        let control_seen = control.borrow_and_update().clone();
        let id = shared.hub().join(address, Arc::clone(&wake));
        Self {
            id,
            faults: shared.faults.clone(),
            session: ServerSession::new(shared.options.server.clone(), Time::ZERO),
            receipts: ReceiptDesk::default(),
            transactions: Transactions::new(&shared.options.bounds),
            shared,
            control_seen,
            control,
            input: BytesMut::new(),
            read_all_it_could: false,
            wake,
            has_mail: false,
            owes_written: false,
            blocked: None,
            farewell: None,
            finish_by: None,
            last_progress: Time::ZERO,
            origin: Instant::now(),
        }
    }

    /// Answers ERROR and begins the end. `culprit` is the frame at fault.
    pub(super) fn fail(&mut self, message: &str, culprit: Option<&Frame>) {
        crate::log::debug!(connection = self.id, message, "answered with ERROR");
        self.session.error(message, culprit);
        self.finish();
    }

    pub(super) fn block(&mut self, blocked: Blocked, now: Time) {
        self.blocked = Some((blocked, now.saturating_add(ROOM_AGAIN)));
    }

    async fn drive(&mut self, stream: &mut TcpStream) -> Ending {
        let (mut reader, mut writer) = stream.split();
        let mut timer = pin!(sleep_until(self.origin + FAR));
        loop {
            if let Some(ending) = self.work() {
                return ending;
            }
            let silent = self.is_silent();
            let may_read = self.may_read();
            if may_read {
                self.make_room();
            }
            let deadline = self.origin + self.next_timeout();
            if deadline < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            let may_write = self.session.outbox_len() > 0 && !silent;
            // Fair among the branches: each wait makes progress however busy the others are.
            let woken = tokio::select! {
                changed = self.control.changed() => Woken::Control(changed.is_ok()),
                result = writer.write_buf(self.session.outbox()), if may_write => Woken::Wrote(result),
                result = reader.read_buf(&mut self.input), if may_read => Woken::Read(result),
                () = self.wake.notified(), if !silent => Woken::Mail,
                () = &mut timer, if !silent => Woken::Timer,
            };
            if let Some(ending) = self.woken(woken) {
                return ending;
            }
        }
    }

    fn woken(&mut self, woken: Woken) -> Option<Ending> {
        let now = self.now();
        if self.session.outbox_len() == 0 {
            // Nothing waited: a stall can begin now at the earliest.
            self.last_progress = now;
        }
        match woken {
            Woken::Control(true) => return self.obey(),
            Woken::Wrote(Ok(count)) if count > 0 => {
                self.session.wrote(now);
                self.last_progress = now;
            }
            Woken::Read(Ok(0)) => self.finish(),
            Woken::Read(Ok(_)) => {
                self.read_all_it_could = self.input.len() == self.input.capacity();
                self.session.read(now);
            }
            Woken::Mail => self.has_mail = true,
            Woken::Timer => return self.on_time(now),
            Woken::Control(false) | Woken::Wrote(_) | Woken::Read(Err(_)) => return Some(Ending::Gone),
        }
        None
    }

    /// Does everything that needs no waiting.
    fn work(&mut self) -> Option<Ending> {
        if self.control.has_changed().unwrap_or(true)
            && let Some(ending) = self.obey()
        {
            return Some(ending);
        }
        if self.is_silent() {
            return None;
        }
        let now = self.now();
        self.process_input(now);
        if self.finish_by.is_none() {
            self.receipts.write_due(&self.control_seen, &mut self.session, now);
            self.deliver();
        }
        let all_written = self.session.outbox_len() == 0;
        (all_written && self.finish_by.is_some()).then_some(Ending::Said)
    }

    /// Handles the whole frames of what was read, as long as it may.
    fn process_input(&mut self, now: Time) {
        if let Some((blocked, again)) = self.blocked.take() {
            if now < again {
                self.blocked = Some((blocked, again));
            } else {
                self.handle_blocked(blocked, now);
            }
        }
        if self.farewell.is_some() {
            self.input.clear();
        }
        while self.may_process() {
            let before = self.session.outbox_len();
            match self.session.next_event(&mut self.input) {
                Ok(None) => break,
                Ok(Some(ServerEvent::Connect(frame))) => self.connect(&frame, now),
                Ok(Some(ServerEvent::Frame(frame))) => self.handle(frame, now),
                Ok(Some(ServerEvent::Disconnect)) => self.disconnect(before),
                Err(error) => self.fail(&error.to_string(), None),
            }
        }
    }

    /// DISCONNECT. Its RECEIPT, if it asked for one, is in the outbox behind the first `before` octets.
    fn disconnect(&mut self, before: usize) {
        let length = self.session.outbox_len() - before;
        if length > 0 && self.control_seen.farewell != Farewell::Receipted {
            let tail = self.session.outbox().tail();
            let receipt = tail.split_off(tail.len().saturating_sub(length));
            if self.control_seen.farewell == Farewell::Withheld {
                self.farewell = Some(receipt);
                self.shared.hub().leave(self.id);
                return;
            }
        }
        self.finish();
    }

    /// Moves messages from the mailbox to the outbox, and tells the hub when they are written.
    fn deliver(&mut self) {
        let max_outbox = self.shared.options.bounds.max_outbox;
        if self.owes_written && self.session.outbox_len() <= max_outbox / 2 {
            self.owes_written = false;
            self.shared.hub().written(self.id);
        }
        if self.has_mail && self.session.outbox_len() < max_outbox {
            self.has_mail = false;
            let mail = self.shared.hub().empty_mailbox(self.id);
            self.owes_written |= !mail.is_empty();
            mail.iter().for_each(|delivery| delivery.enqueue(&mut self.session));
        }
    }

    /// Room for the next read. What a long frame needed is not kept.
    fn make_room(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 4 * READ {
            self.input = BytesMut::new();
        }
        let wanted = if self.read_all_it_could { READ } else { FIRST_READ };
        if self.input.capacity() - self.input.len() < wanted / 2 {
            self.input.reserve(wanted);
        }
    }

    fn may_read(&self) -> bool {
        // Behind a DISCONNECT only to see the client go.
        let waits_for_the_end = self.farewell.is_some() && self.finish_by.is_none();
        (self.may_process() || waits_for_the_end) && !self.is_silent()
    }

    /// The black hole. Who is told to close comes out of it.
    fn is_silent(&self) -> bool {
        self.control_seen.silent && self.finish_by.is_none()
    }

    /// Whether frames are taken: not at the end, not without room for what they cause, not when told to stop reading.
    fn may_process(&self) -> bool {
        self.finish_by.is_none()
            && self.farewell.is_none()
            && self.blocked.is_none()
            && self.session.outbox_len() < self.shared.options.bounds.max_outbox
            && !self.receipts.is_full()
            && !(self.control_seen.not_reading && self.session.is_open())
            && !self.control.has_changed().unwrap_or(true)
    }

    /// Takes note of the switches.
    fn obey(&mut self) -> Option<Ending> {
        let seen = self.control.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.control_seen, seen);
        let now = self.now();
        if before.silent || before.not_reading {
            // The silence was ours.
            self.session.read(now);
            self.last_progress = now;
        }
        if self.control_seen.farewell != Farewell::Withheld
            && let Some(receipt) = self.farewell.take()
        {
            if self.control_seen.farewell == Farewell::Receipted {
                self.session.outbox().tail().extend_from_slice(&receipt);
            }
            self.finish();
        }
        if self.control_seen.stopping {
            self.finish();
        }
        if self.control_seen.closings == before.closings {
            return None;
        }
        match self.control_seen.closing {
            Closing::Reset => return Some(Ending::Reset),
            Closing::Fin => self.finish(),
            Closing::MidFrame => {
                self.session.outbox().tail().extend_from_slice(b"RECEIPT\nreceipt-id:1");
                self.finish();
            }
        }
        None
    }

    /// Takes no more frames and no more messages; what is in the outbox is still written.
    pub(super) fn finish(&mut self) {
        if self.finish_by.is_none() {
            self.finish_by = Some(self.now().saturating_add(LAST_WRITE));
            self.blocked = None;
            self.shared.hub().leave(self.id);
        }
    }

    fn next_timeout(&self) -> Time {
        let outbox_waits = self.session.outbox_len() > 0;
        let blocked = self.blocked.as_ref().map(|(_, again)| *again);
        let stall = outbox_waits.then(|| self.last_progress.saturating_add(STALL));
        let session = if self.finish_by.is_some() { None } else { self.session.next_timeout() };
        let far = self.now().saturating_add(FAR);
        [session, self.receipts.next_timeout(), blocked, stall, self.finish_by]
            .into_iter()
            .flatten()
            .fold(far, Time::min)
    }

    fn on_time(&mut self, now: Time) -> Option<Ending> {
        if let Some(by) = self.finish_by {
            return (now >= by).then_some(Ending::Gone);
        }
        if self.session.outbox_len() > 0 && now >= self.last_progress.saturating_add(STALL) {
            return Some(Ending::Gone);
        }
        if !self.may_read() {
            // Whoever is not read cannot be heard.
            self.session.read(now);
        }
        match self.session.handle_timeout(now) {
            Ok(()) => None,
            // As RabbitMQ: a client that is gone reads no ERROR.
            Err(SessionError::PeerSilent(_)) => Some(Ending::Reset),
            Err(error) => {
                self.fail(&error.to_string(), None);
                None
            }
        }
    }

    fn now(&self) -> Time {
        self.origin.elapsed()
    }
}

impl Drop for Connection {
    /// Also when the task is aborted.
    fn drop(&mut self) {
        self.shared.hub().leave(self.id);
    }
}

async fn say_goodbye(stream: &mut TcpStream, linger: Duration) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut ignored = [0; 4096];
    let drain = async { while stream.read(&mut ignored).await.is_ok_and(|count| count > 0) {} };
    // A client that keeps its side open is cut off.
    timeout(linger, drain).await.unwrap_or_default();
}
