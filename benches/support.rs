//! What the benches share: a beacon like those of `loadtest http`.

use beacon_edge::beacon::Beacon;

/// 230 octets of query and a browser's User-Agent.
pub(crate) const BEACON: Beacon<'static> = Beacon {
    route: "pixel",
    method: "GET",
    path: "/b.gif",
    query: Some(
        "e=pageview&sid=7f3a9c51d2e84b06&seq=000000012345&u=https%3A%2F%2Fshop.example%2Fproducts%2F1234%3Fcolor%3Dblue\
         &r=https%3A%2F%2Fsearch.example%2F&sw=1920&sh=1080&vw=1503&vh=871&dpr=1.25&tz=-120&lang=en-GB&t=1733000000000",
    ),
    ip: "203.0.113.7",
    ua: Some(
        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    ),
    referer: Some(b"https://shop.example/products/1234?color=blue"),
    body: b"",
};
