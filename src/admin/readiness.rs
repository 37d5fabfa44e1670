use crate::{health, metrics::DestinationReading, spool::State};

/// Why this edge should get no traffic now, one sentence each; empty when it is ready.
///
/// A destination counts as served when at least one of its brokers takes messages (see [`health::of`]) and, where answers
/// promise what is on disk, its spool does too. Not being ready loses nothing: beacons are answered and wait on the ring.
#[must_use]
pub fn reasons_against(destinations: &[(&str, DestinationReading)], draining: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    if draining {
        reasons.push("shutting down: delivering what has been accepted".to_owned());
    }
    reasons.extend(destinations.iter().filter_map(|(name, read)| health::reason_against(name, read)));
    reasons.extend(destinations.iter().filter_map(|(name, read)| spool_against(name, read)));
    reasons
}

fn spool_against(name: &str, read: &DestinationReading) -> Option<String> {
    let spool = read.spool.as_ref().filter(|spool| spool.writes_ahead)?;
    let (what, remedy) = match &spool.state {
        State::Working => return None,
        State::Full => ("it is full", "enlarge spool.max_bytes, or wait until the broker has taken some"),
        State::Failing(reason) => (&**reason, "set that right, it is tried again by itself"),
    };
    Some(format!(
        "destination {name} cannot keep `ack = \"spooled\"`, its spool takes nothing: {what}; {remedy}"
    ))
}
