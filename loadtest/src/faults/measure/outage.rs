//! Resident memory of the edge through an outage of the broker at full load, against what is configured.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    Error,
    faults::{
        measure::{
            carry_out,
            stand::{LANES, RING_BEACONS, RING_BYTES, SLOT_BYTES, Stand, WINDOW_BYTES, Wish},
        },
        mode::Mode,
    },
    interrupt::Interrupt,
    report::{JsonTo, grouped, publish, rounded},
};

/// What `loadtest faults outage` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Seconds without a broker
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub outage: u64,
    /// Seconds of load before it, and after it
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub around: u64,
    /// Connections that send, each as fast as it is answered
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub connections: usize,
    /// With a spool or without
    #[arg(long, value_name = "MODE", default_value = "ring")]
    pub mode: Mode,
    /// The program to measure [default: beacon-edge beside this one]
    #[arg(long, value_name = "FILE")]
    pub edge: Option<PathBuf>,
    /// Write the result as JSON to FILE, or instead of the table to standard output (`-`)
    #[arg(long, value_name = "FILE")]
    pub report: Option<JsonTo>,
}

const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const DRAIN_LIMIT: Duration = Duration::from_secs(600);
/// What the target of the project allows beyond what is configured.
const ALLOWED_BEYOND: u64 = 32 << 20;

#[derive(Debug, Clone, Serialize)]
struct Report {
    mode: Mode,
    broker: String,
    interrupted: bool,
    outage_s: u64,
    /// Beacons answered.
    answered: u64,
    answers_per_second: f64,
    rss_before_mib: f64,
    rss_peak_mib: f64,
    rss_end_mib: f64,
    /// Ring in octets, its slots, and the windows of all connections.
    bound_mib: f64,
    /// The peak less the bound.
    beyond_mib: f64,
    /// Every second: since the start, and resident.
    samples: Vec<(f64, f64)>,
}

/// Carries it out.
///
/// # Errors
/// Why there is no result.
pub fn command(args: &Args) -> Result<(), Error> {
    if !(1..=3600).contains(&args.outage) || !(1..=600).contains(&args.around) {
        return Err(Error::Argument("--outage: 1 to 3600 s; --around: 1 to 600 s".into()));
    }
    if !(1..=10_000).contains(&args.connections) {
        return Err(Error::Argument("--connections: 1 to 10,000".into()));
    }
    let report = carry_out(async |interrupt| measure(args, interrupt).await)?;
    publish(&report, &report.table(), args.report.as_ref())
}

async fn measure(args: &Args, interrupt: &Interrupt) -> Result<Report, Error> {
    let wish = Wish {
        edge: args.edge.as_deref(),
        mode: args.mode,
        connections: args.connections,
        pin: false,
        spool_bytes: 64 << 30,
        drain_rate: None,
    };
    let mut stand = Stand::start(wish, interrupt).await?;
    let process = stand.process()?;
    let network = stand.proxy.control();
    let (around, outage) = (Duration::from_secs(args.around), Duration::from_secs(args.outage));
    let start = Instant::now();
    let mut samples = Vec::new();
    let sampling = async {
        let mut phase = 0;
        loop {
            let now = start.elapsed();
            if phase == 0 && now >= around {
                network.refuse();
                phase = 1;
            }
            if phase == 1 && now >= around + outage {
                network.heal();
                phase = 2;
            }
            if let Ok(octets) = process.resident_octets() {
                samples.push((now, octets));
            }
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
    };
    let sent = tokio::select! {
        sent = stand.send(None, around + outage + around, "outage") => sent?,
        () = sampling => unreachable!("it samples until it is dropped"),
    };
    stand.proxy.heal();
    stand.settled(DRAIN_LIMIT, interrupt).await?;
    let rss_end = process.resident_octets()?;
    let broker = format!("RabbitMQ {}", stand.node.version());
    stand.finish()?;

    let before = samples.iter().filter(|(at, _)| *at < around).map(|&(_, octets)| octets).max().unwrap_or(0);
    let peak = samples.iter().map(|&(_, octets)| octets).max().unwrap_or(0);
    let bound = RING_BYTES + RING_BEACONS * SLOT_BYTES + LANES * WINDOW_BYTES;
    Ok(Report {
        mode: args.mode,
        broker,
        interrupted: interrupt.is_raised(),
        outage_s: args.outage,
        answered: sent.stats.answered,
        answers_per_second: sent.requests_per_second().round(),
        rss_before_mib: mib(before as f64),
        rss_peak_mib: mib(peak as f64),
        rss_end_mib: mib(rss_end as f64),
        bound_mib: mib(bound as f64),
        beyond_mib: mib(peak as f64 - bound as f64),
        samples: samples
            .iter()
            .step_by(10)
            .map(|&(at, octets)| (rounded(at.as_secs_f64(), 1), mib(octets as f64)))
            .collect(),
    })
}

fn mib(octets: f64) -> f64 {
    rounded(octets / f64::from(1 << 20), 1)
}

impl Report {
    fn table(&self) -> String {
        let verdict = if self.beyond_mib <= mib(ALLOWED_BEYOND as f64) { "within" } else { "BEYOND" };
        format!(
            "{} s without a broker at full load ({}, {}): {} answers, {:.0} a second\n\
             resident before {} MiB, at most {} MiB, in the end {} MiB\n\
             configured: ring {} MiB + slots {} MiB + windows {} MiB = {} MiB; {verdict} it + 32 MiB ({:+.1} MiB)\n{}",
            self.outage_s,
            self.mode.name(),
            self.broker,
            grouped(self.answered),
            self.answers_per_second,
            self.rss_before_mib,
            self.rss_peak_mib,
            self.rss_end_mib,
            RING_BYTES >> 20,
            (RING_BEACONS * SLOT_BYTES) >> 20,
            (LANES * WINDOW_BYTES) >> 20,
            self.bound_mib,
            self.beyond_mib,
            if self.interrupted { "interrupted\n" } else { "" },
        )
    }
}
