use std::ops::Range;

use proptest::prelude::*;

use super::*;

const BACKOFF: Backoff = Backoff { min: ms(100), max: ms(2000) };
const EVERY: Duration = ms(400);
/// One look at everything.
const STEP: Duration = ms(10);
/// What an attempt takes, and what a drain takes.
const TRIP: Duration = ms(30);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn roster(brokers: usize) -> Roster {
    Roster::new(brokers, BACKOFF, Some(EVERY), fastrand::Rng::with_seed(7))
}

fn try_one(roster: &mut Roster, now: Time) -> Place {
    match roster.claim(now) {
        Claim::Try(place) => place,
        wait @ Claim::Wait(_) => panic!("{wait:?}"),
    }
}

fn take(roster: &mut Roster, now: Time) -> Place {
    let attempt = try_one(roster, now);
    roster.connected(attempt)
}

/// Seats with a connection, seats without, and brokers that come and go, on a virtual clock.
struct World {
    roster: Roster,
    now: Time,
    up: Vec<bool>,
    seats: Vec<Seat>,
    /// When each broker was tried.
    tried: Vec<Vec<Time>>,
    moves: usize,
}

#[derive(Debug, Clone, Copy)]
enum Seat {
    Empty,
    Trying(Place, Time),
    Taken(Place, Moving),
}

#[derive(Debug, Clone, Copy)]
enum Moving {
    No,
    Trying(Place, Time),
    Draining(Place, Time),
}

impl World {
    fn new(brokers: usize, seats: usize, seed: u64) -> Self {
        Self {
            roster: Roster::new(brokers, BACKOFF, Some(EVERY), fastrand::Rng::with_seed(seed)),
            now: Time::ZERO,
            up: vec![true; brokers],
            seats: vec![Seat::Empty; seats],
            tried: vec![Vec::new(); brokers],
            moves: 0,
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            for i in 0..self.seats.len() {
                self.seats[i] = self.step(self.seats[i]);
                self.check();
            }
        }
    }

    fn step(&mut self, seat: Seat) -> Seat {
        match seat {
            Seat::Empty => {
                let before: Vec<Reading> = self.roster.readings().collect();
                match self.roster.claim(self.now) {
                    Claim::Wait(until) => {
                        assert!(until.is_none_or(|until| until > self.now), "asked to wait for the past");
                        assert!(
                            until.is_some() || before.iter().any(|broker| broker.attempts > 0),
                            "asked to wait for nothing: {before:?}"
                        );
                        Seat::Empty
                    }
                    Claim::Try(place) => Seat::Trying(place, self.attempt(place, &before)),
                }
            }
            Seat::Trying(place, due) if due <= self.now => match self.answer(place) {
                Some(seat) => Seat::Taken(seat, Moving::No),
                None => Seat::Empty,
            },
            Seat::Taken(place, moving) if !self.up[place.broker] => {
                self.roster.lost(place, self.now);
                match moving {
                    Moving::No => Seat::Empty,
                    Moving::Trying(to, _) => {
                        self.roster.abandoned(to);
                        self.roster.move_ended(self.now);
                        Seat::Empty
                    }
                    Moving::Draining(to, _) => {
                        self.roster.move_ended(self.now);
                        Seat::Taken(to, Moving::No)
                    }
                }
            }
            Seat::Taken(place, Moving::No) => {
                self.roster.proved(place);
                let before: Vec<Reading> = self.roster.readings().collect();
                match self.roster.propose_move(place, self.now) {
                    None => Seat::Taken(place, Moving::No),
                    Some(to) => {
                        let load = |at: &Reading| at.seats + at.attempts;
                        assert!(load(&before[place.broker]) >= load(&before[to.broker]) + 2);
                        Seat::Taken(place, Moving::Trying(to, self.attempt(to, &before)))
                    }
                }
            }
            Seat::Taken(place, Moving::Trying(to, due)) if due <= self.now => match self.answer(to) {
                Some(seat) => Seat::Taken(place, Moving::Draining(seat, self.now + TRIP)),
                None => {
                    self.roster.move_ended(self.now);
                    Seat::Taken(place, Moving::No)
                }
            },
            Seat::Taken(place, Moving::Draining(to, due)) if due <= self.now => {
                self.roster.left(place);
                self.roster.move_ended(self.now);
                self.moves += 1;
                Seat::Taken(to, Moving::No)
            }
            waiting => waiting,
        }
    }

    fn attempt(&mut self, place: Place, before: &[Reading]) -> Time {
        let broker = before[place.broker];
        let at_once = if broker.good { ATTEMPTS_AT_ONCE } else { 1 };
        assert!(broker.attempts < at_once, "{broker:?}");
        self.tried[place.broker].push(self.now);
        self.now + TRIP
    }

    fn answer(&mut self, place: Place) -> Option<Place> {
        if self.up[place.broker] {
            return Some(self.roster.connected(place));
        }
        self.roster.refused(place, self.now);
        None
    }

    fn check(&self) {
        // One more than there are seats, while one moves.
        let all: usize = self.roster.readings().map(|broker| broker.seats + broker.attempts).sum();
        assert!(all <= self.seats.len() + 1, "{all}");
    }

    fn spread(&self) -> Vec<usize> {
        self.roster.readings().map(|broker| broker.seats).collect()
    }

    fn assert_even(&self) {
        let spread = self.spread();
        assert_eq!(spread.iter().sum::<usize>(), self.seats.len(), "{spread:?}");
        assert!(spread.iter().max().unwrap() - spread.iter().min().unwrap() <= 1, "{spread:?}");
    }

    /// Long enough for every pause to end and for every seat to move, one by one.
    fn settle(&mut self) {
        self.run(BACKOFF.max + EVERY.mul_f64(1.5) * (self.seats.len() as u32 + 2) + ms(500));
    }
}

#[test]
fn seats_spread_evenly_from_the_start() {
    for (brokers, seats) in [(1, 1), (1, 5), (2, 1), (2, 2), (2, 3), (3, 7), (3, 64), (7, 3)] {
        let mut world = World::new(brokers, seats, 1);
        world.run(ms(500));
        world.assert_even();
        assert_eq!(world.moves, 0, "{brokers} {seats}");
    }
}

#[test]
fn the_first_broker_differs_from_one_program_to_the_next() {
    let first = |seed| {
        let mut roster = Roster::new(4, BACKOFF, None, fastrand::Rng::with_seed(seed));
        try_one(&mut roster, Time::ZERO).broker
    };
    let firsts: std::collections::BTreeSet<usize> = (0..64).map(first).collect();
    assert_eq!(firsts.len(), 4);
}

#[test]
fn a_broker_not_known_to_be_good_is_tried_by_one_at_a_time() {
    let mut roster = roster(1);
    let attempt = try_one(&mut roster, ms(0));
    assert_eq!(roster.claim(ms(1)), Claim::Wait(None));
    roster.connected(attempt);
    for _ in 0..ATTEMPTS_AT_ONCE {
        try_one(&mut roster, ms(2));
    }
    assert_eq!(roster.claim(ms(2)), Claim::Wait(None));
}

#[test]
fn an_attempt_given_up_leaves_the_place_to_the_next() {
    let mut roster = roster(1);
    let attempt = try_one(&mut roster, ms(0));
    roster.abandoned(attempt);
    try_one(&mut roster, ms(0));
}

#[test]
fn failover_does_not_wait_for_the_pause_of_the_broker_that_failed() {
    let mut roster = roster(2);
    let seats = [take(&mut roster, ms(0)), take(&mut roster, ms(0))];
    assert_ne!(seats[0].broker, seats[1].broker);
    roster.lost(seats[0], ms(1));
    assert_eq!(try_one(&mut roster, ms(1)).broker, seats[1].broker);
}

#[test]
fn a_good_broker_is_preferred_to_an_emptier_one_that_failed() {
    let mut roster = roster(2);
    let seats = [take(&mut roster, ms(0)), take(&mut roster, ms(0))];
    roster.lost(seats[0], ms(1));
    // Its pause is over: a move will find out, which costs nobody a connection.
    assert_eq!(try_one(&mut roster, ms(5000)).broker, seats[1].broker);
}

#[test]
fn ties_go_round() {
    let mut roster = roster(3);
    let mut seen = [0; 3];
    for _ in 0..9 {
        let seat = take(&mut roster, ms(0));
        seen[seat.broker] += 1;
        roster.left(seat);
    }
    assert_eq!(seen, [3, 3, 3]);
}

#[test]
fn the_first_answer_of_a_broker_is_waited_for_a_little() {
    let mut roster = roster(2);
    let (first, slow) = (try_one(&mut roster, ms(0)), try_one(&mut roster, ms(0)));
    roster.connected(first);
    let second = take(&mut roster, ms(10));
    assert_eq!(second.broker, first.broker, "both have one");
    assert_eq!(roster.claim(ms(20)), Claim::Wait(Some(PATIENCE)));
    assert_eq!(try_one(&mut roster, PATIENCE).broker, first.broker, "it takes too long");
    roster.connected(slow);
    assert_eq!(try_one(&mut roster, PATIENCE).broker, slow.broker);
}

#[test]
fn rather_than_try_one_that_failed_a_claim_waits_for_its_turn_at_a_good_one() {
    let mut roster = roster(2);
    let seats = [take(&mut roster, ms(0)), take(&mut roster, ms(0))];
    roster.lost(seats[0], ms(1));
    let attempts: Vec<Place> = (0..ATTEMPTS_AT_ONCE).map(|_| try_one(&mut roster, ms(2))).collect();
    // The pause of the one that failed is over.
    assert_eq!(roster.claim(ms(60_000)), Claim::Wait(None));
    roster.connected(attempts[0]);
    assert_eq!(try_one(&mut roster, ms(60_000)).broker, seats[1].broker);
}

#[test]
fn without_a_good_broker_the_pause_grows_with_each_failure() {
    let mut roster = roster(1);
    let mut now = ms(0);
    for failures in 1..20 {
        let attempt = try_one(&mut roster, now);
        roster.refused(attempt, now);
        let Claim::Wait(Some(until)) = roster.claim(now) else { panic!("no pause") };
        let bound = BACKOFF.bound(failures);
        assert!((bound / 4..=bound).contains(&(until - now)), "{failures}: {:?}", until - now);
        now = until;
    }
}

#[test]
fn many_connections_lost_together_are_one_failure() {
    let mut roster = roster(1);
    let seats: Vec<Place> = (0..32).map(|_| take(&mut roster, ms(0))).collect();
    let late = seats[31];
    seats[..31].iter().for_each(|&seat| roster.lost(seat, ms(1)));
    assert_eq!(roster.readings().next().unwrap().failures, 1);
    // One that is noticed after the broker has come back says nothing of the broker now.
    let attempt = try_one(&mut roster, ms(200));
    roster.connected(attempt);
    roster.lost(late, ms(201));
    let reading = roster.readings().next().unwrap();
    assert_eq!((reading.failures, reading.good), (1, true));
}

#[test]
fn attempts_that_were_on_their_way_together_fail_as_one() {
    let mut roster = roster(1);
    take(&mut roster, ms(0));
    let attempts: Vec<Place> = (0..ATTEMPTS_AT_ONCE).map(|_| try_one(&mut roster, ms(1))).collect();
    attempts.iter().for_each(|&attempt| roster.refused(attempt, ms(2)));
    assert_eq!(roster.readings().next().unwrap().failures, 1);
}

#[test]
fn only_a_proof_of_the_present_epoch_forgets_failures() {
    let mut roster = roster(1);
    let old = take(&mut roster, ms(0));
    let mut now = ms(0);
    for failures in 1..=3 {
        // It connects and loses the connection again and again.
        now += BACKOFF.max;
        let seat = take(&mut roster, now);
        roster.lost(seat, now);
        roster.proved(old);
        assert_eq!(roster.readings().next().unwrap().failures, failures);
    }
    now += BACKOFF.max;
    let seat = take(&mut roster, now);
    roster.proved(seat);
    assert_eq!(roster.readings().next().unwrap().failures, 0);
}

#[test]
fn a_broker_in_an_alarm_is_the_last_of_the_good_and_no_place_to_move_to_or_from() {
    let mut roster = roster(2);
    let seats = [take(&mut roster, ms(0)), take(&mut roster, ms(0))];
    roster.blocked(seats[0], true);
    let others: Vec<Place> = (0..3).map(|_| take(&mut roster, ms(0))).collect();
    assert!(others.iter().all(|seat| seat.broker == seats[1].broker));
    assert_eq!(roster.propose_move(others[0], ms(60_000)), None);
    roster.blocked(seats[0], false);
    roster.blocked(others[0], true);
    assert_eq!(roster.propose_move(others[0], ms(60_000)), None);
    roster.blocked(others[0], false);
    // Whoever proposes first.
    assert_eq!(roster.propose_move(seats[0], ms(60_000)), None);
    assert_eq!(roster.propose_move(others[0], ms(60_000)).unwrap().broker, seats[0].broker);
}

#[test]
fn one_seat_at_a_time_moves_to_a_broker_that_is_back() {
    let mut world = World::new(2, 6, 3);
    world.run(ms(300));
    world.up[0] = false;
    world.run(ms(3000));
    assert_eq!(world.spread(), [0, 6]);
    world.up[0] = true;
    let start = world.now;
    world.settle();
    assert_eq!(world.spread(), [3, 3]);
    assert_eq!(world.moves, 3);
    let returned: Vec<Time> = world.tried[0].iter().copied().filter(|&at| at > start).collect();
    assert_eq!(returned.len(), 3);
    assert!(returned.windows(2).all(|pair| pair[1] - pair[0] >= EVERY / 2), "{returned:?}");
}

#[test]
fn without_rebalancing_nothing_moves() {
    let mut world = World::new(2, 6, 3);
    world.roster.rebalance = None;
    world.run(ms(300));
    world.up[0] = false;
    world.run(ms(300));
    world.up[0] = true;
    world.run(ms(60_000));
    assert_eq!((world.spread(), world.moves), (vec![0, 6], 0));
}

#[test]
fn sixty_four_seats_do_not_storm_a_broker_that_is_away() {
    let mut world = World::new(1, 64, 5);
    world.run(ms(500));
    world.up[0] = false;
    let start = world.now;
    world.run(Duration::from_secs(600));
    let tried: Vec<Time> = world.tried[0].iter().copied().filter(|&at| at > start).collect();
    // After the growth of the pauses each is at least a quarter of the longest.
    assert!(tried.len() < 600 * 1000 / (2000 / 4), "{}", tried.len());
    for (failures, pair) in (2..).zip(tried.windows(2)) {
        assert!(pair[1] - pair[0] >= BACKOFF.bound(failures) / 4, "{failures}");
    }
    world.up[0] = true;
    world.settle();
    world.assert_even();
}

fn schedule(brokers: usize) -> impl Strategy<Value = Vec<(usize, bool, u64)>> {
    const PAUSES: Range<u64> = 0..3000;
    proptest::collection::vec((0..brokers, any::<bool>(), PAUSES), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The invariants hold throughout (`World::check` and the assertions of each step); once all brokers are back the
    /// seats spread evenly within a bounded time; and then nothing moves any more.
    #[test]
    fn whatever_comes_and_goes_the_seats_spread_evenly_in_the_end(
        (brokers, schedule) in (1_usize..5).prop_flat_map(|brokers| (Just(brokers), schedule(brokers))),
        seats in 1_usize..20,
        seed in any::<u64>(),
    ) {
        let mut world = World::new(brokers, seats, seed);
        for (broker, up, pause) in schedule {
            world.up[broker] = up;
            world.run(ms(pause));
        }
        world.up.fill(true);
        world.settle();
        world.assert_even();
        let (moves, tried) = (world.moves, world.tried.iter().map(Vec::len).sum::<usize>());
        world.run(ms(60_000));
        prop_assert_eq!((world.moves, world.tried.iter().map(Vec::len).sum::<usize>()), (moves, tried));
    }

    /// While one broker is away for good, its attempts are as far apart as the backoff says.
    #[test]
    fn attempts_at_a_broker_that_is_away_keep_the_pauses(
        brokers in 1_usize..4,
        seats in 1_usize..40,
        seed in any::<u64>(),
    ) {
        let mut world = World::new(brokers, seats, seed);
        world.up[0] = false;
        world.run(ms(30_000));
        for (failures, pair) in (1..).zip(world.tried[0].windows(2)) {
            prop_assert!(pair[1] - pair[0] >= BACKOFF.bound(failures) / 4, "{}: {:?}", failures, pair);
        }
    }
}
