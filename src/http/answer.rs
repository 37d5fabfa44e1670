//! The answers.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPIRES, HeaderName, HeaderValue, PRAGMA, RETRY_AFTER,
};
use hyper::{HeaderMap, Response, StatusCode};

use crate::config::Reply;

/// A transparent GIF of one pixel: GIF89a with a palette of two colours, the first of them transparent. 43 octets
/// are what trackers send; a GIF without a palette would be shorter but not every decoder takes it.
#[rustfmt::skip]
pub(super) const GIF: [u8; 43] = [
    b'G', b'I', b'F', b'8', b'9', b'a',
    1, 0, 1, 0, 0x80, 0, 0,                     // 1 x 1, a palette of two colours
    0, 0, 0, 0xFF, 0xFF, 0xFF,                  // black, white
    0x21, 0xF9, 4, 1, 0, 0, 0, 0,               // colour 0 is transparent
    0x2C, 0, 0, 0, 0, 1, 0, 1, 0, 0,            // one image, 1 x 1
    2, 2, 0x44, 1, 0,                           // one pixel of colour 0
    0x3B,
];
static GIF_BODY: [u8; 43] = GIF;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store, no-cache, private, max-age=0");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");

/// On answers of routes that wait: `spooled`, `confirmed` or `unconfirmed`.
pub(super) const BEACON_STATUS: HeaderName = HeaderName::from_static("x-beacon-status");

pub(super) type Answer = Response<Full<Bytes>>;

/// The usual answer. `headers` is an empty map, taken over to save its allocation.
pub(super) fn usual(reply: Reply, mut headers: HeaderMap) -> Answer {
    headers.insert(CACHE_CONTROL, NO_STORE);
    match reply {
        Reply::Gif => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/gif"));
            // For caches that do not know Cache-Control.
            headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
            headers.insert(EXPIRES, HeaderValue::from_static("0"));
            with(StatusCode::OK, headers, Bytes::from_static(&GIF_BODY))
        }
        Reply::Empty => with(StatusCode::NO_CONTENT, headers, Bytes::new()),
    }
}

/// The answer to OPTIONS.
pub(super) fn options(mut headers: HeaderMap) -> Answer {
    headers.insert(ALLOW, METHODS);
    with(StatusCode::NO_CONTENT, headers, Bytes::new())
}

/// 503: send it again later.
pub(super) fn no_room() -> Answer {
    let mut answer =
        text(StatusCode::SERVICE_UNAVAILABLE, "no room for this beacon now; send it again in a second\n");
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// 503: what the route promises could not be promised.
pub(super) fn unconfirmed() -> Answer {
    let mut answer = text(
        StatusCode::SERVICE_UNAVAILABLE,
        "it is not certain that this beacon was kept; send it again in a second\n",
    );
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// Says what became of the beacon, by the time of the answer.
pub(super) fn with_status(mut answer: Answer, status: &'static str) -> Answer {
    answer.headers_mut().insert(BEACON_STATUS, HeaderValue::from_static(status));
    answer
}

/// 404.
pub(super) fn no_such_path() -> Answer {
    text(StatusCode::NOT_FOUND, "no route has this path\n")
}

/// 405.
pub(super) fn no_such_method() -> Answer {
    let mut answer =
        text(StatusCode::METHOD_NOT_ALLOWED, "this path takes GET, HEAD, POST and OPTIONS only\n");
    answer.headers_mut().insert(ALLOW, METHODS);
    answer
}

/// 413. The rest of the body is not read: the connection is closed.
pub(super) fn body_too_long(limit: usize) -> Answer {
    closing(text(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {limit} octets\n")))
}

/// 408. The connection is closed.
pub(super) fn body_too_late() -> Answer {
    closing(text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n"))
}

/// 400. The connection is closed.
pub(super) fn body_broken() -> Answer {
    closing(text(StatusCode::BAD_REQUEST, "the body ended early or its chunks are malformed\n"))
}

/// 408 for a head that does not end. Written as it is: hyper has no request to answer yet.
pub(super) const HEAD_TOO_LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: text/plain\r\n\
    connection: close\r\n\
    content-length: 42\r\n\r\n\
    the request's head did not arrive in time\n";

/// The same answer, and then the connection is closed.
pub(super) fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    with(status, headers, body.into())
}

fn with(status: StatusCode, headers: HeaderMap, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_answer_announces_the_length_it_has() {
        let text = std::str::from_utf8(HEAD_TOO_LATE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{} octets", body.len());
    }

    #[test]
    fn the_gif_is_one_transparent_pixel() {
        assert_eq!(&GIF[..6], b"GIF89a");
        assert_eq!((&GIF[6..10], GIF[42]), (&[1, 0, 1, 0][..], 0x3B));
        // Minimum code size 2: codes of 3 bits, lowest first: clear (4), colour 0, end (5).
        assert_eq!(GIF[39..41], [0b01_000_100, 0b1]);
        assert_eq!((&GIF[19..22], GIF[22], GIF[25]), (&[0x21, 0xF9, 4][..], 1, 0));
    }
}
