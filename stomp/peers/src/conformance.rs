//! Replays the vectors against each peer: whole, octet by octet, and split at every offset.
//!
//! A peer is judged on the vectors of the versions it speaks and of the frames it reads. One that cannot be told a
//! version is judged as of 1.2, and on the handshake's frames. Typed peers refuse a frame without the headers that
//! the specification requires of it; those are put into the vector first, see [`complete`].

use std::{
    collections::BTreeMap,
    panic::{self, AssertUnwindSafe},
    sync::mpsc,
    thread,
    time::Duration,
};

use stompwire::proto::Limits;

use crate::{
    peers::{Asked, Header, Peer, Role, Seen, Setup, Shows, Stream, stompwire_::Ours},
    vectors::{DecodeVector, EncodeVector, Vectors},
};

/// A vector that takes longer, in all its chunkings, hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// More frames than any vector has.
const MANY_FRAMES: usize = 10_000;

/// What went wrong, the worst first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Failure {
    Panicked,
    Hung,
    /// What must be an error was none.
    Accepted,
    /// What is legal was an error.
    Refused,
    /// Other frames, headers or bodies came out.
    Differs,
    /// Right when fed whole, wrong in another chunking.
    Chunking,
}

/// What became of a vector that was judged.
pub struct Verdict {
    pub id: String,
    pub item: u64,
    pub failure: Option<Failure>,
    /// What came out, for those who look into a failure.
    pub detail: String,
}

/// A peer's verdicts.
pub struct Judged {
    pub decode: Vec<Verdict>,
    pub encode: Vec<Verdict>,
}

impl Judged {
    #[must_use]
    pub fn items(&self) -> BTreeMap<u64, (usize, usize)> {
        let mut items = BTreeMap::new();
        for verdict in &self.decode {
            let (passed, judged) = items.entry(verdict.item).or_insert((0, 0));
            *passed += usize::from(verdict.failure.is_none());
            *judged += 1;
        }
        items
    }
}

#[must_use]
pub fn count(verdicts: &[Verdict], failure: Option<Failure>) -> usize {
    verdicts.iter().filter(|verdict| verdict.failure == failure).count()
}

/// Judges a peer on every vector that is for it. Silences the panic hook meanwhile.
#[must_use]
pub fn judge(peer: &'static Peer, vectors: &Vectors) -> Judged {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let decode = vectors.decode.iter().filter_map(|vector| {
        let versions = versions(peer, &vector.versions, is_handshake(&vector.input));
        let cases: Vec<Case> =
            versions.iter().filter_map(|version| Case::new(peer, vector, version)).collect();
        if cases.is_empty() {
            return None;
        }
        let (failure, detail) = guarded(move || {
            let mut results = cases.iter().filter_map(|case| case.failure(peer));
            results.next().map_or((None, String::new()), |(failure, detail)| (Some(failure), detail))
        });
        Some(Verdict { id: vector.id.clone(), item: vector.item, failure, detail })
    });
    let decode = decode.collect();
    let encode = vectors.encode.iter().filter_map(|vector| encode(peer, vector)).collect();
    panic::set_hook(hook);
    Judged { decode, encode }
}

fn is_handshake(input: &[u8]) -> bool {
    let start = input.iter().position(|octet| !b"\r\n".contains(octet)).unwrap_or(0);
    ["CONNECT", "STOMP"].iter().any(|word| input[start..].starts_with(word.as_bytes()))
}

/// Those of a vector's versions that the peer is judged on.
fn versions(peer: &Peer, all: &[String], handshake: bool) -> Vec<String> {
    if peer.speaks.len() > 1 {
        return all.to_vec();
    }
    let here = |version: &str| all.iter().any(|other| other == version).then(|| version.to_owned());
    let version = here(peer.speaks[0]).or_else(|| handshake.then(|| here("handshake")).flatten());
    version.into_iter().collect()
}

/// A hang is noticed; its thread is left behind.
fn guarded(work: impl FnOnce() -> (Option<Failure>, String) + Send + 'static) -> (Option<Failure>, String) {
    let (sender, receiver) = mpsc::channel();
    let work = move || drop(sender.send(work()));
    thread::Builder::new().name("vector".to_owned()).spawn(work).expect("a thread can be had");
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|error| (Some(Failure::Hung), error.to_string()))
}

/// A vector for one peer and one version.
struct Case {
    setup: Setup,
    input: Vec<u8>,
    frames: Vec<Seen>,
    error: bool,
}

impl Case {
    fn new(peer: &Peer, vector: &DecodeVector, version: &str) -> Option<Self> {
        let ours = peer.limits == "all";
        if !ours && (vector.has_limits || vector.item == 39 || vector.unescape_connect) {
            return None;
        }
        let one = vector.frames.len() + usize::from(vector.error.is_some()) == 1;
        if !peer.streams && (!one || vector.left > 0 || vector.item == 22) {
            return None; // what is between frames is its caller's
        }
        let setup = Setup {
            role: vector.role,
            version: version.to_owned(),
            limits: vector.limits,
            unescape_connect: vector.unescape_connect,
        };
        (peer.open)(&setup)?;
        let error = vector.error.is_some();
        let (input, frames) =
            complete(peer, &setup, vector).unwrap_or_else(|| (vector.input.clone(), vector.frames.clone()));
        Some(Self { setup, input, frames, error })
    }

    /// What goes wrong first, whole fed first.
    fn failure(&self, peer: &Peer) -> Option<(Failure, String)> {
        let whole = self.check(peer, &[&self.input]);
        if whole.is_some() || !peer.streams {
            return whole;
        }
        let by_octet: Vec<&[u8]> = self.input.chunks(1).collect();
        let splits = (1..self.input.len()).map(|at| vec![&self.input[..at], &self.input[at..]]);
        std::iter::once(by_octet).chain(splits).find_map(|chunks| {
            let (failure, detail) = self.check(peer, &chunks)?;
            let worse = failure <= Failure::Hung;
            Some((
                if worse { failure } else { Failure::Chunking },
                format!("{} chunks: {detail}", chunks.len()),
            ))
        })
    }

    fn check(&self, peer: &Peer, chunks: &[&[u8]]) -> Option<(Failure, String)> {
        let mut frames = Vec::new();
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            let mut stream = (peer.open)(&self.setup).expect("it was opened before");
            for chunk in chunks {
                stream.feed(chunk, &mut frames)?;
                if frames.len() > MANY_FRAMES {
                    return Ok(());
                }
            }
            if self.error && peer.streams {
                // Late is not wrong: some see the fault when the frame is whole.
                stream.feed(b"\n\n\0", &mut frames)?;
            }
            Ok::<_, String>(())
        }));
        let same = frames.len() == self.frames.len()
            && frames.iter().zip(&self.frames).all(|(seen, expected)| is_same(peer, seen, expected));
        let failure = match result {
            Err(_) => Failure::Panicked,
            Ok(_) if frames.len() > MANY_FRAMES => Failure::Hung,
            Ok(_) if self.error && frames.len() > self.frames.len() => Failure::Accepted,
            Ok(Ok(())) if self.error => Failure::Accepted,
            Ok(Err(ref error)) if !self.error => return Some((Failure::Refused, error.clone())),
            Ok(_) if same => return None,
            Ok(_) => Failure::Differs,
        };
        Some((failure, format!("{frames:?}")))
    }
}

fn is_same(peer: &Peer, seen: &Seen, expected: &Seen) -> bool {
    if seen.command != expected.command && !(peer.shows == Shows::First && expected.command == "STOMP") {
        return false;
    }
    seen.body == expected.body && same_headers(peer, &seen.headers, &expected.headers)
}

fn same_headers(peer: &Peer, seen: &[Header], expected: &[Header]) -> bool {
    if peer.shows == Shows::List {
        return seen == expected;
    }
    let first = |list: &[Header], name: &[u8]| -> Option<Vec<u8>> {
        list.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    };
    let all_there = expected.iter().all(|(name, _)| {
        let (seen, expected) = (first(seen, name), first(expected, name));
        // A field of the type u32 has no leading zeros.
        let number = |value: &Option<Vec<u8>>| -> Option<u64> {
            std::str::from_utf8(value.as_deref()?).ok()?.parse().ok()
        };
        seen == expected
            || (name == b"content-length" && seen.is_some() && number(&seen) == number(&expected))
    });
    // Fields that are there when the header is not, with its default value.
    let default = |(name, value): &Header| {
        [(&b"heart-beat"[..], &b"0,0"[..]), (b"ack", b"auto")].contains(&(name, value))
    };
    all_there && seen.iter().all(|header| first(expected, &header.0).is_some() || default(header))
}

/// The vector with the headers that the peer requires in front of its own, and the frames that then come of it. `None`
/// if nothing is missing, or if with them it would no longer show the same (judged by stompwire).
fn complete(peer: &Peer, setup: &Setup, vector: &DecodeVector) -> Option<(Vec<u8>, Vec<Seen>)> {
    let mut input = Vec::new();
    let mut added = Vec::new();
    let mut rest = &vector.input[..];
    while !rest.is_empty() {
        let start = rest.iter().position(|octet| !b"\r\n".contains(octet)).unwrap_or(rest.len());
        let Some(line) = rest[start..].iter().position(|&octet| octet == b'\n').map(|at| start + at + 1)
        else {
            break;
        };
        let command = rest[start..line].trim_ascii_end();
        let eol: &[u8] = if rest[start..line].ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
        let end = frame_end(rest, line);
        let head = &rest[line..end];
        input.extend_from_slice(&rest[..line]);
        let missing =
            (peer.required)(std::str::from_utf8(command).unwrap_or_default()).iter().filter(|name| {
                let there = |line: &[u8]| {
                    line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
                };
                !head
                    .split(|&octet| octet == b'\n')
                    .take_while(|line| !line.trim_ascii().is_empty())
                    .any(there)
            });
        let missing: Vec<Header> = missing.map(|name| ((*name).into(), value(name).into())).collect();
        for (name, value) in &missing {
            input.extend_from_slice(&[name, &b":"[..], value, eol].concat());
        }
        input.extend_from_slice(head);
        added.push(missing);
        rest = &rest[end..];
    }
    input.extend_from_slice(rest);
    if added.iter().all(Vec::is_empty) {
        return None;
    }

    let mut frames = Vec::new();
    let setup = Setup { limits: Limits::default(), ..setup.clone() };
    let error = Ours::new(&setup).feed(&input, &mut frames).err();
    let expected = vector.frames.iter().zip(&added).map(|(frame, added)| {
        let headers = added.iter().chain(&frame.headers).cloned().collect();
        Seen { headers, ..frame.clone() }
    });
    let same = error == vector.error && added.len() >= frames.len() && expected.eq(frames.iter().cloned());
    (same && frames.len() == vector.frames.len()).then_some((input, frames))
}

/// Behind the NUL that ends the frame, whose head's second line starts there.
fn frame_end(wire: &[u8], line: usize) -> usize {
    let mut at = line;
    let mut length = None;
    for line in wire[line..].split_inclusive(|&octet| octet == b'\n') {
        at += line.len();
        let text = std::str::from_utf8(line).unwrap_or_default().trim();
        if text.is_empty() {
            break;
        }
        let value = text.strip_prefix("content-length:");
        length = length.or_else(|| value.and_then(|value| value.parse().ok()));
    }
    let nul = wire[line..].iter().position(|&octet| octet == 0).map_or(wire.len(), |nul| line + nul + 1);
    length
        .and_then(|length| at.checked_add(length)?.checked_add(1))
        .filter(|&end| end <= wire.len())
        .unwrap_or(nul)
}

/// Of a header that a vector lacks.
fn value(name: &str) -> &'static str {
    if name.ends_with("version") { "1.2" } else { "x" }
}

/// The octets are read back by stompwire and compared with what the vector's own octets say.
fn encode(peer: &Peer, vector: &EncodeVector) -> Option<Verdict> {
    let ours = peer.limits == "all";
    if !ours && (vector.asked.escape_connect || !vector.asked.content_length) {
        return None;
    }
    let mut failure = None;
    let mut detail = String::new();
    let versions = versions(peer, &vector.versions, true);
    for version in &versions {
        let asked = Asked {
            command: vector.asked.command.clone(),
            headers: vector.asked.headers.clone(),
            body: vector.asked.body.clone(),
            version: version.clone(),
            content_length: vector.asked.content_length,
            escape_connect: vector.asked.escape_connect,
        };
        let result = panic::catch_unwind(AssertUnwindSafe(|| (peer.encode)(&asked)));
        let found = match (result, &vector.out) {
            (Err(_), _) => Some(Failure::Panicked),
            (Ok(None), _) => return None,
            (Ok(Some(Err(_))), None) => None,
            (Ok(Some(Err(error))), Some(_)) => {
                detail = error;
                Some(Failure::Refused)
            }
            (Ok(Some(Ok(wire))), None) => {
                detail = wire.escape_ascii().to_string();
                let harmless =
                    read(&asked, &wire).is_some_and(|frame| has_as_many_headers(peer, &asked, &frame));
                Some(if harmless { Failure::Differs } else { Failure::Accepted })
            }
            (Ok(Some(Ok(wire))), Some(out)) => {
                detail = wire.escape_ascii().to_string();
                let same =
                    if ours { wire == *out } else { reads_the_same(peer, vector.item, &asked, &wire, out) };
                (!same).then_some(Failure::Differs)
            }
        };
        failure = failure.or(found);
    }
    (!versions.is_empty()).then(|| Verdict { id: vector.id.clone(), item: vector.item, failure, detail })
}

/// Order and added required headers do not matter; content-length does where the vector is about it.
fn reads_the_same(peer: &Peer, item: u64, asked: &Asked, wire: &[u8], out: &[u8]) -> bool {
    let (Some(mut wire), Some(mut out)) = (read(asked, wire), read(asked, out)) else { return false };
    let required = (peer.required)(&asked.command);
    let expected = out.headers.clone();
    wire.headers.retain(|(name, _)| {
        let there = expected.iter().any(|(other, _)| other == name);
        there || !required.iter().any(|required| required.as_bytes() == name)
    });
    if item != 19 {
        for frame in [&mut wire, &mut out] {
            frame.headers.retain(|(name, _)| name != b"content-length");
        }
    }
    if peer.shows == Shows::First {
        wire.headers.sort();
        out.headers.sort();
        let default = (b"heart-beat".to_vec(), b"0,0".to_vec());
        wire.headers.retain(|header| *header != default);
    }
    wire == out
}

/// What stompwire reads in these octets, if it is one frame.
fn read(asked: &Asked, wire: &[u8]) -> Option<Seen> {
    let by_server = ["CONNECTED", "MESSAGE", "RECEIPT", "ERROR"].contains(&asked.command.as_str());
    let setup = Setup {
        role: if by_server { Role::Client } else { Role::Server },
        version: asked.version.clone(),
        limits: Limits::default(),
        unescape_connect: false,
    };
    let mut frames = Vec::new();
    Ours::new(&setup).feed(wire, &mut frames).ok()?;
    (frames.len() == 1).then(|| frames.remove(0))
}

/// Wrongly escaped it may be, but no line was injected.
fn has_as_many_headers(peer: &Peer, asked: &Asked, frame: &Seen) -> bool {
    let required = (peer.required)(&asked.command).iter();
    let added = required.filter(|name| !asked.headers.iter().any(|(other, _)| other == **name)).count();
    let own = |name: &[u8]| name == b"heart-beat" || name == b"content-length";
    frame.headers.iter().filter(|(name, _)| !own(name)).count() <= asked.headers.len() + added
}
