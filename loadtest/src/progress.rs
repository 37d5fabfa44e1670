//! A progress bar on a terminal; nothing at all when stderr is not one.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far a part of a run has come.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar titled `label` from 0 to `total` (milliseconds or requests).
    pub fn start(label: String, total: u64) -> Self {
        let target = if stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template("{prefix:>12} {bar:30} {elapsed:>5}  {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(label);
        Self { bar }
    }

    /// Moves the bar to `position` of its total, with a message of the caller's.
    pub fn say(&self, position: u64, message: String) {
        self.bar.set_position(position);
        self.bar.set_message(message);
        // Positions may be far apart.
        self.bar.tick();
    }

    /// A line that stays, above the bar.
    pub fn above(&self, line: &str) {
        self.bar.println(line);
    }

    /// Moves the bar to `position` of its total; `answered` and `failed` count since its start `elapsed` ago.
    pub fn update(&self, position: u64, answered: u64, failed: u64, elapsed: Duration) {
        if self.bar.is_hidden() {
            return;
        }
        let rate = answered as f64 / elapsed.as_secs_f64().max(1e-3);
        let errors = if failed == 0 { String::new() } else { format!(", {failed} failed") };
        self.bar.set_position(position);
        self.bar.set_message(format!("{rate:.0} requests/s{errors}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
