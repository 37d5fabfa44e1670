//! The client's address when a proxy stands in front and passes it on in a header.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::HeaderName;

/// The leftmost address in the header `name`, as written there. None if the header is not there or does not begin
/// with an address; then the peer's address stands.
pub(super) fn client_ip<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let list = std::str::from_utf8(headers.get(name)?.as_bytes()).ok()?;
    let first = list.split(',').next()?.trim();
    if first.parse::<IpAddr>().is_ok() {
        return Some(first);
    }
    // Some proxies add the port, and brackets around IPv6.
    first.parse::<SocketAddr>().ok()?;
    let (host, _port) = first.rsplit_once(':')?;
    Some(host.trim_start_matches('[').trim_end_matches(']'))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn takes_the_leftmost_address_or_nothing() {
        let name = HeaderName::from_static("x-forwarded-for");
        for (value, expected) in [
            ("192.0.2.7", Some("192.0.2.7")),
            (" 192.0.2.7 , 10.0.0.1", Some("192.0.2.7")),
            ("192.0.2.7:1234", Some("192.0.2.7")),
            ("2001:db8::7, 10.0.0.1", Some("2001:db8::7")),
            ("[2001:db8::7]:1234", Some("2001:db8::7")),
            ("unknown, 10.0.0.1", None),
            ("192.0.2.7\"}", None),
            ("", None),
        ] {
            let headers = [(name.clone(), HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(client_ip(&headers, &name), expected, "{value}");
        }
        assert_eq!(client_ip(&HeaderMap::new(), &name), None);
    }
}
