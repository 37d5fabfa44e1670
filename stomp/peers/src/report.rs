//! The tables of `BENCHMARKS.md`, each between two markers.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use crate::{
    conformance::{Failure, Judged, count},
    peers::Peer,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../BENCHMARKS.md");

/// Prints the section, or puts it between its markers.
///
/// # Panics
/// If the file or the markers are not there.
pub fn publish(name: &str, section: &str, write: bool) {
    if !write {
        println!("{section}");
        return;
    }
    let text = fs::read_to_string(FILE).expect("BENCHMARKS.md is part of the repository");
    let (start, end) =
        (format!("<!-- {name}: written by stomp/peers -->\n"), format!("<!-- {name}: end -->"));
    let from = text.find(&start).expect("the section's first marker") + start.len();
    let to = text.find(&end).expect("the section's last marker");
    fs::write(FILE, format!("{}\n{section}\n{}", &text[..from], &text[to..])).expect("it was read");
    println!("{name}: written into BENCHMARKS.md");
}

/// Who was judged, what passed, and how the rest failed; then item by item.
#[must_use]
pub fn conformance(peers: &[Peer], judged: &[Judged]) -> String {
    let mut text = String::from(
        "| decoding | reads | vectors passed | items in full | malformed taken | legal refused | other content | only in \
         some chunkings | panics | hangs |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (peer, judged) in peers.iter().zip(judged) {
        let items = judged.items();
        let full = items.values().filter(|(passed, judged)| passed == judged).count();
        let of = |failure| count(&judged.decode, Some(failure));
        _ = writeln!(
            text,
            "| {} {} | {} | {} of {} | {full} of {} | {} | {} | {} | {} | {} | {} |",
            peer.name,
            peer.version,
            reads(peer),
            count(&judged.decode, None),
            judged.decode.len(),
            items.len(),
            of(Failure::Accepted),
            of(Failure::Refused),
            of(Failure::Differs),
            of(Failure::Chunking),
            of(Failure::Panicked),
            of(Failure::Hung),
        );
    }

    let encoding = judged.iter().any(|judged| !judged.encode.is_empty());
    if encoding {
        text += &encoding_table(peers, judged);
    }
    text += "\nDecoding vectors passed of those judged, by item of [`CONFORMANCE.md`](CONFORMANCE.md):\n\n| item |";
    for peer in peers {
        _ = write!(text, " {} |", peer.name);
    }
    _ = write!(text, "\n|---|{}\n", "---|".repeat(peers.len()));
    let items: Vec<_> = judged.iter().map(Judged::items).collect();
    let numbers: BTreeSet<u64> = items.iter().flat_map(|items| items.keys().copied()).collect();
    for number in numbers {
        _ = write!(text, "| {number} |");
        for items in &items {
            _ = match items.get(&number) {
                Some((passed, judged)) => write!(text, " {passed}/{judged} |"),
                None => write!(text, " – |"),
            };
        }
        text.push('\n');
    }

    text += "\n| peer | licence | released | STOMP | limits | driven by |\n|---|---|---|---|---|---|\n";
    for peer in peers {
        _ = writeln!(
            text,
            "| {} {} | {} | {} | {} | {} | {} |",
            peer.name,
            peer.version,
            peer.licence,
            peer.released,
            peer.speaks.join(", "),
            peer.limits,
            peer.driven,
        );
    }
    text
}

/// Whose frames the peer reads.
fn reads(peer: &Peer) -> &'static str {
    use crate::peers::{Role, Setup};
    let setup = Setup {
        role: Role::Server,
        version: "1.2".to_owned(),
        limits: stompwire::proto::Limits::default(),
        unescape_connect: false,
    };
    if (peer.open)(&setup).is_some() { "both sides'" } else { "a server's" }
}

fn encoding_table(peers: &[Peer], judged: &[Judged]) -> String {
    let mut text = String::new();
    text += "\n| encoding | frames passed | malformed or injected octets | other content | panics |\n|---|---|---|---|---|\n";
    for (peer, judged) in peers.iter().zip(judged) {
        let of = |failure| count(&judged.encode, Some(failure));
        _ = writeln!(
            text,
            "| {} | {} of {} | {} | {} | {} |",
            peer.name,
            count(&judged.encode, None),
            judged.encode.len(),
            of(Failure::Accepted),
            of(Failure::Differs) + of(Failure::Refused),
            of(Failure::Panicked),
        );
    }
    text
}
