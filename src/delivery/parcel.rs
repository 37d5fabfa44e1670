use stompwire::{Headers, publisher::Message};
use tokio::sync::OwnedSemaphorePermit;

use crate::{batch::Batch, spool::Row};

/// A batch that the publisher has: what is needed when its outcome comes.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) batch: Batch,
    /// Where it is in the spool, if it was when the publisher took it.
    pub(super) row: Option<Row>,
    /// Its part of the share of batches out of the spool.
    _share: Option<[OwnedSemaphorePermit; 2]>,
}

impl Parcel {
    pub(super) fn new(batch: Batch, row: Option<Row>) -> Self {
        Self { batch, row, _share: None }
    }

    /// A batch out of the spool. Its place in the share comes back when the parcel is dropped.
    pub(super) fn drawn(batch: Batch, row: Row, share: [OwnedSemaphorePermit; 2]) -> Self {
        Self { batch, row: Some(row), _share: Some(share) }
    }

    /// The message that carries it.
    pub(super) fn message(self) -> Message<Self> {
        let mut headers = Headers::new();
        headers.push("beacon-count", &self.batch.count.to_string());
        Message { id: self.batch.id.to_string(), headers, body: self.batch.body.clone(), token: self }
    }
}
