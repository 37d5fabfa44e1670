use std::{collections::HashMap, time::Instant};

use tokio::{task::JoinSet, time::timeout_at};

use crate::{batch::Batch, ledger::DropReason, spool::Spool};

/// Appends under way at once: the spool writes them in one group.
const AT_ONCE: usize = 64;

/// Puts batches into the spool, at the end of everything, until `until`. Tells of each how many beacons it has, why they are
/// lost if they are, and whether they are kept. What was still being written when the time was over is told as not kept; it
/// may be there nevertheless.
pub(super) async fn put_away(
    spool: &Spool,
    batches: Vec<(Batch, DropReason)>,
    until: Instant,
    mut tell: impl FnMut(u64, DropReason, bool),
) {
    let mut waiting = batches.into_iter();
    let mut appends = JoinSet::new();
    let mut open = HashMap::new();
    loop {
        while appends.len() < AT_ONCE && Instant::now() < until {
            let Some((batch, reason)) = waiting.next() else { break };
            let (spool, count) = (spool.clone(), batch.count);
            let task = appends.spawn(async move { spool.append(&batch).await.is_ok() });
            open.insert(task.id(), (count, reason));
        }
        match timeout_at(until.into(), appends.join_next_with_id()).await {
            Ok(Some(Ok((id, is_kept)))) => {
                if let Some((count, reason)) = open.remove(&id) {
                    tell(count, reason, is_kept);
                }
            }
            // It is still among the open ones.
            Ok(Some(Err(_))) => {}
            Ok(None) | Err(_) => break,
        }
    }
    for (count, reason) in open.into_values().chain(waiting.map(|(batch, reason)| (batch.count, reason))) {
        tell(count, reason, false);
    }
}
