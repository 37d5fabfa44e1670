//! `beacon-edge spool replay`: a file that was left over goes to the brokers, batch by batch, each deleted after its
//! RECEIPT.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use stompwire::{
    Headers,
    publisher::{Message, Outcome, Publisher, PublisherOptions},
};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    time::{interval, sleep_until, timeout},
};

use super::{
    Row, Spool, SpoolOptions, State, Synchronous,
    command::{EXIT_LEFT, EXIT_USAGE, Replay},
    inspect::{Octets, look},
    open::Missing,
};
use crate::{
    batch::Batch,
    brokers::publisher_options,
    config::{Broker, Config},
};

/// Batches read at once.
const AT_ONCE: usize = 64;
const OCTETS_AT_ONCE: usize = 4 << 20;
/// How much longer than the receipt timeout the brokers may confirm nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// For receipts that are under way when it is interrupted.
const LAST_RECEIPTS: Duration = Duration::from_secs(2);
/// For closing the file.
const CLOSE: Duration = Duration::from_secs(10);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// A file, and the destination it goes to.
struct Target {
    path: PathBuf,
    name: String,
}

/// What became of it.
#[derive(Debug, Default)]
struct Sent {
    batches: u64,
    beacons: u64,
    /// Why it ended early.
    stopped: Option<String>,
    /// Batches that cannot be sent, with the last reason.
    refused: u64,
    refusal: String,
}

pub(super) fn run(arguments: &Replay, config: &Config) -> ExitCode {
    let targets = match targets(arguments, config) {
        Ok(targets) => targets,
        Err(what) => {
            eprintln!("beacon-edge: {what}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if targets.is_empty() {
        println!("no files in {}", config.spool.dir);
    }
    let mut is_all_gone = true;
    for target in &targets {
        let gone = if arguments.dry_run { announce(target, config) } else { replay(target, config) };
        is_all_gone &= gone.unwrap_or_else(|what| {
            eprintln!("beacon-edge: {}: {what}", target.path.display());
            false
        });
    }
    if is_all_gone { ExitCode::SUCCESS } else { ExitCode::from(EXIT_LEFT) }
}

fn targets(arguments: &Replay, config: &Config) -> Result<Vec<Target>, String> {
    let is_known = |name: &str| config.destinations.contains_key(name);
    if let Some(name) = arguments.destination.as_deref().filter(|name| !is_known(name)) {
        return Err(format!("the configuration has no destination `{name}`"));
    }
    let named = |name: &str| Path::new(&config.spool.dir).join(format!("{name}.spool"));
    let targets = match (&arguments.path, &arguments.destination) {
        (Some(path), Some(name)) => vec![Target { path: path.clone(), name: name.clone() }],
        (Some(path), None) => {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let name = file.split(".spool").next().unwrap_or_default();
            if !is_known(name) {
                return Err(format!(
                    "the configuration has no destination `{name}`; say which one with --destination"
                ));
            }
            vec![Target { path: path.clone(), name: name.to_owned() }]
        }
        (None, Some(name)) => vec![Target { path: named(name), name: name.clone() }],
        (None, None) => {
            let all = config.destinations.keys().map(|name| Target { path: named(name), name: name.clone() });
            all.filter(|target| target.path.exists()).collect()
        }
    };
    let embedded =
        targets.iter().find(|target| config.destinations[&target.name].brokers.contains(&Broker::Embedded));
    match embedded {
        Some(target) => {
            Err(format!("destinations.{}.brokers: there is no embedded broker outside the edge", target.name))
        }
        None => Ok(targets),
    }
}

/// Says what would be sent.
fn announce(target: &Target, config: &Config) -> Result<bool, String> {
    let contents = look(&target.path, true)?;
    let to = &config.destinations[&target.name].destination;
    if contents.destinations.is_empty() {
        println!("{}: no batches", target.path.display());
    }
    for (from, tally) in &contents.destinations {
        println!(
            "{}: {} batches, {} beacons, {}, written for {from}, would go to {to} of destination `{}`",
            target.path.display(),
            tally.batches,
            tally.beacons,
            Octets(tally.octets),
            target.name
        );
    }
    Ok(contents.is_whole())
}

/// True if everything is gone from the file.
fn replay(target: &Target, config: &Config) -> Result<bool, String> {
    let destination = &config.destinations[&target.name];
    let publishing = publisher_options(&target.name, destination, None).map_err(|error| error.to_string())?;
    let patience = destination.receipt_timeout + PATIENCE;
    let options = SpoolOptions {
        path: target.path.clone(),
        destination: destination.destination.clone(),
        max_bytes: u64::MAX,
        min_free_bytes: 0,
        synchronous: Synchronous::Normal,
    };
    let (spool, thread) = Spool::start_with(options, Missing::Fail).map_err(|error| error.to_string())?;
    let state = spool.state().borrow().clone();
    if let State::Failing(reason) = state {
        return Err(reason.to_string());
    }
    let found = spool.level();
    println!(
        "{}: {} batches, {} beacons to {} of destination `{}`",
        target.path.display(),
        found.batches,
        found.beacons,
        destination.destination,
        target.name
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let sent = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(publish(&spool, publishing, patience)));
    thread.join(Instant::now() + CLOSE);
    let (sent, left, damaged) = (sent?, spool.level(), spool.damage().batches);
    println!(
        "{}: {} batches, {} beacons confirmed; {} batches, {} beacons left",
        target.path.display(),
        sent.batches,
        sent.beacons,
        left.batches,
        left.beacons
    );
    if damaged > 0 {
        println!(
            "  {damaged} batches do not match their CRC: they are in the table `damaged`, see docs/spool.md"
        );
    }
    if sent.refused > 0 {
        println!("  {} batches cannot be sent: {}", sent.refused, sent.refusal);
    }
    if let Some(reason) = sent.stopped {
        println!("  stopped: {reason}");
    }
    Ok(left.batches == 0 && damaged == 0)
}

async fn publish(spool: &Spool, options: PublisherOptions, patience: Duration) -> Result<Sent, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(told)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(told)?;
    let (publisher, mut outcomes) =
        Publisher::<(Row, u64)>::start(options).map_err(|error| error.to_string())?;
    let all = spool.level().batches;
    let mut sent = Sent::default();
    let mut queue = VecDeque::new();
    let (mut cursor, mut is_read, mut open) = (None, false, 0_u64);
    let mut publishing = None;
    let mut moved_at = Instant::now();
    let mut progress = interval(PROGRESS);
    progress.reset();
    loop {
        if queue.is_empty() && !is_read {
            let read = spool.read(cursor, AT_ONCE, OCTETS_AT_ONCE).await;
            match read {
                Ok(read) => {
                    is_read = read.is_empty();
                    cursor = read.last().map(|(row, _)| *row).or(cursor);
                    queue.extend(read);
                }
                Err(_) => {
                    let state = spool.state().borrow().clone();
                    sent.stopped = Some(match state {
                        State::Failing(reason) => format!("the file cannot be read: {reason}"),
                        _ => "the file cannot be read".to_owned(),
                    });
                    break;
                }
            }
        }
        if publishing.is_none()
            && let Some((row, batch)) = queue.pop_front()
        {
            publishing = Some(Box::pin(publisher.publish(message(row, batch))));
        }
        if publishing.is_none() && open == 0 {
            break;
        }
        select! {
            _ = interrupt.recv() => {
                sent.stopped = Some("interrupted".to_owned());
                break;
            }
            _ = terminate.recv() => {
                sent.stopped = Some("interrupted".to_owned());
                break;
            }
            Some(outcome) = outcomes.recv() => {
                open -= 1;
                moved_at = Instant::now();
                sent.note(outcome, spool);
            }
            taken = async { publishing.as_mut().expect("it is looked at before").await }, if publishing.is_some() => {
                publishing = None;
                open += u64::from(taken.is_ok());
            }
            _ = progress.tick() => eprintln!("{} of {all} batches confirmed", sent.batches),
            () = sleep_until((moved_at + patience).into()) => {
                sent.stopped = Some(format!("the brokers have confirmed nothing for {patience:?}"));
                break;
            }
        }
    }
    drop(publishing);
    let last = async {
        while let Some(outcome) = outcomes.recv().await {
            sent.note(outcome, spool);
        }
    };
    // The lanes tell what they hold when the time is up; nothing of that is gone from the file.
    let both = async { tokio::join!(publisher.close(LAST_RECEIPTS), last) };
    if timeout(LAST_RECEIPTS * 2, both).await.is_err() {
        tracing::debug!("the publisher did not close in time");
    }
    Ok(sent)
}

fn message(row: Row, batch: Batch) -> Message<(Row, u64)> {
    let mut headers = Headers::new();
    headers.push("beacon-count", &batch.count.to_string());
    Message { id: batch.id.to_string(), headers, body: batch.body, token: (row, batch.count) }
}

impl Sent {
    fn note(&mut self, outcome: Outcome<(Row, u64)>, spool: &Spool) {
        match outcome {
            Outcome::Confirmed { token: (row, count), .. } => {
                self.batches += 1;
                self.beacons += count;
                spool.remove(row);
            }
            Outcome::GivenUp { error, .. } => {
                self.refused += 1;
                self.refusal = error;
            }
            Outcome::Unencodable { error, .. } => {
                self.refused += 1;
                self.refusal = error.to_string();
            }
            // Still in the file.
            _ => {}
        }
    }
}
