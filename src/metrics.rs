//! The metrics, in words first. All names start with `beacon_edge_`; the text format is OpenMetrics.
//!
//! For each destination, from **one** consistent reading of its ledger, so that in every scrape
//! `accepted + recovered = confirmed + on_ring + in_batch + spooled + in_flight + sum(dropped)`:
//!
//! | metric | meaning |
//! |---|---|
//! | `beacons_accepted_total` | answered as taken (a beacon dropped by policy counts too) |
//! | `beacons_confirmed_total` | in a batch whose RECEIPT came |
//! | `beacons_dropped_total{reason}` | will not reach the broker |
//! | `beacons_rejected_total` | answered 503; not part of accepted |
//! | `beacons_recovered_total` | found in the spool at the start, left by an earlier run |
//! | `beacons_on_ring`, `beacons_in_batch`, `beacons_spooled`, `beacons_in_flight` | where the others are; a batch that is in the spool and with a connection is in flight |
//! | `ring_bytes` | octets of the lines on the ring |
//! | `batches_confirmed_total`, `batch_beacons` | confirmed batches; histogram of beacons per batch |
//! | `batches_given_up_total` | given up because each attempt cost a connection |
//! | `batches_resent_total` | sent again after a lost connection: possible duplicates, in batches |
//! | `publish_seconds` | histogram, from handing a batch to a connection to its RECEIPT |
//! | `frames_in_flight`, `frame_bytes_in_flight` | unreceipted frames, octets of their bodies |
//! | `oldest_frame_seconds` | age of the oldest unreceipted frame; 0 without one |
//! | `spool_batches`, `spool_beacons`, `spool_bytes` | what is in the spool's file, with a connection or not |
//! | `spool_state{state}` | 1 for the spool's state: `working`, `full` or `failing` |
//! | `spool_appends_total`, `spool_removes_total` | batches written to the spool and removed from it again |
//! | `spool_files_set_aside_total`, `spool_batches_set_aside_total` | files that could not be used as a spool; batches in it that were damaged |
//! | `spool_refused_total{reason}` | batches that it did not take: `full`, `no_space`, `failing`, `closed`, `timed_out` |
//! | `connections_made_total`, `connection_failures_total`, `connections_moved_total` | with the brokers, all together |
//! | `broker_connection{broker,lane,state}` | 1 for the state each connection is in, 0 for the others |
//!
//! For the HTTP front: `http_responses_total{status}`, `http_connections_total`, `http_connections_open`,
//! `http_connections_parked`, `http_connections_refused_total`, `http_connections_evicted_total`,
//! `http_timeouts_total`, `http_accept_errors_total`, `http_body_bytes_total`. For routes that wait, by level (`spooled`,
//! `confirmed`): `acks_total{level,outcome}`, where the outcome is `kept`, `lost` or `timed_out`, and `ack_seconds{level}`, a
//! histogram of how long answers waited.

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
    delivery::{REFUSALS, Readings},
    http::{ACK_OUTCOMES, HttpStats, STATUSES},
    ledger::{DropReason, Snapshot},
    ring::{Level, Ring},
    spool::{self, Spool},
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
    /// Its spool, if it has one.
    pub spool: Option<Spool>,
    /// Whether answers promise what the spool has.
    pub writes_ahead: bool,
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
    /// The spool, if there is one.
    pub spool: Option<SpoolReading>,
}

/// One reading of a spool.
#[derive(Debug, Clone)]
pub struct SpoolReading {
    /// What is in its file.
    pub level: spool::Level,
    /// What was found unusable.
    pub damage: spool::Damage,
    /// Whether it takes batches.
    pub state: spool::State,
    /// Whether answers promise what it has: a route with `ack = "spooled"`.
    pub writes_ahead: bool,
    /// Batches written to it.
    pub appends: u64,
    /// Batches removed from it.
    pub removes: u64,
    /// Batches that it refused, in the order of [`REFUSALS`].
    pub refusals: [u64; REFUSALS.len()],
}

impl SpoolReading {
    /// The state in a word.
    #[must_use]
    pub fn state_label(&self) -> &'static str {
        match self.state {
            spool::State::Working => SPOOL_STATES[0],
            spool::State::Full => SPOOL_STATES[1],
            spool::State::Failing(_) => SPOOL_STATES[2],
        }
    }
}

/// The values of the label `state` of a spool.
const SPOOL_STATES: [&str; 3] = ["working", "full", "failing"];

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
            spool: self.spool.as_ref().map(|spool| {
                let (appends, removes) = self.readings.appends_and_removes();
                SpoolReading {
                    level: spool.level(),
                    damage: spool.damage(),
                    state: spool.state().borrow().clone(),
                    writes_ahead: self.writes_ahead,
                    appends,
                    removes,
                    refusals: self.readings.refusals(),
                }
            }),
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
        let counters: [(&str, &str, Value); 10] = [
            ("beacons_accepted", "Beacons answered as taken", |read| read.beacons.accepted),
            ("beacons_confirmed", "Beacons in batches that the broker confirmed", |read| {
                read.beacons.confirmed
            }),
            ("beacons_recovered", "Beacons of an earlier run found in the spool", |read| {
                read.beacons.recovered
            }),
            ("beacons_rejected", "Beacons answered 503, not accepted", |read| read.beacons.rejected),
            ("batches_confirmed", "Batches that the broker confirmed", |read| read.totals.confirmed),
            ("batches_resent", "Batches sent again: possible duplicates", |read| read.totals.resent),
            ("batches_given_up", "Batches given up: each attempt cost a connection", |read| {
                read.totals.given_up
            }),
            ("connections_moved", "Connections moved to a broker that came back", |read| {
                read.totals.rebalanced
            }),
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
        let gauges: [(&str, &str, Value); 7] = [
            ("beacons_on_ring", "Beacons waiting on the ring", |read| read.beacons.on_ring),
            ("beacons_in_batch", "Beacons in a batch that the publisher does not have yet", |read| {
                read.beacons.in_batch
            }),
            ("beacons_spooled", "Beacons in the spool that the publisher does not have", |read| {
                read.beacons.spooled
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
            "oldest_frame_seconds",
            "Age of the oldest frame without a receipt",
            None,
            MetricType::Gauge,
        )?;
        for (observed, read) in &read {
            let labels = [("destination", observed.name.as_str())];
            let oldest = read.lanes.iter().filter_map(|lane| lane.oldest_sent).min();
            let age = oldest.map_or(0.0, |sent| sent.elapsed().as_secs_f64());
            ConstGauge::new(age).encode(family.encode_family(&labels)?)?;
        }
        spools(&read, &mut encoder)?;
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

/// The spools of those destinations that have one.
fn spools(
    read: &[(&Observed, DestinationReading)],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let spools: Vec<(&str, &SpoolReading)> = read
        .iter()
        .filter_map(|(observed, read)| Some((observed.name.as_str(), read.spool.as_ref()?)))
        .collect();
    if spools.is_empty() {
        return Ok(());
    }
    type Value = fn(&SpoolReading) -> u64;
    let gauges: [(&str, &str, Value); 3] = [
        ("spool_batches", "Batches in the spool's file", |spool| spool.level.batches),
        ("spool_beacons", "Beacons in the spool's file", |spool| spool.level.beacons),
        ("spool_bytes", "Octets in the spool's file", |spool| spool.level.octets),
    ];
    for (name, help, value) in gauges {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (destination, spool) in &spools {
            ConstGauge::new(value(spool) as i64)
                .encode(family.encode_family(&[("destination", *destination)])?)?;
        }
    }
    let counters: [(&str, &str, Value); 4] = [
        ("spool_appends", "Batches written to the spool", |spool| spool.appends),
        ("spool_removes", "Batches removed from the spool", |spool| spool.removes),
        ("spool_files_set_aside", "Files that could not be used as a spool", |spool| spool.damage.files),
        ("spool_batches_set_aside", "Damaged batches in the spool", |spool| spool.damage.batches),
    ];
    for (name, help, value) in counters {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (destination, spool) in &spools {
            ConstCounter::new(value(spool))
                .encode(family.encode_family(&[("destination", *destination)])?)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "spool_refused",
        "Batches that the spool did not take",
        None,
        MetricType::Counter,
    )?;
    for (destination, spool) in &spools {
        for (reason, count) in REFUSALS.iter().zip(spool.refusals) {
            let labels = [("destination", *destination), ("reason", *reason)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    let mut family =
        encoder.encode_descriptor("spool_state", "1 for the spool's state", None, MetricType::Gauge)?;
    for (destination, spool) in &spools {
        for state in SPOOL_STATES {
            let labels = [("destination", *destination), ("state", state)];
            ConstGauge::new(i64::from(state == spool.state_label()))
                .encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
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
        let mut family = encoder.encode_descriptor(
            "acks",
            "Answers that waited for a promise, by how that ended",
            None,
            MetricType::Counter,
        )?;
        for acks in self.stats.all_acks() {
            for (outcome, count) in ACK_OUTCOMES.iter().zip(acks.outcomes()) {
                let labels = [("level", acks.level.as_str()), ("outcome", *outcome)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "ack_seconds",
            "How long answers waited for a promise",
            None,
            MetricType::Histogram,
        )?;
        for acks in self.stats.all_acks() {
            acks.seconds.encode(family.encode_family(&[("level", acks.level.as_str())])?)?;
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
