//! The real decoder, fed in chunks, with its results in the reference's form.

use bytes::BytesMut;
use stompwire::{
    Frame,
    proto::{DecodeError, Decoder, Part},
};

use super::{End, Parsed, Rules, variant};

/// All frames of the octets, and how they end. `sizes` says how long the next chunk is.
pub(crate) fn frame_by_frame(
    octets: &[u8],
    rules: &Rules,
    sizes: impl FnMut() -> usize,
) -> (Vec<Parsed>, End) {
    let mut frames = Vec::new();
    let end = feed(octets, rules, sizes, |decoder, buffer| {
        let frame = decoder.decode(buffer)?;
        Ok(frame.map(|frame| frames.push(parsed(&frame))).is_some())
    });
    (frames, end.unwrap_or_else(|error| End::Error(variant(&error))))
}

/// The same in parts, put together again, and the frame that was not whole at the end.
pub(crate) fn part_by_part(
    octets: &[u8],
    rules: &Rules,
    sizes: impl FnMut() -> usize,
) -> ((Vec<Parsed>, End), Option<Parsed>) {
    let mut frames = Vec::new();
    let mut open: Option<Open> = None;
    let end = feed(octets, rules, sizes, |decoder, buffer| {
        let before = without_eols(buffer);
        let Some(part) = decoder.decode_part(buffer)? else { return Ok(false) };
        match part {
            Part::Frame(frame) => {
                assert!(open.is_none() && frame.body().len() <= rules.limits.max_body);
                frames.push(parsed(&frame));
            }
            Part::Head { frame, length } => {
                assert!(open.is_none() && frame.body().is_empty());
                open = Some(Open { frame: parsed(&frame), length, on_wire: before - buffer.len() });
            }
            Part::Body(octets) => {
                assert!(!octets.is_empty());
                let open = open.as_mut().expect("a head was there");
                open.frame.body.extend_from_slice(&octets);
                open.on_wire += octets.len();
            }
            Part::End => {
                let Open { frame, length, .. } = open.take().expect("a head was there");
                assert!(frame.body.len() > rules.limits.max_body);
                assert!(length.is_none_or(|length| length == frame.body.len() as u64));
                frames.push(frame);
            }
        }
        Ok(true)
    });
    let on_wire = open.as_ref().map_or(0, |open| open.on_wire);
    let end = match end {
        // What of an open frame was taken already is not consumed in the reference's sense.
        Ok(End::Left(left)) => End::Left(left + on_wire),
        Ok(end) => end,
        Err(error) => End::Error(variant(&error)),
    };
    ((frames, end), open.map(|open| open.frame))
}

/// A frame whose body is on its way.
struct Open {
    frame: Parsed,
    length: Option<u64>,
    /// Octets of it that were taken.
    on_wire: usize,
}

/// `take` is called until it takes nothing.
fn feed(
    mut octets: &[u8],
    rules: &Rules,
    mut sizes: impl FnMut() -> usize,
    mut take: impl FnMut(&mut Decoder, &mut BytesMut) -> Result<bool, DecodeError>,
) -> Result<End, DecodeError> {
    let mut decoder = decoder(rules);
    let mut buffer = BytesMut::new();
    loop {
        let (chunk, rest) = octets.split_at(octets.len().min(sizes()));
        buffer.extend_from_slice(chunk);
        octets = rest;
        loop {
            match take(&mut decoder, &mut buffer) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    assert_eq!(take(&mut decoder, &mut buffer), Err(error.clone()), "an error is final");
                    return Err(error);
                }
            }
        }
        let held = rules.limits.max_head.saturating_add(rules.limits.max_body);
        assert!(buffer.len() <= held, "{} octets are held", buffer.len());
        if octets.is_empty() {
            return Ok(End::Left(buffer.len()));
        }
    }
}

pub(crate) fn decoder(rules: &Rules) -> Decoder {
    let mut decoder = Decoder::new(rules.limits).with_lenience(rules.lenience);
    decoder.set_unescape_connect(rules.unescape_connect);
    if let Some(version) = rules.version {
        decoder.set_version(version);
    }
    decoder
}

pub(crate) fn parsed(frame: &Frame) -> Parsed {
    let headers = frame.headers().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Parsed { command: frame.command(), headers, body: frame.body().to_vec() }
}

/// How many octets there are behind the end-of-lines at the front. A frame starts with neither CR nor LF, but the body
/// of an open one may: then nobody asks.
fn without_eols(buffer: &[u8]) -> usize {
    buffer.iter().skip_while(|octet| matches!(octet, b'\r' | b'\n')).count()
}
