//! The path of the sweep over factors: what each step changes, and by how much it multiplies the rate.

use serde::Serialize;

use crate::{
    broker::{
        report::{Point, Spread},
        setting::{Setting, Sweep},
    },
    plot::Table,
    report::{grouped, rounded},
};

/// What the sweep leaves to another one: there is no request here.
pub(crate) const ELSEWHERE: &str = "The factor that is not here, off the request path, takes HTTP to measure: `loadtest models`, step path-off-request.";

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// What it changes of the step before; of the first, what it is.
    pub change: String,
    /// Beacons a second.
    pub beacons_per_second: Spread,
    /// Median ÷ that of the step before; `null` for the first.
    pub times_before: Option<f64>,
    /// Median ÷ that of the first.
    pub times_first: f64,
}

/// The steps that were measured, as far as the path is whole.
pub(crate) fn of(points: &[Point]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut before = None;
    for point in points.iter().filter(|point| point.sweep == Some(Sweep::Factors)) {
        let rate = point.clients.first().and_then(|client| client.summary.beacons_per_second);
        let Some(rate) = rate.filter(|rate| rate.median > 0.0) else { break };
        let ratio = |to: &Step| rounded(rate.median / to.beacons_per_second.median, 3);
        steps.push(Step {
            change: change(before, &point.setting),
            beacons_per_second: rate,
            times_before: steps.last().map(ratio),
            times_first: steps.first().map_or(1.0, ratio),
        });
        before = Some(point.setting);
    }
    steps
}

/// The steps for people.
pub(crate) fn table(steps: &[Step]) -> Table {
    let times = |factor: f64| format!("× {factor:.2}");
    let row = |step: &Step| {
        let Spread { median, min, max } = step.beacons_per_second;
        let [median, min, max] = [median, min, max].map(|rate| grouped(rate.round() as u64));
        vec![
            step.change.clone(),
            median,
            format!("{min} … {max}"),
            step.times_before.map_or("–".to_owned(), times),
            times(step.times_first),
        ]
    };
    let head = ["STOMP, one change at a time", "beacons/s", "range", "to the step before", "to the first"];
    Table { head: head.map(str::to_owned).into(), rows: steps.iter().map(row).collect() }
}

fn change(before: Option<Setting>, now: &Setting) -> String {
    let Some(before) = before else {
        let plural = if now.connections == 1 { "" } else { "s" };
        return format!(
            "window {}, {} connection{plural}, {} beacon a message",
            now.window, now.connections, now.beacons
        );
    };
    let changes = [
        (before.window != now.window, format!("window {}", now.window)),
        (before.connections != now.connections, format!("{} connections", now.connections)),
        (before.beacons != now.beacons, format!("{} beacons a message", now.beacons)),
    ];
    let changes: Vec<String> =
        changes.into_iter().filter(|(changed, _)| *changed).map(|(_, what)| what).collect();
    format!("+ {}", changes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::report::tests::sample;

    #[test]
    fn each_step_names_its_one_change_and_its_factor() {
        let report = sample(Some(Sweep::Factors));
        let changes: Vec<&str> = report.steps.iter().map(|step| &*step.change).collect();
        assert_eq!(
            changes,
            [
                "window 1, 1 connection, 1 beacon a message",
                "+ window 1024",
                "+ 4 connections",
                "+ 100 beacons a message"
            ]
        );
        // Medians of 2000, 2500, 3000 and 3500 messages a second.
        let factors: Vec<_> = report.steps.iter().map(|step| (step.times_before, step.times_first)).collect();
        assert_eq!(factors, [(None, 1.0), (Some(1.25), 1.25), (Some(1.2), 1.5), (Some(116.667), 175.0)]);
        for text in [report.table(), report.page().to_html()] {
            for part in ["× 1.25", "× 116.67", "× 175.00", "window 1, 1 connection", "off the request path"]
            {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }

    #[test]
    fn a_path_that_was_cut_short_ends_there() {
        let mut report = sample(Some(Sweep::Factors));
        report.points[1].clients.clear();
        assert_eq!(of(&report.points).len(), 1);
        assert_eq!(of(&[]), []);
    }
}
