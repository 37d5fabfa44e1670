//! One model in one round: a closed loop to begin with, the search, load at the rate found, load at the common rate.

use std::{sync::Arc, time::Duration};

use super::{
    Failure, Model, Plan,
    broker::Broker,
    cast::Cast,
    enclosure::Enclosure,
    probe::{Stand, Taken},
    search::Search,
};
use crate::{
    Error,
    http::{
        Target,
        beacon::{Beacons, Mix, WARMUP_SEQ},
        fleet::{Fleet, FleetOptions},
    },
    interrupt::Interrupt,
};

/// The queue of the rounds.
const QUEUE: &str = "beacons";

/// What all parts of a run use.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) broker: &'a Broker,
    pub(crate) enclosure: Option<&'a Enclosure>,
    pub(crate) interrupt: &'a Interrupt,
}

/// What a search has found.
#[derive(Debug, Clone)]
pub(crate) struct Searched {
    /// What the search began with, unless an earlier round has found a rate.
    pub(crate) closed_loop: Option<Taken>,
    pub(crate) probes: Vec<Taken>,
    pub(crate) rate: Option<f64>,
    /// The search ended at `--max-rate`.
    pub(crate) capped: bool,
    pub(crate) at_rate: Option<Taken>,
}

/// A model's processes and the connections to them.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) cast: Cast,
    pub(crate) fleet: Fleet,
    pub(crate) beacons: Arc<Beacons>,
}

impl Stage<'_> {
    /// Starts a model on an empty queue and connects to it.
    pub(crate) async fn open(
        &self,
        model: Model,
        queue: &'static str,
        unbounded: bool,
    ) -> Result<Open, Failure> {
        let addresses = self.broker.fresh_queue(queue, unbounded).await?;
        let cast = Cast::start(model, self.plan, self.broker, queue, &addresses, self.enclosure).await?;
        let target = Target::parse(&format!("http://{}/b.gif", cast.http()), false)?;
        let options = FleetOptions {
            address: cast.http(),
            connections: self.plan.connections,
            threads: self.plan.threads,
            timeout: Duration::from_secs(5),
            tls: None,
            churn: None,
            pin: self.plan.pin,
        };
        let fleet = Fleet::connect(options, self.interrupt).await?;
        let mix = Mix { post_percent: self.plan.post_percent, ..Mix::default() };
        Ok(Open { cast, fleet, beacons: Arc::new(Beacons::new(&target, &mix)) })
    }

    /// Searches for the highest rate that `model` sustains, around what earlier rounds have `found`, and measures there.
    /// `None` when interrupted.
    pub(crate) async fn search(&self, model: Model, found: Option<f64>) -> Result<Option<Searched>, Failure> {
        let mut open = self.open(model, QUEUE, false).await?;
        let searched = self.search_on(model, found, &mut open).await;
        open.close().await;
        searched
    }

    /// Measures `model` at `rate`. `None` when interrupted.
    pub(crate) async fn at(&self, model: Model, rate: f64) -> Result<Option<Taken>, Failure> {
        let open = self.open(model, QUEUE, false).await?;
        let taken = self.measure(&open, rate).await;
        open.close().await;
        taken
    }

    async fn search_on(
        &self,
        model: Model,
        found: Option<f64>,
        open: &mut Open,
    ) -> Result<Option<Searched>, Failure> {
        let plan = self.plan;
        self.warm_up(open, found).await?;
        let mut seq = 0;
        let (mut search, closed_loop) = match found {
            Some(found) => (Search::again(found, plan.max_rate, plan.probes), None),
            None => {
                let Some(taken) = self.stand(open).take(None, plan.probe, &mut seq, None).await? else {
                    return Ok(None);
                };
                let (answered, confirmed) = (taken.phase.requests_per_second(), taken.confirmed_per_second());
                (Search::new(answered, confirmed, plan.max_rate, plan.probes), Some(taken))
            }
        };
        let mut probes = Vec::new();
        let mut drained = closed_loop.as_ref().is_none_or(|taken| taken.drained);
        while let Some(rate) = search.next() {
            if !drained {
                // What is left over would be charged to the next rate.
                self.reopen(model, open).await?;
            }
            let Some(taken) = self.stand(open).take(Some(rate), plan.probe, &mut seq, None).await? else {
                return Ok(None);
            };
            search.tell(rate, taken.is_sustained());
            drained = taken.drained;
            probes.push(taken);
        }
        let at_rate = match search.found() {
            Some(rate) => {
                if !drained {
                    self.reopen(model, open).await?;
                }
                let Some(taken) = self.measure(open, rate).await? else { return Ok(None) };
                Some(taken)
            }
            None => None,
        };
        Ok(Some(Searched { closed_loop, probes, rate: search.found(), capped: search.is_capped(), at_rate }))
    }

    async fn reopen(&self, model: Model, open: &mut Open) -> Result<(), Failure> {
        let fresh = self.open(model, QUEUE, false).await?;
        std::mem::replace(open, fresh).close().await;
        Ok(())
    }

    async fn measure(&self, open: &Open, rate: f64) -> Result<Option<Taken>, Failure> {
        self.warm_up(open, Some(rate)).await?;
        self.stand(open).take(Some(rate), self.plan.duration, &mut 0, None).await
    }

    async fn warm_up(&self, open: &Open, rate: Option<f64>) -> Result<(), Failure> {
        let time = (self.plan.probe / 3).min(Duration::from_secs(1));
        let mut seq = WARMUP_SEQ;
        self.stand(open).take(rate, time, &mut seq, None).await.map(drop)
    }

    pub(crate) fn stand<'b>(&'b self, open: &'b Open) -> Stand<'b> {
        Stand {
            cast: &open.cast,
            fleet: &open.fleet,
            beacons: open.beacons.clone(),
            interrupt: self.interrupt,
        }
    }
}

impl Open {
    /// Disconnects and ends the processes.
    pub(crate) async fn close(self) {
        self.fleet.close();
        self.cast.stop().await;
    }
}

/// What starting a model, warming it up and ending it take beside.
const AROUND: Duration = Duration::from_millis(1500);

/// About how long a search takes.
pub(crate) fn search_time(plan: &Plan, round: usize) -> Duration {
    // The closed loop, and the probes that its search has more.
    let more = if round == 1 { 3 } else { 0 };
    plan.probe * (plan.probes + more) + measure_time(plan)
}

/// About how long a measurement takes.
pub(crate) fn measure_time(plan: &Plan) -> Duration {
    plan.duration + AROUND
}

/// Open files that the load needs.
pub(crate) fn open_files(plan: &Plan) -> Result<(), Error> {
    crate::limits::allow_open_files(plan.connections as u64 + 256)
}
