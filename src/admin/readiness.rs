use crate::{health, metrics::DestinationReading};

/// Why this edge should get no traffic now, one sentence each; empty when it is ready.
///
/// A destination counts as served when at least one of its brokers takes messages: see [`health::of`]. Not being ready loses nothing:
/// beacons are answered and wait on the ring.
#[must_use]
pub fn reasons_against(destinations: &[(&str, DestinationReading)], draining: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    if draining {
        reasons.push("shutting down: delivering what has been accepted".to_owned());
    }
    reasons.extend(destinations.iter().filter_map(|(name, read)| health::reason_against(name, read)));
    reasons
}
