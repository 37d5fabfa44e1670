//! How far a run has come, on a terminal; a line for each point where there is none.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    broker::round::Standing,
    report::{grouped, rounded},
};

/// The bar of a run: rounds done and to do, what is being measured, and how long it will take.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    wanted: bool,
    each: Duration,
    done: u64,
    all: u64,
}

impl Progress {
    /// Of `all` rounds that take about `each`.
    pub(crate) fn start(all: u64, each: Duration, wanted: bool) -> Self {
        let on_terminal = wanted && stderr().is_terminal();
        let target =
            if on_terminal { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(millis(each) * all), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {elapsed} of about {prefix}  {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(indicatif::HumanDuration(each * u32::try_from(all).unwrap_or(u32::MAX)).to_string());
        Self { bar, wanted: wanted && !on_terminal, each, done: 0, all }
    }

    /// A point begins.
    pub(crate) fn point(&self, text: &str) {
        if self.wanted {
            eprintln!("loadtest broker: round {} of {}: {text}", self.done + 1, self.all);
        }
    }

    /// A round stands here.
    pub(crate) fn update(&self, text: &str, standing: Standing) {
        if self.bar.is_hidden() {
            return;
        }
        let rate = standing.done as f64 / standing.elapsed.as_secs_f64().max(1e-3);
        self.bar.set_position(millis(self.each) * self.done + millis(standing.elapsed.min(self.each)));
        self.bar.set_message(format!(
            "{text}: {}/s, {} in flight; {} min left",
            grouped(rate as u64),
            grouped(standing.in_flight),
            rounded(self.left(standing.elapsed).as_secs_f64() / 60.0, 1),
        ));
    }

    /// A round is over.
    pub(crate) fn next(&mut self) {
        self.done += 1;
        self.bar.set_position(millis(self.each) * self.done);
    }

    /// Time that the rest of the run takes, from what its rounds have taken so far.
    fn left(&self, of_this_round: Duration) -> Duration {
        let each = if self.done == 0 {
            self.each
        } else {
            (self.bar.elapsed().saturating_sub(of_this_round)) / u32::try_from(self.done).unwrap_or(u32::MAX)
        };
        (each * u32::try_from(self.all - self.done.min(self.all)).unwrap_or(u32::MAX))
            .saturating_sub(of_this_round)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
