//! The search for the highest rate at which the backlog does not grow: steps that widen until there are a rate that was
//! sustained and one that was not, then bisection between the two. The number of probes is bounded.

/// The first step away from what a closed loop suggests, as a share of it.
const FIRST_STEP: f64 = 0.3;

/// Probes more where there is nothing better to begin with.
const FIRST_PROBES: u32 = 2;

/// The same from what an earlier round has found.
const LATER_STEP: f64 = 0.06;

/// Probes more for a rate that is sustained at all.
const SPARE_PROBES: u32 = 2;

/// Stops when the bounds are this close.
const CLOSE: f64 = 0.02;

/// A search in progress.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    /// The highest rate that was sustained.
    low: f64,
    /// The lowest rate that was not.
    high: Option<f64>,
    next: f64,
    step: f64,
    /// No rate above is tried.
    most: f64,
    left: u32,
    /// Probes more that are granted as long as nothing was sustained.
    spare: u32,
}

impl Search {
    /// Starts between the answers and the confirms that a closed loop had per second: where answers are early they are far
    /// too many, and the flood of them keeps confirms few.
    pub(crate) fn new(answered: f64, confirmed: f64, most: f64, probes: u32) -> Self {
        let between = if confirmed >= 1.0 { (answered * confirmed.min(answered)).sqrt() } else { answered };
        Self::from(between, FIRST_STEP, most, probes + FIRST_PROBES)
    }

    /// Starts from what earlier rounds have found.
    pub(crate) fn again(found: f64, most: f64, probes: u32) -> Self {
        Self::from(found, LATER_STEP, most, probes)
    }

    fn from(rate: f64, step: f64, most: f64, probes: u32) -> Self {
        Self {
            low: 0.0,
            high: None,
            next: rate.min(most).max(1.0),
            step,
            most,
            left: probes,
            spare: SPARE_PROBES,
        }
    }

    /// The rate to try next; `None` when the search is over.
    pub(crate) fn next(&self) -> Option<f64> {
        let close = self.high.is_some_and(|high| high - self.low <= high * CLOSE);
        let all = self.low >= self.most;
        (self.left > 0 && !close && !all && self.next >= 1.0).then(|| self.next.round())
    }

    /// Says whether `rate` was sustained.
    pub(crate) fn tell(&mut self, rate: f64, sustained: bool) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 && self.low == 0.0 && !sustained && self.spare > 0 {
            (self.left, self.spare) = (1, self.spare - 1);
        }
        if sustained {
            self.low = self.low.max(rate);
        } else {
            self.high = Some(self.high.map_or(rate, |high| high.min(rate)));
        }
        self.next = match self.high {
            Some(high) if self.low > 0.0 => (self.low + high) / 2.0,
            Some(high) => high * (1.0 - self.step),
            None => (self.low * (1.0 + self.step)).min(self.most),
        };
        self.step = (self.step * 2.0).min(0.5);
    }

    /// The highest rate that was sustained, if one was.
    pub(crate) fn found(&self) -> Option<f64> {
        (self.low > 0.0).then_some(self.low)
    }

    /// Whether the search ended at the highest rate that may be tried, so that more may be possible.
    pub(crate) fn is_capped(&self) -> bool {
        self.high.is_none() && self.low >= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(limit: f64, closed_loop: f64, most: f64, probes: u32) -> (Search, u32) {
        let mut search = Search::new(closed_loop, closed_loop, most, probes);
        let mut tried = 0;
        while let Some(rate) = search.next() {
            tried += 1;
            search.tell(rate, rate <= limit);
        }
        (search, tried)
    }

    #[test]
    fn the_rate_is_found_within_the_probes() {
        for (limit, closed_loop) in
            [(10_000.0, 10_000.0), (3_000.0, 60_000.0), (50_000.0, 30_000.0), (900.0, 1000.0)]
        {
            let (search, tried) = search(limit, closed_loop, 1e6, 10);
            let found = search.found().unwrap();
            assert!(found <= limit && found > limit * 0.94, "{found} for {limit}");
            assert!(tried <= 10 + FIRST_PROBES + SPARE_PROBES);
        }
    }

    #[test]
    fn what_sustains_nothing_is_given_up_and_a_cap_is_said() {
        let (none, tried) = search(0.0, 10_000.0, 1e6, 5);
        assert_eq!((none.found(), tried), (None, 5 + FIRST_PROBES + SPARE_PROBES));
        let (capped, _) = search(1e9, 10_000.0, 12_000.0, 9);
        assert_eq!((capped.found(), capped.is_capped()), (Some(12_000.0), true));
        assert!(Search::new(0.0, 0.0, 1e6, 3).next().is_some());
    }

    #[test]
    fn a_flood_of_early_answers_misleads_in_neither_direction() {
        // Answered, confirmed and sustained, as seen.
        for (answered, confirmed, limit) in [
            (36_700.0, 700.0, 9_000.0),
            (37_000.0, 5_000.0, 11_000.0),
            (1_355.0, 1_355.0, 600.0),
            (59_000.0, 51_000.0, 53_000.0),
        ] {
            let mut search = Search::new(answered, confirmed, 1e6, 4);
            while let Some(rate) = search.next() {
                search.tell(rate, rate <= limit);
            }
            let found = search.found().unwrap();
            assert!(found <= limit && found > limit * 0.9, "{found} for {limit}");
        }
    }

    #[test]
    fn a_later_round_needs_few_probes_and_is_not_bound_to_the_earlier() {
        for (limit, probes, near) in
            [(10_000.0, 4, 0.97), (9_000.0, 4, 0.95), (13_000.0, 4, 0.9), (5_000.0, 4, 0.6)]
        {
            let mut search = Search::again(10_000.0, 1e6, probes);
            while let Some(rate) = search.next() {
                search.tell(rate, rate <= limit);
            }
            let found = search.found().unwrap();
            assert!(found <= limit && found >= limit * near, "{found} for {limit}");
        }
    }
}
