//! Which of a corpus a sequence number gets: by Zipf's law, some are far more common than others.

/// Places of a corpus, the first the most common.
#[derive(Debug)]
pub(crate) struct Skew {
    /// For each place the share of all that come before it or are it, of 2⁶⁴; empty without a skew.
    shares: Vec<u64>,
}

impl Skew {
    /// Of a corpus of `size`; the place *n* is *n* to the power of `exponent` times rarer than the first.
    pub(crate) fn new(size: usize, exponent: f64) -> Self {
        if exponent <= 0.0 {
            return Self { shares: Vec::new() };
        }
        let weight = |place: usize| (place as f64).powf(-exponent);
        let total: f64 = (1..=size).map(weight).sum();
        let mut sum = 0.0;
        let shares = (1..=size).map(|place| {
            sum += weight(place);
            (sum / total * u64::MAX as f64) as u64
        });
        Self { shares: shares.collect() }
    }

    /// The place of `seq`, below `count`: the same at every call, and without a skew one after the other.
    pub(crate) fn place(&self, seq: u64, count: usize) -> usize {
        if self.shares.is_empty() {
            return (seq % count as u64) as usize;
        }
        let draw = scatter(seq);
        self.shares.partition_point(|&share| share < draw).min(count - 1)
    }
}

/// Numbers that follow each other become numbers that seem random (the finalizer of SplitMix64).
fn scatter(seq: u64) -> u64 {
    let mut mixed = seq.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_skew_all_come_in_turn() {
        let skew = Skew::new(3, 0.0);
        assert_eq!((0..7).map(|seq| skew.place(seq, 3)).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn with_a_skew_each_comes_as_often_as_its_place_says() {
        let skew = Skew::new(4, 1.0);
        let mut counts = [0u32; 4];
        (0..100_000).for_each(|seq| counts[skew.place(seq, 4)] += 1);
        // 1, 1/2, 1/3, 1/4 of 25/12.
        for (count, share) in counts.iter().zip([0.48, 0.24, 0.16, 0.12]) {
            assert!((f64::from(*count) / 1e5 - share).abs() < 0.01, "{counts:?}");
        }
        assert_eq!(skew.place(7, 4), skew.place(7, 4));
    }
}
