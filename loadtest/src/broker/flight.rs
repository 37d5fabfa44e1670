//! What a connection has published and what is not confirmed of it.

use std::collections::VecDeque;

use crate::broker::driver::Settled;

/// Messages in flight, by their number on the connection: 0, 1, 2 …
#[derive(Debug, Default)]
pub(crate) struct Flight {
    /// When each was sent, from the oldest that is in flight on; `None` once settled.
    sent: VecDeque<Option<u64>>,
    /// The number of the first.
    first: u64,
    open: usize,
}

impl Flight {
    /// How many are in flight.
    pub(crate) fn len(&self) -> usize {
        self.open
    }

    /// The number of the next message.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.sent.len() as u64
    }

    /// The next message was sent at `time`.
    pub(crate) fn push(&mut self, time: u64) {
        self.sent.push_back(Some(time));
        self.open += 1;
    }

    /// Settles messages and tells when each was sent. What is not in flight, or not any more, is passed over.
    pub(crate) fn settle(&mut self, settled: Settled, mut tell: impl FnMut(u64)) {
        match settled {
            Settled::One(number) | Settled::Refused(number) => self.take(number, &mut tell),
            Settled::UpTo(last) => (self.first..=last.min(self.next().saturating_sub(1)))
                .for_each(|number| self.take(number, &mut tell)),
        }
        while self.sent.front() == Some(&None) {
            self.sent.pop_front();
            self.first += 1;
        }
    }

    fn take(&mut self, number: u64, tell: &mut impl FnMut(u64)) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(time) = place.and_then(|place| self.sent.get_mut(place)).and_then(Option::take) {
            self.open -= 1;
            tell(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_settled_once_in_whatever_order() {
        let mut flight = Flight::default();
        (0..6).for_each(|number| flight.push(100 + number));
        let settled = |flight: &mut Flight, settled| {
            let mut times = Vec::new();
            flight.settle(settled, |time| times.push(time));
            (times, flight.len())
        };
        assert_eq!(settled(&mut flight, Settled::One(2)), (vec![102], 5));
        assert_eq!(settled(&mut flight, Settled::One(2)), (vec![], 5));
        assert_eq!(settled(&mut flight, Settled::UpTo(3)), (vec![100, 101, 103], 2));
        assert_eq!(settled(&mut flight, Settled::UpTo(1)), (vec![], 2));
        assert_eq!(settled(&mut flight, Settled::One(99)), (vec![], 2));
        assert_eq!(settled(&mut flight, Settled::UpTo(99)), (vec![104, 105], 0));
        assert_eq!(flight.next(), 6);
        flight.push(7);
        assert_eq!(settled(&mut flight, Settled::Refused(6)), (vec![7], 0));
        assert_eq!(settled(&mut Flight::default(), Settled::UpTo(0)), (vec![], 0));
    }
}
