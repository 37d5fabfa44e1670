//! STOMP over WebSocket: against RabbitMQ's web-stomp, with and without TLS, and against small servers that do what it
//! would not.
#![cfg(all(feature = "tokio", feature = "rustls", feature = "ws"))]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod pki;

use std::{pin::Pin, sync::LazyLock, time::Duration};

use futures_core::Stream;
use futures_sink::Sink;
use pki::Authority;
use rabbitmq_node::{Node, QueueOptions, Vhost};
use stompwire::{
    Frame, Version,
    client::{Client, ConnectOptions, ConnectionError, Subscribe, TlsOptions, Unconfirmed, WebSocketError},
    proto::HeartBeat,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// Longer than any test should take.
const LIMIT: Duration = Duration::from_secs(30);

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("stompwire test authority"));

/// A virtual host of its own, with the durable queue `q`.
fn vhost() -> Vhost {
    static NODE: LazyLock<Node> = LazyLock::new(|| {
        let server = AUTHORITY.server(&["127.0.0.1"]);
        let tls = rabbitmq_node::Tls::new(server.certificate, server.key);
        Node::builder().tls(tls).web_stomp().config("web_stomp.ws_frame = binary").start().unwrap()
    });
    let vhost = NODE.new_vhost().unwrap();
    vhost.declare_queue("q", &QueueOptions::default()).unwrap();
    vhost
}

fn options() -> ConnectOptions {
    let mut options = ConnectOptions::default();
    options.tls = TlsOptions::default().with_ca_pem(AUTHORITY.pem());
    options
}

/// For many frames at once. RabbitMQ 3.10.8 ends a WebSocket that it slows down if the client promised heart-beats (its
/// monitor of them crashes on being resumed), so none are.
fn publishing() -> ConnectOptions {
    let mut options = options();
    options.session.heart_beat.send = Duration::ZERO;
    options
}

async fn connect(url: &str, options: ConnectOptions) -> Result<Client, ConnectionError> {
    timeout(LIMIT, Client::connect(&url.parse().unwrap(), options)).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_every_size_go_to_rabbitmq_and_come_back() {
    let vhost = vhost();
    // The last are longer than one of our messages, and than what RabbitMQ reads at once.
    let sizes = [0, 1, 125, 126, 65_535, 65_536, 200_000, 1 << 20, 3 << 20];
    let bodies = || sizes.iter().map(|size| (0..*size).map(|n| n as u8).collect::<Vec<u8>>());
    for url in [vhost.web_stomp_url(), vhost.web_stomp_tls_url()] {
        let client = connect(&url, publishing()).await.unwrap();
        assert_eq!(client.version(), Some(Version::V1_2));
        let frames = bodies().map(|body| Frame::send("/amq/queue/q", body).with_header("persistent", "true"));
        for receipt in client.send_batch(frames).await.unwrap() {
            timeout(LIMIT, receipt).await.unwrap().unwrap();
        }
        assert_eq!(vhost.queue_depth("q").unwrap(), sizes.len() as u64);
        let mut messages = client.subscribe(Subscribe::to("/amq/queue/q")).await.unwrap();
        for body in bodies() {
            let message = timeout(LIMIT, messages.next()).await.unwrap().unwrap().unwrap();
            assert!(*message.body() == body, "{} octets, not {}", message.body().len(), body.len());
            messages.ack(&message).await.unwrap();
        }
        client.close(LIMIT).await.unwrap();
        vhost.wait_for_depth("q", 0, LIMIT).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_frames_share_messages_and_each_has_its_receipt() {
    let vhost = vhost();
    let client = connect(&vhost.web_stomp_url(), publishing()).await.unwrap();
    let frames = (0..3000).map(|n| Frame::send("/amq/queue/q", n.to_string()));
    for receipt in client.send_batch(frames).await.unwrap() {
        timeout(LIMIT, receipt).await.unwrap().unwrap();
    }
    let messages = vhost.get_messages("q", 3000).unwrap();
    let bodies: Vec<u32> =
        messages.iter().map(|m| std::str::from_utf8(&m.payload).unwrap().parse().unwrap()).collect();
    assert_eq!(bodies, (0..3000).collect::<Vec<_>>());
    client.close(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heart_beats_keep_an_idle_connection() {
    let vhost = vhost();
    let mut options = options();
    options.session.heart_beat = HeartBeat::every(Duration::from_secs(1));
    let client = connect(&vhost.web_stomp_url(), options).await.unwrap();
    assert!(timeout(Duration::from_secs(5), client.ended()).await.is_err());
    let receipt = client.send_with_receipt(Frame::send("/amq/queue/q", "x")).await.unwrap();
    timeout(LIMIT, receipt).await.unwrap().unwrap();
    assert_eq!(vhost.queue_depth("q").unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rabbitmq_refuses_is_named() {
    let vhost = vhost();
    let url = vhost.web_stomp_url();
    let elsewhere = connect(&url.replace("/ws?", "/elsewhere?"), options()).await.unwrap_err();
    assert!(matches!(elsewhere, ConnectionError::WebSocket(WebSocketError::Refused(404))), "{elsewhere:?}");
    let wrong = connect(&url.replace("guest:guest", "guest:hunter2"), options()).await.unwrap_err();
    assert!(matches!(wrong, ConnectionError::ServerError(_)), "{wrong:?}");
    let plain = vhost.stomp_url().replace("stomp://", "ws://").replace("/test", "/ws?vhost=test");
    let error = connect(&plain, options()).await.unwrap_err();
    assert!(matches!(error, ConnectionError::WebSocket(_)), "{error:?}");
}

type Peer = WebSocketStream<TcpStream>;

/// A server that takes one connection and hands the WebSocket over once CONNECT has come and been answered.
async fn peer(options: ConnectOptions) -> (Client, Peer) {
    let (url, listener) = listen().await;
    let connecting = tokio::spawn(async move { connect(&url, options).await });
    let (tcp, _) = listener.accept().await.unwrap();
    let mut peer = accept_hdr_async(tcp, agree).await.unwrap();
    let connect = receive(&mut peer).await;
    assert!(connect.into_data().starts_with(b"CONNECT\n"));
    send(&mut peer, Message::text("CONNECTED\nversion:1.2\n\n\0")).await;
    (connecting.await.unwrap().unwrap(), peer)
}

async fn listen() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (format!("ws://u:p@{}/a/b?vhost=v", listener.local_addr().unwrap()), listener)
}

#[allow(clippy::result_large_err)] // the crate's own signature
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    assert_eq!(request.uri(), "/a/b");
    assert_eq!(request.headers()["sec-websocket-protocol"], "v12.stomp, v11.stomp, v10.stomp");
    assert!(request.headers()["host"].to_str().unwrap().starts_with("127.0.0.1:"));
    assert!(request.headers().get("authorization").is_none());
    response.headers_mut().insert("sec-websocket-protocol", "v12.stomp".parse().unwrap());
    Ok(response)
}

async fn receive(peer: &mut Peer) -> Message {
    let next = std::future::poll_fn(|cx| Pin::new(&mut *peer).poll_next(cx));
    timeout(LIMIT, next).await.expect("in time").unwrap().unwrap()
}

async fn send(peer: &mut Peer, message: Message) {
    let mut message = Some(message);
    let sending = std::future::poll_fn(|cx| {
        let mut peer = Pin::new(&mut *peer);
        if let Some(message) = message.take() {
            peer.as_mut().start_send(message).unwrap();
        }
        peer.poll_flush(cx)
    });
    timeout(LIMIT, sending).await.expect("in time").unwrap();
}

fn quiet() -> ConnectOptions {
    let mut options = options();
    options.session.heart_beat = HeartBeat::NONE;
    options
}

#[tokio::test]
async fn frames_are_cut_anywhere_and_pings_are_answered_in_between() {
    let (client, mut peer) = peer(quiet()).await;
    let receipt = client.send_with_receipt(Frame::send("/queue/q", "body")).await.unwrap();
    let frame = b"SEND\ndestination:/queue/q\nreceipt:1\ncontent-length:4\n\nbody\0";
    assert_eq!(receive(&mut peer).await, Message::binary(&frame[..]));
    // Text and binary, empty and not, and pings between the parts of one frame.
    send(&mut peer, Message::text("\n\nREC")).await;
    send(&mut peer, Message::Ping("are you there?".into())).await;
    send(&mut peer, Message::binary("EIPT\nreceipt")).await;
    send(&mut peer, Message::binary("")).await;
    send(&mut peer, Message::text("-id:1\n\n\0\n")).await;
    timeout(LIMIT, receipt).await.unwrap().unwrap();
    assert_eq!(receive(&mut peer).await, Message::Pong("are you there?".into()));

    // A long body comes in messages of at most 64 KiB, in order.
    let body: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    client.send(Frame::send("q", body.clone())).await.unwrap();
    let mut read = Vec::new();
    while read.len() < body.len() + 1 {
        let message = receive(&mut peer).await.into_data();
        assert!(message.len() <= 64 * 1024, "{}", message.len());
        read.extend_from_slice(&message);
    }
    let head = b"SEND\ndestination:q\ncontent-length:300000\n\n";
    while read.len() < head.len() + body.len() + 1 {
        read.extend_from_slice(&receive(&mut peer).await.into_data());
    }
    assert!(read == [&head[..], &body, b"\0"].concat());

    // Our end: DISCONNECT and its receipt, then a close frame.
    let closing = tokio::spawn(client.close(LIMIT));
    assert_eq!(receive(&mut peer).await, Message::binary("DISCONNECT\nreceipt:2\n\n\0"));
    send(&mut peer, Message::text("RECEIPT\nreceipt-id:2\n\n\0")).await;
    assert_eq!(receive(&mut peer).await, Message::Close(None));
    closing.await.unwrap().unwrap();
}

/// As RabbitMQ does: DISCONNECT is answered by closing, without its RECEIPT.
#[tokio::test]
async fn hanging_up_on_disconnect_is_a_good_end_and_before_it_is_not() {
    let hang_up =
        || Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "STOMP died".into() }));
    let (client, mut peer) = peer(quiet()).await;
    let closing = tokio::spawn(client.close(LIMIT));
    assert_eq!(receive(&mut peer).await, Message::binary("DISCONNECT\nreceipt:1\n\n\0"));
    send(&mut peer, hang_up()).await;
    closing.await.unwrap().unwrap();

    let (client, mut peer) = self::peer(quiet()).await;
    let receipt = client.send_with_receipt(Frame::send("q", "x")).await.unwrap();
    let closing = tokio::spawn(client.close(LIMIT));
    receive(&mut peer).await;
    send(&mut peer, hang_up()).await;
    let end = closing.await.unwrap().unwrap_err();
    assert!(matches!(end, ConnectionError::ClosedByServer), "{end:?}");
    let lost = receipt.await.unwrap_err();
    assert!(matches!(lost, Unconfirmed::ConnectionLost(_)), "{lost:?}");
}

#[tokio::test]
async fn each_way_in_which_a_server_ends_it_is_told_apart() {
    type Expected = fn(&ConnectionError) -> bool;
    let close = |code, reason: &'static str| Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    let table: [(Option<Message>, Expected); 6] = [
        (Some(close(CloseCode::Normal, "STOMP died")), |end| matches!(end, ConnectionError::ClosedByServer)),
        (Some(Message::Close(None)), |end| matches!(end, ConnectionError::ClosedByServer)),
        (None, |end| matches!(end, ConnectionError::ClosedByServer)),
        (Some(close(CloseCode::Invalid, "bad\nframe")), |end| match end {
            ConnectionError::WebSocket(WebSocketError::Closed { code: 1007, reason }) => {
                reason == "bad frame"
            }
            _ => false,
        }),
        (Some(Message::text("ERROR\nmessage:no\n\n\0")), |end| {
            matches!(end, ConnectionError::ServerError(_))
        }),
        // 64 KiB of head, 1 KiB of body.
        (Some(Message::binary(vec![b'\n'; 70_000])), |end| {
            matches!(end, ConnectionError::WebSocket(WebSocketError::TooLong { len: 70_000, .. }))
        }),
    ];
    for (message, expected) in table {
        let mut options = quiet();
        options.session.limits.max_body = 1024;
        let (client, mut peer) = peer(options).await;
        match message {
            Some(message) => send(&mut peer, message).await,
            None => peer.get_mut().shutdown().await.unwrap(),
        }
        let end = timeout(LIMIT, client.ended()).await.unwrap();
        assert!(expected(&end), "{end:?}");
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_names_the_remedy() {
    let (client, mut peer) = peer(quiet()).await;
    // Final, text, one octet.
    peer.get_mut().write_all(&[0x81, 1, 0xFF]).await.unwrap();
    let end = timeout(LIMIT, client.ended()).await.unwrap();
    assert!(matches!(end, ConnectionError::WebSocket(WebSocketError::NotUtf8)), "{end:?}");
    assert!(end.to_string().contains("web_stomp.ws_frame = binary"), "{end}");
}

/// A server that reads the request and answers with these octets.
async fn answering(answer: &'static [u8]) -> (String, JoinHandle<()>) {
    let (url, listener) = listen().await;
    let peer = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(tcp.read_u8().await.unwrap());
        }
        tcp.write_all(answer).await.unwrap();
    });
    (url, peer)
}

#[tokio::test]
async fn each_way_in_which_a_server_refuses_the_handshake_is_named() {
    type Expected = fn(&WebSocketError) -> bool;
    let table: [(&[u8], Expected); 4] = [
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", |error| {
            *error == WebSocketError::Refused(403)
        }),
        (b"ERROR\nmessage:Bad command\n\n\0", |error| matches!(error, WebSocketError::Protocol(_))),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", |error| matches!(error, WebSocketError::Protocol(_))),
        (b"", |error| *error == WebSocketError::ClosedInHandshake),
    ];
    for (answer, expected) in table {
        let (url, peer) = answering(answer).await;
        let error = connect(&url, quiet()).await.unwrap_err();
        assert!(matches!(&error, ConnectionError::WebSocket(error) if expected(error)), "{error:?}");
        assert!(error.is_retryable());
        timeout(LIMIT, peer).await.unwrap().unwrap();
    }

    // A WebSocket that is not for STOMP.
    let (url, listener) = listen().await;
    let peer = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        tokio_tungstenite::accept_async(tcp).await.map(drop).ok();
    });
    let error = connect(&url, quiet()).await.unwrap_err();
    assert!(matches!(error, ConnectionError::WebSocket(WebSocketError::NoStomp)), "{error:?}");
    timeout(LIMIT, peer).await.unwrap().unwrap();
}

/// Virtual time: the peer accepts and says nothing.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_costs_no_more_than_the_limit() {
    let (url, _listener) = listen().await;
    let start = Instant::now();
    let error = connect(&url, quiet()).await.unwrap_err();
    assert!(
        matches!(error, ConnectionError::WebSocket(WebSocketError::Timeout(limit)) if limit.as_secs() == 5),
        "{error:?}"
    );
    assert_eq!(start.elapsed().as_secs(), 5);
}
