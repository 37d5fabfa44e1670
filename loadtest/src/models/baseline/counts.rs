//! What was accepted and confirmed, told to every connection to a listener of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};

/// A reader that takes longer than this for two lines is not waited for.
const READER: Duration = Duration::from_secs(1);

/// Beacons; both only grow.
#[derive(Debug, Default)]
pub(super) struct Counts {
    accepted: Count,
    confirmed: Count,
}

/// On a cache line of its own: different threads write them.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU64);

impl Counts {
    /// Beacons that this process has answered for, or taken over.
    pub(super) fn accept(&self, beacons: u64) {
        self.accepted.0.fetch_add(beacons, Ordering::Relaxed);
    }

    /// Beacons that the broker has confirmed.
    pub(super) fn confirm(&self, beacons: u64) {
        self.confirmed.0.fetch_add(beacons, Ordering::Relaxed);
    }

    fn text(&self) -> String {
        // Confirmed first: what is read later is not less, so a backlog is never negative.
        let confirmed = self.confirmed.0.load(Ordering::Acquire);
        let accepted = self.accepted.0.load(Ordering::Acquire);
        format!("accepted {accepted}\nconfirmed {confirmed}\n")
    }
}

/// Answers every connection with the counts; never returns.
pub(super) async fn tell(listener: TcpListener, counts: Arc<Counts>) {
    loop {
        match listener.accept().await {
            Ok((mut stream, _)) => {
                let text = counts.text();
                // A reader that went away has lost its interest.
                drop(timeout(READER, stream.write_all(text.as_bytes())).await);
            }
            // Out of file descriptors passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_lines() {
        let counts = Counts::default();
        counts.accept(3);
        counts.confirm(2);
        assert_eq!(counts.text(), "accepted 3\nconfirmed 2\n");
    }
}
