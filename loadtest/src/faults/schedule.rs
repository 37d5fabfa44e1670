//! From a seed to a schedule: always the same.

use std::time::Duration;

use fastrand::Rng;

use crate::faults::{
    fault::{Action, Fault, Step},
    mode::Mode,
};

/// The steps of one run, in order.
pub fn draw(mode: Mode, fault: Fault, seed: u64) -> Vec<Step> {
    // Modes and faults with the same seed are not to fail at the same moments.
    let mut rng = Rng::with_seed(seed << 8 | (mode as u64) << 4 | fault as u64);
    // What the first step does goes round with the seed, so that a row of seeds shows everything.
    let nth = seed as usize;
    match fault {
        Fault::Sigterm => steps(&mut rng, 2, |rng, place| edge(mode, Action::Sigterm, nth + place, rng)),
        Fault::Sigkill => steps(&mut rng, 3, |rng, place| edge(mode, Action::Sigkill, nth + place, rng)),
        Fault::PowerCut => steps(&mut rng, 2, |rng, place| {
            // Every other one of those without a broker: then there is much in the file to lose.
            let in_checkpoint = mode.has_spool() && (nth + place) % 4 == 3;
            let action = if in_checkpoint { Action::PowerCutInCheckpoint } else { Action::PowerCut };
            edge(mode, action, nth + place, rng)
        }),
        Fault::BrokerOutage => early(&mut rng, |rng| outage(nth, rng)),
        Fault::Alarm => steps(&mut rng, 2, |rng, place| alarm(nth + place, rng)),
        Fault::Network => steps(&mut rng, 3, |rng, place| network(nth + place, rng)),
        Fault::DiskFull => early(&mut rng, |rng| (Action::DiskFull, ms(rng, 1500, 3000), Duration::ZERO)),
        Fault::NodeLoss => early(&mut rng, |rng| (Action::NodeKill, ms(rng, 0, 2000), Duration::ZERO)),
        Fault::Mixed => steps(&mut rng, 4, |rng, place| match (nth + place) % 5 {
            0 => edge(mode, Action::Sigkill, nth, rng),
            1 => network(rng.usize(..5), rng),
            2 => edge(mode, Action::Sigterm, nth, rng),
            3 => alarm(rng.usize(..2), rng),
            _ => outage(rng.usize(..3), rng),
        }),
    }
}

type Drawn = (Action, Duration, Duration);

/// One to `most` steps, spread over the run but not at its very ends.
fn steps(rng: &mut Rng, most: usize, mut draw: impl FnMut(&mut Rng, usize) -> Drawn) -> Vec<Step> {
    let count = rng.usize(1..=most);
    let mut moments: Vec<f64> = (0..count).map(|_| 0.05 + 0.85 * rng.f64()).collect();
    moments.sort_by(f64::total_cmp);
    let step = |(place, at): (usize, f64)| {
        let (action, hold, cut_off) = draw(rng, place);
        Step { at: (at * 1000.0).round() / 1000.0, action, hold, cut_off }
    };
    moments.into_iter().enumerate().map(step).collect()
}

/// One step, early enough that most of the beacons are sent into it.
fn early(rng: &mut Rng, draw: impl FnOnce(&mut Rng) -> Drawn) -> Vec<Step> {
    let at = (50.0 + 250.0 * rng.f64()).round() / 1000.0;
    let (action, hold, cut_off) = draw(rng);
    vec![Step { at, action, hold, cut_off }]
}

/// Half of them while no broker can be reached, since that is when a spool has something to keep. Without a spool
/// nobody promises that a SIGTERM can be drained then.
fn edge(mode: Mode, action: Action, nth: usize, rng: &mut Rng) -> Drawn {
    let cut_off = match action {
        Action::Sigterm if !mode.has_spool() => false,
        _ => nth % 2 == 1,
    };
    // With a spool, every other time so long that what was in flight is out of the time in which it may be lost.
    let (least, most) = if mode == Mode::RingSpool && nth % 4 == 1 { (3500, 6000) } else { (300, 1200) };
    let away = if cut_off { ms(rng, least, most) } else { Duration::ZERO };
    (action, ms(rng, 0, 400), away)
}

fn outage(nth: usize, rng: &mut Rng) -> Drawn {
    let action = [Action::BrokerKill, Action::BrokerStop, Action::BrokerStopApp][nth % 3];
    (action, ms(rng, 0, 2000), Duration::ZERO)
}

fn alarm(nth: usize, rng: &mut Rng) -> Drawn {
    let action = [Action::MemoryAlarm, Action::DiskAlarm][nth % 2];
    (action, ms(rng, 500, 3000), Duration::ZERO)
}

fn network(nth: usize, rng: &mut Rng) -> Drawn {
    let (action, hold) = match nth % 5 {
        0 => (Action::Cut, Duration::ZERO),
        1 => (Action::Reset, Duration::ZERO),
        2 => (Action::BlackHole, ms(rng, 200, 4000)),
        3 => (Action::Delay(rng.u32(20..200)), ms(rng, 500, 2000)),
        _ => (Action::Throttle(rng.u32(200..2000) * 1000), ms(rng, 500, 2000)),
    };
    (action, hold, Duration::ZERO)
}

fn ms(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..to))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_steps_always_and_others_give_others() {
        for &mode in Mode::value_variants() {
            for &fault in Fault::value_variants() {
                let all: Vec<_> = (1..=25).map(|seed| draw(mode, fault, seed)).collect();
                assert_eq!(all, (1..=25).map(|seed| draw(mode, fault, seed)).collect::<Vec<_>>());
                assert_ne!(all[0], all[1], "{mode:?} {fault:?}");
                for steps in all {
                    assert!(!steps.is_empty());
                    assert!(steps.is_sorted_by(|a, b| a.at <= b.at));
                    assert!(steps.iter().all(|step| (0.05..=0.9).contains(&step.at)));
                }
            }
        }
    }

    #[test]
    fn a_row_of_seeds_shows_every_action_of_its_fault() {
        let seen = |fault, wanted: &[Action]| {
            let all: Vec<Step> = (1..=5).flat_map(|seed| draw(Mode::RingSpool, fault, seed)).collect();
            for action in wanted {
                let same =
                    |step: &Step| std::mem::discriminant(&step.action) == std::mem::discriminant(action);
                assert!(all.iter().any(same), "{fault:?}: no {action}");
            }
            all
        };
        seen(Fault::BrokerOutage, &[Action::BrokerKill, Action::BrokerStop, Action::BrokerStopApp]);
        seen(Fault::Alarm, &[Action::MemoryAlarm, Action::DiskAlarm]);
        seen(
            Fault::Network,
            &[Action::Cut, Action::Reset, Action::BlackHole, Action::Delay(0), Action::Throttle(0)],
        );
        seen(Fault::PowerCut, &[Action::PowerCut, Action::PowerCutInCheckpoint]);
        let kills = seen(Fault::Sigkill, &[Action::Sigkill]);
        assert!(kills.iter().any(|step| step.cut_off.is_zero()));
        assert!(kills.iter().any(|step| !step.cut_off.is_zero()));
    }
}
