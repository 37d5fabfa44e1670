//! Waiting for a condition, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// First pause between two looks; it doubles up to [`LONGEST_PAUSE`], so that what is quick is seen at once and what
/// is slow costs little.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Looks until the condition is met. `look` says what it saw when it is not.
pub(crate) fn wait_until(
    what: impl FnOnce() -> String,
    limit: Duration,
    mut look: impl FnMut() -> Result<(), String>,
) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    loop {
        let last_seen = match look() {
            Ok(()) => return Ok(()),
            Err(last_seen) => last_seen,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout { what: what(), limit, last_seen });
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
