//! What was issued, what became of it on this side, and what came out at the far end: a word or a bit for each beacon.

use crate::faults::mark::Mark;

/// What one side of the judgement knows of each beacon that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Book {
    shape: Shape,
    /// By number: 0 not issued, 1 no answer, 2 an answer that promises nothing, from 3 on a promise, made so many
    /// milliseconds (less 3) after the start of the run.
    entries: Vec<u32>,
}

/// How beacons are numbered: connection by connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) connections: u32,
    /// Beacons of one connection.
    pub(crate) each: u32,
}

const ISSUED: u32 = 1;
const REFUSED: u32 = 2;
const PROMISED: u32 = 3;

impl Shape {
    /// For at least `beacons`, the same number on each of `connections`.
    pub(crate) fn of(beacons: u64, connections: u32) -> Self {
        let each = beacons.div_ceil(u64::from(connections));
        Self { connections, each: u32::try_from(each).unwrap_or(u32::MAX) }
    }

    pub(crate) fn beacons(self) -> usize {
        self.connections as usize * self.each as usize
    }

    /// The place of a beacon; `None` for one that is not of this shape.
    pub(crate) fn place(self, mark: Mark) -> Option<usize> {
        let fits = mark.connection < self.connections && mark.sequence < self.each;
        fits.then(|| mark.connection as usize * self.each as usize + mark.sequence as usize)
    }
}

impl Book {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape, entries: vec![0; shape.beacons()] }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// The beacon is about to be sent.
    pub(crate) fn issue(&mut self, place: usize) {
        self.entries[place] = ISSUED;
    }

    /// It was answered with less than the mode promises.
    pub(crate) fn refuse(&mut self, place: usize) {
        self.entries[place] = REFUSED;
    }

    /// It is an obligation from now on.
    pub(crate) fn promise(&mut self, place: usize, at_ms: u32) {
        self.entries[place] = at_ms.saturating_add(PROMISED);
    }

    /// When the beacon became an obligation, in milliseconds since the start of the run; `None` if it did not.
    pub(crate) fn promised_ms(&self, place: usize) -> Option<u32> {
        self.entries[place].checked_sub(PROMISED)
    }

    pub(crate) fn is_issued(&self, place: usize) -> bool {
        self.entries[place] >= ISSUED
    }

    /// How many were issued, how many of them answered with less than is promised, and how many became obligations.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for &entry in &self.entries {
            counts.issued += u64::from(entry >= ISSUED);
            counts.refused += u64::from(entry == REFUSED);
            counts.promised += u64::from(entry >= PROMISED);
        }
        counts
    }
}

/// Sums over a [`Book`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) issued: u64,
    pub(crate) refused: u64,
    pub(crate) promised: u64,
}

/// A bit for each beacon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    /// Sets the bit of `place`; says whether it was set before.
    pub(crate) fn set(&mut self, place: usize) -> bool {
        let (word, bit) = (&mut self.0[place / 64], 1 << (place % 64));
        let was_set = *word & bit != 0;
        *word |= bit;
        was_set
    }

    pub(crate) fn has(&self, place: usize) -> bool {
        self.0[place / 64] & 1 << (place % 64) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_beacon_has_a_place_of_its_own() {
        let shape = Shape::of(10, 3);
        assert_eq!((shape.each, shape.beacons()), (4, 12));
        let mut bits = Bits::new(shape.beacons());
        for connection in 0..3 {
            for sequence in 0..4 {
                let place = shape.place(Mark { run: 0, connection, sequence }).unwrap();
                assert!(!bits.set(place) && bits.set(place) && bits.has(place));
            }
        }
        assert_eq!(shape.place(Mark { run: 0, connection: 3, sequence: 0 }), None);
        assert_eq!(shape.place(Mark { run: 0, connection: 0, sequence: 4 }), None);
    }

    #[test]
    fn the_book_knows_what_became_of_each() {
        let mut book = Book::new(Shape::of(5, 1));
        (0..4).for_each(|place| book.issue(place));
        book.refuse(1);
        book.promise(2, 0);
        book.promise(3, 17);
        assert_eq!(book.counts(), Counts { issued: 4, refused: 1, promised: 2 });
        assert_eq!([2, 3].map(|place| book.promised_ms(place)), [Some(0), Some(17)]);
        assert_eq!([0, 1, 4].map(|place| book.promised_ms(place)), [None; 3]);
        assert_eq!((book.is_issued(0), book.is_issued(4)), (true, false));
    }
}
