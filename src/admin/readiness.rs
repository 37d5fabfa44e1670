use stompwire::publisher::LaneState;

use crate::metrics::DestinationReading;

/// Why this edge should get no traffic now, one sentence each; empty when it is ready.
///
/// A destination counts as served when at least one of its connections takes messages. Not being ready loses nothing:
/// beacons are answered and wait on the ring.
#[must_use]
pub fn reasons_against(destinations: &[(&str, DestinationReading)], draining: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    if draining {
        reasons.push("shutting down: delivering what has been accepted".to_owned());
    }
    for (name, read) in destinations {
        if read.lanes.iter().any(|lane| lane.state == LaneState::Connected) {
            continue;
        }
        let lanes: Vec<String> = read
            .lanes
            .iter()
            .map(|lane| {
                let error = lane.last_error.as_deref().map(|error| format!(" ({error})")).unwrap_or_default();
                format!("{} is {}{error}", lane.broker, lane.state.as_str())
            })
            .collect();
        let detail =
            if lanes.is_empty() { "its publisher has not started".to_owned() } else { lanes.join("; ") };
        reasons.push(format!("destination {name} has no broker that takes messages: {detail}"));
    }
    reasons
}
