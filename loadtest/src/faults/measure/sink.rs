//! Takes messages out of the queue and throws them away, but for how old the first beacon of each is.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use memchr::memmem;
use stompwire::client::{BrokerUrl, Client, Reconnect, Subscribe};
use tokio::{runtime::Builder, select, sync::oneshot};

use crate::{Error, faults::measure::stand::LIVE_SEQ, http::worker::thread_died, report::LatencyHistogram};

const PREFETCH: u16 = 256;

/// A thread that consumes until it is dropped.
#[derive(Debug)]
pub(crate) struct Sink {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    messages: AtomicU64,
    ages: Mutex<LatencyHistogram>,
}

impl Sink {
    /// Begins to consume `queue`.
    ///
    /// # Errors
    /// When there is no thread or runtime.
    pub(crate) fn start(url: BrokerUrl, queue: &str) -> Result<Self, Error> {
        let shared = Arc::<Shared>::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(Error::io("runtime for the sink"))?;
        let (theirs, destination) = (Arc::clone(&shared), format!("/amq/queue/{queue}"));
        let work = move || {
            runtime.block_on(async move {
                select! {
                    () = consume(url, destination, &theirs) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new()
            .name("sink".into())
            .spawn(work)
            .map_err(Error::io("thread for the sink"))?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Messages so far.
    pub(crate) fn messages(&self) -> u64 {
        self.shared.messages.load(Relaxed)
    }

    /// The ages of live beacons since the last call: from the edge's clock in the line to here, to a millisecond.
    pub(crate) fn take_ages(&self) -> LatencyHistogram {
        std::mem::take(&mut *self.shared.ages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When its thread had panicked.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(thread_died("it panicked")),
            _ => Ok(()),
        }
    }
}

async fn consume(url: BrokerUrl, destination: String, shared: &Shared) {
    loop {
        let builder = Client::builder().brokers([url.clone()]).reconnect(Reconnect::default());
        let Ok(client) = builder.start() else { return };
        let subscribe = Subscribe::to(destination.clone()).with_prefetch(PREFETCH).acknowledged_on_take();
        let Ok(mut messages) = client.subscribe(subscribe).await else { continue };
        while let Some(Ok(message)) = messages.next().await {
            shared.messages.fetch_add(1, Relaxed);
            if let Some(age_ms) = live_age_ms(message.frame().body()) {
                let mut ages = shared.ages.lock().unwrap_or_else(PoisonError::into_inner);
                ages.record(age_ms.saturating_mul(1_000_000));
            }
        }
    }
}

/// How old the first beacon of a message is, if it is one of live traffic.
fn live_age_ms(body: &[u8]) -> Option<u64> {
    let number = |name: &[u8]| {
        let at = memmem::find(body, name)? + name.len();
        let digits = body[at..].iter().take_while(|octet| octet.is_ascii_digit()).take(15);
        Some(digits.fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')))
    };
    if number(b"seq=")? < LIVE_SEQ {
        return None;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(u64::try_from(now.as_millis()).ok()?.saturating_sub(number(b"\"ts\":")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_beacons_have_an_age() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let line = |seq: u64, ts: u64| format!("{{\"v\":1,\"ts\":{ts},\"query\":\"seq={seq:012}&ev=x\"}}\n");
        assert_eq!(live_age_ms(line(LIVE_SEQ - 1, now).as_bytes()), None);
        let age = live_age_ms(line(LIVE_SEQ, now - 500).as_bytes()).unwrap();
        assert!((500..60_000).contains(&age), "{age}");
        assert_eq!(live_age_ms(b"nonsense"), None);
    }
}
