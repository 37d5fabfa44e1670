//! When a connection counts as blocked: receipts have dried up, heart-beats come.

use std::time::{Duration, Instant};

use super::PublisherOptions;
use crate::client::Client;

/// Without a receipt for this long a lane counts as blocked, whatever the heart-beats' period.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);
/// A broker that writes to a slow disk may take this long to confirm, and is not called blocked for it.
const SLOW_CONFIRM: Duration = Duration::from_secs(1);

/// The time since which a connection has been blocked.
pub(super) struct Blocked {
    since: Instant,
    pub(super) probed: bool,
}

impl Blocked {
    pub(super) fn now() -> Self {
        Self { since: Instant::now(), probed: false }
    }

    /// How many messages to take nevertheless: one, once, after the receipt timeout. If it is receipted, those before
    /// it were not in an alarm: their receipts are lost.
    pub(super) fn appetite(&self, receipt_timeout: Duration) -> usize {
        usize::from(!self.probed && self.since.elapsed() >= receipt_timeout)
    }
}

/// After what time without a receipt a connection counts as blocked: two of the server's heart-beat periods, in which a
/// server that lives has given a sign of life, within bounds.
pub(super) fn blocked_after(client: &Client, options: &PublisherOptions) -> Duration {
    let grace = f64::from(options.connect.session.heart_beat_grace).max(1.0);
    let period = client
        .connected()
        .and_then(|connected| connected.server_patience)
        .map_or(BLOCKED_AFTER, |patience| {
            Duration::try_from_secs_f64(patience.as_secs_f64() / grace).unwrap_or(BLOCKED_AFTER)
        });
    period.saturating_mul(2).clamp(SLOW_CONFIRM, BLOCKED_AFTER).min(options.receipt_timeout)
}
