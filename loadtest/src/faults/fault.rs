//! The faults: the columns of the table of guarantees, and what is done to whom within each.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use serde::Serialize;

/// A column of the table of guarantees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGTERM of the edge, and a new one
    Sigterm,
    /// SIGKILL of the edge, and a new one
    Sigkill,
    /// SIGKILL of the edge, and of its files only what an fsync had covered
    PowerCut,
    /// RabbitMQ killed, restarted, or stopped within its process
    BrokerOutage,
    /// Memory or disk alarm of RabbitMQ, on and off
    Alarm,
    /// Connections cut in the middle of a frame, reset, black-holed, delayed, throttled
    Network,
    /// The disk of the spool is full while the broker is away
    DiskFull,
    /// The leader of a quorum queue's three nodes is killed
    NodeLoss,
    /// All but the last three, several in a run
    Mixed,
}

impl Fault {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sigterm => "sigterm",
            Self::Sigkill => "sigkill",
            Self::PowerCut => "power-cut",
            Self::BrokerOutage => "broker-outage",
            Self::Alarm => "alarm",
            Self::Network => "network",
            Self::DiskFull => "disk-full",
            Self::NodeLoss => "node-loss",
            Self::Mixed => "mixed",
        }
    }

    /// The head of its column.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sigterm => "SIGTERM",
            Self::Sigkill => "kill -9 of the edge",
            Self::PowerCut => "power cut",
            Self::BrokerOutage => "broker outage",
            Self::Alarm => "broker alarm",
            Self::Network => "network",
            Self::DiskFull => "disk full",
            Self::NodeLoss => "broker node loss",
            Self::Mixed => "mixed",
        }
    }
}

/// What is done, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// SIGTERM of the edge; a new one once it has ended.
    Sigterm,
    /// SIGKILL of the edge.
    Sigkill,
    /// SIGKILL of the edge; what no fsync covered is undone.
    PowerCut,
    /// The same, while the spool's log is being copied into its file: the moment at which a page can be lost that was safe.
    PowerCutInCheckpoint,
    /// SIGKILL of RabbitMQ.
    BrokerKill,
    /// RabbitMQ ends in good order.
    BrokerStop,
    /// RabbitMQ stops within its process.
    BrokerStopApp,
    /// The memory alarm.
    MemoryAlarm,
    /// The disk alarm.
    DiskAlarm,
    /// Every connection is closed in the middle of what is sent.
    Cut,
    /// Every connection is reset.
    Reset,
    /// Whatever is sent either way disappears.
    BlackHole,
    /// Both ways take so many milliseconds longer.
    Delay(u32),
    /// Each connection carries so many octets a second.
    Throttle(u32),
    /// The disk of the spool is full, while no broker can be reached.
    DiskFull,
    /// SIGKILL of the node that leads the queue.
    NodeKill,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sigterm => "SIGTERM of the edge",
            Self::Sigkill => "SIGKILL of the edge",
            Self::PowerCut => "power cut of the edge",
            Self::PowerCutInCheckpoint => "power cut of the edge in a checkpoint",
            Self::BrokerKill => "SIGKILL of RabbitMQ",
            Self::BrokerStop => "RabbitMQ restarted",
            Self::BrokerStopApp => "RabbitMQ stop_app",
            Self::MemoryAlarm => "memory alarm",
            Self::DiskAlarm => "disk alarm",
            Self::Cut => "connections cut in the middle",
            Self::Reset => "connections reset",
            Self::BlackHole => "black hole",
            Self::Delay(ms) => return write!(f, "delay of {ms} ms each way"),
            Self::Throttle(rate) => return write!(f, "throttle to {} kB/s", rate / 1000),
            Self::DiskFull => "disk full, broker away",
            Self::NodeKill => "SIGKILL of the leading node",
        })
    }
}

/// One step of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Step {
    /// When: the share of the beacons that has been sent.
    pub at: f64,
    /// What.
    pub action: Action,
    /// How long it lasts: an edge or a broker stays away, a network stays bad.
    #[serde(serialize_with = "milliseconds")]
    pub hold: Duration,
    /// Whether the broker cannot be reached from so long before until the step is over.
    #[serde(serialize_with = "milliseconds")]
    pub cut_off: Duration,
}

fn milliseconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.0} % {}", self.at * 100.0, self.action)?;
        if !self.hold.is_zero() {
            write!(f, ", {} ms", self.hold.as_millis())?;
        }
        if !self.cut_off.is_zero() {
            write!(f, ", no broker since {} ms before", self.cut_off.as_millis())?;
        }
        Ok(())
    }
}
