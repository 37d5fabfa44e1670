use std::collections::{BTreeMap, HashMap};

use crate::{spool::Row, ticket::Ticket};

/// Which rows of the spool have been handed to the publisher. Every row up to the cursor has, and of those behind it the
/// ones named here: fresh batches go before old ones.
///
/// Rows are kept as ranges, so that hours of fresh batches during a long drain take the room of the gaps between them.
#[derive(Debug, Default)]
pub(super) struct Rows {
    cursor: Option<Row>,
    /// First to last.
    handed: BTreeMap<i64, i64>,
}

impl Rows {
    /// Where to read on.
    pub(super) fn cursor(&self) -> Option<Row> {
        self.cursor
    }

    /// A row was handed over out of turn.
    pub(super) fn hand(&mut self, row: Row) {
        let number = row.number();
        if self.cursor.is_some_and(|cursor| row <= cursor) {
            return;
        }
        let mut range = (number, number);
        if let Some((&first, &last)) = self.handed.range(..=number).next_back() {
            if last >= number {
                return;
            }
            if last == number - 1 {
                range.0 = first;
            }
        }
        if let Some(last) = self.handed.remove(&(number + 1)) {
            range.1 = last;
        }
        self.handed.insert(range.0, range.1);
    }

    /// A row that was handed over is not with the publisher after all. True if it will be read again, false if the cursor
    /// has passed it.
    pub(super) fn take_back(&mut self, row: Row) -> bool {
        let number = row.number();
        if self.cursor.is_some_and(|cursor| row <= cursor) {
            return false;
        }
        let range = self.handed.range(..=number).next_back().map(|(&first, &last)| (first, last));
        if let Some((first, last)) = range.filter(|(_, last)| *last >= number) {
            self.handed.remove(&first);
            if first < number {
                self.handed.insert(first, number - 1);
            }
            if last > number {
                self.handed.insert(number + 1, last);
            }
        }
        true
    }

    /// The row after the cursor was read: moves the cursor there. True if it is the reader's to hand over.
    pub(super) fn pass(&mut self, row: Row) -> bool {
        self.cursor = Some(row);
        let number = row.number();
        let was_handed = self.handed.range(..=number).next_back().is_some_and(|(_, &last)| last >= number);
        while let Some(range) = self.handed.first_entry().filter(|range| *range.get() <= number) {
            range.remove();
        }
        !was_handed
    }

    /// Nothing that is in the spool waits to be handed over: the next row to read is one that comes after this.
    pub(super) fn pass_all(&mut self, newest: Row) {
        self.cursor = self.cursor.max(Some(newest));
        self.handed.clear();
    }
}

/// Tickets of batches that wait in the spool for the broker.
#[derive(Debug, Default)]
pub(super) struct Promised {
    tickets: HashMap<Row, Vec<Ticket>>,
    /// How many there may be before those are forgotten for which no answer waits any more.
    sweep_at: usize,
}

/// Not worth sweeping below this.
const FEW: usize = 64;

impl Promised {
    /// Keeps what is still wanted. There are at most twice as many as requests that wait.
    pub(super) fn keep(&mut self, row: Row, tickets: Vec<Ticket>) {
        if tickets.is_empty() {
            return;
        }
        if self.tickets.len() >= self.sweep_at.max(FEW) {
            self.tickets.retain(|_, tickets| tickets.iter().any(Ticket::is_wanted));
            self.sweep_at = self.tickets.len() * 2;
        }
        self.tickets.insert(row, tickets);
    }

    /// The tickets of a row, which leaves the spool's care.
    pub(super) fn take(&mut self, row: Row) -> Vec<Ticket> {
        self.tickets.remove(&row).unwrap_or_default()
    }
}
