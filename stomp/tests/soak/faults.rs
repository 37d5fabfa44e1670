//! The schedule of faults: which, when and to whom is the seed's doing.

use std::{fmt, time::Duration};

use tokio::time::{Instant, sleep};

use crate::support::proxy::{Connection, Direction, Down, Proxy, Up};

/// Longer than heart-beats of a second allow for.
const HOLE: Duration = Duration::from_secs(4);
const REFUSING: Duration = Duration::from_millis(300);

/// How many of each were begun.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    cuts: u64,
    resets: u64,
    pub(crate) holes: u64,
    delays: u64,
    throttles: u64,
    refusals: u64,
}

impl fmt::Display for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cuts, resets, holes, delays, throttles, refusals } = self;
        write!(
            f,
            "{cuts} cuts, {resets} resets, {holes} black holes, {delays} delays, {throttles} throttles, {refusals} refusals"
        )
    }
}

/// Disturbs the proxy's connections until `end`, and leaves it healed.
pub(crate) async fn disturb(proxy: &Proxy, mut rng: fastrand::Rng, end: Instant) -> Ordered {
    let mut ordered = Ordered::default();
    // When which ends.
    let mut passing: Vec<(Instant, Option<Connection>)> = Vec::new();
    while Instant::now() < end {
        sleep(Duration::from_millis(rng.u64(50..250))).await;
        passing.retain(|(until, connection)| {
            let goes_on = Instant::now() < *until;
            match connection {
                _ if goes_on => {}
                Some(connection) => connection.heal(),
                None => proxy.refuse(false),
            }
            goes_on
        });
        let connections = proxy.connections();
        let disturbed = |connection: &Connection| {
            passing.iter().flat_map(|(_, other)| other).any(|other| other.is(connection))
        };
        let whole: Vec<_> = connections.iter().filter(|connection| !disturbed(connection)).collect();
        let Some(connection) = rng.choice(whole).cloned() else { continue };
        let direction = if rng.bool() { Up } else { Down };
        // The first ones are those that the judge must see.
        let fault = match ordered.holes {
            0 => 50,
            _ => rng.u32(..100),
        };
        let lasts = match fault {
            0..25 => {
                ordered.cuts += 1;
                connection.cut_after(direction, rng.u64(..3000));
                continue;
            }
            25..45 => {
                ordered.resets += 1;
                connection.reset();
                continue;
            }
            45..55 => {
                ordered.holes += 1;
                let directions: &[Direction] =
                    rng.choice([&[Up][..], &[Down], &[Up, Down]]).unwrap_or_default();
                directions.iter().for_each(|direction| connection.hole(*direction, true));
                HOLE
            }
            55..80 => {
                ordered.delays += 1;
                connection.delay(direction, Duration::from_millis(rng.u64(10..200)));
                Duration::from_secs(1)
            }
            80..95 => {
                ordered.throttles += 1;
                connection.throttle(direction, Some(rng.u32(20_000..200_000)));
                Duration::from_secs(1)
            }
            _ => {
                ordered.refusals += 1;
                proxy.refuse(true);
                passing.push((Instant::now() + REFUSING, None));
                continue;
            }
        };
        passing.push((Instant::now() + lasts, Some(connection)));
    }
    proxy.heal();
    ordered
}
