//! The beacon record: one JSON object on one line. Its schema is in `docs/beacon.md`.

use std::time::SystemTime;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use uuid::fmt::Hyphenated;

/// The value of `v`. It changes when a consumer of the old schema could misread the new one; new keys alone do not
/// change it.
pub const SCHEMA_VERSION: u32 = 1;

/// Octets of a line without any value: braces, keys, `v`, `id`, `ts`. Not exact, slightly too many.
const FRAME: usize = 200;

/// What a request says. Borrowed: nothing is copied before the line is written.
#[derive(Debug, Clone, Copy)]
pub struct Beacon<'a> {
    /// The name of the route.
    pub route: &'a str,
    /// `GET`, `HEAD` or `POST`.
    pub method: &'a str,
    /// The path as received.
    pub path: &'a str,
    /// What stands behind the `?`, as received; none if there is no `?`.
    pub query: Option<&'a str>,
    /// The client's address.
    pub ip: &'a str,
    /// `User-Agent`, any octets.
    pub ua: Option<&'a [u8]>,
    /// `Referer`, any octets.
    pub referer: Option<&'a [u8]>,
    /// The body, any octets; an empty one is not recorded.
    pub body: &'a [u8],
}

/// When a beacon came, and its name: UUIDv7 of that millisecond and 74 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    millis: u64,
    id: uuid::Uuid,
}

impl Stamp {
    /// The stamp of a beacon that arrives now. Reads the clock; the random octets come from the thread's generator,
    /// so there is no lock and no system call.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::at(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), &rand::random())
    }

    /// The stamp of a millisecond since the epoch with the given random octets.
    #[must_use]
    pub fn at(millis: u64, random: &[u8; 10]) -> Self {
        Self { millis, id: uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid() }
    }

    /// The name: a UUIDv7.
    #[must_use]
    pub fn id(&self) -> uuid::Uuid {
        self.id
    }
}

impl Beacon<'_> {
    /// About how long the line will be, in octets: exact within a few octets unless something has to be escaped or
    /// written as base64.
    #[must_use]
    pub fn estimate(&self) -> usize {
        FRAME
            + self.route.len()
            + self.method.len()
            + self.path.len()
            + self.query.map_or(0, str::len)
            + self.ip.len()
            + self.ua.map_or(0, <[u8]>::len)
            + self.referer.map_or(0, <[u8]>::len)
            + self.body.len()
    }

    /// Appends the line, with its `\n`, to `out`.
    pub fn write(&self, stamp: &Stamp, out: &mut Vec<u8>) {
        let opaque = |octets: Option<_>| octets.map(Opaque::of);
        let (ua, referer) = (opaque(self.ua), opaque(self.referer));
        let body = opaque(Some(self.body).filter(|body| !body.is_empty()));
        let mut id = [0; Hyphenated::LENGTH];
        let line = Line {
            v: SCHEMA_VERSION,
            id: stamp.id.hyphenated().encode_lower(&mut id),
            ts: stamp.millis,
            route: self.route,
            method: self.method,
            path: self.path,
            query: self.query,
            ip: self.ip,
            ua_b64: Opaque::is_octets(ua.as_ref()),
            ua,
            referer_b64: Opaque::is_octets(referer.as_ref()),
            referer,
            body_b64: Opaque::is_octets(body.as_ref()),
            body,
        };
        serde_json::to_writer(&mut *out, &line).expect("a Vec takes every write and every key is a string");
        out.push(b'\n');
    }
}

/// The longest line, in octets, for requests whose head and body are at most this long: every octet of them may
/// have to be written as `\u00XX`.
#[must_use]
pub fn max_line(max_head: usize, max_body: usize) -> usize {
    6 * (max_head + max_body) + 2 * FRAME
}

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
    ua: Option<Opaque<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    ua_b64: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<Opaque<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    referer_b64: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Opaque<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    body_b64: bool,
}

/// Octets that may or may not be text.
enum Opaque<'a> {
    Text(&'a str),
    Octets(&'a [u8]),
}

impl<'a> Opaque<'a> {
    fn of(octets: &'a [u8]) -> Self {
        std::str::from_utf8(octets).map_or(Self::Octets(octets), Self::Text)
    }

    fn is_octets(this: Option<&Self>) -> bool {
        matches!(this, Some(Self::Octets(_)))
    }
}

impl Serialize for Opaque<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Octets(octets) => serializer.collect_str(&Base64Display::new(octets, &STANDARD)),
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const PLAIN: Beacon<'_> = Beacon {
        route: "pixel",
        method: "GET",
        path: "/b.gif",
        query: None,
        ip: "192.0.2.7",
        ua: None,
        referer: None,
        body: b"",
    };

    fn line(beacon: &Beacon<'_>) -> String {
        let mut out = Vec::new();
        beacon.write(&Stamp::at(1_700_000_000_123, &[0xAB; 10]), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn absent_values_are_absent_keys() {
        assert_eq!(
            line(&PLAIN),
            "{\"v\":1,\"id\":\"018bcfe5-687b-7bab-abab-abababababab\",\"ts\":1700000000123,\"route\":\"pixel\",\
             \"method\":\"GET\",\"path\":\"/b.gif\",\"ip\":\"192.0.2.7\"}\n"
        );
    }

    #[test]
    fn present_values_stand_as_received() {
        let beacon = Beacon {
            method: "POST",
            query: Some("a=%20&b={\"c\"}"),
            ua: Some(b"Mozilla/5.0"),
            referer: Some(b""),
            body: b"two\nlines\0",
            ..PLAIN
        };
        let seen: Value = serde_json::from_str(&line(&beacon)).unwrap();
        assert_eq!(
            seen,
            json!({
                "v": 1, "id": "018bcfe5-687b-7bab-abab-abababababab", "ts": 1_700_000_000_123_u64, "route": "pixel",
                "method": "POST", "path": "/b.gif", "query": "a=%20&b={\"c\"}", "ip": "192.0.2.7",
                "ua": "Mozilla/5.0", "referer": "", "body": "two\nlines\0",
            })
        );
    }

    #[test]
    fn octets_that_are_no_text_are_base64_with_a_flag() {
        let beacon = Beacon { ua: Some(b"\xE9"), referer: Some(b"\xFF/"), body: b"\x80\0", ..PLAIN };
        let seen: Value = serde_json::from_str(&line(&beacon)).unwrap();
        for (key, octets) in [("ua", "6Q=="), ("referer", "/y8="), ("body", "gAA=")] {
            assert_eq!((&seen[key], &seen[format!("{key}_b64")]), (&json!(octets), &json!(true)), "{key}");
        }
    }

    #[test]
    fn the_documented_examples_are_of_this_schema() {
        let documented = include_str!("../docs/beacon.md");
        let (_, rest) = documented.split_once("```json\n").unwrap();
        let examples = rest.split_once("```").unwrap().0.lines().collect::<Vec<_>>();
        assert_eq!(examples.len(), 3);
        for example in examples {
            let seen: Value = serde_json::from_str(example).unwrap();
            let id = seen["id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
            let stamp = Stamp { millis: seen["ts"].as_u64().unwrap(), id };
            assert_eq!((id.as_u128() >> 80) as u64, stamp.millis, "{id}");
            let text = |key: &str| seen.get(key).map(|text| text.as_str().unwrap());
            let octets = ["ua", "referer", "body"].map(|key| octets(&seen, key));
            let beacon = Beacon {
                route: text("route").unwrap(),
                method: text("method").unwrap(),
                path: text("path").unwrap(),
                query: text("query"),
                ip: text("ip").unwrap(),
                ua: octets[0].as_deref(),
                referer: octets[1].as_deref(),
                body: octets[2].as_deref().unwrap_or_default(),
            };
            let mut written = Vec::new();
            beacon.write(&stamp, &mut written);
            assert_eq!(String::from_utf8(written).unwrap(), format!("{example}\n"));
        }
    }

    #[test]
    fn a_stamp_has_the_same_millisecond_twice_and_is_version_7() {
        let (a, b) = (Stamp::now(), Stamp::now());
        assert_ne!(a.id, b.id);
        assert_eq!(a.id.get_version_num(), 7);
        assert_eq!((a.id.as_u128() >> 80) as u64, a.millis);
    }

    /// What a consumer does with a value and its flag.
    fn octets(seen: &Value, key: &str) -> Option<Vec<u8>> {
        let text = seen.get(key)?.as_str().unwrap();
        let flag = seen.get(format!("{key}_b64")).is_some_and(|flag| flag == true);
        Some(if flag { STANDARD.decode(text).unwrap() } else { text.as_bytes().to_vec() })
    }

    fn any_octets() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            any::<String>().prop_map(String::into_bytes),
            proptest::collection::vec(0_u8..0x20, 0..200),
        ]
    }

    proptest! {
        #[test]
        fn any_octets_come_back_from_one_line(
            query in proptest::option::of(any::<String>()),
            ua in proptest::option::of(any_octets()),
            referer in proptest::option::of(any_octets()),
            body in any_octets(),
        ) {
            let beacon = Beacon {
                query: query.as_deref(), ua: ua.as_deref(), referer: referer.as_deref(), body: &body, ..PLAIN
            };
            let line = line(&beacon);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1), "one line");
            let head = [&query.clone().unwrap_or_default().into_bytes(), &ua.clone().unwrap_or_default(),
                &referer.clone().unwrap_or_default()].map(Vec::len).iter().sum::<usize>();
            prop_assert!(line.len() <= max_line(head + 40, body.len()));

            let seen: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(seen.get("query").map(|query| query.as_str().unwrap()), query.as_deref());
            prop_assert_eq!(octets(&seen, "ua"), ua);
            prop_assert_eq!(octets(&seen, "referer"), referer);
            prop_assert_eq!(octets(&seen, "body"), Some(body).filter(|body| !body.is_empty()));
        }

        #[test]
        fn the_estimate_is_near(query in "[a-z0-9=&]{0,300}", ua in "[A-Za-z0-9 ./;()]{0,200}", body in "[a-z]{0,500}") {
            let beacon = Beacon {
                query: Some(&query), ua: Some(ua.as_bytes()), body: body.as_bytes(), referer: Some(b"x"), ..PLAIN
            };
            let (estimate, exact) = (beacon.estimate(), line(&beacon).len());
            prop_assert!(estimate.abs_diff(exact) <= 64, "{} for {}", estimate, exact);
        }
    }
}
