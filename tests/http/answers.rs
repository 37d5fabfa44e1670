//! What it answers and records.

use beacon_edge::config::Reply;
use beacon_edge::http::HttpServer;
use beacon_edge::ring::Overflow;
use serde_json::{Value, json};

use crate::edge::{Client, Edge, GIF, beacons, config, post, ring, route};

#[test]
fn a_get_is_answered_with_the_gif_and_recorded() {
    let edge = Edge::start();
    let answer = edge.ask(
        "GET /b.gif?e=view&p=%2Fx HTTP/1.1\r\nhost: x\r\nuser-agent: Mozilla/5.0\r\nreferer: https://a.example/\r\n\r\n",
    );
    assert_eq!((answer.status, &answer.body[..]), (200, GIF));
    for (name, value) in [
        ("content-type", "image/gif"),
        ("content-length", "43"),
        ("cache-control", "no-store, no-cache, private, max-age=0"),
        ("pragma", "no-cache"),
        ("expires", "0"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name} in {}", answer.head);
    }
    assert!(answer.header("date").is_some());
    assert_eq!(answer.header("access-control-allow-origin"), None, "there was no origin");
    assert!(!answer.closes());

    let [seen] = &beacons(&edge.pixel)[..] else { panic!("not one beacon") };
    let (id, ts) = (seen["id"].as_str().unwrap().to_owned(), seen["ts"].as_u64().unwrap());
    assert_eq!(
        seen,
        &json!({
            "v": 1, "id": id, "ts": ts, "route": "pixel", "method": "GET", "path": "/b.gif",
            "query": "e=view&p=%2Fx", "ip": "127.0.0.1", "ua": "Mozilla/5.0", "referer": "https://a.example/",
        })
    );
    let millis = u64::from_str_radix(&id.replace('-', "")[..12], 16).unwrap();
    assert_eq!((millis, &id[14..15]), (ts, "7"), "UUIDv7 of the same millisecond: {id}");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    assert!((now - 10_000..=now).contains(&ts));
    edge.counts(200, 1);
    assert_eq!(edge.stats().connections, 1);
}

#[test]
fn a_post_is_answered_with_204_and_its_body_recorded() {
    let edge = Edge::start();
    let answer = edge.ask(post("/b?x", b"{\"e\":\"click\"}"));
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
    assert!(answer.header("cache-control").unwrap().starts_with("no-store"));
    let [seen] = &beacons(&edge.beacon)[..] else { panic!("not one beacon") };
    assert_eq!(
        (&seen["method"], &seen["query"], &seen["body"], seen.get("body_b64"), seen.get("ua")),
        (&json!("POST"), &json!("x"), &json!("{\"e\":\"click\"}"), None, None)
    );
    edge.counts(204, 1);
    assert_eq!(edge.stats().body_octets, 13);
}

#[test]
fn head_is_a_beacon_too_and_is_answered_without_a_body() {
    let edge = Edge::start();
    let mut client = edge.connect();
    client.send(
        "HEAD /b.gif HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    let answer = client.head();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("43")));
    assert_eq!(client.answer().status, 204, "the next answer follows the head");
    client.is_closed();
    assert_eq!(beacons(&edge.pixel)[0]["method"], "HEAD");
}

#[test]
fn a_get_with_a_body_is_recorded_with_it() {
    let edge = Edge::start();
    let mut client = edge.connect();
    client
        .send("GET /b HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhiGET /b HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!([client.answer().status, client.answer().status], [204, 204]);
    let seen = beacons(&edge.beacon);
    assert_eq!((&seen[0]["body"], seen[1].get("body"), seen.len()), (&json!("hi"), None, 2));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let edge = Edge::start();
    let mut client = edge.connect();
    let requests = (0..200).map(|n| match n % 3 {
        0 => format!("GET /b.gif?{n} HTTP/1.1\r\nhost: x\r\n\r\n"),
        1 => format!("GET /b?{n} HTTP/1.1\r\nhost: x\r\n\r\n"),
        _ => format!("POST /b?{n} HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"),
    });
    client.send(requests.collect::<String>());
    for n in 0..200 {
        assert_eq!(client.answer().status, if n % 3 == 0 { 200 } else { 204 }, "request {n}");
    }
    let queries =
        |ring| beacons(ring).iter().map(|seen| seen["query"].as_str().unwrap().parse().unwrap()).collect();
    let (pixels, others): (Vec<u32>, Vec<u32>) = (queries(&edge.pixel), queries(&edge.beacon));
    assert_eq!(pixels, (0..200).filter(|n| n % 3 == 0).collect::<Vec<_>>());
    assert_eq!(others, (0..200).filter(|n| n % 3 != 0).collect::<Vec<_>>());
}

#[test]
fn a_request_may_come_octet_by_octet() {
    let edge = Edge::start();
    let mut client = edge.connect();
    for _ in 0..2 {
        for octet in post("/b", b"abc") {
            client.send([octet]);
        }
        assert_eq!(client.answer().status, 204);
    }
    assert_eq!(beacons(&edge.beacon).len(), 2);
}

#[test]
fn http_1_0_is_answered_and_closed_unless_it_asks_otherwise() {
    let edge = Edge::start();
    let mut client = edge.connect();
    client.send("GET /b.gif HTTP/1.0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, &answer.head[..9]), (200, "HTTP/1.0 "));
    client.is_closed();

    let mut client = edge.connect();
    for _ in 0..2 {
        client.send("GET /b.gif HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn an_absolute_target_and_an_upgrade_are_ordinary_requests() {
    let edge = Edge::start();
    let mut client = edge.connect();
    client.send("GET http://edge.example/b?a#f HTTP/1.1\r\nhost: x\r\n\r\n");
    client.send("GET /b?b HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n");
    client.send("GET /b?c HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!([(); 3].map(|()| client.answer().status), [204; 3]);
    let queries = beacons(&edge.beacon).iter().map(|seen| seen["query"].clone()).collect::<Vec<_>>();
    assert_eq!(queries, ["a", "b", "c"]);
}

#[test]
fn expect_100_continue_gets_its_go_ahead() {
    let edge = Edge::start();
    let mut client = edge.connect();
    client.send("POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    client.send("abc");
    assert_eq!(client.answer().status, 204);
    assert_eq!(beacons(&edge.beacon)[0]["body"], "abc");

    let mut client = edge.connect();
    client.send("POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 65537\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().status, 413, "no go-ahead for what will not be taken");
    client.is_closed();
}

#[test]
fn cors_lets_sendbeacon_through_with_credentials() {
    let edge = Edge::start();
    let preflight = edge.ask(
        "OPTIONS /b HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: content-type, x-a\r\n\r\n",
    );
    assert_eq!(preflight.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://a.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, HEAD, POST"),
        ("access-control-allow-headers", "content-type, x-a"),
        ("access-control-max-age", "86400"),
        ("vary", "origin"),
        ("allow", "GET, HEAD, POST, OPTIONS"),
    ] {
        assert_eq!(preflight.header(name), Some(value), "{name} in {}", preflight.head);
    }
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new(), "a preflight is no beacon");

    for request in [
        "GET /b.gif HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\n\r\n",
        "POST /b HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\ncontent-length: 1\r\n\r\nx",
        "POST /b HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\ncontent-length: 99999\r\n\r\n",
    ] {
        let answer = edge.ask(request);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"), "{request}");
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"), "{request}");
    }

    let strict = Edge::with(|http| http.cors_origins = vec!["https://a.example".into()]);
    for request in ["OPTIONS /b HTTP/1.1\r\n", "GET /b HTTP/1.1\r\n"] {
        let answer = strict.ask(format!("{request}host: x\r\norigin: https://b.example\r\n\r\n"));
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, None));
    }
}

#[test]
fn a_trusted_header_gives_the_clients_address() {
    let edge = Edge::with(|http| http.client_ip_header = "x-forwarded-for".into());
    edge.ask("GET /b HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 2001:db8::7, 10.0.0.1\r\n\r\n");
    edge.ask("GET /b HTTP/1.1\r\nhost: x\r\nx-forwarded-for: nobody\r\n\r\n");
    edge.ask("GET /b HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut seen = beacons(&edge.beacon).iter().map(|seen| seen["ip"].to_string()).collect::<Vec<_>>();
    seen.sort();
    assert_eq!(seen, ["\"127.0.0.1\"", "\"127.0.0.1\"", "\"2001:db8::7\""]);
}

#[test]
fn a_full_ring_that_may_not_drop_answers_503() {
    let (keeps, refuses) = (ring(1000, Overflow::DropNewest), ring(1, Overflow::Reject));
    let routes = vec![route("both", "/b", Reply::Empty, &[&keeps, &refuses])];
    let server = HttpServer::start(&config(), routes).unwrap();
    let mut client = Client::connect(server.local_addr());
    client.send(post("/b", b"1"));
    assert_eq!(client.answer().status, 204);
    client.send(post("/b", b"2"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("retry-after"), answer.closes()), (503, Some("1"), false));
    assert_eq!((keeps.level().beacons, refuses.level().beacons), (1, 1), "none of them got the second");
    let counts =
        [&keeps, &refuses].map(|ring| ring.ledger().snapshot()).map(|seen| (seen.accepted, seen.rejected));
    assert_eq!(counts, [(1, 0), (1, 1)]);

    assert_eq!(beacons(&refuses).len(), 1);
    client.send(post("/b", b"3"));
    assert_eq!(client.answer().status, 204, "there is room again, on the same connection");
}
