use std::time::Instant;

use stompwire::publisher::Publisher;
use tokio::{select, sync::watch};

use super::{Delivered, parcel::Parcel, passed};
use crate::ledger::DropReason;

/// Batches to the publisher, until they end or the deadline passes. For a destination without a spool.
pub(super) async fn feed(
    mut delivered: Delivered,
    publisher: Publisher<Parcel>,
    deadline: watch::Receiver<Option<Instant>>,
) {
    let ledger = &delivered.ledger;
    let mut passed = std::pin::pin!(passed(deadline.clone(), |until| until));
    loop {
        let batch = select! {
            biased;
            () = &mut passed => break,
            batch = delivered.batches.recv() => batch,
        };
        let Some(batch) = batch else { break };
        let count = batch.count;
        delivered.readings.batch_beacons.observe(count as f64);
        let taken = select! {
            biased;
            () = &mut passed => false,
            taken = publisher.publish(Parcel::new(batch, None).message()) => taken.is_ok(),
        };
        if !taken {
            ledger.drop_beacons(DropReason::ShutdownInBatch, count);
            break;
        }
        // No confirmation can be recorded before this: it needs this thread.
        ledger.seal(count);
    }
    delivered.batches.close();
    while let Some(batch) = delivered.batches.recv().await {
        ledger.drop_beacons(DropReason::ShutdownInBatch, batch.count);
    }
    // Without a deadline the process is going down in disorder: do not wait.
    let until = deadline.borrow().unwrap_or_else(Instant::now);
    publisher.close(until.saturating_duration_since(Instant::now())).await;
}
