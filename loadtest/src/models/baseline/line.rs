//! A request as a line of JSON: the keys, and about the octets, of beacon-edge's record (`docs/beacon.md`).

use std::time::SystemTime;

use bytes::Bytes;
use hyper::{
    header::{HeaderName, REFERER, USER_AGENT},
    http::request::Parts,
};
use serde::Serialize;
use uuid::{Builder, fmt::Hyphenated};

/// Octets of a line besides its values, slightly too many.
const FRAME: usize = 200;

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    id: &'a str,
    ts: u64,
    route: &'a str,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    ip: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ua: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
}

/// The line, with its line feed. Octets that are not UTF-8, which the load does not send, are left out.
pub(super) fn line(parts: &Parts, ip: &str, body: &[u8]) -> Bytes {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let ts = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let mut id = [0; Hyphenated::LENGTH];
    let field = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let line = Line {
        v: 1,
        id: Builder::from_unix_timestamp_millis(ts, &random).into_uuid().hyphenated().encode_lower(&mut id),
        ts,
        route: "pixel",
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query(),
        ip,
        ua: field(USER_AGENT),
        referer: field(REFERER),
        body: str::from_utf8(body).ok().filter(|body| !body.is_empty()),
    };
    let values = parts.uri.query().map_or(0, str::len) + line.ua.map_or(0, str::len) + body.len();
    let mut octets = Vec::with_capacity(FRAME + 64 + values + line.referer.map_or(0, str::len));
    serde_json::to_writer(&mut octets, &line).expect("a Vec takes every write and every key is a string");
    octets.push(b'\n');
    octets.into()
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    #[test]
    fn a_line_has_what_the_request_says() {
        let request =
            Request::get("/b.gif?seq=000000000007&e=1").header("User-Agent", "a\"b").body(()).unwrap();
        let line = line(&request.into_parts().0, "127.0.0.1", b"");
        assert!(line.ends_with(b"\n"));
        let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let pairs = [
            ("method", "GET"),
            ("path", "/b.gif"),
            ("query", "seq=000000000007&e=1"),
            ("ip", "127.0.0.1"),
            ("ua", "a\"b"),
        ];
        for (key, value) in pairs {
            assert_eq!(json[key], value);
        }
        assert_eq!(json["id"].as_str().unwrap().len(), 36);
        assert!(json.get("body").is_none() && json.get("referer").is_none());
    }
}
