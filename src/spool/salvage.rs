//! `beacon-edge spool salvage`: what can still be read of a corrupt file goes into a new one.

use std::{path::Path, process::ExitCode};

use bytes::Bytes;
use rusqlite::Connection;
use uuid::Uuid;

use super::{
    SpoolOptions, Synchronous,
    command::{EXIT_LEFT, EXIT_USAGE, Salvage},
    format::{Kind, crc},
    inspect::{connect, user},
    open::Missing,
    shared::Draft,
    store::{Group, Store},
};

/// Rows read and written at once.
const AT_ONCE: usize = 64;

/// A row as it was found.
struct Row {
    number: i64,
    destination: String,
    crc: i64,
    draft: Draft,
}

/// What became of a file.
#[derive(Debug, Default)]
struct Saved {
    batches: u64,
    beacons: u64,
    /// Whose CRC does not match.
    damaged: u64,
    /// Places at which rows could not be read.
    gaps: u64,
}

pub(super) fn run(arguments: &Salvage) -> ExitCode {
    let (from, to) = (&arguments.path, &arguments.new);
    if to.exists() {
        eprintln!("beacon-edge: {} is there already", to.display());
        return ExitCode::from(EXIT_USAGE);
    }
    match salvage(from, to) {
        Ok(Saved { batches, beacons, damaged, gaps }) => {
            println!("{}: {batches} batches, {beacons} beacons saved to {}", from.display(), to.display());
            println!("  {damaged} batches do not match their CRC; at {gaps} places rows could not be read");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("beacon-edge: {}: {reason}", from.display());
            ExitCode::from(EXIT_LEFT)
        }
    }
}

fn salvage(from: &Path, to: &Path) -> Result<Saved, String> {
    match Kind::of(from).map_err(|error| error.to_string())? {
        Kind::Spool | Kind::InLog => {}
        kind => return Err(format!("its first page is not that of a spool of this version ({kind:?})")),
    }
    if let Some(user) = user(from).map_err(|error| error.to_string())? {
        return Err(format!("in use by process {user}"));
    }
    let connection = connect(from).map_err(|error| error.to_string())?;
    let mut saved = Saved::default();
    let mut new = None;
    let mut first = 0;
    loop {
        let (rows, is_whole) = rows_from(&connection, first, AT_ONCE);
        let is_end = is_whole && rows.len() < AT_ONCE;
        first = rows.last().map_or(first, |row| row.number.saturating_add(1));
        save(rows, to, &mut new, &mut saved)?;
        if is_end {
            break;
        }
        if !is_whole {
            saved.gaps += 1;
            let Some(next) = next_readable(&connection, first) else { break };
            first = next;
        }
    }
    let Some(store) = new else { return Err("nothing of it can be read".into()) };
    store.close().map_err(|error| error.to_string())?;
    Ok(saved)
}

/// Writes those whose CRC matches.
fn save(rows: Vec<Row>, to: &Path, new: &mut Option<Store>, saved: &mut Saved) -> Result<(), String> {
    let Some(first) = rows.first() else { return Ok(()) };
    if new.is_none() {
        let options = SpoolOptions {
            path: to.to_owned(),
            destination: first.destination.clone(),
            max_bytes: u64::MAX,
            min_free_bytes: 0,
            synchronous: Synchronous::Normal,
        };
        *new = Some(Store::open(&options, Missing::Make, None).map_err(|error| format!("{error:?}"))?);
    }
    let Some(store) = new else { return Ok(()) };
    let all = rows.len() as u64;
    let matches = |row: &Row| i64::from(crc(&row.draft.body)) == row.crc;
    let drafts: Vec<Draft> = rows.into_iter().filter(matches).map(|row| row.draft).collect();
    store
        .commit(Group { removed: &[], damaged: &[], drafts: &drafts })
        .and_then(|_| if store.has_long_log() { store.shorten_log() } else { Ok(()) })
        .map_err(|error| format!("{}: {error}", to.display()))?;
    saved.damaged += all - drafts.len() as u64;
    saved.batches += drafts.len() as u64;
    saved.beacons += drafts.iter().map(|draft| draft.count).sum::<u64>();
    Ok(())
}

/// Rows from a number on, and whether the reading ended well.
fn rows_from(connection: &Connection, first: i64, most: usize) -> (Vec<Row>, bool) {
    let mut found = Vec::new();
    let is_whole = read(connection, first, most, &mut found).is_ok();
    (found, is_whole)
}

fn read(connection: &Connection, first: i64, most: usize, found: &mut Vec<Row>) -> rusqlite::Result<()> {
    // Not `row > before`: that search begins at the page of the row before, which may be the one that is broken.
    let mut statement = connection.prepare_cached(
        "SELECT row, id, destination, count, crc, body FROM batch WHERE row >= ?1 ORDER BY row",
    )?;
    let mut rows = statement.query([first])?;
    while found.len() < most
        && let Some(row) = rows.next()?
    {
        let id = Uuid::from_slice(row.get_ref(1)?.as_blob()?).unwrap_or_default();
        let body = Bytes::copy_from_slice(row.get_ref(5)?.as_blob()?);
        found.push(Row {
            number: row.get(0)?,
            destination: row.get(2)?,
            crc: row.get(4)?,
            draft: Draft { id, count: row.get::<_, i64>(3)?.unsigned_abs(), body },
        });
    }
    Ok(())
}

/// The number from which rows can be read again, after one from which they cannot: found with growing steps, then by
/// halving the last one.
fn next_readable(connection: &Connection, broken: i64) -> Option<i64> {
    let is_readable = |number| rows_from(connection, number, 1).1;
    let (mut bad, mut step) = (broken, 1_i64);
    let mut good = loop {
        let number = broken.checked_add(step)?;
        if is_readable(number) {
            break number;
        }
        bad = number;
        step = step.checked_mul(2)?;
    };
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if is_readable(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Some(good)
}
