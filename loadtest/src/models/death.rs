//! The broker killed in the middle: which of the beacons that were answered 200 are not in the queue afterwards.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Failure, Model, cast::Cast, round::Stage};
use crate::{
    Error,
    far_end::{FarEnd, Verdict},
    http::{
        answered::AnsweredLog,
        fleet::{Limit, PhaseOrder},
    },
    interrupt::Interrupt,
    numbers::Numbers,
};

/// The queue that keeps everything.
const QUEUE: &str = "kept";

/// How long the broker stays dead, besides the seconds that it takes to start.
const REST: Duration = Duration::from_secs(1);

/// How long a model may take to get rid of what it has kept, once the broker is back and no more comes.
const DRAIN: Duration = Duration::from_secs(45);

/// Without a message for so long, the queue is taken to be empty.
const QUIET: Duration = Duration::from_secs(5);

/// What came of a death.
#[derive(Debug, Clone)]
pub(crate) struct Died {
    pub(crate) rate: f64,
    pub(crate) sent: u64,
    /// Answered otherwise, or not at all.
    pub(crate) refused: u64,
    /// From the kill until the broker took connections again.
    pub(crate) away: Duration,
    pub(crate) verdict: Verdict,
    /// Whether the model says that it has got rid of everything.
    pub(crate) drained: bool,
    /// What is left in Redis.
    pub(crate) left: Option<String>,
}

impl Stage<'_> {
    /// Sends at `rate`, kills the broker after a quarter of the time and starts it again. `None` when interrupted.
    pub(crate) async fn death(&self, model: Model, rate: f64) -> Result<Option<Died>, Failure> {
        let open = self.open(model, QUEUE, true).await?;
        let folder = TempDir::with_prefix("loadtest-death-").map_err(Error::io("temporary folder"))?;
        let file = folder.path().join("answered");
        let log = AnsweredLog::create(&file)?;
        let order = PhaseOrder {
            beacons: open.beacons.clone(),
            limit: Limit::Duration(self.plan.death_duration),
            rate: Some(rate),
            first_seq: 0,
            answered: Some(&log),
            label: None,
        };
        let (phase, away) = tokio::join!(open.fleet.run(order), self.kill_and_restart());
        let (phase, away) = (phase?, away?);
        log.finish()?;
        // Even after an interrupt the broker has to come to its end in good order, so it is waited for above.
        let Some(away) = away else {
            open.close().await;
            return Ok(None);
        };
        self.enclose_broker()?;
        let drained = drain(&open.cast, self.interrupt).await?;
        let left = open.cast.left_in_redis().await;
        open.close().await;
        if self.interrupt.is_raised() {
            return Ok(None);
        }
        let answered = Numbers::read(&file, 0)?;
        let verdict = self.read_queue(&answered).await?;
        let refused = phase.stats.sent.saturating_sub(phase.stats.succeeded);
        Ok(Some(Died { rate, sent: phase.stats.sent, refused, away, verdict, drained, left }))
    }

    /// A broker that has ended by itself is started again.
    pub(crate) async fn revive(&self) -> Result<(), Failure> {
        self.broker.die_and_return(Duration::ZERO).await?;
        self.enclose_broker()
    }

    /// Processes that are new are not in the control group yet.
    fn enclose_broker(&self) -> Result<(), Failure> {
        let Some(enclosure) = self.enclosure else { return Ok(()) };
        let admit = |pid| enclosure.admit(pid).map_err(|reason| Failure::Start { name: "cgroup", reason });
        self.broker.processes().into_iter().try_for_each(admit)
    }

    /// How long it was away; `None` when the run was interrupted before.
    async fn kill_and_restart(&self) -> Result<Option<Duration>, Failure> {
        if !self.interrupt.sleep(self.plan.death_duration / 4).await {
            return Ok(None);
        }
        let start = Instant::now();
        self.broker.die_and_return(REST).await?;
        Ok(Some(start.elapsed()))
    }

    async fn read_queue(&self, answered: &Numbers) -> Result<Verdict, Failure> {
        let url = self.broker.addresses().await?.stomp;
        let far_end = FarEnd::start(&url, &format!("/amq/queue/{QUEUE}"), 0).await?;
        let arrived = far_end.finish(answered, QUIET).await?;
        // What is left was sent and not answered, or is there twice: it is not looked at, and makes room.
        Ok(Verdict::new(answered, &arrived))
    }
}

async fn drain(cast: &Cast, interrupt: &Interrupt) -> Result<bool, Failure> {
    if !cast.counts_outlive_the_broker() {
        // Nobody knows; what is under way takes moments.
        interrupt.sleep(Duration::from_secs(2)).await;
        return Ok(false);
    }
    let deadline = Instant::now() + DRAIN;
    loop {
        if cast.counts().await?.backlog() == 0 {
            return Ok(true);
        }
        if Instant::now() >= deadline || !interrupt.sleep(Duration::from_millis(50)).await {
            return Ok(false);
        }
    }
}
