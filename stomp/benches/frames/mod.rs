//! The frames that are measured.
#![allow(dead_code)] // each bench uses its part

use bytes::{Bytes, BytesMut};
use stompwire::{Command, Frame, Version, proto::Encoder};

/// A MESSAGE with five headers, as a broker delivers a beacon: 342 octets.
pub(crate) fn message() -> Frame {
    message_with(vec![b'j'; 194].into())
}

/// The same with a body of 194 octets.
pub(crate) fn message_with(body: Bytes) -> Frame {
    Frame::new(Command::Message)
        .with_header("subscription", "0")
        .with_header("destination", "/queue/beacons")
        .with_header("message-id", "T_0@@session-x8Vn2mTqZ0bW1kq@@1")
        .with_header("content-type", "application/x-ndjson")
        .with_header("content-length", "194")
        .with_body(body)
}

/// The RECEIPT of one frame, as RabbitMQ writes it but for the line feed behind.
pub(crate) fn receipt() -> Frame {
    Frame::new(Command::Receipt).with_header("receipt-id", "1234567")
}

/// A SEND of a packed batch.
pub(crate) fn batch() -> Frame {
    Frame::new(Command::Send)
        .with_header("destination", "/queue/beacons")
        .with_header("persistent", "true")
        .with_header("receipt", "1234567")
        .with_body(Bytes::from(vec![b'j'; 64 * 1024]))
}

/// The frame so many times on the wire.
pub(crate) fn wire(frame: &Frame, count: usize) -> BytesMut {
    let mut wire = BytesMut::new();
    for _ in 0..count {
        Encoder::new(Version::V1_2).encode(frame, &mut wire).expect("it has nothing that cannot be encoded");
    }
    wire
}

/// [`message`] so many times on the wire.
pub(crate) fn messages(count: usize) -> BytesMut {
    let wire = wire(&message(), count);
    assert_eq!(wire.len(), 342 * count);
    wire
}
