//! How far the run has come and how long it will take: a bar on a terminal, a line per step elsewhere.

use std::{
    io::{IsTerminal as _, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress in steps of which each has been planned to take so long.
#[derive(Debug)]
pub(crate) struct Eta {
    bar: Option<ProgressBar>,
    start: Instant,
    planned: Duration,
    done: Duration,
}

impl Eta {
    /// Of a run that is planned to take `planned`.
    pub(crate) fn new(planned: Duration) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let total = u64::try_from(planned.as_millis()).unwrap_or(u64::MAX);
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(4));
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {elapsed:>4}, {prefix} left  {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        Self { bar, start: Instant::now(), planned, done: Duration::ZERO }
    }

    /// Says what is being done now.
    pub(crate) fn now(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(short(self.left()));
            bar.set_message(text.to_owned());
        }
    }

    /// A step that was planned to take `planned` is done, with this result.
    pub(crate) fn done(&mut self, planned: Duration, result: &str) {
        self.done = (self.done + planned).min(self.planned);
        match &self.bar {
            Some(bar) => {
                bar.set_position(u64::try_from(self.done.as_millis()).unwrap_or(u64::MAX));
                bar.println(result);
            }
            None => eprintln!("loadtest: {result} ({} left)", short(self.left())),
        }
    }

    /// What is planned and not done, stretched as what is done was.
    fn left(&self) -> Duration {
        let left = self.planned.saturating_sub(self.done);
        if self.done.is_zero() {
            return left;
        }
        left.mul_f64((self.start.elapsed().as_secs_f64() / self.done.as_secs_f64()).clamp(0.1, 10.0))
    }
}

impl Drop for Eta {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `45s`, `12m`.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 120 { format!("{seconds}s") } else { format!("{}m", seconds.div_ceil(60)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_never_exceeds_what_is_planned_by_more_than_ten() {
        let mut eta = Eta::new(Duration::from_secs(100));
        assert_eq!(eta.left(), Duration::from_secs(100));
        eta.done(Duration::from_secs(60), "a step");
        assert!(eta.left() <= Duration::from_secs(400));
        eta.done(Duration::from_secs(60), "a step longer than planned");
        assert_eq!(eta.left(), Duration::ZERO);
        assert_eq!(
            (short(Duration::from_secs(90)), short(Duration::from_secs(601))),
            ("90s".into(), "11m".into())
        );
    }
}
