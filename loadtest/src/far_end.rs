//! The far end: takes the messages of a queue over STOMP and notes which beacons are in them.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use memchr::memmem;
use serde::Serialize;
use stompwire::{
    client::{Client, Reconnect, Subscribe},
    proto::HeartBeat,
};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    Error,
    http::beacon::{SEQ_DIGITS, WARMUP_SEQ},
    numbers::Numbers,
};

/// Messages on their way to us.
const PREFETCH: u16 = 500;

/// How often the reader looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// How long the first connection may take.
const CONNECT: Duration = Duration::from_secs(30);

/// When all has arrived, so long is waited for duplicates.
const REPEATS: Duration = Duration::from_millis(300);

/// Heart-beats, so that a dead broker is noticed.
const BEAT: Duration = Duration::from_secs(10);

/// Missing numbers that are told.
const TOLD: usize = 10;

/// What has arrived.
#[derive(Debug, Clone, Default)]
pub struct Arrived {
    /// The numbers of the beacons, each once.
    pub numbers: Numbers,
    /// Messages taken.
    pub messages: u64,
    /// Beacons that had arrived before.
    pub duplicates: u64,
    /// Beacons of a warm-up.
    pub warm_up: u64,
    /// Lines without a number, or with one that this run did not send.
    pub strangers: u64,
}

impl Arrived {
    /// Notes every line of a message.
    fn note(&mut self, body: &[u8]) {
        self.messages += 1;
        for line in body.split(|&octet| octet == b'\n').filter(|line| !line.is_empty()) {
            match number(line) {
                Some(number) if number >= WARMUP_SEQ => self.warm_up += 1,
                Some(number) if self.numbers.spans(number) => {
                    self.duplicates += u64::from(!self.numbers.insert(number));
                }
                _ => self.strangers += 1,
            }
        }
    }
}

/// `seq=` and its digits, which GETs and POSTs have in their query.
fn number(line: &[u8]) -> Option<u64> {
    let at = memmem::find(line, b"seq=")? + 4;
    str::from_utf8(line.get(at..at + SEQ_DIGITS)?).ok()?.parse().ok()
}

/// Whether everything that was answered has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Answered with 2xx and at the far end: nothing is missing.
    pub conserved: bool,
    /// Beacons answered with 2xx.
    pub answered: u64,
    /// Different beacons at the far end.
    pub arrived: u64,
    /// Answered and not at the far end.
    pub missing: u64,
    /// Some of them.
    pub missing_numbers: Vec<u64>,
    /// At the far end without an answer of 2xx: sent, and the answer did not come or was another.
    pub unanswered: u64,
    /// Beacons at the far end again.
    pub duplicates: u64,
    /// Lines at the far end that this run did not send.
    pub strangers: u64,
    /// Messages that they came in.
    pub messages: u64,
}

impl Verdict {
    /// Compares what was answered with what arrived; both count from the same first number.
    pub fn new(answered: &Numbers, arrived: &Arrived) -> Self {
        let missing = answered.without(&arrived.numbers).count() as u64;
        Self {
            conserved: missing == 0,
            answered: answered.len(),
            arrived: arrived.numbers.len(),
            missing,
            missing_numbers: answered.without(&arrived.numbers).take(TOLD).collect(),
            unanswered: arrived.numbers.without(answered).count() as u64,
            duplicates: arrived.duplicates,
            strangers: arrived.strangers,
            messages: arrived.messages,
        }
    }
}

/// A reader in a thread of its own, so that it does not delay the load.
#[derive(Debug)]
pub struct FarEnd {
    arrived: Arc<Mutex<Arrived>>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<(), String>>,
}

impl FarEnd {
    /// Subscribes to `destination` at the broker `url` and takes what comes; numbers count from `first`. Returns when
    /// the broker has let it in.
    ///
    /// # Errors
    /// [`Error::FarEnd`] when it has not.
    pub async fn start(url: &str, destination: &str, first: u64) -> Result<Self, Error> {
        let arrived = Arrived { numbers: Numbers::from(first), ..Arrived::default() };
        let (arrived, stop) = (Arc::new(Mutex::new(arrived)), Arc::new(AtomicBool::new(false)));
        let (report, subscribed) = oneshot::channel();
        let (url, destination) = (url.to_owned(), destination.to_owned());
        let (theirs, their_stop) = (arrived.clone(), stop.clone());
        let take = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            runtime.block_on(take(&url, &destination, &theirs, &their_stop, report))
        };
        let thread =
            thread::Builder::new().name("far-end".to_owned()).spawn(take).map_err(Error::io("thread"))?;
        let far_end = Self { arrived, stop, thread };
        match timeout(CONNECT, subscribed).await {
            Ok(Ok(())) => Ok(far_end),
            _ => Err(Error::FarEnd(
                far_end.end().err().unwrap_or_else(|| "no answer from the broker".to_owned()),
            )),
        }
    }

    /// Sees to it that nothing lies in the queue from before, which could be taken for what is going to be sent.
    ///
    /// # Errors
    /// [`Error::FarEnd`] when something does.
    pub async fn expect_nothing(&self) -> Result<(), Error> {
        tokio::time::sleep(REPEATS).await;
        match self.arrived().messages {
            0 => Ok(()),
            count => {
                self.stop.store(true, Ordering::Relaxed);
                Err(Error::FarEnd(format!("the queue is not empty: {count} messages, or more, were in it")))
            }
        }
    }

    /// Waits until all of `answered` has arrived, or nothing has for `quiet`, and ends the reader.
    ///
    /// # Errors
    /// [`Error::FarEnd`] when the broker ended the subscription.
    pub async fn finish(self, answered: &Numbers, quiet: Duration) -> Result<Arrived, Error> {
        let (mut seen, mut since, mut complete) = (u64::MAX, Instant::now(), false);
        while !self.thread.is_finished() {
            let messages = {
                let arrived = self.arrived();
                // Worth comparing only when there are enough of them.
                complete = complete
                    || arrived.numbers.len() >= answered.len()
                        && answered.without(&arrived.numbers).next().is_none();
                arrived.messages
            };
            if messages != seen {
                (seen, since) = (messages, Instant::now());
            }
            if since.elapsed() >= if complete { REPEATS.min(quiet) } else { quiet } {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let arrived = self.arrived.clone();
        self.end().map_err(Error::FarEnd)?;
        let arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(arrived)
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err("the reader panicked".to_owned()))
    }
}

async fn take(
    url: &str,
    destination: &str,
    arrived: &Mutex<Arrived>,
    stop: &AtomicBool,
    report: oneshot::Sender<()>,
) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let client = Client::builder()
        .broker(url)
        .map_err(|error| text(&error))?
        .heart_beat(HeartBeat::every(BEAT))
        .reconnect(Reconnect::default())
        .connect()
        .await
        .map_err(|error| text(&error))?;
    let subscribe = Subscribe::to(destination).with_prefetch(PREFETCH).acknowledged_on_take();
    let mut messages = client.subscribe(subscribe).await.map_err(|error| text(&error))?;
    // A starter that has gone has set `stop`.
    report.send(()).unwrap_or_default();
    while !stop.load(Ordering::Relaxed) {
        match timeout(LOOK, messages.next()).await {
            Ok(Some(Ok(message))) => {
                arrived.lock().unwrap_or_else(PoisonError::into_inner).note(message.body());
            }
            Ok(Some(Err(error))) => return Err(text(&error)),
            Ok(None) => return Err("the subscription has ended".to_owned()),
            Err(_) => {}
        }
    }
    drop(messages);
    // What was taken and not acknowledged yet is acknowledged; a broker that is gone takes it back.
    client.close(Duration::from_secs(5)).await.unwrap_or_default();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_by_their_numbers() {
        let mut arrived = Arrived { numbers: Numbers::from(5), ..Arrived::default() };
        arrived.note(b"{\"query\":\"seq=000000000007&a=1\"}\n{\"query\":\"seq=000000000008\"}\n");
        arrived.note(
            b"{\"query\":\"seq=000000000007\"}\n{\"query\":\"seq=900000000000\"}\n{}\n{\"seq=000000000001\"}",
        );
        assert_eq!((arrived.messages, arrived.numbers.len()), (2, 2));
        assert_eq!((arrived.duplicates, arrived.warm_up, arrived.strangers), (1, 1, 2));

        let mut answered = Numbers::from(5);
        assert!(answered.insert(7) && answered.insert(9));
        let verdict = Verdict::new(&answered, &arrived);
        assert_eq!((verdict.conserved, verdict.missing, verdict.unanswered), (false, 1, 1));
        assert_eq!(verdict.missing_numbers, [9]);
    }
}
