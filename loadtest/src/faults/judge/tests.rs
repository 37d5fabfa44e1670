//! Histories that never happened, and what the judge has to say of them.

use super::*;
use crate::faults::{
    book::Shape,
    mark::{Mark, Reader},
};

const RUN: u32 = 7;
const BEACONS: u32 = 10;

/// A run of ten beacons in which all went well; a test then spoils it.
struct Fabricated {
    mode: Mode,
    fault: Fault,
    book: Book,
    delivered: Delivered,
    lives: Vec<Life>,
    is_drained: bool,
    unconserved: Vec<String>,
}

impl Fabricated {
    fn well(mode: Mode, fault: Fault) -> Self {
        let shape = Shape::of(u64::from(BEACONS), 1);
        let mut book = Book::new(shape);
        for place in 0..BEACONS as usize {
            book.issue(place);
            book.promise(place, 1000 + place as u32);
        }
        let mut history = Self {
            mode,
            fault,
            book,
            delivered: Delivered::new(shape),
            lives: vec![Life {
                end: End::Terminated(Some(0)),
                reading: Reading { accepted: 10, confirmed: 10, ..Reading::default() },
            }],
            is_drained: true,
            unconserved: Vec::new(),
        };
        history.deliver(0..BEACONS);
        history
    }

    /// Starts the far end anew, with these.
    fn only(&mut self, numbers: impl IntoIterator<Item = u32>) {
        self.delivered = Delivered::new(self.book.shape());
        self.deliver(numbers);
    }

    fn deliver(&mut self, numbers: impl IntoIterator<Item = u32>) {
        let lines: Vec<Vec<u8>> = numbers.into_iter().map(|sequence| line(RUN, sequence)).collect();
        self.message(&lines.concat(), lines.len());
    }

    fn message(&mut self, body: &[u8], count: usize) {
        let count = count.to_string();
        self.delivered.take(&Reader::default(), RUN, self.book.shape(), Some(&count), body);
    }

    fn killed(&mut self, since_ms: u32, at_ms: u32) {
        let killed =
            Life { end: End::Killed { since_ms, until_ms: at_ms + 5, at_ms }, reading: Reading::default() };
        self.lives.insert(0, killed);
    }

    fn verdict(&self) -> Verdict {
        judge(&History {
            mode: self.mode,
            fault: self.fault,
            book: &self.book,
            delivered: &self.delivered,
            lives: &self.lives,
            is_drained: self.is_drained,
            unconserved: &self.unconserved,
        })
    }

    fn assert_kept(&self) -> Verdict {
        let verdict = self.verdict();
        assert_eq!(verdict.violations, Vec::<String>::new());
        verdict
    }

    fn assert_broken(&self, what: &str) {
        let violations = self.verdict().violations;
        assert!(violations.iter().any(|violation| violation.contains(what)), "no `{what}` in {violations:?}");
    }
}

fn line(run: u32, sequence: u32) -> Vec<u8> {
    let mut line = br#"{"v":1,"id":"018bcfe5-687b-7bab-8bab-0f3c1e5d7a90","query":""#.to_vec();
    Mark { run, connection: 0, sequence }.write(&mut line);
    line.extend_from_slice(b"\",\"ip\":\"127.0.0.1\"}\n");
    line
}

fn dropped(reason: &str, count: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([(reason.to_owned(), count)])
}

#[test]
fn what_went_well_is_found_well_in_every_mode() {
    for mode in [Mode::Ring, Mode::RingSpool, Mode::Spooled, Mode::Confirmed] {
        let verdict = Fabricated::well(mode, Fault::Network).assert_kept();
        assert_eq!((verdict.issued, verdict.promised, verdict.delivered, verdict.lost), (10, 10, 10, 0));
    }
}

#[test]
fn a_lost_beacon_convicts() {
    for mode in [Mode::Ring, Mode::RingSpool, Mode::Spooled, Mode::Confirmed] {
        let mut history = Fabricated::well(mode, Fault::Network);
        history.only(0..9);
        history.assert_broken("1 obligations were lost");
        // Saying so is no excuse where nothing may be lost.
        history.lives[0].reading =
            Reading { accepted: 10, confirmed: 9, dropped: dropped("ring_full", 1), ..Reading::default() };
        if mode == Mode::Ring {
            assert_eq!(history.assert_kept().lost, 1);
        } else {
            history.assert_broken("where none may be");
        }
    }
}

#[test]
fn a_beacon_without_a_promise_may_be_lost_or_come() {
    let mut history = Fabricated::well(Mode::Confirmed, Fault::BrokerOutage);
    history.book.refuse(3);
    history.assert_kept();
    history.only((0..10).filter(|&number| number != 3));
    history.lives[0].reading =
        Reading { accepted: 10, confirmed: 9, dropped: dropped("ring_full", 1), ..Reading::default() };
    assert_eq!(history.assert_kept().refused, 1);
}

#[test]
fn more_lost_than_counted_convicts() {
    let mut history = Fabricated::well(Mode::Ring, Fault::BrokerOutage);
    history.only(0..7);
    history.lives[0].reading =
        Reading { accepted: 10, confirmed: 8, dropped: dropped("ring_full", 2), ..Reading::default() };
    history.assert_broken("3 obligations were lost, of which the edge counts only 2");
}

#[test]
fn more_counted_than_lost_convicts() {
    let mut history = Fabricated::well(Mode::Ring, Fault::BrokerOutage);
    history.lives[0].reading =
        Reading { accepted: 10, confirmed: 8, dropped: dropped("ring_full", 2), ..Reading::default() };
    history.assert_broken("of 10 accepted beacons 10 came out, and 2 are counted as dropped");
    // Unless the broker had them when the edge gave up waiting for it.
    history.lives[0].reading.dropped = dropped("shutdown_in_flight", 2);
    history.lives[0].end = End::Terminated(Some(3));
    history.assert_kept();
}

#[test]
fn what_a_killed_edge_takes_along_is_allowed_where_it_is_and_only_what_is_young() {
    for (mode, allowed) in
        [(Mode::Ring, true), (Mode::RingSpool, true), (Mode::Spooled, false), (Mode::Confirmed, false)]
    {
        let mut history = Fabricated::well(mode, Fault::Sigkill);
        history.killed(1008, 1012);
        history.only(0..8);
        if allowed {
            let verdict = history.assert_kept();
            assert_eq!((verdict.lost, verdict.oldest_lost_ms), (2, Some(4)));
            // The one of millisecond 1007 had all the time in the world.
            history.only(0..7);
            history.assert_broken("1 obligations were lost");
        } else {
            history.assert_broken("2 obligations were lost with an edge that was killed");
        }
    }
}

#[test]
fn a_corrupted_payload_convicts() {
    let mut history = Fabricated::well(Mode::Ring, Fault::Network);
    let mut damaged = line(RUN, 3);
    let at = damaged.windows(3).position(|three| three == b"&p=").unwrap() + 10;
    damaged[at] ^= 0x20;
    history.message(&damaged, 1);
    history.assert_broken("1 lines or messages are damaged; the first: Checksum");

    let mut history = Fabricated::well(Mode::Ring, Fault::Network);
    let whole = line(RUN, 3);
    history.message(&whole[..whole.len() - 1], 1);
    history.assert_broken("damaged");

    let mut history = Fabricated::well(Mode::Ring, Fault::Network);
    history.message(&whole, 2);
    history.assert_broken("a message of 1 lines says beacon-count Some(\"2\")");
}

#[test]
fn beacons_from_nowhere_convict() {
    let mut history = Fabricated::well(Mode::Ring, Fault::Network);
    history.message(&line(RUN - 1, 3), 1);
    history.assert_broken("1 lines are of no beacon of this run");

    let mut history = Fabricated::well(Mode::Ring, Fault::Network);
    history.message(&line(RUN, BEACONS), 1);
    history.assert_broken("1 lines are of no beacon of this run");

    let mut history = Fabricated::well(Mode::Ring, Fault::Network);
    let mut book = Book::new(history.book.shape());
    (0..9).for_each(|place| {
        book.issue(place);
        book.promise(place, 1);
    });
    history.book = book;
    history.assert_broken("1 beacons came that were never sent");
}

#[test]
fn duplicates_are_counted_and_no_offence() {
    let mut history = Fabricated::well(Mode::Spooled, Fault::Network);
    history.deliver(0..4);
    history.deliver([0]);
    assert_eq!(history.assert_kept().duplicates, 5);
}

#[test]
fn a_wrong_identity_convicts() {
    let cases: [(&str, Reading); 4] = [
        ("does not add up", Reading { accepted: 10, confirmed: 9, ..Reading::default() }),
        ("the edge accepted 9", Reading { accepted: 9, confirmed: 9, ..Reading::default() }),
        ("the edge accepted 11", Reading { accepted: 11, confirmed: 11, ..Reading::default() }),
        (
            "process 0 found 2 beacons in the spool, where 0 had been left",
            Reading { accepted: 10, recovered: 2, confirmed: 12, ..Reading::default() },
        ),
    ];
    for (what, reading) in cases {
        let mut history = Fabricated::well(Mode::RingSpool, Fault::Network);
        history.lives[0].reading = reading;
        history.assert_broken(what);
    }
    let mut history = Fabricated::well(Mode::Ring, Fault::Network);
    history.unconserved.push("1 ≠ 2".into());
    history.assert_broken("1 readings do not add up; the first: 1 ≠ 2");
}

#[test]
fn a_spool_is_handed_on_whole() {
    let mut history = Fabricated::well(Mode::RingSpool, Fault::Sigterm);
    let (first, second) = (
        Reading { accepted: 6, confirmed: 4, spooled: 2, ..Reading::default() },
        Reading { accepted: 4, recovered: 2, confirmed: 6, ..Reading::default() },
    );
    history.lives = [first, second].map(|reading| Life { end: End::Terminated(Some(0)), reading }).into();
    history.assert_kept();
    history.lives[1].reading = Reading { accepted: 4, recovered: 1, confirmed: 5, ..Reading::default() };
    history.assert_broken("process 1 found 1 beacons in the spool, where 2 had been left");
}

#[test]
fn an_exit_status_that_hides_a_loss_convicts() {
    let mut history = Fabricated::well(Mode::Ring, Fault::Sigterm);
    history.only(0..9);
    history.lives[0].reading =
        Reading { accepted: 10, confirmed: 9, dropped: dropped("shutdown_on_ring", 1), ..Reading::default() };
    history.assert_broken("says that nothing was left");
    history.lives[0].end = End::Terminated(Some(3));
    history.assert_kept();
    history.lives[0].end = End::Terminated(None);
    history.assert_broken("ended with exit status None");
}

#[test]
fn what_does_not_drain_convicts() {
    let mut history = Fabricated::well(Mode::Ring, Fault::BrokerOutage);
    history.is_drained = false;
    history.assert_broken("not everything was confirmed or counted within the bound");
}
