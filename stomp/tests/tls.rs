//! STOMP over TLS: against RabbitMQ's TLS listener, which demands client certificates, and against small servers that
//! show what RabbitMQ would not.
#![cfg(all(feature = "tokio", feature = "rustls"))]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

#[path = "support/example.rs"]
mod example;
mod pki;

use std::{
    fs,
    sync::{Arc, LazyLock},
    time::Duration,
};

use pki::{Authority, Identity};
use rabbitmq_node::{Node, QueueOptions, Vhost};
use stompwire::{
    Frame,
    client::{CertificateFault, Client, ConnectOptions, ConnectionError, Subscribe, TlsError, TlsOptions},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// Longer than any test should take.
const LIMIT: Duration = Duration::from_secs(30);

/// The authority of servers and clients alike.
static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("stompwire test authority"));
static CLIENT: LazyLock<Identity> = LazyLock::new(|| AUTHORITY.client());
static FOREIGN: LazyLock<Authority> = LazyLock::new(|| Authority::new("some other authority"));

/// A virtual host of its own, with the durable queue `q`, on a node that demands client certificates.
fn vhost() -> Vhost {
    static NODE: LazyLock<Node> = LazyLock::new(|| {
        let server = AUTHORITY.server(&["localhost", "127.0.0.1"]);
        let tls = rabbitmq_node::Tls::new(server.certificate, server.key)
            .require_client_certificate(AUTHORITY.pem());
        Node::builder().tls(tls).start().unwrap()
    });
    let vhost = NODE.new_vhost().unwrap();
    vhost.declare_queue("q", &QueueOptions::default()).unwrap();
    vhost
}

fn identified(options: TlsOptions) -> TlsOptions {
    options.with_client_identity_pem(&*CLIENT.certificate, &*CLIENT.key)
}

fn options(tls: TlsOptions) -> ConnectOptions {
    let mut options = ConnectOptions::default();
    options.tls = tls;
    options
}

async fn connect(url: &str, tls: TlsOptions) -> Result<Client, ConnectionError> {
    timeout(LIMIT, Client::connect(&url.parse().unwrap(), options(tls))).await.expect("in time")
}

/// The error of a connection that TLS did not come about for.
async fn tls_error(url: &str, tls: TlsOptions) -> TlsError {
    match connect(url, tls).await.unwrap_err() {
        ConnectionError::Tls(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_go_to_rabbitmq_and_come_back() {
    let vhost = vhost();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(files.path().join(name), text).unwrap();
        files.path().join(name)
    };
    let from_files = TlsOptions::default()
        .with_ca_file(file("ca", &AUTHORITY.pem()))
        .with_client_identity_file(file("certificate", &CLIENT.certificate), file("key", &CLIENT.key));
    let from_octets =
        identified(TlsOptions::default().with_ca_pem(FOREIGN.pem()).with_ca_pem(AUTHORITY.pem()));
    let by_address = vhost.stomp_tls_url();
    let by_name = by_address.replace("127.0.0.1", "localhost");
    for (url, tls) in [(by_address, from_octets), (by_name, from_files)] {
        let client = connect(&url, tls).await.unwrap();
        let bodies = || (0..=9).map(|n| vec![n; if n == 9 { 1 << 20 } else { 10 * usize::from(n) }]);
        let frames = bodies().map(|body| Frame::send("/amq/queue/q", body).with_header("persistent", "true"));
        for receipt in client.send_batch(frames).await.unwrap() {
            timeout(LIMIT, receipt).await.unwrap().unwrap();
        }
        assert_eq!(vhost.queue_depth("q").unwrap(), 10);
        let mut messages = client.subscribe(Subscribe::to("/amq/queue/q")).await.unwrap();
        for body in bodies() {
            let message = timeout(LIMIT, messages.next()).await.unwrap().unwrap().unwrap();
            assert!(*message.body() == body, "{} octets, not {}", message.body().len(), body.len());
            messages.ack(&message).await.unwrap();
        }
        client.close(LIMIT).await.unwrap();
        vhost.wait_for_depth("q", 0, LIMIT).unwrap();
    }
    let url = vhost.stomp_tls_url();
    let path = |name: &str| files.path().join(name).display().to_string();
    let shown = example::run("tls", &[&url, &path("ca"), &path("certificate"), &path("key")]);
    assert_eq!(shown, "confirmed over TLS\n");
    assert_eq!(vhost.queue_depth("stompwire-example").unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reason_for_which_rabbitmq_and_we_do_not_trust_each_other_is_named() {
    let vhost = vhost();
    let url = vhost.stomp_tls_url();
    let trusting = || TlsOptions::default().with_ca_pem(AUTHORITY.pem());
    let stranger = FOREIGN.client();

    let foreign = identified(TlsOptions::default().with_ca_pem(FOREIGN.pem()));
    let unknown = TlsError::ServerCertificate(CertificateFault::UnknownIssuer);
    assert_eq!(tls_error(&url, foreign).await, unknown);

    let elsewhere = identified(trusting()).with_server_name("rabbit.example");
    let error = tls_error(&url, elsewhere).await;
    let TlsError::ServerCertificate(CertificateFault::WrongName { expected, presented }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(expected, "rabbit.example");
    assert_eq!(presented, &["localhost", "127.0.0.1"]);

    assert_eq!(tls_error(&url, trusting()).await, TlsError::NoClientCertificate);

    let unknown_client = trusting().with_client_identity_pem(stranger.certificate, stranger.key);
    let error = tls_error(&url, unknown_client).await;
    assert_eq!(error, TlsError::ClientCertificate("UnknownCA".into()));

    // The key of another certificate never leaves this machine.
    let mismatch = trusting().with_client_identity_pem(&*CLIENT.certificate, &*FOREIGN.client().key);
    let error = tls_error(&url, mismatch).await;
    assert!(matches!(error, TlsError::Options(_)), "{error:?}");

    // The port for STOMP without TLS.
    let plain = vhost.stomp_url().replace("stomp://", "stomp+ssl://");
    let error = tls_error(&plain, identified(trusting())).await;
    assert!(matches!(error, TlsError::Protocol(_) | TlsError::Closed), "{error:?}");
}

/// A server of one connection: shakes hands, answers CONNECT and closes, without TLS's farewell if told so. Returns the
/// name that the client asked for, `None` too if the client went away.
async fn serve(listener: TcpListener, identity: Identity, farewell: bool) -> Option<String> {
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let mut stream = TlsAcceptor::from(Arc::new(config)).accept(tcp).await.ok()?;
    let name = stream.get_ref().1.server_name().map(String::from);
    let mut connect = [0; 7];
    stream.read_exact(&mut connect).await.unwrap();
    assert_eq!(&connect, b"CONNECT");
    stream.write_all(b"CONNECTED\nversion:1.2\n\n\0").await.unwrap();
    if farewell {
        stream.shutdown().await.unwrap();
    } else {
        stream.get_mut().0.shutdown().await.unwrap();
    }
    // Until the client has gone.
    stream.read_to_end(&mut Vec::new()).await.ok();
    name
}

/// Starts [`serve`] and makes its URL with this host.
async fn server(
    host: &str,
    identity: Identity,
    farewell: bool,
) -> (String, tokio::task::JoinHandle<Option<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("stomps://{host}:{}", listener.local_addr().unwrap().port());
    (url, tokio::spawn(serve(listener, identity, farewell)))
}

#[tokio::test]
async fn the_name_is_sent_and_a_close_is_a_close_with_or_without_a_farewell() {
    let table = [
        ("localhost", None, Some("localhost"), true),
        ("127.0.0.1", None, None, false),
        ("127.0.0.1", Some("rabbit.example"), Some("rabbit.example"), false),
    ];
    for (host, name, sent, farewell) in table {
        let identity = AUTHORITY.server(&["localhost", "127.0.0.1", "rabbit.example"]);
        let (url, server) = server(host, identity, farewell).await;
        let mut tls = TlsOptions::default().with_ca_pem(AUTHORITY.pem());
        if let Some(name) = name {
            tls = tls.with_server_name(name);
        }
        let client = connect(&url, tls).await.unwrap();
        let end = timeout(LIMIT, client.ended()).await.unwrap();
        assert!(matches!(end, ConnectionError::ClosedByServer), "{end:?}");
        drop(client);
        assert_eq!(timeout(LIMIT, server).await.unwrap().unwrap().as_deref(), sent);
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_good_now_or_not_for_this_host_is_refused() {
    type Expected = fn(&CertificateFault) -> bool;
    let twin = Authority::new("stompwire test authority");
    let table: [(Identity, Expected); 5] = [
        (AUTHORITY.server_in_years(&["localhost"], 2000..2001), |fault| match fault {
            CertificateFault::Expired { ago } => ago.as_secs() > 20 * 365 * 86_400,
            _ => false,
        }),
        (AUTHORITY.server_in_years(&["localhost"], 2999..3000), |fault| match fault {
            CertificateFault::NotYetValid { ahead } => ahead.as_secs() > 900 * 365 * 86_400,
            _ => false,
        }),
        (AUTHORITY.server(&["rabbit.example"]), |fault| {
            fault.to_string() == "is not for localhost but for rabbit.example"
        }),
        (twin.server(&["localhost"]), |fault| *fault == CertificateFault::BadSignature),
        (FOREIGN.server(&["localhost"]), |fault| *fault == CertificateFault::UnknownIssuer),
    ];
    for (identity, expected) in table {
        let (url, server) = server("localhost", identity, true).await;
        let error = tls_error(&url, TlsOptions::default().with_ca_pem(AUTHORITY.pem())).await;
        assert!(matches!(&error, TlsError::ServerCertificate(fault) if expected(fault)), "{error:?}");
        assert!(ConnectionError::from(error).is_retryable());
        assert_eq!(timeout(LIMIT, server).await.unwrap().unwrap(), None);
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_if_given_and_not_marked_as_an_authority() {
    for is_authority in [false, true] {
        let identity = pki::self_signed(&["localhost"], is_authority);
        let tls = TlsOptions::default().with_ca_pem(&*identity.certificate);
        let (url, server) = server("localhost", identity, true).await;
        if is_authority {
            let error = tls_error(&url, tls).await;
            assert_eq!(error, TlsError::ServerCertificate(CertificateFault::IsAuthority));
        } else {
            connect(&url, tls).await.unwrap();
        }
        timeout(LIMIT, server).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_systems_authorities_do_not_vouch_for_ours() {
    let (url, server) = server("localhost", AUTHORITY.server(&["localhost"]), true).await;
    match tls_error(&url, TlsOptions::default()).await {
        TlsError::ServerCertificate(CertificateFault::UnknownIssuer) => {}
        // A system without any.
        TlsError::Options(text) => {
            assert!(text.contains("has no certificate authorities"), "{text}");
            server.abort();
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_that_was_renewed_is_taken_up_by_the_next_connection() {
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    let tls = TlsOptions::default().with_ca_file(&ca);
    fs::write(&ca, FOREIGN.pem()).unwrap();
    let (url, _) = server("localhost", AUTHORITY.server(&["localhost"]), true).await;
    let unknown = TlsError::ServerCertificate(CertificateFault::UnknownIssuer);
    assert_eq!(tls_error(&url, tls.clone()).await, unknown);
    fs::write(&ca, AUTHORITY.pem()).unwrap();
    let (url, _) = server("localhost", AUTHORITY.server(&["localhost"]), true).await;
    connect(&url, tls.clone()).await.unwrap();
    // Without the file there is no connection, not one with less to go by; and no octet is sent.
    fs::remove_file(&ca).unwrap();
    let error = tls_error("stomps://127.0.0.1:1", tls).await;
    assert!(matches!(&error, TlsError::Options(text) if text.contains("ca.pem")), "{error:?}");
}

/// Virtual time: the peer accepts and says nothing.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_costs_no_more_than_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("stomp+ssl://{}", listener.local_addr().unwrap());
    let start = Instant::now();
    let error = tls_error(&url, TlsOptions::default().with_ca_pem(AUTHORITY.pem())).await;
    assert_eq!(error, TlsError::Timeout(Duration::from_secs(5)));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn a_peer_that_talks_nonsense_or_hangs_up_is_named() {
    type Expected = fn(&TlsError) -> bool;
    let table: [(&[u8], Expected); 3] = [
        (b"ERROR\nmessage:Bad command\n\n\0", |error| matches!(error, TlsError::Protocol(_))),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", |error| matches!(error, TlsError::Protocol(_))),
        (b"", |error| *error == TlsError::Closed),
    ];
    for (answer, expected) in table {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("stomp+ssl://{}", listener.local_addr().unwrap());
        let peer = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            // All of it, or closing would be a reset.
            let mut hello = [0; 5];
            tcp.read_exact(&mut hello).await.unwrap();
            let mut rest = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
            tcp.read_exact(&mut rest).await.unwrap();
            tcp.write_all(answer).await.unwrap();
        });
        let error = tls_error(&url, TlsOptions::default().with_ca_pem(AUTHORITY.pem())).await;
        assert!(expected(&error), "{error:?}");
        timeout(LIMIT, peer).await.unwrap().unwrap();
    }
}

#[test]
fn neither_debug_nor_an_error_shows_a_key() {
    let options = options(identified(TlsOptions::default().with_ca_pem(AUTHORITY.pem())));
    let shown = format!("{options:?}");
    let secret = CLIENT.key.lines().nth(1).unwrap();
    assert!(shown.contains("TlsOptions") && !shown.contains(secret), "{shown}");
}
