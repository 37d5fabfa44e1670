use std::{collections::VecDeque, time::Duration};

use super::faults::{Control, Which};
use crate::proto::{Command, Encoder, Frame, ServerSession, Time};

const MAX_HELD: usize = 65_536;
const MAX_HELD_OCTETS: usize = 4 * 1024 * 1024;
/// How long receipts are collected to be sent in the reverse order.
const REORDER: Duration = Duration::from_millis(10);

/// The receipts of one connection: written at once, unless a fault says otherwise.
#[derive(Debug, Default)]
pub(super) struct ReceiptDesk {
    /// How many were asked for.
    count: u64,
    withheld: VecDeque<String>,
    delayed: VecDeque<(Time, String)>,
    reordered: Vec<String>,
    reorder_due: Option<Time>,
    held_octets: usize,
}

impl ReceiptDesk {
    /// `frame` was processed: puts its RECEIPT into the outbox, if it asked for one, or keeps it.
    pub(super) fn processed(
        &mut self,
        frame: &Frame,
        control: &Control,
        session: &mut ServerSession,
        now: Time,
    ) {
        let Some(id) = frame.header("receipt") else { return };
        self.count += 1;
        if control.dropped.concerns(self.count) {
            return;
        }
        if control.withheld.concerns(self.count) {
            let id = self.hold(id);
            self.withheld.push_back(id);
        } else if !control.delay.is_zero() {
            let id = self.hold(id);
            self.delayed.push_back((now.saturating_add(control.delay), id));
        } else if control.reordered {
            let id = self.hold(id);
            self.reordered.push(id);
            self.reorder_due.get_or_insert(now.saturating_add(REORDER));
        } else {
            write(id, control, session);
        }
    }

    /// Puts into the outbox what need not be kept any longer.
    pub(super) fn write_due(&mut self, control: &Control, session: &mut ServerSession, now: Time) {
        if !self.holds_any() {
            return;
        }
        while let Some(id) = self.next_due(control, now) {
            self.held_octets -= id.len();
            write(&id, control, session);
        }
    }

    /// When [`ReceiptDesk::write_due`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        let delayed = self.delayed.front().map(|(due, _)| *due);
        [delayed, self.reorder_due].into_iter().flatten().min()
    }

    /// Whether it keeps as much as it may.
    pub(super) fn is_full(&self) -> bool {
        let held = self.withheld.len() + self.delayed.len() + self.reordered.len();
        held >= MAX_HELD || self.held_octets >= MAX_HELD_OCTETS
    }

    fn next_due(&mut self, control: &Control, now: Time) -> Option<String> {
        if control.withheld == Which::None && !self.withheld.is_empty() {
            return self.withheld.pop_front();
        }
        if self.delayed.front().is_some_and(|(due, _)| *due <= now) {
            return self.delayed.pop_front().map(|(_, id)| id);
        }
        if self.reorder_due.is_some_and(|due| due <= now) {
            let id = self.reordered.pop();
            if self.reordered.is_empty() {
                self.reorder_due = None;
            }
            return id;
        }
        None
    }

    fn holds_any(&self) -> bool {
        !(self.withheld.is_empty() && self.delayed.is_empty() && self.reordered.is_empty())
    }

    fn hold(&mut self, id: &str) -> String {
        self.held_octets += id.len();
        id.into()
    }
}

fn write(id: &str, control: &Control, session: &mut ServerSession) {
    let encoder = Encoder::new(session.version());
    for _ in 0..if control.repeated { 2 } else { 1 } {
        let receipt = Frame::new(Command::Receipt);
        // What came in this version can be written in it.
        if let Err(error) = encoder.enqueue(&receipt, &[("receipt-id", id)], session.outbox()) {
            crate::log::debug!(%error, "a receipt cannot be written");
        }
    }
}
