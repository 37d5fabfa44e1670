//! Start and end of the broker itself.

use std::{io, net::SocketAddr, time::Duration};

use stompwire::broker::Broker;
use tokio::{net::TcpStream, time::Instant};

use crate::raw::{Raw, broker, until};

#[tokio::test]
async fn only_loopback_unless_allowed() {
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let refused = Broker::builder().bind(everywhere).start().await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    // An address of the documentation's (RFC 5737), which no machine has: it gets as far as the system.
    let nowhere: SocketAddr = "192.0.2.1:0".parse().unwrap();
    let tried = Broker::builder().bind(nowhere).allow_remote().start().await.unwrap_err();
    assert_eq!(tried.kind(), io::ErrorKind::AddrNotAvailable);
}

#[tokio::test]
async fn a_taken_port_is_an_error() {
    let broker = broker().await;
    let taken = Broker::builder().bind(broker.local_addr()).start().await.unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn shutdown_writes_what_is_there_and_closes_everything_soon() {
    let broker = broker().await;
    let handle = broker.handle();
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write("SEND\ndestination:/queue/a\nreceipt:1\n\nx\0").await;
    raw.expect(&["RECEIPT\nreceipt-id:1\n\n"]).await;
    let silent = Raw::open(&broker).await;
    until("it is accepted", || broker.connections().len() == 2).await;
    let start = Instant::now();
    broker.shutdown().await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    raw.expect_closed().await;
    silent.expect_closed().await;
    assert_eq!(handle.connections(), []);
    assert_eq!(handle.queue("a").unwrap().messages, 1);
    let refused = TcpStream::connect(handle.local_addr()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn shutdown_comes_out_of_the_black_hole() {
    let broker = broker().await;
    let raw = Raw::connected(&broker, "1.2").await;
    broker.faults().go_silent(true);
    broker.shutdown().await;
    raw.expect_closed().await;
}

#[tokio::test]
async fn dropping_it_closes_everything() {
    let broker = broker().await;
    let raw = Raw::connected(&broker, "1.2").await;
    let handle = broker.handle();
    drop(broker);
    raw.expect_closed().await;
    assert_eq!(handle.connections(), []);
    let refused = TcpStream::connect(handle.local_addr()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_on_several_threads_lose_nothing() {
    let broker = broker().await;
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..8 {
        let handle = broker.handle();
        producers.spawn(async move {
            let mut raw = Raw::connected(&handle, "1.2").await;
            for number in 0..500 {
                raw.write(&format!("SEND\ndestination:/queue/a\nreceipt:{number}\n\n{producer} {number}\0"))
                    .await;
            }
            for number in 0..500 {
                raw.expect(&[&format!("RECEIPT\nreceipt-id:{number}\n\n")]).await;
            }
        });
    }
    let mut consumers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let handle = broker.handle();
        consumers.spawn(async move {
            let mut raw = Raw::connected(&handle, "1.2").await;
            raw.write("SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client-individual\nprefetch-count:7\n\n\0")
                .await;
            let mut bodies = Vec::new();
            for number in 0..250 {
                let message = raw.frame().await;
                bodies.push(message.split_once("\n\n").unwrap().1.to_owned());
                raw.write(&format!("ACK\nid:{}\n\n\0", header(&message, "ack"))).await;
                assert!(number < 250);
            }
            raw.write("DISCONNECT\nreceipt:bye\n\n\0").await;
            while raw.frame().await != "RECEIPT\nreceipt-id:bye\n\n" {}
            bodies
        });
    }
    let mut bodies: Vec<String> = consumers.join_all().await.concat();
    producers.join_all().await;
    // The rest, part of it redelivered, comes to one more consumer.
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write("SUBSCRIBE\nid:0\ndestination:/queue/a\n\n\0").await;
    for _ in 0..3000 {
        bodies.push(raw.frame().await.split_once("\n\n").unwrap().1.to_owned());
    }
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies.len(), 4000);
    let info = broker.queue("a").unwrap();
    assert_eq!((info.messages, info.unacked, info.published_total, info.dropped_total), (0, 0, 4000, 0));
}

fn header<'a>(frame: &'a str, name: &str) -> &'a str {
    frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap()
}
