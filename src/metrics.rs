//! The metrics, in words first. All names start with `beacon_edge_`; the text format is OpenMetrics.
//!
//! For each destination, from **one** consistent reading of its ledger, so that in every scrape
//! `accepted = confirmed + on_ring + in_batch + in_flight + sum(dropped)`:
//!
//! | metric | meaning |
//! |---|---|
//! | `beacons_accepted_total` | answered as taken (a beacon dropped by policy counts too) |
//! | `beacons_confirmed_total` | in a batch whose RECEIPT came |
//! | `beacons_dropped_total{reason}` | will not reach the broker |
//! | `beacons_rejected_total` | answered 503; not part of accepted |
//! | `beacons_on_ring`, `beacons_in_batch`, `beacons_in_flight` | where the others are |
//! | `ring_bytes` | octets of the lines on the ring |
//! | `batches_confirmed_total`, `batch_beacons` | confirmed batches; histogram of beacons per batch |
//! | `batches_resent_total` | sent again after a lost connection: possible duplicates, in batches |
//! | `publish_seconds` | histogram, from handing a batch to a connection to its RECEIPT |
//! | `frames_in_flight`, `frame_bytes_in_flight` | unreceipted frames, octets of their bodies |
//! | `connections_made_total`, `connection_failures_total` | with the brokers, all together |
//! | `broker_connection{broker,lane,state}` | 1 for the state each connection is in, 0 for the others |
//!
//! For the HTTP front: `http_responses_total{status}`, `http_connections_total`, `http_connections_open`,
//! `http_connections_parked`, `http_connections_refused_total`, `http_connections_evicted_total`,
//! `http_timeouts_total`, `http_accept_errors_total`, `http_body_bytes_total`.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};
use stompwire::{
    pool::BrokerStatus,
    publisher::{LaneState, LaneStatus, Totals},
};

use crate::{
    delivery::Readings,
    http::{HttpStats, STATUSES},
    ledger::{DropReason, Snapshot},
    ring::{Level, Ring},
};

const PREFIX: &str = "beacon_edge";
/// The media type of what [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is read of one destination.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The destination's name.
    pub name: String,
    /// Its ring, and through it its ledger.
    pub ring: Arc<Ring>,
    /// Its delivery.
    pub readings: Arc<Readings>,
}

/// One reading of a destination.
#[derive(Debug, Clone)]
pub struct DestinationReading {
    /// The ledger; the conservation identity holds in it.
    pub beacons: Snapshot,
    /// The ring's own level.
    pub ring: Level,
    /// The connections.
    pub lanes: Vec<LaneStatus>,
    /// The brokers.
    pub brokers: Vec<BrokerStatus>,
    /// The publisher's counts.
    pub totals: Totals,
}

impl Observed {
    /// Reads everything once.
    #[must_use]
    pub fn read(&self) -> DestinationReading {
        let board = self.readings.board();
        DestinationReading {
            beacons: self.ring.ledger().snapshot(),
            ring: self.ring.level(),
            lanes: board.as_ref().map(|board| board.lanes()).unwrap_or_default(),
            brokers: board.as_ref().map(|board| board.brokers()).unwrap_or_default(),
            totals: board.map(|board| board.totals()).unwrap_or_default(),
        }
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Metrics of these destinations and this HTTP front.
    #[must_use]
    pub fn new(destinations: Vec<Observed>, http: Arc<HttpStats>) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Destinations { destinations }));
        registry.register_collector(Box::new(Http { stats: http }));
        Self { registry }
    }

    /// The OpenMetrics text.
    ///
    /// # Errors
    /// None but a defect in the encoder.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(8 * 1024);
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct Destinations {
    destinations: Vec<Observed>,
}

impl Collector for Destinations {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // One reading for the whole scrape.
        let read: Vec<(&Observed, DestinationReading)> =
            self.destinations.iter().map(|observed| (observed, observed.read())).collect();

        type Value = fn(&DestinationReading) -> u64;
        let counters: [(&str, &str, Value); 7] = [
            ("beacons_accepted", "Beacons answered as taken", |read| read.beacons.accepted),
            ("beacons_confirmed", "Beacons in batches that the broker confirmed", |read| {
                read.beacons.confirmed
            }),
            ("beacons_rejected", "Beacons answered 503, not accepted", |read| read.beacons.rejected),
            ("batches_confirmed", "Batches that the broker confirmed", |read| read.totals.confirmed),
            ("batches_resent", "Batches sent again: possible duplicates", |read| read.totals.resent),
            ("connections_made", "Connections made to brokers", |read| read.totals.connects),
            ("connection_failures", "Connections to brokers lost or not made", |read| read.totals.failures),
        ];
        for (name, help, value) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (observed, read) in &read {
                let labels = [("destination", observed.name.as_str())];
                ConstCounter::new(value(read)).encode(family.encode_family(&labels)?)?;
            }
        }
        let gauges: [(&str, &str, Value); 6] = [
            ("beacons_on_ring", "Beacons waiting on the ring", |read| read.beacons.on_ring),
            ("beacons_in_batch", "Beacons in a batch that the publisher does not have yet", |read| {
                read.beacons.in_batch
            }),
            ("beacons_in_flight", "Beacons with the publisher, not confirmed", |read| read.beacons.in_flight),
            ("ring_bytes", "Octets of the lines on the ring", |read| read.ring.bytes as u64),
            ("frames_in_flight", "Frames without a receipt", |read| {
                read.lanes.iter().map(|lane| lane.in_flight).sum()
            }),
            ("frame_bytes_in_flight", "Octets of the bodies of frames without a receipt", |read| {
                read.lanes.iter().map(|lane| lane.in_flight_bytes).sum()
            }),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (observed, read) in &read {
                let labels = [("destination", observed.name.as_str())];
                ConstGauge::new(value(read) as i64).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "beacons_dropped",
            "Accepted beacons that will not reach the broker",
            None,
            MetricType::Counter,
        )?;
        for (observed, read) in &read {
            for reason in DropReason::ALL {
                let labels = [("destination", observed.name.as_str()), ("reason", reason.label())];
                ConstCounter::new(read.beacons.dropped_for(reason)).encode(family.encode_family(&labels)?)?;
            }
        }
        type HistogramOf = fn(&Readings) -> &Histogram;
        let histograms: [(&str, &str, HistogramOf); 2] = [
            ("batch_beacons", "Beacons per batch", |readings| &readings.batch_beacons),
            ("publish_seconds", "From handing a batch to a connection to its RECEIPT", |readings| {
                &readings.publish_seconds
            }),
        ];
        for (name, help, histogram) in histograms {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for observed in &self.destinations {
                let labels = [("destination", observed.name.as_str())];
                histogram(&observed.readings).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "broker_connection",
            "1 for the state that a connection is in",
            None,
            MetricType::Gauge,
        )?;
        for (observed, read) in &read {
            for (index, lane) in read.lanes.iter().enumerate() {
                let index = index.to_string();
                for state in LaneState::ALL {
                    let labels = [
                        ("destination", observed.name.as_str()),
                        ("lane", index.as_str()),
                        ("broker", lane.broker.as_str()),
                        ("state", state.as_str()),
                    ];
                    let value = i64::from(lane.state == state);
                    ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Http {
    stats: Arc<HttpStats>,
}

impl Collector for Http {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let seen = self.stats.snapshot();
        let mut family =
            encoder.encode_descriptor("http_responses", "Answers by status", None, MetricType::Counter)?;
        for (status, count) in STATUSES.iter().zip(seen.responses) {
            let labels = [("status", status.to_string())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        let counters = [
            ("http_connections", "Connections accepted and served", seen.connections),
            ("http_connections_refused", "Connections closed at the bound", seen.connections_refused),
            ("http_connections_evicted", "Idle connections closed to make room", seen.connections_evicted),
            ("http_timeouts", "Connections closed because something took too long", seen.timeouts),
            ("http_accept_errors", "Failures to accept", seen.accept_errors),
            ("http_body_bytes", "Octets of request bodies recorded", seen.body_octets),
        ];
        for (name, help, value) in counters {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let gauges = [
            ("http_connections_open", "Connections open now", seen.connections_open),
            ("http_connections_parked", "Open connections that hold no buffers", seen.connections_parked),
        ];
        for (name, help, value) in gauges {
            let metric = ConstGauge::new(value as i64);
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
