//! What a chart shows, in words and as a table.

use std::fmt::Write;

use crate::plot::{Chart, Point, Series, Table};

/// The plot in words: what is on the axes, and each series' ends.
pub(super) fn description(chart: &Chart) -> String {
    let mut text = format!("{} by {}.", chart.y.title(), chart.x.title());
    for series in chart.drawn() {
        let shown = || series.points.iter().filter(|point| point.y.is_finite());
        let most = shown().max_by(|a, b| a.y.total_cmp(&b.y));
        let least = shown().min_by(|a, b| a.y.total_cmp(&b.y));
        if let (Some(least), Some(most)) = (least, most) {
            // Writing to a String cannot fail.
            write!(
                text,
                " {}: from {} at {} to {} at {}.",
                series.name,
                chart.y.exact_text(least.y),
                chart.x.tick_text(least.x),
                chart.y.exact_text(most.y),
                chart.x.tick_text(most.x),
            )
            .unwrap_or_default();
        }
    }
    text
}

pub(super) fn point_text(chart: &Chart, series: &Series, point: &Point) -> String {
    let range = if point.has_spread() {
        format!(" ({} … {})", chart.y.exact_text(point.low), chart.y.exact_text(point.high))
    } else {
        String::new()
    };
    let unit = if chart.y.unit.is_empty() { String::new() } else { format!(" {}", chart.y.unit) };
    let x = chart.x.tick_text(point.x);
    format!("{}, {x}: {}{range}{unit}", series.name, chart.y.exact_text(point.y))
}

/// What the plot shows, a row for each x and a column for each series, those that are not drawn included.
pub(super) fn figures(chart: &Chart) -> Table {
    let mut values: Vec<f64> =
        chart.series.iter().flat_map(|series| &series.points).map(|point| point.x).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let cell = |series: &Series, x: f64| match series.points.iter().find(|point| point.x == x) {
        Some(point) if point.has_spread() => format!(
            "{} ({} … {})",
            chart.y.exact_text(point.y),
            chart.y.exact_text(point.low),
            chart.y.exact_text(point.high)
        ),
        Some(point) => chart.y.exact_text(point.y),
        None => "–".to_owned(),
    };
    let unit = if chart.y.unit.is_empty() { String::new() } else { format!(", {}", chart.y.unit) };
    Table {
        head: [chart.x.title()]
            .into_iter()
            .chain(chart.series.iter().map(|series| format!("{}{unit}", series.name)))
            .collect(),
        rows: values
            .into_iter()
            .map(|x| {
                let first = [chart.x.exact_text(x)];
                first.into_iter().chain(chart.series.iter().map(|series| cell(series, x))).collect()
            })
            .collect(),
    }
}
