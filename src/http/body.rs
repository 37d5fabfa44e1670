//! A request body, within its limits of octets and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

/// What is set aside for a body before its octets arrive: a client may announce what it never sends.
const FIRST_ROOM: usize = 8 * 1024;

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is longer than allowed.
    TooLong,
    /// It did not arrive in time.
    TooLate,
    /// It ended early, or its chunks are malformed.
    Broken,
}

/// Whether the body announces more than `limit` octets.
pub(super) fn announces_more(body: &Incoming, limit: usize) -> bool {
    body.size_hint().lower() > limit as u64
}

/// Whether the body came with `Transfer-Encoding`: only then its length is not known beforehand.
pub(super) fn is_chunked(body: &Incoming) -> bool {
    body.size_hint().exact().is_none()
}

/// Reads the whole body: at most `limit` octets, in at most `time`. Not cancel safe: what was read is lost.
pub(super) async fn read(body: Incoming, limit: usize, time: Duration) -> Result<Bytes, BodyError> {
    timeout(time, collect(body, limit)).await.unwrap_or(Err(BodyError::TooLate))
}

/// Most bodies come in one piece, which is then taken as it is.
async fn collect(mut body: Incoming, limit: usize) -> Result<Bytes, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX).min(limit);
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if first.len().max(whole.len()) + data.len() > limit {
            return Err(BodyError::TooLong);
        }
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(announced.min(FIRST_ROOM).max(first.len() + data.len()));
            whole.extend_from_slice(&first);
            first = Bytes::new();
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}
