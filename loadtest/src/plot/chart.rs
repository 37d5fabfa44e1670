//! One chart as SVG, with its legend.

use std::fmt::{self, Write};

use crate::plot::{
    Axis, Chart, ChartKind, Point, Scale, Series,
    figures::{description, figures, point_text},
    html::{Text, write_table},
    scale::Layout,
};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = HEIGHT - 76.0;
/// Room of a tick's text on the x axis.
const TICK_ROOM: f64 = 46.0;
/// Height of a line of it; names may have three.
const TICK_LINE: f64 = 15.0;
/// Half of a whisker's end.
const WHISKER: f64 = 4.0;

/// What tells series apart beside their colour. Markers: circle, square, triangle, diamond, triangle on its tip, plus,
/// hexagon, hourglass; drawn from their middle.
const MARKERS: [&str; Chart::MOST_SERIES] = [
    "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "m-4 -4h8v8h-8z",
    "m0 -5.5l5.5 9.5h-11z",
    "m0 -6l6 6l-6 6l-6 -6z",
    "m-5.5 -4h11l-5.5 9.5z",
    "m-1.7 -5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "m-6 0l3 -4.5h6l3 4.5l-3 4.5h-6z",
    "m-4.5 -5h9l-9 10h9z",
];
/// Dashes of the lines.
const DASHES: [&str; Chart::MOST_SERIES] =
    ["none", "7 3", "2 3", "9 3 2 3", "12 4", "5 2 2 2 2 2", "4 6", "1 2"];

/// Writes the figure of the part `number` titled `title`.
pub(super) fn write_figure(out: &mut String, chart: &Chart, title: &str, number: usize) -> fmt::Result {
    writeln!(out, "<figure>")?;
    match layouts(chart) {
        Some((x, y)) => {
            write_legend(out, chart)?;
            writeln!(out, "<div class=\"wide\" tabindex=\"0\">")?;
            write_svg(out, chart, &x, &y, title, number)?;
            writeln!(out, "</div>")?;
        }
        None => writeln!(out, "<p class=\"none\">There are no figures for this plot.</p>")?,
    }
    writeln!(out, "<details><summary>The figures of this plot</summary>")?;
    write_table(out, &figures(chart))?;
    writeln!(out, "</details>\n</figure>")
}

fn layouts(chart: &Chart) -> Option<(Layout<'_>, Layout<'_>)> {
    let drawn = || chart.drawn().iter().flat_map(|series| &series.points);
    // A point is only drawn if both of its values can be.
    let shown = |point: &&Point| point.x.is_finite() && point.y.is_finite();
    let inset = if chart.x.is_names() { 0.0 } else { 16.0 };
    let x = Layout::new(&chart.x, drawn().filter(shown).map(|point| point.x), LEFT + inset, RIGHT - inset)?;
    let values = drawn().filter(|point| x.shows(point.x) && point.y.is_finite());
    // A logarithmic axis has no zero for bars to stand on: the smallest is given some height.
    let stands_on = if chart.kind == ChartKind::Bars && chart.y.scale == Scale::Log { 0.5 } else { 1.0 };
    let values = values.flat_map(|point| [point.y * stands_on, point.y, point.low, point.high]);
    let y = Layout::new(&chart.y, values, BOTTOM, TOP)?;
    Some((x, y.rounded()))
}

fn write_legend(out: &mut String, chart: &Chart) -> fmt::Result {
    writeln!(out, "<ul class=\"legend\">")?;
    for (place, series) in chart.drawn().iter().enumerate() {
        write!(out, "<li><svg class=\"c{place}\" viewBox=\"0 0 36 16\" aria-hidden=\"true\">")?;
        match chart.kind {
            ChartKind::Lines => {
                write!(out, "<path class=\"path\" d=\"M0 8H36\" stroke-dasharray=\"{}\"/>", DASHES[place])?;
            }
            ChartKind::Bars => {
                write!(out, "<rect class=\"bar\" x=\"6\" y=\"2\" width=\"24\" height=\"13\"/>")?;
            }
        }
        write_marker(out, place, 18.0, 8.0)?;
        writeln!(out, "</svg>{}</li>", Text(&series.name))?;
    }
    writeln!(out, "</ul>")
}

fn write_svg(
    out: &mut String,
    chart: &Chart,
    x: &Layout<'_>,
    y: &Layout<'_>,
    title: &str,
    number: usize,
) -> fmt::Result {
    writeln!(
        out,
        "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         aria-labelledby=\"t{number} d{number}\">\n<title id=\"t{number}\">{}</title>\n<desc id=\"d{number}\">{}</desc>",
        Text(title),
        Text(&description(chart)),
    )?;
    write_axes(out, chart, x, y)?;
    let across = chart.drawn().len();
    for (place, series) in chart.drawn().iter().enumerate() {
        let mut points: Vec<&Point> =
            series.points.iter().filter(|point| x.shows(point.x) && y.shows(point.y)).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        writeln!(out, "<g class=\"series c{place}\">")?;
        let at = match chart.kind {
            ChartKind::Lines => {
                write_path(out, &points, x, y, place)?;
                Columns::alone()
            }
            ChartKind::Bars => Columns::new(chart, x, place, across),
        };
        for point in points {
            write_point(out, chart, series, point, (x, y), place, &at)?;
        }
        writeln!(out, "</g>")?;
    }
    writeln!(out, "</svg>")
}

fn write_axes(out: &mut String, chart: &Chart, x: &Layout<'_>, y: &Layout<'_>) -> fmt::Result {
    for tick in y.ticks() {
        let place = y.place(tick);
        writeln!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {place:.1}H{RIGHT}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            place + 4.0,
            Text(&y.tick_text(tick)),
        )?;
    }
    let ticks = match chart.x.scale {
        Scale::Log => {
            x.ticks_at(chart.drawn().iter().flat_map(|series| &series.points).map(|point| point.x), TICK_ROOM)
        }
        _ => x.ticks(),
    };
    for tick in ticks {
        let place = x.place(tick);
        write!(
            out,
            "<path class=\"edge\" d=\"M{place:.1} {BOTTOM}v5\"/><text y=\"{:.1}\" text-anchor=\"middle\">",
            BOTTOM + 4.0
        )?;
        for line in x.tick_text(tick).lines() {
            write!(out, "<tspan x=\"{place:.1}\" dy=\"{TICK_LINE}\">{}</tspan>", Text(line))?;
        }
        writeln!(out, "</text>")?;
    }
    writeln!(
        out,
        "<path class=\"edge\" d=\"M{LEFT} {BOTTOM}H{RIGHT}\"/>\n<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" \
         text-anchor=\"middle\">{}</text>\n<text class=\"axis\" x=\"4\" y=\"14\">{}</text>",
        (LEFT + RIGHT) / 2.0,
        HEIGHT - 10.0,
        Text(&chart.x.drawn_title()),
        Text(&chart.y.drawn_title()),
    )
}

fn write_path(
    out: &mut String,
    points: &[&Point],
    x: &Layout<'_>,
    y: &Layout<'_>,
    place: usize,
) -> fmt::Result {
    if points.len() < 2 {
        return Ok(());
    }
    write!(out, "<path class=\"path\" stroke-dasharray=\"{}\" d=\"", DASHES[place])?;
    for (number, point) in points.iter().enumerate() {
        let pen = if number == 0 { 'M' } else { 'L' };
        write!(out, "{pen}{:.1} {:.1}", x.place(point.x), y.place(point.y))?;
    }
    writeln!(out, "\"/>")
}

/// Where a series' bars stand beside those of the others.
struct Columns {
    shift: f64,
    width: f64,
}

impl Columns {
    fn alone() -> Self {
        Self { shift: 0.0, width: 0.0 }
    }

    fn new(chart: &Chart, x: &Layout<'_>, place: usize, across: usize) -> Self {
        let mut values: Vec<f64> =
            chart.drawn().iter().flat_map(|series| &series.points).map(|point| point.x).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let groups = match &chart.x.scale {
            Scale::Names(names) => names.len(),
            _ => values.len(),
        };
        let width = (x.room(groups) * 0.7 / across.max(1) as f64).min(56.0);
        Self { shift: (place as f64 - (across as f64 - 1.0) / 2.0) * width, width: width - 4.0 }
    }
}

fn write_point(
    out: &mut String,
    chart: &Chart,
    series: &Series,
    point: &Point,
    (x, y): (&Layout<'_>, &Layout<'_>),
    place: usize,
    columns: &Columns,
) -> fmt::Result {
    let (across, up) = (x.place(point.x) + columns.shift, y.place(point.y));
    write!(out, "<g><title>{}</title>", Text(&point_text(chart, series, point)))?;
    if chart.kind == ChartKind::Bars {
        let base = y.place(y.base());
        write!(
            out,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            across - columns.width / 2.0,
            up.min(base),
            columns.width,
            (base - up).abs(),
        )?;
    }
    if point.has_spread() {
        let (low, high) = (y.place(point.low), y.place(point.high));
        write!(
            out,
            "<path class=\"whisker\" d=\"M{across:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}h{both}M{left:.1} \
             {high:.1}h{both}\"/>",
            left = across - WHISKER,
            both = 2.0 * WHISKER,
        )?;
    }
    write_marker(out, place, across, up)?;
    // Where bars stand alone there is room for their figures.
    if chart.kind == ChartKind::Bars && chart.drawn().len() == 1 {
        let top = if point.has_spread() { up.min(y.place(point.high)) } else { up };
        write!(
            out,
            "<text class=\"figure\" x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            top - 8.0,
            Text(&chart.y.tick_text(point.y)),
        )?;
    }
    writeln!(out, "</g>")
}

/// Writes the marker of the series number `place`.
fn write_marker(out: &mut String, place: usize, x: f64, y: f64) -> fmt::Result {
    write!(out, "<path class=\"mark\" d=\"M{x:.1} {y:.1}{}\"/>", MARKERS[place])
}

impl Chart {
    pub(super) fn drawn(&self) -> &[Series] {
        &self.series[..self.series.len().min(Self::MOST_SERIES)]
    }
}

impl Axis {
    fn is_names(&self) -> bool {
        matches!(self.scale, Scale::Names(_))
    }

    /// The title as it stands at the axis.
    fn drawn_title(&self) -> String {
        let title = self.title();
        if self.scale == Scale::Log { format!("{title}, logarithmic") } else { title }
    }
}

#[cfg(test)]
mod tests {
    use roxmltree::{Document, Node, ParsingOptions};

    use super::*;
    use crate::plot::{Page, Section, Table};

    const NASTY: &str = "<b>&\"'\u{1}</b>";

    fn nasty_page() -> Page {
        let series = |name: &str, factor: f64| {
            let points =
                [1.0, 10.0, 100.0].map(|x| Point::ranged(x, x * factor, x * factor * 0.9, x * factor * 1.1));
            Series::new(name, points)
        };
        let lines = Chart {
            kind: ChartKind::Lines,
            x: Axis::log(NASTY, "octets"),
            y: Axis::linear(NASTY, NASTY),
            series: vec![series(NASTY, 1.0), series("b", 2.0), series("none", f64::NAN)],
        };
        let bars = Chart {
            kind: ChartKind::Bars,
            x: Axis::names("queue", ["classic", NASTY]),
            y: Axis::log("rate", "messages/s"),
            series: vec![
                Series::new("a", [Point::new(0.0, 10.0), Point::new(1.0, 2000.0), Point::new(2.0, 5.0)]),
                Series::new("b", [Point::new(0.0, 0.0), Point::new(1.0, 300.0)]),
            ],
        };
        let empty = Chart { series: Vec::new(), ..lines.clone() };
        Page {
            title: NASTY.to_owned(),
            lead: vec![NASTY.to_owned(), format!("`{NASTY}`")],
            facts: vec![(NASTY.to_owned(), NASTY.to_owned())],
            sections: vec![
                Section {
                    title: NASTY.to_owned(),
                    text: vec![NASTY.to_owned()],
                    chart: Some(lines),
                    table: None,
                },
                Section::plot("bars", bars),
                Section {
                    title: "empty".to_owned(),
                    chart: Some(empty),
                    table: Some(Table { head: vec![NASTY.to_owned()], rows: vec![vec![NASTY.to_owned()]] }),
                    ..Section::default()
                },
            ],
        }
    }

    fn parse(html: &str) -> Document<'_> {
        Document::parse_with_options(html, ParsingOptions { allow_dtd: true, ..ParsingOptions::default() })
            .unwrap()
    }

    fn classed<'a>(root: Node<'a, 'a>, class: &str) -> Vec<Node<'a, 'a>> {
        let has = |node: &Node<'_, '_>| {
            node.attribute("class").is_some_and(|classes| classes.split(' ').any(|one| one == class))
        };
        root.descendants().filter(|node| has(node)).collect()
    }

    #[test]
    fn a_page_is_well_formed_and_text_stays_text() {
        let html = nasty_page().to_html();
        let document = parse(&html);
        assert!(document.descendants().all(|node| node.tag_name().name() != "b"), "{html}");
        let shown = NASTY.replace('\u{1}', "\u{fffd}");
        let texts = document.descendants().filter(|node| node.text() == Some(&shown)).count();
        // Title twice, two paragraphs, fact twice, heading, paragraph, title of the plot, legend, cells.
        assert!(texts >= 12, "{texts}");
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let html = nasty_page().to_html();
        let elsewhere = html.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for part in ["http:", "https:", "//", "url(", "@import", "<script", "<link rel=\"stylesheet"] {
            assert!(!elsewhere.contains(part), "{part}");
        }
    }

    #[test]
    fn every_series_is_there_with_its_points_and_its_spread() {
        let html = nasty_page().to_html();
        let document = parse(&html);
        let charts = classed(document.root(), "chart");
        assert_eq!(charts.len(), 2);
        for (chart, expected) in charts.iter().zip([vec![3, 3, 0], vec![2, 1]]) {
            let series = classed(*chart, "series");
            let marks: Vec<usize> = series.iter().map(|series| classed(*series, "mark").len()).collect();
            assert_eq!(marks, expected);
            for place in chart.descendants().flat_map(|node| {
                ["x", "y", "width", "height"].into_iter().filter_map(move |name| node.attribute(name))
            }) {
                let value: f64 = place.parse().unwrap();
                assert!((-1.0..=WIDTH).contains(&value), "{place}");
            }
            let [Some(title), Some(desc)] = ["title", "desc"].map(|name| {
                chart.children().find(|node| node.has_tag_name(("http://www.w3.org/2000/svg", name)))
            }) else {
                panic!("title and desc")
            };
            let ids = [title, desc].map(|node| node.attribute("id").unwrap()).join(" ");
            assert_eq!(chart.attribute("aria-labelledby"), Some(&*ids));
        }
        assert_eq!(classed(charts[0], "whisker").len(), 6);
        assert_eq!(classed(charts[1], "bar").len(), 3);
        assert_eq!(classed(document.root(), "none").len(), 1);
        // Also in the table under the plot, with what cannot be drawn.
        let rows: Vec<&str> = document
            .descendants()
            .filter(|node| node.has_tag_name("td"))
            .filter_map(|cell| cell.text())
            .collect();
        assert!(rows.contains(&"200 (180 … 220)") && rows.contains(&"–"), "{rows:?}");
    }

    #[test]
    fn more_series_than_can_be_told_apart_are_left_to_the_table() {
        let series = (0..10).map(|number| Series::new(format!("s{number}"), [Point::new(1.0, 1.0)]));
        let chart = Chart {
            kind: ChartKind::Lines,
            x: Axis::linear("x", ""),
            y: Axis::linear("y", ""),
            series: series.collect(),
        };
        let page = Page { sections: vec![Section::plot("many", chart)], ..Page::default() };
        let html = page.to_html();
        let document = parse(&html);
        assert_eq!(classed(document.root(), "series").len(), Chart::MOST_SERIES);
        assert_eq!(html.matches("<th scope=\"col\">s").count(), 10);
    }
}
