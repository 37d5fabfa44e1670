//! The models: what each is, and how it differs from its neighbour.

use clap::ValueEnum;

/// A way of a beacon into RabbitMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Model {
    /// First model: SEND from the request path, wait for the receipt, one pooled connection per request
    StompDirect,
    /// First model without receipts
    StompDirectUnconfirmed,
    /// Second model's front half alone: RPUSH to Redis from the request path; nothing reaches RabbitMQ
    RedisFront,
    /// Second model: RPUSH to Redis from the request path; an agent publishes chunks over AMQP
    RedisAgent,
    /// beacon-edge, one beacon a message
    EdgeOne,
    /// beacon-edge, packed
    EdgePacked,
    /// beacon-edge, packed, answering when the receipt is there
    EdgeConfirmed,
    /// The path: one connection, one frame outstanding, the answer waits for the receipt
    PathWindowOne,
    /// The path: many frames outstanding
    PathPipelined,
    /// The path: several connections
    PathPooled,
    /// The path: the answer does not wait for the receipt
    PathOffRequest,
    /// The path: many beacons in a message
    PathPacked,
}

/// Which of the two questions a model belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The models of history, side by side.
    Models,
    /// From "window 1" to the last row, one change at a time.
    Path,
}

impl Model {
    /// All, in the order of the report.
    pub const ALL: [Self; 12] = [
        Self::StompDirect,
        Self::StompDirectUnconfirmed,
        Self::RedisFront,
        Self::RedisAgent,
        Self::EdgeOne,
        Self::EdgePacked,
        Self::EdgeConfirmed,
        Self::PathWindowOne,
        Self::PathPipelined,
        Self::PathPooled,
        Self::PathOffRequest,
        Self::PathPacked,
    ];

    /// Its name on the command line and in reports.
    pub fn key(self) -> &'static str {
        match self {
            Self::StompDirect => "stomp-direct",
            Self::StompDirectUnconfirmed => "stomp-direct-unconfirmed",
            Self::RedisFront => "redis-front",
            Self::RedisAgent => "redis-agent",
            Self::EdgeOne => "edge-one",
            Self::EdgePacked => "edge-packed",
            Self::EdgeConfirmed => "edge-confirmed",
            Self::PathWindowOne => "path-window-one",
            Self::PathPipelined => "path-pipelined",
            Self::PathPooled => "path-pooled",
            Self::PathOffRequest => "path-off-request",
            Self::PathPacked => "path-packed",
        }
    }

    /// What it is, in a line.
    pub fn title(self) -> &'static str {
        match self {
            Self::StompDirect => "first model: STOMP from the request path, receipt awaited",
            Self::StompDirectUnconfirmed => "first model without receipts",
            Self::RedisFront => "second model's front half alone: in Redis, not in RabbitMQ",
            Self::RedisAgent => "second model: Redis, then an agent over AMQP",
            Self::EdgeOne => "beacon-edge, one beacon a message",
            Self::EdgePacked => "beacon-edge, packed",
            Self::EdgeConfirmed => "beacon-edge, packed, the answer awaits the receipt",
            Self::PathWindowOne => "window 1, one connection, in the request path",
            Self::PathPipelined => "+ receipts pipelined in a window",
            Self::PathPooled => "+ several connections",
            Self::PathOffRequest => "+ off the request path",
            Self::PathPacked => "+ packed",
        }
    }

    /// Where it stands in the report.
    pub fn group(self) -> Group {
        match self {
            Self::StompDirect
            | Self::StompDirectUnconfirmed
            | Self::RedisFront
            | Self::RedisAgent
            | Self::EdgeOne
            | Self::EdgePacked
            | Self::EdgeConfirmed => Group::Models,
            _ => Group::Path,
        }
    }

    /// Whether its beacons go to RabbitMQ, whose death then matters.
    pub fn reaches_the_broker(self) -> bool {
        self != Self::RedisFront
    }

    /// Whether each answer stands for a confirmed beacon, or for one that is kept until it is. What is answered without
    /// either can be lost.
    pub fn promises_delivery(self) -> bool {
        !matches!(self, Self::StompDirectUnconfirmed | Self::RedisFront)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_names_on_the_command_line() {
        assert_eq!(Model::value_variants(), Model::ALL);
        for model in Model::ALL {
            let value = model.to_possible_value().unwrap();
            assert_eq!(value.get_name(), model.key());
        }
    }
}
