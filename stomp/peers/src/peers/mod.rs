//! What a peer is, and which there are. Each is driven as its documentation says.

use bytes::BytesMut;
use stompwire::proto::Limits;

mod agnostic;
mod iridium;
pub mod others;
mod stomp_parser;
mod stomp_rs;
pub(crate) mod stompwire_;
mod tokio_stomp;

/// Octets, since what some peers show is not yet text.
pub type Header = (Vec<u8>, Vec<u8>);

/// A frame as a peer shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub command: String,
    pub headers: Vec<Header>,
    pub body: Vec<u8>,
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    Client,
    Server,
}

/// What a vector asks of a decoder before the first octet.
#[derive(Clone, Debug)]
pub struct Setup {
    pub role: Role,
    /// `"1.0"` to `"1.2"`, or `"handshake"`.
    pub version: String,
    pub limits: Limits,
    pub unescape_connect: bool,
}

/// A peer's decoder, which is fed pieces of a stream.
pub trait Stream {
    /// Appends the frames that are whole.
    ///
    /// # Errors
    /// What the peer says; nothing is fed after that.
    fn feed(&mut self, octets: &[u8], frames: &mut Vec<Seen>) -> Result<(), String>;
}

/// How much of the headers a peer shows.
#[derive(Clone, Copy, PartialEq)]
pub enum Shows {
    /// All, in order.
    List,
    /// Fields and a map or list of the rest: compared are the names and the first value of each.
    First,
}

/// Work that is measured, all preparation done; says how many frames or octets it made. To be called once; what it
/// still holds is dropped with it, not measured.
pub type Run = Box<dyn FnMut() -> usize>;

/// The octets of a frame, or its refusal; `None` if the peer's types cannot express the frame.
pub type Encoded = Option<Result<Vec<u8>, String>>;

/// A STOMP implementation, and how to drive it.
pub struct Peer {
    pub name: &'static str,
    pub version: &'static str,
    pub licence: &'static str,
    /// Month of that version.
    pub released: &'static str,
    /// Versions of STOMP; vectors of others are not judged.
    pub speaks: &'static [&'static str],
    /// Whether it reads a stream; otherwise whole messages, one frame each.
    pub streams: bool,
    pub shows: Shows,
    /// What it bounds, in words. Only "all" is judged on item 39.
    pub limits: &'static str,
    /// How it is driven, in words.
    pub driven: &'static str,
    /// Headers without which it refuses a frame of that command.
    pub required: fn(&str) -> &'static [&'static str],
    /// Its decoder, if it reads frames in that role.
    pub open: fn(&Setup) -> Option<Box<dyn Stream>>,
    /// The frame on the wire.
    pub encode: fn(&Asked) -> Encoded,
    /// Decodes the frames in `wire`, which comes in reads of so many octets; says how many there were.
    pub decode_run: fn(wire: &[u8], read: usize) -> Option<Run>,
    /// Encodes a SEND so many times; says how many octets that made.
    pub encode_run: fn(count: usize) -> Option<Run>,
}

/// A frame that is to be encoded.
pub struct Asked {
    pub command: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub version: String,
    pub content_length: bool,
    pub escape_connect: bool,
}

/// Ours first, then the peers by name.
#[must_use]
pub fn all() -> Vec<Peer> {
    vec![
        stompwire_::PEER,
        tokio_stomp::ASYNC_STOMP,
        iridium::PEER,
        agnostic::PEER,
        stomp_parser::PEER,
        stomp_rs::PEER,
        tokio_stomp::TOKIO_STOMP,
        tokio_stomp::TOKIO_STOMP_2,
        tokio_stomp::TOKIO_STOMP_RS,
    ]
}

/// The headers of the SEND that is measured: with a body of [`SEND_BODY`] octets 342 octets on the wire.
pub const SEND_HEADERS: [(&str, &str); 5] = [
    ("destination", "/queue/beacons"),
    ("subscription", "0"),
    ("message-id", "T_0@@session-x8Vn2mTqZ0bW1kq@@1"),
    ("content-type", "application/x-ndjson"),
    ("content-length", "197"),
];
pub const SEND_BODY: usize = 197;

/// Feeds a codec of `tokio_util` as `Framed` does: one buffer, decoded until it asks for more.
struct Codec<D, F> {
    codec: D,
    buffer: BytesMut,
    show: F,
}

impl<D, F> Stream for Codec<D, F>
where
    D: tokio_util::codec::Decoder,
    D::Error: std::fmt::Debug,
    F: FnMut(D::Item) -> Option<Seen>,
{
    fn feed(&mut self, octets: &[u8], frames: &mut Vec<Seen>) -> Result<(), String> {
        self.buffer.extend_from_slice(octets);
        loop {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some(item)) => frames.extend((self.show)(item)),
                Ok(None) => return Ok(()),
                Err(error) => return Err(format!("{error:?}")),
            }
        }
    }
}

/// The same for a measurement: `frame` says whether an item is one.
fn decode_run<D>(mut codec: D, frame: fn(&D::Item) -> bool, wire: &[u8], read: usize) -> Run
where
    D: tokio_util::codec::Decoder + 'static,
    D::Error: std::fmt::Debug,
{
    pieces(wire, read, move |buffer| {
        let mut count = 0;
        while let Some(item) = codec.decode(buffer).expect("the frames are well-formed") {
            count += usize::from(frame(std::hint::black_box(&item)));
        }
        count
    })
}

/// Prepares the buffers: the whole wire at once, or an empty buffer that it comes into piece by piece.
fn pieces(wire: &[u8], read: usize, mut drain: impl FnMut(&mut BytesMut) -> usize + 'static) -> Run {
    let mut whole = BytesMut::from(wire);
    if read >= wire.len() {
        return Box::new(move || drain(&mut whole));
    }
    let mut buffer = BytesMut::with_capacity(wire.len());
    Box::new(move || {
        whole
            .chunks(read)
            .map(|chunk| {
                buffer.extend_from_slice(chunk);
                drain(&mut buffer)
            })
            .sum()
    })
}
