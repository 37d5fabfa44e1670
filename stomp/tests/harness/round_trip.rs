//! Frames: what can be encoded comes back as it was; what cannot leaves no octet.

use arbitrary::Arbitrary;
use bytes::{Buf, BytesMut};
use stompwire::proto::{Command, Decoder, Encoder, Frame, Headers, Limits, Outbox, Version};

#[derive(Debug, Arbitrary)]
pub(crate) struct Input {
    version: u8,
    escape_connect: bool,
    content_length: bool,
    frames: Vec<Spec>,
}

#[derive(Debug, Arbitrary)]
struct Spec {
    command: u8,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    eols: u8,
}

pub(crate) fn run(input: &Input) {
    let version = Version::ALL[usize::from(input.version) % Version::ALL.len()];
    let encoder = Encoder::new(version)
        .with_escaped_connect(input.escape_connect)
        .with_content_length(input.content_length);
    let mut wire = BytesMut::new();
    let mut sent = Vec::new();
    for spec in &input.frames {
        let frame = spec.frame();
        let before = wire.len();
        let result = encoder.encode(&frame, &mut wire);
        let mut outbox = Outbox::new();
        assert_eq!(encoder.enqueue(&frame, &[], &mut outbox), result);
        assert_eq!(outbox.copy_to_bytes(outbox.remaining()), wire[before..]);
        if result.is_err() {
            assert_eq!(wire.len(), before, "a refused frame leaves no octet");
            continue;
        }
        wire.extend(std::iter::repeat_n(b'\n', usize::from(spec.eols % 4)));
        sent.push(frame);
    }

    let mut decoder = Decoder::new(Limits { max_headers: usize::MAX, ..Limits::default() });
    decoder.set_version(version);
    decoder.set_unescape_connect(input.escape_connect);
    for frame in &sent {
        let got = decoder.decode(&mut wire).expect("what the encoder writes is well-formed");
        let got = got.expect("and whole");
        assert_eq!((got.command(), got.body()), (frame.command(), frame.body()));
        let added = got.headers().len() - frame.headers().len();
        assert!(got.headers().iter().take(frame.headers().len()).eq(frame.headers().iter()));
        let length = frame.body().len().to_string();
        match got.headers().iter().nth(frame.headers().len()) {
            None => {}
            last => assert_eq!((last, added), (Some(("content-length", &length[..])), 1)),
        }
    }
    assert_eq!(decoder.decode(&mut wire), Ok(None));
    assert!(wire.is_empty());
}

impl Spec {
    fn frame(&self) -> Frame {
        let command = Command::ALL[usize::from(self.command) % Command::ALL.len()];
        let headers: Headers = self.headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        Frame::from_parts(command, headers, self.body.clone().into())
    }
}
