//! What is varied between points of a run, and the sweeps over it.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::broker::payload::HEADER;

/// Octets of a beacon when several are packed into a message: about what the edge makes of a request.
pub const BEACON: usize = 500;

/// One point of a run: everything that a sweep can vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Octets of a message's body.
    pub body: usize,
    /// Beacons packed into a message; the body is the header and as many of [`BEACON`] octets, unless it is 1.
    pub beacons: usize,
    /// Messages of a connection that may be unconfirmed.
    pub window: usize,
    /// Connections that publish.
    pub connections: usize,
    /// The type of the queue.
    pub queue: QueueKind,
}

impl Setting {
    /// The same with so many beacons to a message.
    #[must_use]
    pub fn packed(self, beacons: usize) -> Self {
        Self { beacons, body: HEADER + beacons * BEACON, ..self }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body, beacons, window, connections, queue } = self;
        let packed = if *beacons > 1 { format!(" ({beacons} beacons)") } else { String::new() };
        let plural = if *connections == 1 { "" } else { "s" };
        write!(f, "{body} octets{packed}, window {window}, {connections} connection{plural}, {queue} queue")
    }
}

/// The type of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueKind {
    /// On one node
    #[default]
    Classic,
    /// Replicated, on a Raft log
    Quorum,
    /// An append-only log, whose messages stay
    Stream,
}

impl QueueKind {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Classic, Self::Quorum, Self::Stream];

    /// The value of `x-queue-type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }
}

impl fmt::Display for QueueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a sweep varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sweep {
    /// 1 to 1000 beacons of 500 octets in a message
    Packing,
    /// 1 to 8192 unconfirmed messages
    Window,
    /// 1 to 8 connections
    Connections,
    /// Classic, quorum and stream
    Queues,
    /// 64 octets to 256 KiB
    Bodies,
    /// STOMP alone: from one message at a time over one connection, one factor more at each step
    Factors,
    /// Each of these, one after the other
    All,
}

impl Sweep {
    /// Each single sweep.
    pub const EACH: [Self; 6] =
        [Self::Bodies, Self::Packing, Self::Window, Self::Connections, Self::Queues, Self::Factors];

    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Packing => "packing",
            Self::Window => "window",
            Self::Connections => "connections",
            Self::Queues => "queues",
            Self::Bodies => "bodies",
            Self::Factors => "factors",
            Self::All => "all",
        }
    }

    /// The single sweeps that it stands for.
    pub fn parts(self) -> Vec<Self> {
        if self == Self::All { Self::EACH.to_vec() } else { vec![self] }
    }

    /// Its points around `base`.
    pub fn points(self, base: Setting) -> Vec<Setting> {
        match self {
            Self::Packing => {
                [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].map(|beacons| base.packed(beacons)).into()
            }
            Self::Window => (0..14).map(|power| Setting { window: 1 << power, ..base }).collect(),
            Self::Connections => [1, 2, 3, 4, 6, 8].map(|connections| Setting { connections, ..base }).into(),
            Self::Queues => QueueKind::ALL.map(|queue| Setting { queue, ..base }).into(),
            Self::Bodies => {
                (3..10).map(|power| Setting { body: 1 << (2 * power), beacons: 1, ..base }).collect()
            }
            Self::Factors => {
                let first = Setting { window: 1, connections: 1, ..base.packed(1) };
                let pipelined = Setting { window: base.window.max(2), ..first };
                let pooled = Setting { connections: base.connections.max(4), ..pipelined };
                vec![first, pipelined, pooled, pooled.packed(100)]
            }
            Self::All => self.parts().into_iter().flat_map(|part| part.points(base)).collect(),
        }
    }

    /// The option that would say what the sweep varies anyway.
    pub const fn option(self) -> Option<&'static str> {
        match self {
            Self::Packing => Some("--beacons"),
            Self::Window => Some("--window"),
            Self::Connections => Some("--connections"),
            Self::Queues => Some("--queue"),
            Self::Bodies => Some("--body"),
            Self::Factors | Self::All => None,
        }
    }
}

/// What is done with the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Publish only; the queue keeps its newest messages
    #[default]
    Publish,
    /// Publish, and consume what is published
    Both,
    /// Fill the queue, then consume only
    Consume,
}

/// A client library with its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// STOMP 1.2 through stompwire
    Stomp,
    /// AMQP 0.9.1 through lapin
    Lapin,
    /// AMQP 0.9.1 through amqprs
    Amqprs,
}

impl Protocol {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Stomp, Self::Lapin, Self::Amqprs];

    /// What it is called in reports.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Stomp => "STOMP (stompwire)",
            Self::Lapin => "AMQP 0.9.1 (lapin)",
            Self::Amqprs => "AMQP 0.9.1 (amqprs)",
        }
    }

    /// What it is called where there is little room.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stomp => "stomp",
            Self::Lapin => "lapin",
            Self::Amqprs => "amqprs",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Setting =
        Setting { body: 256, beacons: 1, window: 1024, connections: 1, queue: QueueKind::Classic };

    #[test]
    fn sweeps_vary_one_thing_over_the_whole_range() {
        let range = |sweep: Sweep, of: fn(&Setting) -> usize| {
            let points = sweep.points(BASE);
            (points.len(), points.first().map(of).unwrap(), points.last().map(of).unwrap())
        };
        assert_eq!(range(Sweep::Packing, |point| point.beacons), (10, 1, 1000));
        assert_eq!(range(Sweep::Packing, |point| point.body), (10, 512, 500_012));
        assert_eq!(range(Sweep::Window, |point| point.window), (14, 1, 8192));
        assert_eq!(range(Sweep::Connections, |point| point.connections), (6, 1, 8));
        assert_eq!(range(Sweep::Bodies, |point| point.body), (7, 64, 262_144));
        assert_eq!(Sweep::Queues.points(BASE).len(), 3);
        assert_eq!(Sweep::All.points(BASE).len(), 10 + 14 + 6 + 7 + 3 + 4);
    }

    #[test]
    fn each_factor_is_measured_by_switching_only_it() {
        let points = Sweep::Factors.points(BASE);
        let different = |a: &Setting, b: &Setting| {
            [a.beacons != b.beacons, a.window != b.window, a.connections != b.connections, a.queue != b.queue]
                .iter()
                .filter(|differs| **differs)
                .count()
        };
        assert!(points.windows(2).all(|pair| different(&pair[0], &pair[1]) == 1), "{points:?}");
        assert_eq!((points[0].window, points[3].beacons), (1, 100));
    }
}
