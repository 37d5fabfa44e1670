//! The result as one page with plots.

use super::report::{MedianLoad, Report, Row, Spread};
use crate::{
    plot::{Axis, Chart, ChartKind, Page, Point, Section, Series, Table},
    report::{grouped, human_us},
};

impl Report {
    /// A self-contained page: what was measured on what, plots of the medians with their range, tables.
    pub fn html(&self) -> String {
        self.page().to_html()
    }

    fn page(&self) -> Page {
        let mut page = Page {
            title: "Three ways of a beacon into RabbitMQ".to_owned(),
            lead: vec![
                "The first model publishes from the request path and waits for the receipt. The second pushes to Redis, and an \
                 agent publishes chunks. beacon-edge answers at once and publishes packed batches with receipts. All were given \
                 the same HTTP load on this machine and published to the same RabbitMQ. Sustained is the highest rate at which \
                 requests are answered and the number of unconfirmed beacons does not grow."
                    .to_owned(),
            ],
            facts: self.facts(),
            sections: Vec::new(),
        };
        page.lead.extend(self.notes.iter().map(|note| format!("Note: {note}.")));
        let groups = [("models", "The models"), ("path", "From “window 1” to packed, one change at a time")];
        for (group, title) in groups {
            let rows: Vec<&Row> =
                self.models.iter().filter(|row| row.group == group && row.median.is_some()).collect();
            if !rows.is_empty() {
                page.sections.extend(self.sections(title, &rows));
            }
        }
        if self.models.iter().any(|row| !row.deaths.is_empty()) {
            page.sections.push(self.deaths());
        }
        page
    }

    fn facts(&self) -> Vec<(String, String)> {
        let settings = &self.settings;
        let mut facts = self.machine.facts();
        let own = [
            ("Rounds", settings.rounds.to_string()),
            (
                "Load",
                format!(
                    "{} connections, {} threads, {} % POST",
                    settings.connections, settings.threads, settings.post_percent
                ),
            ),
            (
                "A probe and a measurement take",
                format!("{} s and {} s", settings.probe_s, settings.duration_s),
            ),
            ("Threads of each server", settings.workers.to_string()),
            (
                "beacon-edge and the path",
                format!(
                    "{} connections, window {}, up to {} beacons a message, linger {} ms",
                    settings.stomp_connections, settings.window, settings.pack, settings.linger_ms
                ),
            ),
            (
                "First and second model",
                format!(
                    "up to {} pooled connections; chunks of {}, {} in flight",
                    settings.pool, settings.chunk, settings.chunks_in_flight
                ),
            ),
        ];
        facts.extend(own.map(|(name, value)| (name.to_owned(), value)));
        if let Some(limit) = &self.memory_limit {
            let state = if limit.enforced { "enforced" } else { "NOT enforced" };
            facts.push((
                "Memory of all servers together".to_owned(),
                format!("{} MiB, {state}: {}", limit.octets >> 20, limit.how),
            ));
        }
        facts
    }

    fn sections(&self, title: &str, rows: &[&Row]) -> Vec<Section> {
        let mut sections = vec![sustained(title, rows)];
        let common = self.common_rate.map(|rate| format!("all at {} beacons/s", grouped(rate as u64)));
        let loads: [(&str, Option<String>, LoadOf); 2] = [
            ("at the sustained rate", Some(String::new()), |row| row.median.as_ref()?.at_sustained.as_ref()),
            ("at a common rate", common, |row| row.median.as_ref()?.at_common.as_ref()),
        ];
        for (when, text, load) in loads {
            let (Some(text), true) = (text, rows.iter().any(|row| load(row).is_some())) else { continue };
            sections.push(latency(&format!("{title}: answer time {when}"), &text, rows, load));
            sections.push(cpu(&format!("{title}: CPU {when}"), &text, rows, load));
        }
        sections
    }

    fn deaths(&self) -> Section {
        let head = ["Model", "Sent", "Refused", "Answered 2xx", "Lost", "Duplicates", "Broker away (s)"];
        let rows = self.models.iter().flat_map(|row| {
            row.deaths.iter().map(|death| {
                vec![
                    row.model.to_owned(),
                    grouped(death.sent),
                    grouped(death.refused),
                    grouped(death.verdict.answered),
                    grouped(death.verdict.missing),
                    grouped(death.verdict.duplicates),
                    format!("{:.1}", death.away_s),
                ]
            })
        });
        Section {
            title: "The broker killed in the middle".to_owned(),
            text: vec![
                "Lost are beacons that were answered 2xx and are not in the queue afterwards, by their numbers. Refused are \
                 requests with another answer or none: their senders know."
                    .to_owned(),
            ],
            chart: None,
            table: Some(Table { head: head.map(str::to_owned).into(), rows: rows.collect() }),
        }
    }
}

type LoadOf = fn(&Row) -> Option<&MedianLoad>;
type Quantile = fn(&MedianLoad) -> Spread;

fn sustained(title: &str, rows: &[&Row]) -> Section {
    let points = (0..).map(f64::from).zip(rows).filter_map(|(place, row)| {
        let spread = row.median.as_ref()?.sustained_rate?;
        Some(point(place, spread))
    });
    let chart = Chart {
        kind: ChartKind::Bars,
        x: names(rows),
        y: Axis::log("sustained", "beacons/s"),
        series: vec![Series::new("sustained", points)],
    };
    let head = ["Model", "What it is", "Beacons/s", "Range"];
    let table = rows.iter().map(|row| {
        let spread = row.median.as_ref().and_then(|median| median.sustained_rate);
        let rate = spread.map_or("-".to_owned(), |spread| grouped(spread.median as u64));
        let range = spread.map_or("-".to_owned(), |spread| {
            format!("{} … {}", grouped(spread.low as u64), grouped(spread.high as u64))
        });
        vec![row.model.to_owned(), row.title.to_owned(), rate, range]
    });
    Section {
        title: format!("{title}: sustained rate, all beacons confirmed"),
        text: Vec::new(),
        chart: Some(chart),
        table: Some(Table { head: head.map(str::to_owned).into(), rows: table.collect() }),
    }
}

fn latency(title: &str, text: &str, rows: &[&Row], load: LoadOf) -> Section {
    let quantiles: [(&str, Quantile); 3] =
        [("p50", |load| load.p50_us), ("p99", |load| load.p99_us), ("p99.9", |load| load.p99_9_us)];
    let series = quantiles.map(|(name, of)| {
        let points = (0..).map(f64::from).zip(rows);
        Series::new(name, points.filter_map(|(place, row)| Some(point(place, of(load(row)?)))))
    });
    let chart = Chart {
        kind: ChartKind::Bars,
        x: names(rows),
        y: Axis::log("from the intended moment of sending to the answer", "µs"),
        series: series.into(),
    };
    let table = rows.iter().filter_map(|row| {
        let load = load(row)?;
        let cells = quantiles.iter().map(|(_, of)| human_us(of(load).median));
        Some([row.model.to_owned()].into_iter().chain(cells).collect())
    });
    let head = ["Model", "p50", "p99", "p99.9"].map(str::to_owned);
    Section {
        title: title.to_owned(),
        text: paragraph(text),
        chart: Some(chart),
        table: Some(Table { head: head.into(), rows: table.collect() }),
    }
}

fn cpu(title: &str, text: &str, rows: &[&Row], load: LoadOf) -> Section {
    // What takes the requests has one name here, whichever program it is.
    let kinds = ["server", "redis", "agent", "rabbitmq"];
    let is = |kind: &str, name: &str| kind == name || (kind == "server" && name == "beacon-edge");
    let found =
        |kind: &str, row: &Row| load(row)?.processes.iter().find(|process| is(kind, &process.name)).cloned();
    let mut series: Vec<Series> = kinds
        .iter()
        .map(|kind| {
            let points = (0..)
                .map(f64::from)
                .zip(rows)
                .filter_map(|(place, row)| Some(point(place, found(kind, row)?.cpu_us_per_beacon?)));
            Series::new(*kind, points)
        })
        .filter(|series| !series.points.is_empty())
        .collect();
    let all = (0..).map(f64::from).zip(rows);
    let all = all.filter_map(|(place, row)| Some(point(place, load(row)?.cpu_us_per_beacon?)));
    series.push(Series::new("all together", all));
    let chart =
        Chart { kind: ChartKind::Bars, x: names(rows), y: Axis::linear("CPU per beacon", "µs"), series };
    let head = ["Model"].into_iter().chain(kinds).map(|kind| match kind {
        "Model" => kind.to_owned(),
        kind => format!("{kind}: µs, peak MiB"),
    });
    let table = rows.iter().filter(|row| load(row).is_some()).map(|row| {
        let cells = kinds.iter().map(|kind| {
            let Some(process) = found(kind, row) else { return "-".to_owned() };
            let number = |spread: Option<f64>, digits: usize| {
                spread.map_or("?".to_owned(), |value| format!("{value:.digits$}"))
            };
            format!(
                "{}, {}",
                number(process.cpu_us_per_beacon.map(|spread| spread.median), 1),
                number(process.peak_mib.map(|spread| spread.high), 0)
            )
        });
        [row.model.to_owned()].into_iter().chain(cells).collect()
    });
    Section {
        title: title.to_owned(),
        text: paragraph(text),
        chart: Some(chart),
        table: Some(Table { head: head.collect(), rows: table.collect() }),
    }
}

fn paragraph(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
}

fn names(rows: &[&Row]) -> Axis {
    Axis::names("model", rows.iter().map(|row| row.model))
}

fn point(place: f64, spread: Spread) -> Point {
    Point::ranged(place, spread.median, spread.low, spread.high)
}
