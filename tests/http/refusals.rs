//! What it refuses, and how.

use std::net::Shutdown;

use serde_json::{Value, json};

use crate::edge::{Edge, beacons, post};

#[test]
fn an_oversized_head_is_431() {
    let edge = Edge::start();
    let filler = "x".repeat(20 * 1024);
    for request in [
        format!("GET /b?{filler} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET /b HTTP/1.1\r\nhost: x\r\ncookie: {filler}\r\n\r\n"),
        format!("GET /b HTTP/1.1\r\nhost: x\r\ncookie: {filler}"),
    ] {
        let mut client = edge.connect();
        client.send(request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (431, true));
        client.is_closed();
    }
    edge.counts(431, 3);
    // The bound is the head's alone, not a read's.
    let fits = "x".repeat(16 * 1024 - 100);
    assert_eq!(edge.ask(format!("GET /b HTTP/1.1\r\nhost: x\r\ncookie: {fits}\r\n\r\n")).status, 204);
    edge.is_alive();
}

#[test]
fn too_many_header_lines_are_431() {
    let edge = Edge::with(|http| http.max_headers = 20);
    for (lines, status) in [(19, 204), (20, 431)] {
        let headers = (0..lines).map(|n| format!("h{n}: x\r\n")).collect::<String>();
        assert_eq!(edge.ask(format!("GET /b HTTP/1.1\r\nhost: x\r\n{headers}\r\n")).status, status);
    }
    let edge = Edge::start();
    for (lines, status) in [(99, 204), (100, 431), (10_000, 431)] {
        let headers = "a:b\r\n".repeat(lines);
        let mut client = edge.connect();
        client.send(format!("GET /b HTTP/1.1\r\nhost: x\r\n{headers}\r\n"));
        assert_eq!(client.answer().status, status, "{lines} lines");
    }
    edge.is_alive();
}

#[test]
fn a_body_at_the_limit_is_taken_and_one_octet_more_is_413() {
    let edge = Edge::start();
    let body = "x".repeat(64 * 1024);
    assert_eq!(edge.ask(post("/b", body.as_bytes())).status, 204);
    assert_eq!(beacons(&edge.beacon)[0]["body"], body);
    let chunked = format!("10000\r\n{body}\r\n0\r\n\r\n");
    let head = "POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(edge.ask(format!("{head}{chunked}")).status, 204);
    assert_eq!(beacons(&edge.beacon)[0]["body"], body);

    for request in [
        // By what it announces, before and although it sends nothing; then with all of it.
        "POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 65537\r\n\r\n".to_owned(),
        "POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999999999999\r\n\r\n".to_owned(),
        String::from_utf8(post("/b", format!("{body}x").as_bytes())).unwrap(),
        String::from_utf8(post("/b", body.repeat(30).as_bytes())).unwrap(),
        // By counting.
        format!("{head}10000\r\n{body}\r\n1\r\nx\r\n0\r\n\r\n"),
        format!("{head}{}", chunked.replace("10000\r\n", "20000\r\n") + &body.repeat(20)),
    ] {
        let mut client = edge.connect();
        client.send(&request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (413, true), "{}", &request[..100.min(request.len())]);
        assert_eq!(answer.text(), "the body is longer than 65536 octets\n");
        client.is_closed();
    }
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new());
    edge.counts(413, 6);
    edge.is_alive();
}

#[test]
fn other_methods_are_405_and_other_paths_404() {
    let edge = Edge::start();
    let mut client = edge.connect();
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "get", "ANYTHING"] {
        client.send(format!("{method} /b HTTP/1.1\r\nhost: x\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD, POST, OPTIONS")),
            "{method}"
        );
        assert_eq!(answer.text(), "this path takes GET, HEAD, POST and OPTIONS only\n");
    }
    for path in ["/", "/b.gif/", "/B.GIF", "/b%2Egif", "//b", "/b.gif.php", "*", "b", "http://x"] {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (404, "no route has this path\n"), "{path}");
    }
    client.send("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(client.answer().status, 404);
    client.send("PUT /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc");
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (405, true), "its body is not read");
    client.is_closed();
    edge.counts(404, 10);
    edge.counts(405, 7);
    assert_eq!((beacons(&edge.pixel).len(), beacons(&edge.beacon).len()), (0, 0));

    let mut client = edge.connect();
    client.send("CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(client.answer().status, 404);
    edge.is_alive();
}

#[test]
fn malformed_heads_are_400_and_closed() {
    let edge = Edge::start();
    let cases: [&[u8]; 15] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /b\r\n\r\n",
        b"GET /b HTTP/2.0\r\n\r\n",
        b"GET /b HTTX/1.1\r\n\r\n",
        b"G{}T /b HTTP/1.1\r\n\r\n",
        b"GET ?x HTTP/1.1\r\n\r\n",
        b"GET /b\x01 HTTP/1.1\r\n\r\n",
        b"GET /b?\xFF\xFE HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /b HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /b HTTP/1.1\r\nbad name: x\r\n\r\n",
        b"GET /b HTTP/1.1\r\nhost: a\0b\r\n\r\n",
        b"POST /b HTTP/1.1\r\ncontent-length: ten\r\n\r\n",
        b"POST /b HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"POST /b HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for request in cases {
        let mut client = edge.connect();
        client.send(request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (400, true), "{}", request.escape_ascii());
        client.is_closed();
    }
    edge.counts(400, cases.len() as u64);
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new());
    // The start of an HTTP/2 connection and of a TLS one.
    for hello in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03"] {
        let mut client = edge.connect();
        client.send(hello);
        client.rest();
    }
    edge.is_alive();
}

#[test]
fn a_broken_body_is_400_and_closed() {
    let edge = Edge::start();
    let head = "POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in ["zz\r\n", "3\r\nabcdef\r\n", "ffffffffffffffffff\r\n"] {
        let mut client = edge.connect();
        client.send(format!("{head}{body}"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (400, true), "{body:?}");
        client.is_closed();
    }
    // A client that leaves in the middle of a body.
    let mut client = edge.connect();
    client.send("POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc");
    client.socket.shutdown(Shutdown::Write).unwrap();
    client.rest();
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new());
    edge.is_alive();
}

#[test]
fn octets_after_a_request_with_transfer_encoding_are_no_request() {
    let edge = Edge::start();
    let smuggled = "GET /b?smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    for headers in [
        "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
        "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        "content-length: 44\r\ntransfer-encoding: chunked\r\ncontent-length: 44\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let mut client = edge.connect();
        client.send(format!("POST /b?first HTTP/1.1\r\nhost: x\r\n{headers}\r\n0\r\n\r\n{smuggled}"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (204, true), "{headers:?}");
        client.is_closed();
        let seen = beacons(&edge.beacon);
        assert_eq!((seen.len(), &seen[0]["query"]), (1, &json!("first")), "{headers:?}");
    }
    for refused in ["transfer-encoding: gzip\r\n", "transfer-encoding: chunked, gzip\r\n"] {
        let mut client = edge.connect();
        client.send(format!("POST /b HTTP/1.1\r\nhost: x\r\n{refused}\r\n0\r\n\r\n{smuggled}"));
        assert_eq!(client.answer().status, 400, "{refused:?}");
        client.is_closed();
    }
    // The same on a path and with a method that take no body.
    for request in ["POST /nowhere", "PUT /b"] {
        let mut client = edge.connect();
        client.send(format!(
            "{request} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ));
        assert!(client.answer().closes(), "{request}");
        client.is_closed();
    }
    assert_eq!(beacons(&edge.beacon), Vec::<Value>::new());
    edge.is_alive();
}

#[test]
fn octets_that_are_no_utf8_are_recorded_as_they_came() {
    let edge = Edge::start();
    let mut request =
        b"POST /b?caf\xC3\xA9 HTTP/1.1\r\nuser-agent: \xE9\r\nreferer: caf\xC3\xA9\r\n".to_vec();
    request.extend_from_slice(b"content-length: 4\r\n\r\n\xFF\0\xFE\n");
    request.extend_from_slice(&post("/b", b"a\0b\0"));
    let mut client = edge.connect();
    client.send(request);
    assert_eq!([client.answer().status, client.answer().status], [204, 204]);
    let [octets, nuls] = &beacons(&edge.beacon)[..] else { panic!("not two beacons") };
    assert_eq!(octets["query"], "café");
    assert_eq!((&octets["ua"], &octets["ua_b64"]), (&json!("6Q=="), &json!(true)));
    assert_eq!((&octets["referer"], octets.get("referer_b64")), (&json!("café"), None));
    assert_eq!((&octets["body"], &octets["body_b64"]), (&json!("/wD+Cg=="), &json!(true)));
    assert_eq!((&nuls["body"], nuls.get("body_b64")), (&json!("a\0b\0"), None));
}
