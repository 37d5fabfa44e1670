//! Edge, proxy, broker and far end as in production: the defaults, but for what a measurement is about.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rabbitmq_node::{Node, QueueOptions, Vhost};
use tempfile::TempDir;

use crate::{
    Error,
    cpu::Process,
    faults::{
        edge::{Edge, Reading, free_ports},
        measure::sink::Sink,
        mode::Mode,
        proxy::Proxy,
        rig,
    },
    http::{
        Target,
        beacon::{Beacons, Mix},
        fleet::{Fleet, FleetOptions, Limit, PhaseOrder, PhaseResult},
    },
    interrupt::Interrupt,
    limits::allow_open_files,
};

/// Live traffic is numbered from here, what only fills a spool from 0.
pub(crate) const LIVE_SEQ: u64 = 100_000_000_000;
/// The ring and the windows, as they are by default; stated here because memory is held against them.
pub(crate) const RING_BYTES: u64 = 128 << 20;
pub(crate) const RING_BEACONS: u64 = 262_144;
/// What the ring sets aside for each beacon (docs/configuration.md).
pub(crate) const SLOT_BYTES: u64 = 48;
pub(crate) const LANES: u64 = 2;
pub(crate) const WINDOW_BYTES: u64 = 16 << 20;

const QUEUE: &str = "beacons";
const TERMINATE_LIMIT: Duration = Duration::from_secs(30);
/// Without a message at the far end, when the edge has none: the queue is empty.
const QUIET: Duration = Duration::from_millis(250);
/// For answers under load.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Everything that a measurement needs, running.
pub(crate) struct Stand {
    pub(crate) fleet: Fleet,
    pub(crate) sink: Sink,
    pub(crate) edge: Edge,
    pub(crate) proxy: Proxy,
    pub(crate) node: Node,
    gets: Arc<Beacons>,
    posts: Arc<Beacons>,
    next_seq: u64,
    fill_seq: u64,
    // Last: the spool is in it.
    _vhost: Vhost,
    _folder: TempDir,
}

/// What a stand is made of.
#[derive(Debug, Clone)]
pub(crate) struct Wish<'a> {
    pub(crate) edge: Option<&'a Path>,
    pub(crate) mode: Mode,
    pub(crate) connections: usize,
    /// The load's thread on the first core, the edge's workers on the last ones.
    pub(crate) pin: bool,
    /// The most that the spool may take.
    pub(crate) spool_bytes: u64,
    /// Octets a second out of it, if not the default.
    pub(crate) drain_rate: Option<u64>,
}

impl Stand {
    /// Starts everything.
    ///
    /// # Errors
    /// What could not be started.
    pub(crate) async fn start(wish: Wish<'_>, interrupt: &Interrupt) -> Result<Self, Error> {
        let program: PathBuf = rig::program(wish.edge)?;
        allow_open_files(wish.connections as u64 + 256)?;
        // Its CPU time is that of everybody here.
        let node = Node::builder().busy_wait(false).start().map_err(Error::broker)?;
        let vhost = node.new_vhost().map_err(Error::broker)?;
        vhost.declare_queue(QUEUE, &QueueOptions::default()).map_err(Error::broker)?;
        let proxy = Proxy::start(vhost.stomp_addr())?;
        let folder = tempfile::Builder::new()
            .prefix("beacon-measure-")
            .tempdir()
            .map_err(Error::io("folder for the edge"))?;
        let [http, admin] = free_ports()?;
        let url = |address| format!("stomp://guest:guest@{address}/{}", vhost.name());
        let spool = if wish.mode.has_spool() {
            let rate = wish.drain_rate.map(|rate| format!("drain_rate = {rate}\n")).unwrap_or_default();
            format!(
                "\n[destinations.main.spool]\nmax_bytes = {}\n{rate}\n[spool]\ndir = {:?}\n",
                wish.spool_bytes,
                folder.path().join("spool").display().to_string()
            )
        } else {
            String::new()
        };
        let pinned = if wish.pin { "pin_workers = true\n" } else { "" };
        let config = format!(
            "[http]\nlisten = \"{http}\"\n{pinned}\n[admin]\nlisten = \"{admin}\"\n\n\
             [routes.pixel]\npath = \"/b.gif\"\n\n\
             [destinations.main]\nbrokers = [{:?}]\ndestination = \"/amq/queue/{QUEUE}\"\n\
             connections = {LANES}\nwindow_bytes = {WINDOW_BYTES}\n\n\
             [destinations.main.ring]\nmax_beacons = {RING_BEACONS}\nmax_bytes = {RING_BYTES}\noverflow = \"{}\"\n{spool}",
            url(proxy.address()),
            if wish.mode.has_spool() { "spool" } else { "drop_newest" },
        );
        let path = folder.path().join("edge.toml");
        std::fs::write(&path, config).map_err(Error::io("configuration of the edge"))?;
        let edge = Edge::start(&program, &path, &folder.path().join("edge.log"), admin, Vec::new())?;
        let direct = url(vhost.stomp_addr()).parse();
        let direct = direct.map_err(|error| Error::Argument(format!("the broker's URL: {error}")))?;
        let sink = Sink::start(direct, QUEUE)?;
        let target = Target::parse(&format!("http://{http}/b.gif"), false)?;
        let options = FleetOptions {
            address: http,
            connections: wish.connections,
            threads: 1,
            timeout: ANSWER_LIMIT,
            tls: None,
            churn: None,
            pin: wish.pin,
        };
        let fleet = Fleet::connect(options, interrupt).await?;
        Ok(Self {
            fleet,
            sink,
            edge,
            proxy,
            node,
            gets: Arc::new(Beacons::new(&target, &Mix::default())),
            posts: Arc::new(Beacons::new(&target, &Mix { post_percent: 100, ..Mix::default() })),
            next_seq: LIVE_SEQ,
            fill_seq: 0,
            _vhost: vhost,
            _folder: folder,
        })
    }

    /// Live traffic for `duration`: an open loop at `rate`, or as fast as answers come.
    ///
    /// # Errors
    /// When a thread of the load fails.
    pub(crate) async fn send(
        &mut self,
        rate: Option<f64>,
        duration: Duration,
        label: &str,
    ) -> Result<PhaseResult, Error> {
        let order = PhaseOrder {
            beacons: Arc::clone(&self.gets),
            limit: Limit::Duration(duration),
            rate,
            first_seq: self.next_seq,
            answered: None,
            label: Some(label.to_owned()),
        };
        let result = self.fleet.run(order).await?;
        self.next_seq = result.next_seq;
        Ok(result)
    }

    /// Long beacons as fast as answers come.
    ///
    /// # Errors
    /// When a thread of the load fails.
    pub(crate) async fn fill(&mut self, duration: Duration, label: &str) -> Result<(), Error> {
        let order = PhaseOrder {
            beacons: Arc::clone(&self.posts),
            limit: Limit::Duration(duration),
            rate: None,
            first_seq: self.fill_seq,
            answered: None,
            label: Some(label.to_owned()),
        };
        self.fill_seq = self.fleet.run(order).await?.next_seq;
        Ok(())
    }

    /// Half of what the edge can answer here and now, with everything on this machine.
    ///
    /// # Errors
    /// When a thread of the load fails.
    pub(crate) async fn half_load(&mut self) -> Result<f64, Error> {
        self.send(None, Duration::from_secs(2), "warm-up").await?;
        let full = self.send(None, Duration::from_secs(4), "full load").await?;
        Ok((full.requests_per_second() / 2.0).round())
    }

    /// One number of the edge's metrics.
    ///
    /// # Errors
    /// When the edge does not tell.
    pub(crate) fn metric(&self, name: &str) -> Result<u64, Error> {
        let text = self.edge.scrape()?;
        let value = text.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).flatten()
        });
        Ok(value.unwrap_or(0.0) as u64)
    }

    /// Waits until nothing is pending in the edge and the far end has taken all; `false` at the limit or an interrupt.
    ///
    /// # Errors
    /// When the edge does not tell.
    pub(crate) async fn settled(&self, limit: Duration, interrupt: &Interrupt) -> Result<bool, Error> {
        let start = Instant::now();
        while start.elapsed() < limit {
            let reading = Reading::from_metrics(&self.edge.scrape()?).unwrap_or_default();
            let before = self.sink.messages();
            if !interrupt.sleep(QUIET).await {
                return Ok(false);
            }
            if reading.pending == 0 && reading.spooled == 0 && self.sink.messages() == before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The edge's process, for its memory.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn process(&self) -> Result<Process, Error> {
        Process::attach(Some("edge"), i32::try_from(self.edge.pid()).unwrap_or(0))
    }

    /// Takes everything down in order.
    ///
    /// # Errors
    /// When something does not end as it should.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let Self { fleet, sink, mut edge, .. } = self;
        fleet.close();
        edge.terminate(TERMINATE_LIMIT)?;
        sink.finish()
    }
}
