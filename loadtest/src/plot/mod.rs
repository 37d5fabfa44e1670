//! One self-contained HTML page with plots: SVG drawn here, no script, nothing loaded from elsewhere, light and dark as
//! the reader's system is.
//!
//! ```
//! use loadtest::plot::{Axis, Chart, ChartKind, Page, Point, Section, Series};
//!
//! let series = Series::new("stompwire", [Point::new(256.0, 20_000.0), Point::ranged(65_536.0, 9_000.0, 8_500.0, 9_700.0)]);
//! let chart = Chart {
//!     kind: ChartKind::Lines,
//!     x: Axis::log("body", "octets"),
//!     y: Axis::linear("confirmed", "messages/s"),
//!     series: vec![series],
//! };
//! let page = Page { title: "STOMP".to_owned(), sections: vec![Section::plot("Body size", chart)], ..Page::default() };
//! assert!(page.to_html().starts_with("<!DOCTYPE html>"));
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `scale` | values to places on an axis, ticks, and values as text |
//! | `chart` | one chart as SVG, and its legend |
//! | `figures` | what a chart shows, in words and as a table |
//! | `html` | the page, and text as HTML |
//!
//! Drawn by hand and not by a plot library, for three reasons. The well-kept one in Rust (plotters) writes each colour into
//! its SVG as a fixed attribute, so a page cannot be dark for one reader and light for another. It writes neither `title`
//! nor `desc`, on which readers of the page by ear depend and which show the figure under a pointer. And it measures text
//! with fonts of the machine that draws. What is left to do without it is two scales, five shapes and a path.

mod chart;
mod figures;
mod html;
mod scale;

/// A page. Its texts are plain text; what is between backquotes is shown as code.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The title.
    pub title: String,
    /// Paragraphs under the title.
    pub lead: Vec<String>,
    /// What was measured on what: names and values.
    pub facts: Vec<(String, String)>,
    /// The page's parts.
    pub sections: Vec<Section>,
}

/// A part of a page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// Paragraphs under the heading.
    pub text: Vec<String>,
    /// A plot. The figures that it shows are in a table under it, folded away.
    pub chart: Option<Chart>,
    /// A table.
    pub table: Option<Table>,
}

/// A table. The first column is set to the left, and so is any other that holds words; figures are set to the right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub head: Vec<String>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<String>>,
}

/// A plot of several series over one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// How values are drawn.
    pub kind: ChartKind,
    /// The axis from left to right.
    pub x: Axis,
    /// The axis from bottom to top.
    pub y: Axis,
    /// What is drawn, at most [`Chart::MOST_SERIES`]: more cannot be told apart and are left to the table.
    pub series: Vec<Series>,
}

/// How values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChartKind {
    /// Points of a series joined by lines, in order of x.
    Lines,
    /// Bars side by side at each x.
    Bars,
}

/// An axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// What is on it.
    pub label: String,
    /// How values are laid out.
    pub scale: Scale,
    /// The unit of the values; may be empty. Values in `octets` are shown in KiB and MiB.
    pub unit: String,
}

/// How values are laid out on an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from zero.
    Linear,
    /// Equal ratios are equally far apart. Values that are not above zero are left out.
    Log,
    /// The value n stands for the n-th of these names, counted from 0. A name may have three lines.
    Names(Vec<String>),
}

/// Figures that belong together, and are told apart from other series by colour, marker and dashes.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points.
    pub points: Vec<Point>,
}

/// A figure with its spread. What is not finite is left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Where it is on the x axis.
    pub x: f64,
    /// The figure, for example a median.
    pub y: f64,
    /// The smallest of the figures that `y` stands for.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

impl Page {
    /// The page as HTML, which is well-formed XML too.
    pub fn to_html(&self) -> String {
        html::page(self)
    }
}

impl Section {
    /// A part with a plot alone.
    pub fn plot(title: &str, chart: Chart) -> Self {
        Self { title: title.to_owned(), chart: Some(chart), ..Self::default() }
    }

    /// The same with a paragraph more.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text.push(text.into());
        self
    }
}

impl Chart {
    /// How many series are drawn.
    pub const MOST_SERIES: usize = 8;
}

impl Axis {
    /// An axis from zero.
    pub fn linear(label: &str, unit: &str) -> Self {
        Self { label: label.to_owned(), scale: Scale::Linear, unit: unit.to_owned() }
    }

    /// A logarithmic axis.
    pub fn log(label: &str, unit: &str) -> Self {
        Self { scale: Scale::Log, ..Self::linear(label, unit) }
    }

    /// An axis of names: the value n stands for the n-th of them, counted from 0.
    pub fn names<N: Into<String>>(label: &str, names: impl IntoIterator<Item = N>) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        Self { label: label.to_owned(), scale: Scale::Names(names), unit: String::new() }
    }
}

impl Series {
    /// A series of this name.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = Point>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect() }
    }
}

impl Point {
    /// A figure without spread.
    pub const fn new(x: f64, y: f64) -> Self {
        Self { x, y, low: y, high: y }
    }

    /// A figure between the smallest and the largest of those that it stands for.
    pub const fn ranged(x: f64, y: f64, low: f64, high: f64) -> Self {
        Self { x, y, low, high }
    }

    /// Whether it stands for figures that differ.
    fn has_spread(&self) -> bool {
        self.low.is_finite() && self.high.is_finite() && self.low < self.high
    }
}
