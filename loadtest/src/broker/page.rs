//! The result of `loadtest broker` as a page with plots.

use crate::{
    broker::{
        report::{Client, Point, Report, Spread, Summary},
        setting::{Mode, Protocol, Sweep},
        steps::{self, Step},
    },
    plot::{Axis, Chart, ChartKind, Page, Point as Place, Section, Series, Table},
    report::{LatencySummary, grouped},
};

type Latency = fn(&Client) -> &LatencySummary;
type Figure = fn(&Summary) -> Option<Spread>;

/// The page of a report.
pub(crate) fn of(report: &Report) -> Page {
    let mut sections = Vec::new();
    let mut rest = &*report.points;
    while let Some(first) = rest.first() {
        let length = rest.iter().take_while(|point| point.sweep == first.sweep).count();
        let (part, others) = rest.split_at(length);
        rest = others;
        sections.extend(part_of(report, first.sweep, part));
    }
    if !report.notes.is_empty() {
        let text = report.notes.clone();
        sections.insert(0, Section { title: "What to know".to_owned(), text, ..Section::default() });
    }
    Page {
        title: "STOMP and AMQP at RabbitMQ".to_owned(),
        lead: vec![
            format!(
                "{}: {} of {} s for each client at each point, after {} s of warm-up. Clients take turns within each \
                 round. Shown are medians; the whiskers reach from the smallest to the largest round.",
                sentence(&report.what()),
                if report.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", report.rounds) },
                report.time_s,
                report.warmup_s,
            ),
            "All clients have the same bodies (PerfTest's header of 12 octets in front), window, persistence, message ids, \
             queue and number of connections, and one loop of this program drives them. Broker and clients share the \
             machine. CPU is user and system time of the whole process within the measured time; octets are those of \
             TCP's payload, as the kernel counts them."
                .to_owned(),
        ],
        facts: facts(report),
        sections,
    }
}

fn facts(report: &Report) -> Vec<(String, String)> {
    let mut facts = report.broker.clone();
    facts.extend(report.machine.facts());
    let threads = format!("{} for all connections; lapin adds one for each", report.threads);
    facts.push(("Client threads".to_owned(), threads));
    if report.mode != Mode::Publish {
        facts.push((
            "Consumers".to_owned(),
            format!("prefetch {}, acknowledged {} at a time", report.prefetch, report.ack_every),
        ));
    }
    facts
}

/// The sections of one sweep, or of a single point.
fn part_of(report: &Report, sweep: Option<Sweep>, points: &[Point]) -> Vec<Section> {
    let protocols: Vec<Protocol> = report
        .protocols
        .iter()
        .copied()
        .filter(|protocol| points.iter().any(|point| client(point, *protocol).is_some()))
        .collect();
    let part = Part { protocols: &protocols, points };
    let rate = if report.mode == Mode::Consume { "consumed" } else { "confirmed" };
    let messages: Figure = |summary| summary.messages_per_second;
    let beacons: Figure = |summary| summary.beacons_per_second;
    let broker: Figure = |summary| summary.broker_cpu_us_per_message;
    let broker_beacon: Figure = |summary| summary.broker_cpu_us_per_beacon;
    let p99: Figure = |summary| {
        let Spread { median, min, max } = summary.confirm_p99_us?;
        Some(Spread { median: median / 1e3, min: min / 1e3, max: max / 1e3 })
    };
    let to_messages = Axis::linear(rate, "messages/s");
    let mut sections = match sweep {
        Some(Sweep::Bodies) => vec![
            part.over(
                "Throughput against body size",
                body_axis(),
                |point| point.setting.body,
                to_messages,
                messages,
            ),
            part.over(
                "Octets against body size",
                body_axis(),
                |point| point.setting.body,
                Axis::linear(rate, "MB/s"),
                |summary| summary.megabytes_per_second,
            ),
            part.over(
                "Broker CPU against body size",
                body_axis(),
                |point| point.setting.body,
                Axis::linear("broker CPU", "µs/message"),
                broker,
            ),
        ],
        Some(Sweep::Packing) => vec![
            part.over(
                "Throughput against packing",
                Axis::log("beacons in a message", ""),
                |point| point.setting.beacons,
                Axis::log(rate, "beacons/s"),
                beacons,
            ),
            part.over(
                "Broker CPU per beacon",
                Axis::log("beacons in a message", ""),
                |point| point.setting.beacons,
                Axis::log("broker CPU", "µs/beacon"),
                broker_beacon,
            ),
        ],
        Some(Sweep::Window) => vec![
            part.over(
                "Throughput against window",
                Axis::log("unconfirmed messages allowed", ""),
                |point| point.setting.window,
                to_messages,
                messages,
            ),
            part.over(
                "Confirm latency against window",
                Axis::log("unconfirmed messages allowed", ""),
                |point| point.setting.window,
                Axis::log("99 % confirmed within", "ms"),
                p99,
            ),
            part.over(
                "Waiting for the window",
                Axis::log("unconfirmed messages allowed", ""),
                |point| point.setting.window,
                Axis::linear("time in which a message was due and the window was full", "%"),
                |summary| percent(summary.window_full),
            ),
        ],
        Some(Sweep::Connections) => vec![part.over(
            "Throughput against connections",
            Axis::linear("connections", ""),
            |point| point.setting.connections,
            to_messages,
            messages,
        )],
        Some(Sweep::Queues) => vec![
            part.bars(
                "Throughput by type of queue",
                |point| point.setting.queue.to_string(),
                to_messages,
                messages,
            ),
            part.bars(
                "Broker CPU by type of queue",
                |point| point.setting.queue.to_string(),
                Axis::linear("broker CPU", "µs/message"),
                broker,
            ),
        ],
        Some(Sweep::Factors) => vec![path(&report.steps, rate)],
        Some(Sweep::All) | None => vec![
            part.bars("Throughput", |_| String::new(), to_messages, messages),
            part.bars("Broker CPU", |_| String::new(), Axis::linear("broker CPU", "µs/message"), broker),
        ],
    };
    let of = sweep.map_or(String::new(), |sweep| format!(" in the sweep over {}", sweep.as_str()));
    let latencies: [(&str, Latency); 2] = [
        ("Confirm latency", |client| &client.confirm_latency),
        ("Latency from publisher to consumer", |client| &client.end_to_end_latency),
    ];
    sections.extend(
        latencies.iter().filter_map(|(what, of_client)| part.latencies(&format!("{what}{of}"), *of_client)),
    );
    let title = match sweep {
        Some(sweep) => format!("All figures of the sweep over {}", sweep.as_str()),
        None => "All figures".to_owned(),
    };
    sections.push(Section { title, table: Some(part.table()), ..Section::default() });
    sections
}

/// From the first model's way to publish to the last, each bar with one change more.
fn path(steps: &[Step], rate: &str) -> Section {
    let name = |step: &Step| match step.times_before {
        Some(factor) => format!("{}\n× {factor:.2}", step.change),
        None => "window 1\nthe first model".to_owned(),
    };
    let point = |(place, step): (usize, &Step)| {
        let Spread { median, min, max } = step.beacons_per_second;
        Place::ranged(place as f64, median, min, max)
    };
    let chart = Chart {
        kind: ChartKind::Bars,
        x: Axis::names("one change more at each step", steps.iter().map(name)),
        y: Axis::log(rate, "beacons/s"),
        series: vec![Series::new(Protocol::Stomp.title(), steps.iter().enumerate().map(point))],
    };
    let what = "The first model waits for each receipt before it sends the next beacon over a connection: window 1. Each step keeps \
                what the one before has and changes one thing; under it, by how much that multiplies the rate.";
    let section = Section::plot("From window 1 to packed, one factor at a time", chart);
    Section { table: Some(steps::table(steps)), ..section.with_text(what).with_text(steps::ELSEWHERE) }
}

/// A sweep's points, and the clients that are in them.
struct Part<'a> {
    protocols: &'a [Protocol],
    points: &'a [Point],
}

impl Part<'_> {
    /// A figure over what a sweep varies.
    fn over(&self, title: &str, x: Axis, at: fn(&Point) -> usize, y: Axis, figure: Figure) -> Section {
        let places = |point: &Point, _: usize| at(point) as f64;
        let chart = Chart { kind: ChartKind::Lines, x, y, series: self.series(places, figure) };
        Section::plot(title, chart).with_text(self.around())
    }

    /// A figure side by side.
    fn bars(&self, title: &str, name: fn(&Point) -> String, y: Axis, figure: Figure) -> Section {
        let names: Vec<String> = self.points.iter().map(name).collect();
        let series = self.series(|_, number| number as f64, figure);
        let chart = Chart { kind: ChartKind::Bars, x: Axis::names("", names), y, series };
        Section::plot(title, chart).with_text(self.around())
    }

    fn series(&self, place: impl Fn(&Point, usize) -> f64, figure: Figure) -> Vec<Series> {
        let of = |protocol: Protocol| {
            let points = self.points.iter().enumerate().filter_map(|(number, point)| {
                let Spread { median, min, max } = figure(&client(point, protocol)?.summary)?;
                Some(Place::ranged(place(point, number), median, min, max))
            });
            Series::new(protocol.title(), points)
        };
        self.protocols.iter().map(|protocol| of(*protocol)).collect()
    }

    /// Percentiles at one point: the first whose clients have any, or the middle one of a sweep.
    fn latencies(&self, title: &str, of: Latency) -> Option<Section> {
        let point = self.points.get(self.points.len() / 2)?;
        let names = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
        let series: Vec<Series> = self
            .protocols
            .iter()
            .filter_map(|protocol| {
                let latency = of(client(point, *protocol)?);
                let values = [
                    latency.p50_us,
                    latency.p90_us,
                    latency.p99_us,
                    latency.p99_9_us,
                    latency.p99_99_us,
                    latency.max_us,
                ];
                let points =
                    values.into_iter().enumerate().map(|(place, us)| Place::new(place as f64, us / 1e3));
                (latency.count > 0).then(|| Series::new(protocol.title(), points))
            })
            .collect();
        if series.is_empty() {
            return None;
        }
        let (x, y) = (Axis::names("percentile", names), Axis::log("latency", "ms"));
        let chart = Chart { kind: ChartKind::Lines, x, y, series };
        Some(Section::plot(title, chart).with_text(format!("At {}; over all rounds.", point.setting)))
    }

    /// What the points have in common.
    fn around(&self) -> String {
        let Some(first) = self.points.first() else { return String::new() };
        let same = |of: fn(&Point) -> usize| self.points.iter().all(|point| of(point) == of(first));
        let setting = &first.setting;
        let mut parts = Vec::new();
        if same(|point| point.setting.body) {
            parts.push(format!("bodies of {} octets", grouped(setting.body as u64)));
        }
        if same(|point| point.setting.window) {
            parts.push(format!("window {}", setting.window));
        }
        if same(|point| point.setting.connections) {
            let plural = if setting.connections == 1 { "" } else { "s" };
            parts.push(format!("{} connection{plural}", setting.connections));
        }
        if self.points.iter().all(|point| point.setting.queue == setting.queue) {
            parts.push(format!("{} queue", setting.queue));
        }
        format!("{}.", sentence(&parts.join(", ")))
    }

    /// Every median.
    fn table(&self) -> Table {
        let head = [
            "setting",
            "client",
            "messages/s",
            "beacons/s",
            "MB/s",
            "confirm p50 µs",
            "confirm p99 µs",
            "broker µs/message",
            "broker µs/beacon",
            "client µs/message",
            "window full %",
            "octets sent",
            "octets received",
            "÷ AMQP",
            "rounds",
        ];
        let rows = self.points.iter().flat_map(|point| {
            point.clients.iter().map(|client| {
                let summary = &client.summary;
                let mut row = vec![point.setting.to_string(), client.protocol.as_str().to_owned()];
                let figures = [
                    (summary.messages_per_second, 0),
                    (summary.beacons_per_second, 0),
                    (summary.megabytes_per_second, 1),
                    (summary.confirm_p50_us, 0),
                    (summary.confirm_p99_us, 0),
                    (summary.broker_cpu_us_per_message, 1),
                    (summary.broker_cpu_us_per_beacon, 2),
                    (summary.client_cpu_us_per_message, 1),
                    (percent(summary.window_full), 1),
                    (summary.octets_sent_per_message, 0),
                    (summary.octets_received_per_message, 0),
                    (summary.ratio_to_amqp, 2),
                ];
                row.extend(figures.map(|(figure, digits)| {
                    figure.map_or("–".to_owned(), |figure| match digits {
                        0 => grouped(figure.median.round() as u64),
                        digits => format!("{:.digits$}", figure.median),
                    })
                }));
                row.push(summary.rounds.to_string());
                row
            })
        });
        Table { head: head.map(str::to_owned).into(), rows: rows.collect() }
    }
}

fn body_axis() -> Axis {
    Axis::log("body", "octets")
}

fn client(point: &Point, protocol: Protocol) -> Option<&Client> {
    point.clients.iter().find(|client| client.protocol == protocol)
}

fn percent(share: Option<Spread>) -> Option<Spread> {
    let Spread { median, min, max } = share?;
    Some(Spread { median: median * 100.0, min: min * 100.0, max: max * 100.0 })
}

/// With a capital letter.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::report::tests::sample;

    #[test]
    fn each_sweep_has_its_plots_with_every_client() {
        let cases = [
            (None, vec!["Throughput", "Broker CPU"]),
            (
                Some(Sweep::Bodies),
                vec![
                    "Throughput against body size",
                    "Octets against body size",
                    "Broker CPU against body size",
                ],
            ),
            (Some(Sweep::Packing), vec!["Throughput against packing", "Broker CPU per beacon"]),
            (
                Some(Sweep::Window),
                vec!["Throughput against window", "Confirm latency against window", "Waiting for the window"],
            ),
            (Some(Sweep::Connections), vec!["Throughput against connections"]),
            (Some(Sweep::Queues), vec!["Throughput by type of queue", "Broker CPU by type of queue"]),
        ];
        for (sweep, mut expected) in cases {
            let latency = match sweep {
                Some(sweep) => format!("Confirm latency in the sweep over {}", sweep.as_str()),
                None => "Confirm latency".to_owned(),
            };
            expected.push(&latency);
            let report = sample(sweep);
            let page = report.page();
            let plots: Vec<(&str, usize)> = page
                .sections
                .iter()
                .filter_map(|section| Some((&*section.title, section.chart.as_ref()?.series.len())))
                .collect();
            assert_eq!(plots, expected.iter().map(|title| (*title, 2)).collect::<Vec<_>>(), "{sweep:?}");
            for chart in page.sections.iter().filter_map(|section| section.chart.as_ref()) {
                let points = chart.series[0].points.len();
                let is_latency = chart.y.label == "latency";
                assert_eq!(
                    points,
                    if is_latency { 6 } else { report.points.len() },
                    "{sweep:?} {}",
                    chart.y.label
                );
            }
            let html = page.to_html();
            assert!(html.contains("a &lt;b&gt;") && html.contains("(lapin)"));
        }
    }

    #[test]
    fn a_run_without_any_figure_still_makes_a_page() {
        let mut report = sample(Some(Sweep::Window));
        report.points.iter_mut().for_each(|point| point.clients.clear());
        assert!(report.page().to_html().contains("There are no figures for this plot."));
        report.points.clear();
        assert!(report.page().to_html().contains("STOMP and AMQP"));
    }
}
