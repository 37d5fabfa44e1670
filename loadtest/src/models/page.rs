//! The result as one page with plots.

use super::report::{MedianLoad, MedianUse, Medians, Report, Row, Spread};
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
                    "{} connections, {} % POST, from {} thread{}",
                    settings.connections,
                    settings.post_percent,
                    settings.threads,
                    if settings.threads == 1 { "" } else { "s" }
                ),
            ),
            (
                "A probe and a measurement take",
                format!("{} s and {} s", settings.probe_s, settings.duration_s),
            ),
            ("Threads of each server", settings.workers.to_string()),
            ("Threads", settings.threads_placed().to_owned()),
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
            facts.push(("Memory of all servers together".to_owned(), limit.describe()));
        }
        facts
    }

    fn sections(&self, title: &str, rows: &[&Row]) -> Vec<Section> {
        let mut sections = vec![sustained(title, rows)];
        let common =
            self.common_rate.map(|rate| format!("Each was given {} beacons/s.", grouped(rate as u64)));
        let own =
            "Each was given the rate that it sustains: what is fast here is fast under more load.".to_owned();
        let loads: [(&str, Option<String>, LoadOf); 2] = [
            ("at the sustained rate", Some(own), |row| row.median.as_ref()?.at_sustained.as_ref()),
            ("at a common rate", common, |row| row.median.as_ref()?.at_common.as_ref()),
        ];
        for (when, text, load) in loads {
            let (Some(text), true) = (text, rows.iter().any(|row| load(row).is_some())) else { continue };
            sections.push(latency(&format!("{title}: answer time {when}"), &text, rows, load));
            sections.push(uses(&format!("{title}: CPU {when}"), &text, rows, load, &CPU));
            sections.push(uses(&format!("{title}: memory {when}"), &text, rows, load, &MEMORY));
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
type Factor = fn(&Medians) -> Option<Spread>;
type Quantile = fn(&MedianLoad) -> Spread;

fn sustained(title: &str, rows: &[&Row]) -> Section {
    let median = |row: &Row| row.median.as_ref()?.sustained_rate;
    let factor = |row: &Row, of: Factor| Some(format!("× {:.2}", of(row.median.as_ref()?)?.median));
    let is_path = rows.iter().any(|row| row.group == "path");
    // What multiplies reads best where equal factors are equal heights.
    let times: Factor = if is_path { |row| row.times_before } else { |row| row.times_first };
    let (label, unit) = ("sustained, all beacons confirmed", "beacons/s");
    let y = if is_path { Axis::log(label, unit) } else { Axis::linear(label, unit) };
    let with_factor = |row: &&Row| match factor(row, times) {
        Some(factor) => format!("{}\n{factor}", name(row)),
        None => name(row),
    };
    let points = (0..).map(f64::from).zip(rows);
    let points = points.filter_map(|(place, row)| Some(point(place, median(row)?)));
    let chart = Chart {
        kind: ChartKind::Bars,
        x: Axis::names("model", rows.iter().map(with_factor)),
        y,
        series: vec![Series::new("median, and from the smallest to the largest round", points)],
    };
    let text = if is_path {
        "Each step keeps what the one before has and changes one thing. Under its name, by how much that multiplies the rate."
    } else {
        "Under each name, its rate as a multiple of the first row's."
    };
    let head = ["Model", "What it is", "Beacons/s", "Range", "× first", "× before"];
    let columns = if is_path { 6 } else { 5 };
    let none = || "–".to_owned();
    let table = rows.iter().map(|row| {
        let rate = median(row).map_or_else(none, |spread| grouped(spread.median.round() as u64));
        let range = median(row).map_or_else(none, |spread| {
            format!("{} … {}", grouped(spread.low as u64), grouped(spread.high as u64))
        });
        let [first, before]: [Factor; 2] = [|row| row.times_first, |row| row.times_before];
        let cells = [row.model.to_owned(), row.title.to_owned(), rate, range];
        let factors = [first, before].map(|of| factor(row, of).unwrap_or_else(none));
        cells.into_iter().chain(factors).take(columns).collect()
    });
    Section {
        title: format!("{title}: sustained rate"),
        text: paragraph(text),
        chart: Some(chart),
        table: Some(Table {
            head: head.map(str::to_owned).into_iter().take(columns).collect(),
            rows: table.collect(),
        }),
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
        x: names_of(rows),
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

/// What is shown of each process.
struct Shown {
    label: &'static str,
    unit: &'static str,
    digits: usize,
    of: fn(&MedianUse) -> Option<Spread>,
    /// The sum, where there is one.
    all: fn(&MedianLoad) -> Option<Spread>,
}

const CPU: Shown = Shown {
    label: "CPU per beacon, by process",
    unit: "µs",
    digits: 1,
    of: |process| process.cpu_us_per_beacon,
    all: |load| load.cpu_us_per_beacon,
};

/// The peaks of processes need not come at the same moment, so they have no sum.
const MEMORY: Shown = Shown {
    label: "largest resident memory, by process",
    unit: "MiB",
    digits: 0,
    of: |process| process.peak_mib,
    all: |_| None,
};

fn uses(title: &str, text: &str, rows: &[&Row], load: LoadOf, shown: &Shown) -> Section {
    // What takes the requests has one name here, whichever program it is.
    let kinds = ["server", "redis", "agent", "rabbitmq"];
    let is = |kind: &str, name: &str| kind == name || (kind == "server" && name == "beacon-edge");
    let found = |kind: &str, row: &Row| {
        (shown.of)(load(row)?.processes.iter().find(|process| is(kind, &process.name))?)
    };
    let all = |row: &Row| (shown.all)(load(row)?);
    let placed = |of: &dyn Fn(&Row) -> Option<Spread>| -> Vec<Point> {
        let rows = (0..).map(f64::from).zip(rows);
        rows.filter_map(|(place, row)| Some(point(place, of(row)?))).collect()
    };
    let mut series: Vec<Series> =
        kinds.iter().map(|kind| Series::new(*kind, placed(&|row| found(kind, row)))).collect();
    series.push(Series::new("all together", placed(&all)));
    series.retain(|series| !series.points.is_empty());
    let names: Vec<String> = series.iter().map(|series| series.name.clone()).collect();
    let table = rows.iter().filter(|row| load(row).is_some()).map(|row| {
        let cells = names.iter().map(|name| {
            let spread = if name == "all together" { all(row) } else { found(name, row) };
            spread.map_or("–".to_owned(), |spread| format!("{:.*}", shown.digits, spread.median))
        });
        [row.model.to_owned()].into_iter().chain(cells).collect()
    });
    let head = names.iter().map(|name| format!("{name} ({})", shown.unit));
    Section {
        title: title.to_owned(),
        text: paragraph(text),
        table: Some(Table {
            head: ["Model".to_owned()].into_iter().chain(head).collect(),
            rows: table.collect(),
        }),
        chart: Some(Chart {
            kind: ChartKind::Bars,
            x: names_of(rows),
            y: Axis::linear(shown.label, shown.unit),
            series,
        }),
    }
}

fn paragraph(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
}

fn names_of(rows: &[&Row]) -> Axis {
    Axis::names("model", rows.iter().map(|row| name(row)))
}

/// Its name under its bars; a long one on two lines.
fn name(row: &Row) -> String {
    match row.model.rsplit_once('-') {
        Some((first, last)) if row.model.len() > 15 => format!("{first}-\n{last}"),
        _ => row.model.to_owned(),
    }
}

fn point(place: f64, spread: Spread) -> Point {
    Point::ranged(place, spread.median, spread.low, spread.high)
}
