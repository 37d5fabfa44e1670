//! Medians of alternating rounds, every peer in each.

use std::{fmt::Write as _, fs, hint::black_box, process::Command, time::Duration, time::Instant};

use crate::peers::{Peer, Run};

/// Frames of one measured run, as in `cargo bench -p stompwire`.
pub const FRAMES: usize = 1000;
/// Bodies without content-length, in reads of [`READ`].
pub const BODIES: [(&str, usize); 3] = [("64 KiB", 64 << 10), ("1 MiB", 1 << 20), ("4 MiB", 4 << 20)];
pub const READ: usize = 8 * 1024;
/// A body that would take longer is left out.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A MESSAGE of 342 octets with five headers, so many times.
///
/// # Panics
/// If it has another length.
#[must_use]
pub fn messages(count: usize) -> Vec<u8> {
    let frame = [
        "MESSAGE\nsubscription:0\ndestination:/queue/beacons\nmessage-id:T_0@@session-x8Vn2mTqZ0bW1kq@@1\n",
        "content-type:application/x-ndjson\ncontent-length:194\n\n",
        &"j".repeat(194),
        "\0",
    ]
    .concat();
    assert_eq!(frame.len(), 342);
    frame.repeat(count).into_bytes()
}

/// A MESSAGE with a body of so many octets, whose end a decoder has to look for.
#[must_use]
pub fn long_message(body: usize) -> Vec<u8> {
    ["MESSAGE\nsubscription:0\ndestination:/queue/beacons\nmessage-id:1\n\n", &"j".repeat(body), "\0"]
        .concat()
        .into_bytes()
}

/// Measures everything and writes the section. A round is about `seconds` long.
#[must_use]
pub fn table(peers: &[Peer], rounds: usize, seconds: f64) -> String {
    let wire = messages(FRAMES);
    let slot = Duration::from_secs_f64(seconds / (2 * peers.len()) as f64);
    let decode = |peer: &Peer| (peer.decode_run)(&wire, usize::MAX);
    let encode = |peer: &Peer| (peer.encode_run)(FRAMES);
    let mut decoded = vec![Vec::new(); peers.len()];
    let mut encoded = vec![Vec::new(); peers.len()];
    for round in 0..rounds {
        for at in 0..peers.len() {
            let at = (at + round) % peers.len(); // no one always follows the same
            decoded[at].extend(rate(slot, || decode(&peers[at])));
            encoded[at].extend(rate(slot, || encode(&peers[at])));
        }
    }
    let mut linear = vec![[None; BODIES.len()]; peers.len()];
    for (row, peer) in linear.iter_mut().zip(peers) {
        for (cell, (_, body)) in row.iter_mut().zip(BODIES) {
            *cell = nanoseconds_an_octet(peer, body);
            if cell.is_none() {
                break;
            }
        }
    }

    let mut text = String::new();
    _ = writeln!(text, "{}\n", machine());
    _ = writeln!(
        text,
        "Frames of 342 octets, five headers. Medians of {rounds} alternating rounds; the ratio is the median of the \
         rounds' ratios of stompwire to that peer.\n"
    );
    text += "| | decode, M frames/s | MB/s | stompwire is faster | encode, M frames/s | MB/s | octets a frame | \
             stompwire is faster |\n|---|---|---|---|---|---|---|---|\n";
    for (at, peer) in peers.iter().enumerate() {
        let octets = encode(peer).map_or(0.0, |mut run| run() as f64 / FRAMES as f64);
        let (decode, encode) = (median(&decoded[at]), median(&encoded[at]));
        let megabytes = |rate: f64, octets: f64| rate * octets / 1e6;
        _ = writeln!(
            text,
            "| {} | {:.2} | {:.0} | {} | {:.2} | {:.0} | {octets:.0} | {} |",
            peer.name,
            decode / 1e6,
            megabytes(decode, 342.0),
            ratio(at, &decoded),
            encode / 1e6,
            megabytes(encode, octets),
            ratio(at, &encoded),
        );
    }
    let best = |rates: &[Vec<f64>]| -> Option<String> {
        let at = (1..peers.len()).max_by(|a, b| median(&rates[*a]).total_cmp(&median(&rates[*b])))?;
        Some(format!("{} times {}", ratio(at, rates).trim_end_matches(" ×"), peers[at].name))
    };
    _ = writeln!(
        text,
        "\nAgainst the fastest peer: decoding {}, encoding {}.\n",
        best(&decoded).unwrap_or_default(),
        best(&encoded).unwrap_or_default(),
    );

    text += "Nanoseconds an octet for one MESSAGE without content-length that comes in reads of 8 KiB:\n\n| body |";
    for peer in peers {
        _ = write!(text, " {} |", peer.name);
    }
    _ = writeln!(text, "\n|---|{}", "---|".repeat(peers.len()));
    for (size, (name, _)) in BODIES.iter().enumerate() {
        _ = write!(text, "| {name} |");
        for row in &linear {
            _ = match row[size] {
                Some(time) => write!(text, " {time:.2} |"),
                None => write!(text, " – |"),
            };
        }
        text.push('\n');
    }
    _ = writeln!(text, "\n–: takes whole messages only, or would take more than {} s.", PATIENCE.as_secs());
    text
}

/// Frames a second in the median of the runs of about that time (one that was interrupted does not count); the
/// preparation of each is not measured.
fn rate(slot: Duration, prepare: impl Fn() -> Option<Run>) -> Option<f64> {
    let mut rates = Vec::new();
    let start = Instant::now();
    while start.elapsed() < slot {
        let mut run = prepare()?;
        let before = Instant::now();
        black_box(run());
        rates.push(FRAMES as f64 / before.elapsed().as_secs_f64());
    }
    Some(median(&rates))
}

/// The least of three; `None` if a body a sixteenth as long shows that it would take too long.
fn nanoseconds_an_octet(peer: &Peer, body: usize) -> Option<f64> {
    let time = |body: usize| -> Option<Duration> {
        let mut run = (peer.decode_run)(&long_message(body), READ)?;
        let start = Instant::now();
        assert_eq!(run(), 1, "{}", peer.name);
        Some(start.elapsed())
    };
    // Quadratic: sixteen times the length takes 256 times as long.
    if time(body / 16)? * 256 > PATIENCE {
        return None;
    }
    let times: Option<Vec<Duration>> = (0..3).map(|_| time(body)).collect();
    times?.into_iter().min().map(|time| time.as_nanos() as f64 / body as f64)
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Of ours, the first, to that one, round by round.
fn ratio(at: usize, rates: &[Vec<f64>]) -> String {
    if at == 0 || rates[at].is_empty() {
        return "–".to_owned();
    }
    let ratios: Vec<f64> = rates[0].iter().zip(&rates[at]).map(|(ours, theirs)| ours / theirs).collect();
    format!("{:.1} ×", median(&ratios))
}

/// The processor, how many of it, and the compiler.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kind = if info.contains("hypervisor") { "virtual " } else { "" };
    let rustc = Command::new("rustc").arg("--version").output().ok();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "Machine: {cores} {kind}cores of {}; {}; profile `release`.",
        model.map_or("an unknown processor", |(_, model)| model),
        rustc.unwrap_or_default(),
    )
}
