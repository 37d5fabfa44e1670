//! Cross-origin requests. `navigator.sendBeacon` sends credentials, so the answer has to name the origin: `*` would
//! not do.

use hyper::HeaderMap;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue, ORIGIN, VARY,
};

use super::answer::BEACON_STATUS;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const EXPOSED: HeaderValue = HeaderValue::from_static("x-beacon-status, retry-after");
/// A day; browsers cut it to their own bound.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// Which origins may read answers.
#[derive(Debug)]
pub(super) struct Cors {
    any: bool,
    origins: Vec<String>,
}

impl Cors {
    /// From `http.cors_origins`.
    pub(super) fn new(origins: &[String]) -> Self {
        Self { any: origins.iter().any(|origin| origin == "*"), origins: origins.to_vec() }
    }

    /// The request's origin, if it has one and it is allowed.
    pub(super) fn origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let origin = request.get(ORIGIN)?;
        let is_allowed =
            self.any || self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
        is_allowed.then(|| origin.clone())
    }
}

/// Lets `origin` read the answer, and what it says of the beacon if it does.
pub(super) fn allow(answer: &mut HeaderMap, origin: HeaderValue) {
    if answer.contains_key(BEACON_STATUS) {
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
}

/// The answer to a preflight: the request may be sent, with the headers it asks for.
pub(super) fn preflight(request: &HeaderMap, origin: Option<HeaderValue>) -> HeaderMap {
    let mut answer = HeaderMap::with_capacity(8);
    if let Some(origin) = origin {
        allow(&mut answer, origin);
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        if let Some(wanted) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
    }
    answer.insert(VARY, HeaderValue::from_static("origin"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(origin: &'static str) -> HeaderMap {
        [(ORIGIN, HeaderValue::from_static(origin))].into_iter().collect()
    }

    #[test]
    fn a_star_allows_any_origin_and_a_list_only_its_own() {
        let any = Cors::new(&["*".to_owned()]);
        let one = Cors::new(&["https://a.example".to_owned()]);
        let none = Cors::new(&[]);
        for (origin, expected) in
            [("https://a.example", [true, true, false]), ("https://b.example", [true, false, false])]
        {
            let allowed = [&any, &one, &none].map(|cors| cors.origin(&request(origin)).is_some());
            assert_eq!(allowed, expected, "{origin}");
        }
        assert_eq!(any.origin(&HeaderMap::new()), None);
    }
}
