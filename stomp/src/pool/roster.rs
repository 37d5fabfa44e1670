//! Which broker a connection goes to, and when: a state machine without clock, socket or runtime. Time and the seed of
//! chance are passed in.
//!
//! A **seat** is one connection that shall exist. It is taken at some broker, or an attempt is on its way to take it
//! there, or it waits. What the roster sees to:
//!
//! - **Failover at once**: a claim goes to a broker that is known to be good, whatever the others' pauses are.
//! - **No stampede**: a broker that is not known to be good sees one attempt at a time, and after each failure none
//!   before a pause that grows ([`Backoff`]); a good one sees a few at a time.
//! - **Even spread**: a claim goes where the fewest seats are. When a broker has come back, seats move to it one by
//!   one, with a pause in between, until no two brokers differ by more than one. A move is begun by the attempt that
//!   finds out whether the broker is back, so nothing is given up for a broker that is not.
//!
//! Failures are counted per *epoch*: the time from one failure of a broker to the next. When a broker goes down, all of
//! its connections end; that is one failure, not one for each.

use std::time::Duration;

use crate::{Backoff, proto::Time};

/// Attempts at a time to a broker that is known to be good.
const ATTEMPTS_AT_ONCE: usize = 8;
/// How long a claim would rather wait for the answer of a broker never tried before than unbalance the seats.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Roster {
    brokers: Vec<Broker>,
    backoff: Backoff,
    /// The mean pause between two moves; `None`: no moves.
    rebalance: Option<Duration>,
    chance: fastrand::Rng,
    /// Where the search for the emptiest broker begins, so that ties go round.
    turn: usize,
    moving: bool,
    next_move: Time,
}

#[derive(Debug, Default)]
struct Broker {
    /// Connections in use.
    seats: usize,
    /// Of them, those whose broker takes nothing at present.
    blocked: usize,
    attempts: usize,
    health: Health,
    /// In a row, without a proof in between.
    failures: u32,
    epoch: u64,
    not_before: Time,
    tried_at: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Health {
    #[default]
    Untried,
    Good,
    Failed,
}

/// A broker at a certain time of its life: an attempt on its way there, or a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) broker: usize,
    epoch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Try this one.
    Try(Place),
    /// Ask again at this time, or when something has changed.
    Wait(Option<Time>),
}

/// What is known of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) seats: usize,
    pub(crate) blocked: usize,
    pub(crate) attempts: usize,
    pub(crate) failures: u32,
    pub(crate) good: bool,
    /// Failures since the start.
    pub(crate) epoch: u64,
}

impl Roster {
    pub(crate) fn new(
        brokers: usize,
        backoff: Backoff,
        rebalance: Option<Duration>,
        mut chance: fastrand::Rng,
    ) -> Self {
        let turn = chance.usize(..brokers.max(1));
        let brokers = std::iter::repeat_with(Broker::default).take(brokers).collect();
        let mut roster =
            Self { brokers, backoff, rebalance, chance, turn, moving: false, next_move: Time::ZERO };
        roster.space_moves(Time::ZERO);
        roster
    }

    /// Where a seat without a connection shall try. [`Roster::connected`], [`Roster::refused`] or
    /// [`Roster::abandoned`] must follow.
    pub(crate) fn claim(&mut self, now: Time) -> Claim {
        let good_one_is_busy = self
            .brokers
            .iter()
            .any(|broker| broker.rank() == 0 && broker.health == Health::Good && !broker.may_be_tried(now));
        let best = self
            .in_turn()
            .filter(|&i| {
                self.brokers[i].may_be_tried(now) && (self.brokers[i].rank() == 0 || !good_one_is_busy)
            })
            .min_by_key(|&i| (self.brokers[i].rank(), self.brokers[i].load()));
        let Some(best) = best else { return Claim::Wait(self.next_pause_end(now)) };
        let load = self.brokers[best].load();
        if let Some(until) = self.first_answer_due(load, now) {
            return Claim::Wait(Some(until));
        }
        self.turn = best + 1;
        Claim::Try(self.attempt(best, now))
    }

    /// Whether a seat at `from` shall move, and where to. Besides what follows a claim, [`Roster::move_ended`] must
    /// follow.
    pub(crate) fn propose_move(&mut self, from: Place, now: Time) -> Option<Place> {
        self.rebalance?;
        if self.moving || now < self.next_move {
            return None;
        }
        let Broker { blocked: 0, .. } = self.brokers[from.broker] else { return None };
        let load = self.brokers[from.broker].load();
        let fullest = self.brokers.iter().filter(|broker| broker.blocked == 0).map(Broker::load).max();
        let to = self
            .in_turn()
            .filter(|&i| self.brokers[i].blocked == 0 && self.brokers[i].may_be_tried(now))
            .min_by_key(|&i| self.brokers[i].load())?;
        if fullest != Some(load) || load < self.brokers[to].load() + 2 {
            return None;
        }
        self.moving = true;
        Some(self.attempt(to, now))
    }

    /// The move is over, whatever came of it.
    pub(crate) fn move_ended(&mut self, now: Time) {
        self.moving = false;
        self.space_moves(now);
    }

    /// The attempt succeeded and is a seat now.
    pub(crate) fn connected(&mut self, attempt: Place) -> Place {
        let broker = &mut self.brokers[attempt.broker];
        broker.attempts -= 1;
        broker.seats += 1;
        broker.health = Health::Good;
        Place { broker: attempt.broker, epoch: broker.epoch }
    }

    /// The attempt failed.
    pub(crate) fn refused(&mut self, attempt: Place, now: Time) {
        self.brokers[attempt.broker].attempts -= 1;
        self.failed(attempt, now);
    }

    /// The attempt was given up before it came to anything.
    pub(crate) fn abandoned(&mut self, attempt: Place) {
        self.brokers[attempt.broker].attempts -= 1;
    }

    /// The broker does what it is for at this seat: its failures are forgotten.
    pub(crate) fn proved(&mut self, seat: Place) {
        let broker = &mut self.brokers[seat.broker];
        if broker.epoch == seat.epoch {
            broker.failures = 0;
        }
    }

    /// The broker takes nothing from this seat, or does again. Neither twice in a row.
    pub(crate) fn blocked(&mut self, seat: Place, blocked: bool) {
        let broker = &mut self.brokers[seat.broker];
        broker.blocked = if blocked { broker.blocked + 1 } else { broker.blocked - 1 };
    }

    /// The seat's connection was lost. A seat that is blocked must be unblocked first.
    pub(crate) fn lost(&mut self, seat: Place, now: Time) {
        self.left(seat);
        self.failed(seat, now);
    }

    /// The seat's connection was closed on purpose. A seat that is blocked must be unblocked first.
    pub(crate) fn left(&mut self, seat: Place) {
        self.brokers[seat.broker].seats -= 1;
    }

    pub(crate) fn readings(&self) -> impl Iterator<Item = Reading> {
        self.brokers.iter().map(|broker| Reading {
            seats: broker.seats,
            blocked: broker.blocked,
            epoch: broker.epoch,
            attempts: broker.attempts,
            failures: broker.failures,
            good: broker.health == Health::Good,
        })
    }

    fn attempt(&mut self, to: usize, now: Time) -> Place {
        let broker = &mut self.brokers[to];
        broker.attempts += 1;
        broker.tried_at = now;
        Place { broker: to, epoch: broker.epoch }
    }

    fn failed(&mut self, place: Place, now: Time) {
        let chance = self.chance.f64();
        let broker = &mut self.brokers[place.broker];
        if broker.epoch != place.epoch {
            // Part of a failure that was counted already.
            return;
        }
        broker.epoch += 1;
        broker.health = Health::Failed;
        broker.failures = broker.failures.saturating_add(1);
        broker.not_before = now.saturating_add(self.backoff.pause_at(broker.failures, chance));
    }

    fn in_turn(&self) -> impl Iterator<Item = usize> {
        let (turn, len) = (self.turn, self.brokers.len());
        (0..len).map(move |i| (turn + i) % len)
    }

    fn next_pause_end(&self, now: Time) -> Option<Time> {
        self.brokers.iter().map(|broker| broker.not_before).filter(|&end| end > now).min()
    }

    /// Until when to wait for brokers that are tried for the first time and would be emptier than `load`.
    fn first_answer_due(&self, load: usize, now: Time) -> Option<Time> {
        self.brokers
            .iter()
            .filter(|broker| broker.health == Health::Untried && broker.attempts > 0 && broker.load() < load)
            .map(|broker| broker.tried_at.saturating_add(PATIENCE))
            .filter(|&until| until > now)
            .min()
    }

    fn space_moves(&mut self, now: Time) {
        let pause = self.rebalance.unwrap_or_default().mul_f64(0.5 + self.chance.f64());
        self.next_move = now.saturating_add(pause);
    }
}

impl Broker {
    fn load(&self) -> usize {
        self.seats + self.attempts
    }

    fn may_be_tried(&self, now: Time) -> bool {
        let at_once = if self.health == Health::Good { ATTEMPTS_AT_ONCE } else { 1 };
        self.attempts < at_once && (self.health == Health::Good || self.not_before <= now)
    }

    /// Lower is better. One in an alarm would take the connection, and nothing more.
    fn rank(&self) -> u8 {
        match self.health {
            Health::Failed => 2,
            Health::Untried | Health::Good => u8::from(self.blocked > 0),
        }
    }
}

#[cfg(test)]
mod tests;
