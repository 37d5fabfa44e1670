//! What the edge is asked to promise, how it is configured for that, and which answers are then obligations.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    faults::fault::Fault,
    http::response::{BeaconStatus, Response},
};

/// A row of the table of guarantees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
pub enum Mode {
    /// Beacons are in memory until a broker confirms them
    #[value(name = "ring")]
    #[serde(rename = "ring")]
    Ring,
    /// What the broker does not take goes to disk
    #[value(name = "ring+spool")]
    #[serde(rename = "ring+spool")]
    RingSpool,
    /// An answer says that the beacon is on disk
    #[value(name = "spooled")]
    #[serde(rename = "spooled")]
    Spooled,
    /// An answer says that a broker has confirmed the beacon
    #[value(name = "confirmed")]
    #[serde(rename = "confirmed")]
    Confirmed,
}

impl Mode {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::RingSpool => "ring+spool",
            Self::Spooled => "spooled",
            Self::Confirmed => "confirmed",
        }
    }

    /// The name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Ring => "ring, `ack = \"accepted\"`",
            Self::RingSpool => "ring + spool, `ack = \"accepted\"`",
            Self::Spooled => "`ack = \"spooled\"`",
            Self::Confirmed => "`ack = \"confirmed\"`",
        }
    }

    /// Whether there is a file on disk.
    pub fn has_spool(self) -> bool {
        matches!(self, Self::RingSpool | Self::Spooled)
    }

    /// Whether this answer makes its beacon an obligation.
    pub fn is_promise(self, answer: &Response) -> bool {
        match self {
            Self::Ring | Self::RingSpool => matches!(answer.status, 200 | 204),
            Self::Spooled => {
                matches!(answer.status, 200 | 204)
                    && matches!(answer.beacon, BeaconStatus::Spooled | BeaconStatus::Confirmed)
            }
            Self::Confirmed => matches!(answer.status, 200 | 204) && answer.beacon == BeaconStatus::Confirmed,
        }
    }

    /// Which losses of obligations this mode allows under this fault.
    pub fn allows(self, fault: Fault) -> Allowance {
        let kills = matches!(fault, Fault::Sigkill | Fault::PowerCut | Fault::Mixed);
        match self {
            Self::Ring => Allowance { tail: kills, counted: fault != Fault::NodeLoss },
            Self::RingSpool => Allowance { tail: kills, counted: fault == Fault::DiskFull },
            Self::Spooled | Self::Confirmed => Allowance { tail: false, counted: false },
        }
    }
}

/// Which obligations may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Those that an edge which was killed had answered last: some seconds ago. Without a spool, some seconds before the
    /// last moment from which on a broker could be reached all the time.
    pub tail: bool,
    /// As many as the edge itself counts as dropped.
    pub counted: bool,
}

/// Where things are in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// The brokers' URLs, through the proxy or not.
    pub(crate) brokers: &'a [String],
    pub(crate) queue: &'a str,
    pub(crate) spool: &'a Path,
    /// Most beacons on the ring: small where it is to overflow.
    pub(crate) ring: usize,
}

/// The edge's configuration.
pub(crate) fn configuration(mode: Mode, site: Site<'_>) -> String {
    let Site { http, admin, brokers, queue, spool, ring } = site;
    let mut text = format!(
        "[http]\nlisten = \"{http}\"\n\n\
         [admin]\nlisten = \"{admin}\"\n\n\
         [log]\nformat = \"text\"\n\n\
         [shutdown]\ndeadline = \"5s\"\n"
    );
    if mode.has_spool() {
        // The disk that is filled up must run out, not stop at a floor.
        write!(text, "\n[spool]\ndir = {:?}\nmin_free_bytes = 0\n", spool.display().to_string()).ok();
    }
    for (name, path, reply) in [("pixel", "/b.gif", "gif"), ("beacon", "/b", "empty")] {
        write!(text, "\n[routes.{name}]\npath = \"{path}\"\nreply = \"{reply}\"\n").ok();
        let ack = match mode {
            Mode::Ring | Mode::RingSpool => continue,
            Mode::Spooled => "spooled",
            Mode::Confirmed => "confirmed",
        };
        write!(text, "ack = \"{ack}\"\nack_timeout = \"1s\"\n").ok();
    }
    write!(
        text,
        "\n[destinations.main]\nbrokers = {brokers:?}\ndestination = \"/amq/queue/{queue}\"\n\
         window_frames = 32\nheart_beat = \"1s\"\nreceipt_timeout = \"5s\"\nconnect_timeout = \"2s\"\n\
         backoff_min = \"50ms\"\nbackoff_max = \"500ms\"\n\n\
         [destinations.main.ring]\nmax_beacons = {ring}\noverflow = \"{}\"\n",
        if mode.has_spool() { "spool" } else { "drop_newest" },
    )
    .ok();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_promised_is_an_obligation() {
        let answer = |status, beacon| Response { status, close: false, beacon };
        let cases = [
            (200, BeaconStatus::Unsaid, [true, true, false, false]),
            (204, BeaconStatus::Spooled, [true, true, true, false]),
            (200, BeaconStatus::Confirmed, [true, true, true, true]),
            (200, BeaconStatus::Unconfirmed, [true, true, false, false]),
            (503, BeaconStatus::Unsaid, [false; 4]),
            (503, BeaconStatus::Spooled, [false; 4]),
            (404, BeaconStatus::Confirmed, [false; 4]),
        ];
        for (status, beacon, expected) in cases {
            let seen = Mode::value_variants().iter().map(|mode| mode.is_promise(&answer(status, beacon)));
            assert_eq!(seen.collect::<Vec<_>>(), expected, "{status} {beacon:?}");
        }
    }
}
