//! What has arrived: loss, duplicates, order and gaps by sequence number.

use serde::Serialize;

/// What one consumer has taken, or several added up. A bit for each message.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    lanes: u32,
    bits: Vec<u64>,
    distinct: u64,
    duplicates: u64,
    /// The next number expected of each lane, in units of the lane.
    next: Vec<u32>,
    out_of_order: u64,
    gaps: u64,
    foreign: u64,
}

/// What is wrong with what has arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Integrity {
    /// Different messages that arrived over the whole round, warm-up and drain included.
    pub arrived: u64,
    /// Messages that were confirmed (without confirms: published) and have not arrived within the time to drain.
    pub lost: u64,
    /// Messages that arrived once more.
    pub duplicates: u64,
    /// Messages that arrived behind a later one of the same publisher, at the same consumer.
    pub out_of_order: u64,
    /// Jumps ahead within the messages of one publisher. Counted with a single consumer: several share a queue.
    pub gaps: u64,
    /// Messages that are none of this round's.
    pub foreign: u64,
}

impl Seen {
    /// Nothing yet, of so many publishing lanes.
    pub(crate) fn new(lanes: usize) -> Self {
        Self {
            lanes: u32::try_from(lanes.max(1)).unwrap_or(u32::MAX),
            bits: Vec::new(),
            distinct: 0,
            duplicates: 0,
            next: vec![0; lanes.max(1)],
            out_of_order: 0,
            gaps: 0,
            foreign: 0,
        }
    }

    /// Notes a message; `published` are those that the lanes together have sent at least, which bounds the numbers.
    pub(crate) fn note(&mut self, sequence: u32, published: u64) {
        let number = sequence / self.lanes;
        if u64::from(number) > published {
            self.foreign += 1;
            return;
        }
        let (word, bit) = (sequence as usize / 64, 1 << (sequence % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.bits[word] |= bit;
        self.distinct += 1;
        let next = &mut self.next[(sequence % self.lanes) as usize];
        match number.cmp(next) {
            std::cmp::Ordering::Less => self.out_of_order += 1,
            std::cmp::Ordering::Equal => *next += 1,
            std::cmp::Ordering::Greater => {
                self.gaps += 1;
                *next = number + 1;
            }
        }
    }

    /// Different messages.
    pub(crate) fn distinct(&self) -> u64 {
        self.distinct
    }

    /// Adds what another consumer has taken.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.bits.len() < other.bits.len() {
            self.bits.resize(other.bits.len(), 0);
        }
        let mut both = 0;
        for (ours, theirs) in self.bits.iter_mut().zip(&other.bits) {
            both += u64::from((*ours & theirs).count_ones());
            *ours |= theirs;
        }
        self.distinct += other.distinct - both;
        self.duplicates += other.duplicates + both;
        self.out_of_order += other.out_of_order;
        self.foreign += other.foreign;
    }

    /// The verdict, when `expected` messages had to arrive.
    pub(crate) fn integrity(&self, expected: u64, consumers: usize) -> Integrity {
        Integrity {
            arrived: self.distinct,
            lost: expected.saturating_sub(self.distinct),
            duplicates: self.duplicates,
            out_of_order: self.out_of_order,
            gaps: if consumers == 1 { self.gaps } else { 0 },
            foreign: self.foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_counted() {
        // Two lanes: even and odd numbers.
        let cases: [(&[u32], Integrity); 6] = [
            (&[0, 1, 2, 3, 4, 5], Integrity::default()),
            (&[1, 3, 5, 0, 2, 4], Integrity::default()),
            (&[0, 1, 1, 2, 3, 4, 5], Integrity { duplicates: 1, ..Integrity::default() }),
            (&[0, 1, 3, 5, 4], Integrity { lost: 1, gaps: 1, ..Integrity::default() }),
            (&[0, 4, 2, 1, 3, 5], Integrity { gaps: 1, out_of_order: 1, ..Integrity::default() }),
            (&[0, 1, 2, 3, 4, 5, 4_000_000_000], Integrity { foreign: 1, ..Integrity::default() }),
        ];
        for (arrived, expected) in cases {
            let mut seen = Seen::new(2);
            arrived.iter().for_each(|sequence| seen.note(*sequence, 6));
            let expected = Integrity { arrived: 6 - expected.lost, ..expected };
            assert_eq!(seen.integrity(6, 1), expected, "{arrived:?}");
        }
    }

    #[test]
    fn consumers_share_a_queue() {
        let (mut first, mut second) = (Seen::new(1), Seen::new(1));
        [0, 2, 4].iter().for_each(|sequence| first.note(*sequence, 200));
        [1, 3, 4, 130].iter().for_each(|sequence| second.note(*sequence, 200));
        first.merge(&second);
        assert_eq!(first.distinct(), 6);
        let expected = Integrity { arrived: 6, lost: 1, duplicates: 1, ..Integrity::default() };
        assert_eq!(first.integrity(7, 2), expected);
    }
}
