//! Each switch of `Faults`.

use std::{io, time::Duration};

use stompwire::{
    broker::{Admission, Broker, Farewell, Faults, ReceiptId, Which},
    proto::HeartBeat,
};
use tokio::{net::TcpStream, time::Instant};

use crate::raw::{Raw, broker, until};

async fn started() -> (Broker, Faults, Raw) {
    let broker = broker().await;
    let raw = Raw::connected(&broker, "1.2").await;
    let faults = broker.faults();
    (broker, faults, raw)
}

async fn send(raw: &mut Raw, receipts: impl IntoIterator<Item = u32>) {
    let frames = receipts.into_iter().map(|id| format!("SEND\ndestination:/queue/a\nreceipt:{id}\n\nx\0"));
    raw.write(&frames.collect::<String>()).await;
}

async fn expect_receipts(raw: &mut Raw, ids: &[u32]) {
    for id in ids {
        raw.expect(&[&format!("RECEIPT\nreceipt-id:{id}\n\n")]).await;
    }
}

async fn until_stored(broker: &Broker, messages: usize) {
    until("stored", || broker.queue("a").is_some_and(|info| info.messages == messages)).await;
}

#[tokio::test]
async fn receipts_are_withheld_and_released() {
    let (broker, faults, mut raw) = started().await;
    faults.withhold_receipts(Which::All);
    send(&mut raw, [1, 2, 3]).await;
    until_stored(&broker, 3).await;
    raw.expect_nothing().await;
    faults.release_receipts();
    expect_receipts(&mut raw, &[1, 2, 3]).await;
    faults.withhold_receipts(Which::EveryNth(2));
    send(&mut raw, 4..=7).await;
    expect_receipts(&mut raw, &[5, 7]).await;
    raw.expect_nothing().await;
    faults.clear();
    expect_receipts(&mut raw, &[4, 6]).await;
    // What is kept ends with the connection; DISCONNECT's own receipt is not kept.
    faults.withhold_receipts(Which::All);
    send(&mut raw, [8]).await;
    raw.write("DISCONNECT\nreceipt:9\n\n\0").await;
    expect_receipts(&mut raw, &[9]).await;
    raw.expect_closed().await;
}

#[tokio::test]
async fn receipts_are_dropped_for_good() {
    let (broker, faults, mut raw) = started().await;
    faults.drop_receipts(Which::EveryNth(3));
    send(&mut raw, 1..=7).await;
    expect_receipts(&mut raw, &[1, 2, 4, 5, 7]).await;
    faults.drop_receipts(Which::All);
    send(&mut raw, [8]).await;
    until_stored(&broker, 8).await;
    faults.clear();
    raw.expect_nothing().await;
    send(&mut raw, [9]).await;
    expect_receipts(&mut raw, &[9]).await;
}

#[tokio::test]
async fn receipts_are_delayed() {
    let (broker, faults, mut raw) = started().await;
    faults.delay_receipts(Duration::from_millis(80));
    let start = Instant::now();
    send(&mut raw, [1, 2]).await;
    until_stored(&broker, 2).await;
    assert!(start.elapsed() < Duration::from_millis(80));
    expect_receipts(&mut raw, &[1, 2]).await;
    assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
    faults.delay_receipts(Duration::ZERO);
    send(&mut raw, [3]).await;
    expect_receipts(&mut raw, &[3]).await;
}

#[tokio::test]
async fn receipts_are_reordered_and_repeated() {
    let (_broker, faults, mut raw) = started().await;
    faults.reorder_receipts(true);
    send(&mut raw, [1, 2, 3]).await;
    expect_receipts(&mut raw, &[3, 2, 1]).await;
    send(&mut raw, [4]).await;
    expect_receipts(&mut raw, &[4]).await;
    faults.repeat_receipts(true);
    send(&mut raw, [5, 6]).await;
    expect_receipts(&mut raw, &[6, 6, 5, 5]).await;
    faults.reorder_receipts(false);
    send(&mut raw, [7, 8]).await;
    expect_receipts(&mut raw, &[7, 7, 8, 8]).await;
}

#[tokio::test]
async fn withheld_receipts_are_bounded() {
    let (broker, faults, mut raw) = started().await;
    faults.withhold_receipts(Which::All);
    let long = "r".repeat(10_000);
    let frames = format!("SEND\ndestination:/queue/a\nreceipt:{long}\n\n\0").repeat(430);
    raw.write(&frames).await;
    // 4 MiB of ids are 420 of them.
    until_stored(&broker, 420).await;
    raw.expect_nothing().await;
    assert_eq!(broker.queue("a").unwrap().messages, 420);
    faults.release_receipts();
    for _ in 0..430 {
        raw.expect(&[&format!("RECEIPT\nreceipt-id:{long}\n\n")]).await;
    }
}

#[tokio::test]
async fn reading_stops_and_heart_beats_go_on() {
    let broker =
        Broker::builder().heart_beat(HeartBeat::every(Duration::from_millis(250))).start().await.unwrap();
    let faults = broker.faults();
    faults.stop_reading(true);
    // As with RabbitMQ's alarms a new connection is still let in.
    let mut raw = Raw::open(&broker).await;
    raw.write("CONNECT\naccept-version:1.2\nhost:/\nheart-beat:250,250\n\n\0").await;
    raw.frame().await;
    send(&mut raw, [1]).await;
    // Heart-beats come every 125 ms, beyond the 500 ms of silence that are allowed.
    assert_eq!(raw.octets(5).await, b"\n\n\n\n\n");
    assert_eq!(broker.queue("a"), None);
    faults.stop_reading(false);
    expect_receipts(&mut raw, &[1]).await;
}

#[tokio::test]
async fn the_black_hole_neither_reads_nor_writes_nor_closes() {
    let broker =
        Broker::builder().heart_beat(HeartBeat::every(Duration::from_millis(100))).start().await.unwrap();
    let faults = broker.faults();
    let mut raw = Raw::open(&broker).await;
    raw.write("CONNECT\naccept-version:1.2\nhost:/\nheart-beat:100,100\n\n\0").await;
    raw.frame().await;
    faults.go_silent(true);
    send(&mut raw, [1]).await;
    let mut new = Raw::open(&broker).await;
    new.write("CONNECT\naccept-version:1.2\nhost:/\n\n\0").await;
    new.expect_nothing().await;
    // A heart-beat may have been on its way; then there is nothing, for longer than silence is allowed.
    tokio::time::sleep(Duration::from_millis(60)).await;
    let mut on_its_way = [0; 16];
    let count = raw.stream().try_read(&mut on_its_way).unwrap_or(0);
    assert!(on_its_way[..count].iter().all(|&octet| octet == b'\n'), "{on_its_way:?}");
    for _ in 0..4 {
        raw.expect_nothing().await;
    }
    assert_eq!((broker.queue("a"), broker.connections().len()), (None, 2));
    faults.go_silent(false);
    expect_receipts(&mut raw, &[1]).await;
    assert!(new.frame().await.starts_with("CONNECTED\n"));
}

#[tokio::test]
async fn connections_are_closed() {
    let (broker, faults, mut raw) = started().await;
    send(&mut raw, [1]).await;
    expect_receipts(&mut raw, &[1]).await;
    faults.close_connections();
    raw.expect_closed().await;
    // Later ones are not concerned, and neither is the listener.
    let mut raw = Raw::connected(&broker, "1.2").await;
    send(&mut raw, [2]).await;
    expect_receipts(&mut raw, &[2]).await;
    // The black hole does not keep it.
    faults.go_silent(true);
    faults.close_connections();
    raw.expect_closed().await;
}

#[tokio::test]
async fn connections_are_reset() {
    let (broker, faults, raw) = started().await;
    faults.reset_connections();
    raw.expect_reset().await;
    until("it is gone", || broker.connections().is_empty()).await;
}

#[tokio::test]
async fn connections_are_cut_in_the_middle_of_a_frame() {
    let (_broker, faults, mut raw) = started().await;
    send(&mut raw, [1]).await;
    expect_receipts(&mut raw, &[1]).await;
    faults.cut_connections_mid_frame();
    assert_eq!(raw.rest().await.unwrap(), "RECEIPT\nreceipt-id:1");
}

#[tokio::test]
async fn the_next_send_fails() {
    let (broker, faults, mut raw) = started().await;
    for (fault, header) in [(ReceiptId::Named, "receipt-id:1\n"), (ReceiptId::Omitted, "")] {
        faults.fail_next_send(fault);
        send(&mut raw, [1, 2]).await;
        raw.expect_error("the broker was told to fail this SEND", header).await;
        raw = Raw::connected(&broker, "1.2").await;
    }
    assert_eq!(broker.queue("a"), None);
    send(&mut raw, [3]).await;
    expect_receipts(&mut raw, &[3]).await;
}

#[tokio::test]
async fn the_receipt_of_disconnect_is_withheld_and_released() {
    let (broker, faults, mut raw) = started().await;
    faults.set_farewell(Farewell::Withheld);
    raw.write("BEGIN\ntransaction:t\n\n\0SEND\ndestination:/queue/a\ntransaction:t\nreceipt:1\n\nx\0").await;
    raw.write("DISCONNECT\nreceipt:bye\n\n\0COMMIT\ntransaction:t\n\n\0").await;
    expect_receipts(&mut raw, &[1]).await;
    until("it has disconnected", || broker.connections().is_empty()).await;
    raw.expect_nothing().await;
    // What comes after it is not looked at, however much.
    raw.write(&"x".repeat(3_000_000)).await;
    raw.expect_nothing().await;
    faults.set_farewell(Farewell::Receipted);
    raw.expect(&["RECEIPT\nreceipt-id:bye\n\n"]).await;
    raw.expect_closed().await;
    assert_eq!(broker.queue("a"), None);

    // A client that has waited enough is let go.
    faults.set_farewell(Farewell::Withheld);
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write("DISCONNECT\nreceipt:bye\n\n\0").await;
    raw.expect_nothing().await;
    raw.shut_down_writing().await;
    raw.expect_closed().await;
    // Who asks for no receipt is not concerned.
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write("DISCONNECT\n\n\0").await;
    raw.expect_closed().await;
}

#[tokio::test]
async fn the_receipt_of_disconnect_is_dropped() {
    let (broker, faults, mut raw) = started().await;
    faults.set_farewell(Farewell::Dropped);
    send(&mut raw, [1]).await;
    raw.write("DISCONNECT\nreceipt:bye\n\n\0").await;
    expect_receipts(&mut raw, &[1]).await;
    raw.expect_closed().await;
    // Also what waits already.
    faults.set_farewell(Farewell::Withheld);
    let mut raw = Raw::connected(&broker, "1.2").await;
    raw.write("DISCONNECT\nreceipt:bye\n\n\0").await;
    until("it has disconnected", || broker.connections().is_empty()).await;
    faults.set_farewell(Farewell::Dropped);
    raw.expect_closed().await;
}

#[tokio::test]
async fn a_poisoned_send_ends_its_connection_each_time() {
    let (broker, faults, mut raw) = started().await;
    faults.poison(Some(b"ven\0om"));
    let poisoned = [
        "SEND\ndestination:/queue/a\nreceipt:2\ncontent-length:8\n\nxven\0omx\0",
        "SEND\ndestination:/queue/a\nreceipt:2\nx-own:antidote\n\nx\0",
    ];
    for frame in poisoned {
        let mut other = Raw::connected(&broker, "1.2").await;
        send(&mut raw, [1]).await;
        raw.write(frame).await;
        raw.write("SEND\ndestination:/queue/a\nreceipt:3\n\nbehind it\0").await;
        expect_receipts(&mut raw, &[1]).await;
        raw.expect_closed().await;
        send(&mut other, [4]).await;
        expect_receipts(&mut other, &[4]).await;
        raw = other;
        faults.poison(Some(b"antidote"));
    }
    assert_eq!(broker.queue("a").unwrap().published_total, 4);
    faults.clear();
    raw.write(poisoned[1]).await;
    expect_receipts(&mut raw, &[2]).await;
}

#[tokio::test]
async fn the_port_is_closed_and_opened_again() {
    let (broker, faults, mut raw) = started().await;
    faults.set_admission(Admission::PortClosed);
    // Until the listener is closed the system may still take a connection, or reset it.
    let mut refused = false;
    for _ in 0..100 {
        let result = TcpStream::connect(broker.local_addr()).await;
        refused = result.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(refused);
    // Connections that exist are served meanwhile.
    send(&mut raw, [1]).await;
    expect_receipts(&mut raw, &[1]).await;
    faults.set_admission(Admission::Open);
    for _ in 0..100 {
        if TcpStream::connect(broker.local_addr()).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Raw::connected(&broker, "1.2").await;
}

#[tokio::test]
async fn new_connections_are_reset() {
    let (broker, faults, mut raw) = started().await;
    faults.set_admission(Admission::Reset);
    Raw::open(&broker).await.expect_reset().await;
    send(&mut raw, [1]).await;
    expect_receipts(&mut raw, &[1]).await;
}

#[tokio::test]
async fn connect_is_refused() {
    let (broker, faults, _raw) = started().await;
    faults.set_admission(Admission::RefuseConnect);
    let mut raw = Raw::open(&broker).await;
    raw.write("CONNECT\naccept-version:1.2\nhost:/\n\n\0").await;
    raw.expect_refusal("the broker was told to refuse this CONNECT").await;
    faults.clear();
    Raw::connected(&broker, "1.2").await;
}
