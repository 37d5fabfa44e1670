//! Values to places on an axis, ticks, and values as text.

use crate::plot::{Axis, Scale};

/// Ticks that a reader can make use of.
const MOST_TICKS: f64 = 6.0;

/// An axis laid out between two places, `from` for its low end and `to` for its high one.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    axis: &'a Axis,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl<'a> Layout<'a> {
    /// Lays `axis` out for `values`, of which those that it cannot show are passed over; `None` if that leaves none.
    pub(super) fn new(axis: &'a Axis, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let shown = values.filter(|&value| shows(&axis.scale, value));
        let (min, max) = shown
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| (min.min(value), max.max(value)));
        if min > max {
            return None;
        }
        let (low, high) = match &axis.scale {
            Scale::Names(names) => (-0.5, names.len() as f64 - 0.5),
            Scale::Log if min == max => (min / 2.0, max * 2.0),
            Scale::Log => (min, max),
            Scale::Linear => {
                let (low, high) = (min.min(0.0), max.max(0.0));
                if low == high { (0.0, 1.0) } else { (low, high) }
            }
        };
        Some(Self { axis, low, high, from, to })
    }

    /// The same with the ends moved outwards, so that the outermost ticks enclose all values.
    pub(super) fn rounded(mut self) -> Self {
        match self.axis.scale {
            Scale::Linear => {
                let step = step(self.high - self.low);
                self.low = (self.low / step).floor() * step;
                self.high = (self.high / step).ceil() * step;
            }
            Scale::Log => {
                self.low = log_ticks(self.low / 10.0, self.low)
                    .into_iter()
                    .rfind(|&tick| tick <= self.low)
                    .unwrap_or(self.low);
                self.high = log_ticks(self.high, self.high * 10.0)
                    .into_iter()
                    .find(|&tick| tick >= self.high)
                    .unwrap_or(self.high);
            }
            Scale::Names(_) => {}
        }
        self
    }

    /// Whether the axis can show it.
    pub(super) fn shows(&self, value: f64) -> bool {
        shows(&self.axis.scale, value)
    }

    /// Its place; a value outside of the axis is put to its end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = match self.axis.scale {
            Scale::Log => (value.max(self.low).ln() - self.low.ln()) / (self.high.ln() - self.low.ln()),
            _ => (value - self.low) / (self.high - self.low),
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Where bars begin: zero, or the low end of an axis that has none.
    pub(super) fn base(&self) -> f64 {
        if self.axis.scale == Scale::Log { self.low } else { 0.0 }
    }

    /// Room between two names, or between two values that are `share` of the axis apart.
    pub(super) fn room(&self, names: usize) -> f64 {
        (self.to - self.from).abs() / names.max(1) as f64
    }

    /// Round values for ticks.
    pub(super) fn ticks(&self) -> Vec<f64> {
        match &self.axis.scale {
            Scale::Names(names) => (0..names.len()).map(|name| name as f64).collect(),
            Scale::Log => log_ticks(self.low, self.high),
            Scale::Linear => {
                let step = step(self.high - self.low);
                let (first, last) =
                    ((self.low / step).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
                (first..=last).map(|tick| tick as f64 * step).collect()
            }
        }
    }

    /// A value as a tick shows it: on an even axis all with the same prefix.
    pub(super) fn tick_text(&self, value: f64) -> String {
        match self.axis.scale {
            Scale::Linear if !self.axis.is_octets() => {
                let (divisor, prefix) = prefix(self.low.abs().max(self.high.abs()));
                if value == 0.0 { "0".to_owned() } else { format!("{}{prefix}", trimmed(value / divisor, 3)) }
            }
            _ => self.axis.tick_text(value),
        }
    }

    /// A tick at each of `values` that has `room` to the tick before it. For an axis of settings, which are better
    /// named than the round numbers between them.
    pub(super) fn ticks_at(&self, values: impl Iterator<Item = f64>, room: f64) -> Vec<f64> {
        let mut values: Vec<f64> = values.filter(|&value| self.shows(value)).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let mut last = f64::NEG_INFINITY;
        values.retain(|&value| {
            let place = self.place(value);
            let fits = place - last >= room;
            if fits {
                last = place;
            }
            fits
        });
        values
    }
}

impl Axis {
    /// A value in short.
    pub(super) fn tick_text(&self, value: f64) -> String {
        match &self.scale {
            Scale::Names(names) => name(names, value),
            _ if self.is_octets() => octets(value),
            _ => short(value),
        }
    }

    /// A value as a table shows it.
    pub(super) fn exact_text(&self, value: f64) -> String {
        match &self.scale {
            Scale::Names(names) => name(names, value),
            _ => exact(value),
        }
    }

    /// Label and unit.
    pub(super) fn title(&self) -> String {
        if self.unit.is_empty() { self.label.clone() } else { format!("{} ({})", self.label, self.unit) }
    }

    fn is_octets(&self) -> bool {
        self.unit == "octets"
    }
}

fn shows(scale: &Scale, value: f64) -> bool {
    match scale {
        Scale::Linear => value.is_finite(),
        Scale::Log => value.is_finite() && value > 0.0,
        Scale::Names(names) => value >= 0.0 && value < names.len() as f64,
    }
}

/// The step between ticks over `span`: 1, 2 or 5 times a power of ten.
fn step(span: f64) -> f64 {
    let rough = span / MOST_TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|step| step * power >= rough * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

/// Powers of ten, and 2 and 5 times them where there are few of those.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let steps: &[f64] = if high / low > 1e4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    (first..=last)
        .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
        .filter(|tick| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(tick))
        .collect()
}

fn name(names: &[String], value: f64) -> String {
    names.get(value as usize).cloned().unwrap_or_default()
}

/// Up to three significant digits and a prefix: `1.5 k`, `20 M`, `0.25`.
fn short(value: f64) -> String {
    let (divisor, prefix) = prefix(value.abs());
    format!("{}{prefix}", trimmed(value / divisor, 3))
}

/// What to divide by, and what to write for it. Four digits read well without.
fn prefix(size: f64) -> (f64, &'static str) {
    match size {
        size if size >= 1e9 => (1e9, " G"),
        size if size >= 1e6 => (1e6, " M"),
        size if size >= 1e4 => (1e3, " k"),
        _ => (1.0, ""),
    }
}

/// Octets as ticks show them: `256`, `4 KiB`, `1.5 MiB`.
fn octets(value: f64) -> String {
    match value {
        value if value >= 1_048_576.0 => format!("{} MiB", trimmed(value / 1_048_576.0, 3)),
        value if value >= 1024.0 => format!("{} KiB", trimmed(value / 1024.0, 3)),
        value => trimmed(value, 3),
    }
}

/// Four significant digits at least, whole numbers whole, with groups of three.
fn exact(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = if value.abs() >= 1000.0 { format!("{value:.0}") } else { trimmed(value, 4) };
    let (sign, digits) = text.strip_prefix('-').map_or(("", &*text), |digits| ("-", digits));
    match digits.parse::<u64>() {
        Ok(number) => format!("{sign}{}", crate::report::grouped(number)),
        Err(_) => text,
    }
}

/// `value` with so many significant digits, without zeros behind the point.
fn trimmed(value: f64, digits: i32) -> String {
    let whole = if value == 0.0 { 1 } else { value.abs().log10().floor() as i32 + 1 };
    let text = format!("{value:.*}", (digits - whole).clamp(0, 9) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_axes_begin_at_zero_and_end_at_a_round_number() {
        let axis = Axis::linear("rate", "/s");
        for (max, expected) in [
            (9.0, vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (31_000.0, vec![0.0, 10_000.0, 20_000.0, 30_000.0, 40_000.0]),
            (0.0, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ] {
            let layout = Layout::new(&axis, [max].into_iter(), 100.0, 0.0).unwrap().rounded();
            let ticks = layout.ticks();
            assert_eq!(ticks.len(), expected.len(), "{max}: {ticks:?}");
            for (tick, expected) in ticks.iter().zip(expected) {
                assert!((tick - expected).abs() < 1e-9, "{max}: {ticks:?}");
            }
            assert_eq!((layout.place(0.0), layout.place(layout.high)), (100.0, 0.0));
            let last = [("10", 9.0), ("40 k", 31_000.0), ("1", 0.0)].into_iter().find(|(_, of)| *of == max);
            assert_eq!(Some(&*layout.tick_text(layout.high)), last.map(|(text, _)| text));
        }
    }

    #[test]
    fn equal_ratios_are_equally_far_apart() {
        let axis = Axis::log("body", "octets");
        let layout = Layout::new(&axis, [0.0, -3.0, f64::NAN, 1.0, 100.0].into_iter(), 0.0, 200.0).unwrap();
        assert!((layout.place(10.0) - 100.0).abs() < 1e-9);
        assert!(!layout.shows(0.0) && !layout.shows(f64::INFINITY));
        assert_eq!(layout.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        let wide = Layout::new(&axis, [3.0, 2e6].into_iter(), 0.0, 1.0).unwrap().rounded();
        assert_eq!((wide.low, wide.high), (2.0, 2e6));
        assert_eq!(wide.ticks(), [10.0, 100.0, 1e3, 1e4, 1e5, 1e6]);
    }

    #[test]
    fn settings_are_their_own_ticks_where_there_is_room() {
        let axis = Axis::log("window", "");
        let values = [1.0, 8.0, 9.0, 64.0];
        let layout = Layout::new(&axis, values.into_iter(), 0.0, 300.0).unwrap();
        assert_eq!(layout.ticks_at(values.into_iter(), 40.0), [1.0, 8.0, 64.0]);
    }

    #[test]
    fn nothing_to_show_is_no_layout() {
        assert!(Layout::new(&Axis::log("", ""), [0.0, f64::NAN].into_iter(), 0.0, 1.0).is_none());
        assert!(Layout::new(&Axis::names("", ["a"]), [1.0].into_iter(), 0.0, 1.0).is_none());
        assert!(Layout::new(&Axis::linear("", ""), std::iter::empty(), 0.0, 1.0).is_none());
    }

    #[test]
    fn values_as_text() {
        let plain = Axis::linear("", "");
        let cases = [
            (0.0, "0", "0"),
            (0.25, "0.25", "0.25"),
            (12.34567, "12.3", "12.35"),
            (1_500.0, "1500", "1,500"),
            (15_000.0, "15 k", "15,000"),
            (2_340_000.4, "2.34 M", "2,340,000"),
            (3e9, "3 G", "3,000,000,000"),
            (-20_000.0, "-20 k", "-20,000"),
        ];
        for (value, tick, exact) in cases {
            assert_eq!((&*plain.tick_text(value), &*plain.exact_text(value)), (tick, exact));
        }
        assert_eq!(plain.exact_text(f64::NAN), "–");
        let octets = Axis::log("body", "octets");
        for (value, text) in
            [(256.0, "256"), (1024.0, "1 KiB"), (65_536.0, "64 KiB"), (1_572_864.0, "1.5 MiB")]
        {
            assert_eq!(octets.tick_text(value), text);
        }
        assert_eq!(octets.title(), "body (octets)");
        assert_eq!(Axis::linear("rate", "messages/s").title(), "rate (messages/s)");
        assert_eq!(Axis::names("", ["classic", "quorum"]).tick_text(1.0), "quorum");
    }
}
