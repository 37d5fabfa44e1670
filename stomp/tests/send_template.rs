//! A SEND from a template is, octet for octet, what the encoder makes of the same frame, and refuses the same things.

use bytes::{Buf, Bytes};
use stompwire::{
    Command, Frame, Headers, Version,
    proto::{EncodeError, Encoder, Outbox, SendTemplate},
};

#[test]
fn the_same_octets_as_the_encoder() {
    let constant = headers(&[("destination", "/queue/a"), ("type", "a:b")]);
    let bodies = [0, 1, 4096, 4097, 100_000].map(|len| Bytes::from(vec![b'x'; len]));
    for version in Version::ALL {
        for content_length in [true, false] {
            let encoder = Encoder::new(version).with_content_length(content_length);
            let template = SendTemplate::new(&encoder, &constant).unwrap();
            let mut outbox = Outbox::new();
            let mut expected = Outbox::new();
            for body in &bodies {
                template.enqueue(&[("receipt", "7"), ("note", "c:d")], body, &mut outbox).unwrap();
                let frame = Frame::from_parts(Command::Send, constant.clone(), body.clone());
                encoder.enqueue(&frame, &[("receipt", "7"), ("note", "c:d")], &mut expected).unwrap();
            }
            assert_eq!(drain(outbox), drain(expected), "{version} {content_length}");
        }
    }
}

#[test]
fn a_content_length_cannot_be_smuggled_in() {
    let encoder = Encoder::new(Version::V1_2);
    let wrong = |given: &str, actual| EncodeError::WrongContentLength { given: given.into(), actual };
    let constant = SendTemplate::new(&encoder, &headers(&[("content-length", "5")])).map(drop);
    assert_eq!(constant, Err(wrong("5", 0)));

    let template = SendTemplate::new(&encoder, &headers(&[("destination", "/a")])).unwrap();
    let body = Bytes::from_static(b"x\0\nSEND\ndestination:/evil\n\n");
    let mut outbox = outbox_with_an_eol();
    let refused = template.enqueue(&[("content-length", "1")], &body, &mut outbox);
    assert_eq!(refused, Err(wrong("1", body.len())));
    assert_eq!(drain(outbox), b"\n", "nothing of it was queued");

    let mut outbox = Outbox::new();
    template.enqueue(&[("content-length", "2")], &Bytes::from_static(b"hi"), &mut outbox).unwrap();
    assert_eq!(drain(outbox), b"SEND\ndestination:/a\ncontent-length:2\n\nhi\0", "once");
}

#[test]
fn what_cannot_be_encoded_is_refused() {
    let encoder = Encoder::new(Version::V1_0).with_content_length(false);
    let unencodable =
        EncodeError::Unencodable { name: "note".into(), command: Command::Send, version: Version::V1_0 };
    assert_eq!(
        SendTemplate::new(&encoder, &headers(&[("note", "a\nb")])).map(drop),
        Err(unencodable.clone())
    );
    assert_eq!(
        SendTemplate::new(&encoder, &headers(&[("", "a")])).map(drop),
        Err(EncodeError::EmptyHeaderName)
    );
    let template = SendTemplate::new(&encoder, &headers(&[("destination", "/a")])).unwrap();
    let mut outbox = outbox_with_an_eol();
    let mut refuse = |headers: &[(&str, &str)], body: &'static [u8]| {
        template.enqueue(headers, &Bytes::from_static(body), &mut outbox).unwrap_err()
    };
    assert_eq!(refuse(&[("a", "b"), ("note", "a\nb")], b"x"), unencodable);
    assert_eq!(refuse(&[("", "b")], b"x"), EncodeError::EmptyHeaderName);
    assert_eq!(refuse(&[], b"a\0b"), EncodeError::NulWithoutContentLength);
    assert_eq!(drain(outbox), b"\n", "nothing of them was queued");
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().copied().collect()
}

/// What is there already must survive a refusal.
fn outbox_with_an_eol() -> Outbox {
    let mut outbox = Outbox::new();
    outbox.push_eol();
    outbox
}

fn drain(mut outbox: Outbox) -> Vec<u8> {
    outbox.copy_to_bytes(outbox.remaining()).to_vec()
}
