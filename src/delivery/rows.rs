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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ticket::{Ack, Waiting};

    fn row(number: i64) -> Row {
        Row::from_number(number)
    }

    #[test]
    fn rows_in_a_row_take_the_room_of_one() {
        let mut rows = Rows::default();
        [3, 1, 2, 6, 5, 8, 2].map(row).into_iter().for_each(|row| rows.hand(row));
        assert_eq!(rows.handed, [(1, 3), (5, 6), (8, 8)].into());
        assert!(rows.take_back(row(2)) && rows.take_back(row(5)) && rows.take_back(row(7)));
        assert_eq!(rows.handed, [(1, 1), (3, 3), (6, 6), (8, 8)].into());
        assert!(!rows.pass(row(1)) && rows.pass(row(2)) && !rows.pass(row(3)));
        assert!(!rows.take_back(row(3)), "read over");
        assert_eq!(rows.handed, [(6, 6), (8, 8)].into());
        rows.pass_all(row(7));
        assert_eq!((rows.cursor(), rows.handed.len()), (Some(row(7)), 0));
        rows.hand(row(7));
        assert!(rows.handed.is_empty(), "it is behind the cursor");
    }

    proptest! {
        /// Whatever is handed over and taken back, the reader gets exactly the rows that are with nobody.
        #[test]
        fn the_reader_gets_what_nobody_has(steps in proptest::collection::vec((1_i64..40, any::<bool>()), 0..80)) {
            let mut rows = Rows::default();
            let mut expected = std::collections::BTreeSet::new();
            for (number, is_handed) in steps {
                if is_handed {
                    rows.hand(row(number));
                    expected.insert(number);
                } else {
                    rows.take_back(row(number));
                    expected.remove(&number);
                }
            }
            for number in 1..40 {
                prop_assert_eq!(rows.pass(row(number)), !expected.contains(&number), "{}", number);
            }
            prop_assert!(rows.handed.is_empty());
        }
    }

    #[test]
    fn promises_that_nobody_waits_for_are_forgotten() {
        let mut promised = Promised::default();
        let waiting = Waiting::new(Ack::Confirmed);
        promised.keep(row(0), vec![waiting.ticket()]);
        promised.keep(row(1), Vec::new());
        for number in 2..1000 {
            let given_up = Waiting::new(Ack::Confirmed);
            promised.keep(row(number), vec![given_up.ticket()]);
        }
        assert!(promised.tickets.len() <= 2 * FEW, "{}", promised.tickets.len());
        assert_eq!(promised.take(row(0)).len(), 1);
        assert_eq!(promised.take(row(1)).len(), 0);
    }
}
