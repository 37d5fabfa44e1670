use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use memchr::memmem;
use tokio::sync::watch;

use crate::proto::Frame;

/// Switches that make the broker misbehave, for tests. Each can be set at any time and counts for every connection,
/// those to come included, unless its text says otherwise. Cloning is cheap; all clones turn the same switches.
///
/// "Receipts" are those of every frame but DISCONNECT, for whose RECEIPT there is [`Faults::set_farewell`].
#[derive(Debug, Clone)]
pub struct Faults {
    control: Arc<watch::Sender<Control>>,
    next_send: Arc<AtomicU8>,
}

/// Which receipts a fault concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Which {
    /// None: the fault is off.
    #[default]
    None,
    /// All.
    All,
    /// The nth, the 2nth and so on of each connection, counted from its start; 0 and 1 stand for all.
    EveryNth(u32),
}

/// How new connections are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Admission {
    /// They are served.
    #[default]
    Open,
    /// The port is closed: the system answers "connection refused". The same port is opened again later, which is
    /// retried every 20 ms should something else have taken it meanwhile.
    PortClosed,
    /// They are accepted and reset (RST) at once.
    Reset,
    /// CONNECT is answered with ERROR, then they are closed.
    RefuseConnect,
}

/// How a DISCONNECT that asks for a RECEIPT is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Farewell {
    /// With its RECEIPT, then FIN.
    #[default]
    Receipted,
    /// With nothing, heart-beats included, and the connection stays open: the client waits. Another setting lets it go on
    /// from there.
    Withheld,
    /// With FIN alone.
    Dropped,
}

/// Whether an ERROR says which frame it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptId {
    /// With `receipt-id`, if the frame had a `receipt`.
    Named,
    /// Without, as RabbitMQ does.
    Omitted,
}

/// How connections that exist are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Closing {
    #[default]
    Fin,
    Reset,
    MidFrame,
}

/// What every connection watches.
#[derive(Debug, Clone, Default)]
pub(super) struct Control {
    pub(super) stopping: bool,
    pub(super) withheld: Which,
    pub(super) dropped: Which,
    pub(super) delay: Duration,
    pub(super) reordered: bool,
    pub(super) repeated: bool,
    pub(super) not_reading: bool,
    pub(super) silent: bool,
    pub(super) admission: Admission,
    pub(super) farewell: Farewell,
    pub(super) poison: Option<Bytes>,
    /// How often connections were told to close.
    pub(super) closings: u64,
    pub(super) closing: Closing,
}

const SERVE: u8 = 0;
const FAIL_NAMED: u8 = 1;
const FAIL_OMITTED: u8 = 2;

impl Faults {
    pub(super) fn new() -> Self {
        Self {
            control: Arc::new(watch::Sender::new(Control::default())),
            next_send: Arc::new(AtomicU8::new(SERVE)),
        }
    }

    /// Keeps these receipts back until [`Faults::release_receipts`]. Above 65,536 receipts or 4 MiB of their ids, a
    /// connection is not read any more.
    pub fn withhold_receipts(&self, which: Which) {
        self.set(|control| control.withheld = which);
    }

    /// Sends the receipts that were kept back, oldest first, and keeps back no more.
    pub fn release_receipts(&self) {
        self.set(|control| control.withheld = Which::None);
    }

    /// Never sends these receipts.
    pub fn drop_receipts(&self, which: Which) {
        self.set(|control| control.dropped = which);
    }

    /// Sends each receipt this much later; zero turns it off.
    pub fn delay_receipts(&self, delay: Duration) {
        self.set(|control| control.delay = delay);
    }

    /// Collects receipts for 10 ms and sends them in the reverse order.
    pub fn reorder_receipts(&self, reorder: bool) {
        self.set(|control| control.reordered = reorder);
    }

    /// Sends each receipt twice.
    pub fn repeat_receipts(&self, repeat: bool) {
        self.set(|control| control.repeated = repeat);
    }

    /// Reads nothing from connections whose handshake is done, as RabbitMQ under an alarm, but at once. What is to be
    /// written still is, heart-beats included, and no client is cut for silence.
    pub fn stop_reading(&self, stop: bool) {
        self.set(|control| control.not_reading = stop);
    }

    /// A black hole: neither reads nor writes nor closes, heart-beats included. The system still accepts connections
    /// and octets. Turned off, everything goes on where it was.
    pub fn go_silent(&self, silent: bool) {
        self.set(|control| control.silent = silent);
    }

    /// How new connections are met.
    pub fn set_admission(&self, admission: Admission) {
        self.set(|control| control.admission = admission);
    }

    /// Answers the next SEND, on whichever connection, with ERROR, and closes that connection. The message is not
    /// stored. Once for each call.
    pub fn fail_next_send(&self, receipt_id: ReceiptId) {
        let fail = if receipt_id == ReceiptId::Named { FAIL_NAMED } else { FAIL_OMITTED };
        self.next_send.store(fail, Ordering::Relaxed);
    }

    /// How DISCONNECT is answered.
    pub fn set_farewell(&self, farewell: Farewell) {
        self.set(|control| control.farewell = farewell);
    }

    /// Closes the connection, each time, that a SEND with these octets in its body or in the value of a header comes
    /// over: without ERROR or RECEIPT, after what is to be written (FIN), as RabbitMQ does when a queue refuses a message.
    /// The message is not stored, and nothing behind it is read. `None` turns it off; no octets at all are in every SEND.
    pub fn poison(&self, octets: Option<&[u8]>) {
        let octets = octets.map(Bytes::copy_from_slice);
        self.set(|control| control.poison = octets);
    }

    /// Writes what is to be written, then closes every connection that exists (FIN), without an ERROR.
    pub fn close_connections(&self) {
        self.close(Closing::Fin);
    }

    /// Resets every connection that exists (RST): what was not written, or not read by the client, is lost.
    pub fn reset_connections(&self) {
        self.close(Closing::Reset);
    }

    /// Writes what is to be written and the beginning of a RECEIPT, `receipt-id:1` without the end of its line, then
    /// closes every connection that exists (FIN).
    pub fn cut_connections_mid_frame(&self) {
        self.close(Closing::MidFrame);
    }

    /// Turns every switch off.
    pub fn clear(&self) {
        self.next_send.store(SERVE, Ordering::Relaxed);
        self.set(|control| {
            let &mut Control { stopping, closings, closing, .. } = control;
            *control = Control { stopping, closings, closing, ..Control::default() };
        });
    }

    pub(super) fn stop(&self) {
        self.set(|control| control.stopping = true);
    }

    pub(super) fn watch(&self) -> watch::Receiver<Control> {
        self.control.subscribe()
    }

    /// Whether this SEND is the one to fail.
    pub(super) fn take_send_fault(&self) -> Option<ReceiptId> {
        if self.next_send.load(Ordering::Relaxed) == SERVE {
            return None;
        }
        match self.next_send.swap(SERVE, Ordering::Relaxed) {
            FAIL_NAMED => Some(ReceiptId::Named),
            FAIL_OMITTED => Some(ReceiptId::Omitted),
            _ => None,
        }
    }

    fn close(&self, closing: Closing) {
        self.set(|control| {
            control.closings += 1;
            control.closing = closing;
        });
    }

    fn set(&self, change: impl FnOnce(&mut Control)) {
        self.control.send_modify(change);
    }
}

impl Control {
    /// Whether this SEND ends its connection.
    pub(super) fn is_poison(&self, send: &Frame) -> bool {
        let Some(poison) = &self.poison else { return false };
        let holds = |text: &[u8]| memmem::find(text, poison).is_some();
        holds(send.body()) || send.headers().iter().any(|(_, value)| holds(value.as_bytes()))
    }
}

impl Which {
    /// Whether it concerns the receipt of this number, the first being 1.
    pub(super) fn concerns(self, number: u64) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::EveryNth(n) => number.is_multiple_of(u64::from(n.max(1))),
        }
    }
}
