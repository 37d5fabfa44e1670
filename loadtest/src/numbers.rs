//! Sets of sequence numbers, a bit each.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use crate::Error;

/// A set spans at most so many numbers: 256 MiB of bits.
const SPAN: u64 = 1 << 31;

/// Numbers from a first one on.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    first: u64,
    words: Vec<u64>,
    count: u64,
}

impl Numbers {
    /// An empty set of numbers from `first` on.
    pub fn from(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// Reads a file with a number on each line, as `--answered` writes it.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read or has something else in it.
    pub fn read(path: &Path, first: u64) -> Result<Self, Error> {
        let read = || -> std::io::Result<Self> {
            let mut numbers = Self::from(first);
            for line in BufReader::new(File::open(path)?).lines() {
                numbers.insert(line?.parse().map_err(std::io::Error::other)?);
            }
            Ok(numbers)
        };
        read().map_err(Error::io("file of answered numbers"))
    }

    /// Whether `number` can be in this set at all.
    pub fn spans(&self, number: u64) -> bool {
        number.checked_sub(self.first).is_some_and(|place| place < SPAN)
    }

    /// Adds a number; `false` when it was there, or cannot be.
    pub fn insert(&mut self, number: u64) -> bool {
        if !self.spans(number) {
            return false;
        }
        let place = number - self.first;
        let (word, bit) = ((place / 64) as usize, 1u64 << (place % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(new);
        new
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Those that are not in `other`, which has the same first number, in order.
    pub fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u64> + 'a {
        debug_assert_eq!(self.first, other.first);
        self.words.iter().enumerate().flat_map(move |(place, word)| {
            let mut left = word & !other.words.get(place).copied().unwrap_or(0);
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let bit = u64::from(left.trailing_zeros());
                    left &= left - 1;
                    self.first + place as u64 * 64 + bit
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_in_the_set_is_not_taken() {
        let mut numbers = Numbers::from(100);
        assert!(!numbers.insert(99) && !numbers.insert(100 + SPAN));
        assert!(numbers.insert(100) && !numbers.insert(100));
        assert_eq!(numbers.len(), 1);
    }

    #[test]
    fn a_file_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "7\n5\n7\n").unwrap();
        let numbers = Numbers::read(file.path(), 5).unwrap();
        assert_eq!(numbers.without(&Numbers::from(5)).collect::<Vec<_>>(), [5, 7]);
        std::fs::write(file.path(), "x\n").unwrap();
        assert!(Numbers::read(file.path(), 5).is_err());
        assert!(Numbers::read(Path::new("/nonexistent/answered"), 5).is_err());
    }

    proptest! {
        #[test]
        fn the_difference_is_that_of_sets(a: BTreeSet<u8>, b: BTreeSet<u8>) {
            let set = |of: &BTreeSet<u8>| {
                let mut numbers = Numbers::from(0);
                of.iter().for_each(|&number| assert!(numbers.insert(number.into())));
                numbers
            };
            let (mine, other) = (set(&a), set(&b));
            prop_assert_eq!(mine.len(), a.len() as u64);
            let found: Vec<u64> = mine.without(&other).collect();
            prop_assert_eq!(found, a.difference(&b).map(|&number| number.into()).collect::<Vec<u64>>());
        }
    }
}
