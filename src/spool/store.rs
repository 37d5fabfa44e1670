//! The file while it is open: commits, reads, space given back. Blocking; no thread, no clock of its own.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rusqlite::{Connection, Statement, TransactionBehavior, params};
use uuid::Uuid;

use super::{
    Level, Row, SpoolOptions, Synchronous,
    format::{PAGE, crc},
    open::{self, Missing, Unusable},
    shared::{Draft, Range},
};
use crate::batch::Batch;

/// A smaller file than this is not worth shrinking.
const WORTH_SHRINKING: u64 = 16 << 20;
/// A file with more than this in it takes too long to shrink.
const QUICK_TO_SHRINK: u64 = 4 << 20;
/// A write-ahead log of this length goes into the file.
const LONG_LOG: u64 = 8 << 20;

/// Deletes the rows from one to another, and tells what they held.
const DELETE: &str = "DELETE FROM batch WHERE row BETWEEN ?1 AND ?2 RETURNING count, octet_length(body)";

/// An open spool.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    destination: String,
    max_pages: u64,
    /// What appends are promised.
    synchronous: Synchronous,
    /// What the connection does now.
    in_force: Synchronous,
    owner: Uuid,
    /// Whether nobody else had the file since this process had it.
    is_ours: bool,
    totals: Totals,
    used_pages: u64,
    free_pages: u64,
    /// Most octets that can be in the write-ahead log.
    logged: u64,
}

/// What the table `total` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) level: Level,
    /// The greatest row that was ever given.
    pub(super) row: i64,
}

/// What is to become of a transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group<'a> {
    /// Rows to delete.
    pub(super) removed: &'a [Row],
    /// Rows to set aside.
    pub(super) damaged: &'a [Row],
    /// Batches to append.
    pub(super) drafts: &'a [Draft],
}

/// What a transaction did.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// For each draft its row, or that there was no room.
    pub(super) rows: Vec<Option<Row>>,
    /// What was in the rows that were set aside.
    pub(super) damaged: Level,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) batches: Vec<(Row, Batch)>,
    /// Rows whose CRC does not match.
    pub(super) damaged: Vec<Row>,
}

/// What this process knows of a file that it had open before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) owner: Uuid,
    /// As of the last commit that was told.
    pub(super) totals: Totals,
}

impl Store {
    /// Opens the file. With `before`, and if nobody else had it meanwhile, rows that were written but not told are
    /// deleted: whoever asked for them was refused.
    pub(super) fn open(
        options: &SpoolOptions,
        missing: Missing,
        before: Option<Before>,
    ) -> Result<Self, Unusable> {
        let mut store = Self {
            connection: open::open(&options.path, options.synchronous, missing)?,
            identity: identity(&options.path)?,
            path: options.path.clone(),
            destination: options.destination.clone(),
            max_pages: options.max_bytes / PAGE,
            synchronous: options.synchronous,
            in_force: options.synchronous,
            owner: Uuid::now_v7(),
            is_ours: false,
            totals: Totals { level: Level::default(), row: 0 },
            used_pages: 0,
            free_pages: 0,
            logged: 0,
        };
        store.take_over(before).inspect_err(|_| open::keep_log(&store.connection))?;
        Ok(store)
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether the file is as this process left it.
    pub(super) fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// For the next [`Store::open`] of this process.
    pub(super) fn before(&self) -> Before {
        Before { owner: self.owner, totals: self.totals }
    }

    /// Octets of pages that hold something.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used_pages * PAGE
    }

    /// Deletes, sets aside and appends in one transaction, durable if something is appended. An error leaves the file as
    /// it was, as far as can be known; the store is then to be opened anew.
    pub(super) fn commit(&mut self, group: Group<'_>) -> rusqlite::Result<Committed> {
        // A deletion that a power cut undoes costs a duplicate, not worth a wait for the disk.
        self.set_synchronous(if group.drafts.is_empty() { Synchronous::Normal } else { self.synchronous })?;
        let (mut totals, mut committed) = (self.totals, Committed::default());
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut delete = transaction.prepare_cached(DELETE)?;
            let mut copy = transaction
                .prepare_cached("INSERT OR REPLACE INTO damaged SELECT * FROM batch WHERE row = ?1")?;
            for row in group.damaged {
                copy.execute([row.0])?;
                let gone = take_rows(&mut delete, (*row, *row), &mut totals.level)?;
                committed.damaged.batches += gone.batches;
                committed.damaged.beacons += gone.beacons;
            }
            for row in group.removed {
                take_rows(&mut delete, (*row, *row), &mut totals.level)?;
            }
            let mut insert = transaction.prepare_cached(
                "INSERT INTO batch (row, id, destination, count, crc, made, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            let made = now_ms();
            for draft in group.drafts {
                if used_and_free(&transaction)?.0 + pages_for(draft.body.len()) > self.max_pages {
                    committed.rows.push(None);
                    continue;
                }
                totals.row += 1;
                insert.execute(params![
                    totals.row,
                    draft.id.as_bytes(),
                    self.destination,
                    to_sql(draft.count),
                    crc(&draft.body),
                    made,
                    &draft.body[..],
                ])?;
                totals.level.batches += 1;
                totals.level.beacons += draft.count;
                totals.level.octets += draft.body.len() as u64;
                committed.rows.push(Some(Row(totals.row)));
            }
            write_totals(&transaction, totals, self.owner)?;
        }
        transaction.commit()?;
        self.totals = totals;
        let bodies: u64 = group.drafts.iter().map(|draft| draft.body.len() as u64).sum();
        let pages = 4 + 2 * (group.drafts.len() + group.damaged.len() + group.removed.len()) as u64;
        self.logged += bodies + pages * PAGE;
        (self.used_pages, self.free_pages) = used_and_free(&self.connection)?;
        Ok(committed)
    }

    /// Rows in order, without those to `skip`.
    pub(super) fn read(&self, range: Range, skip: impl Fn(Row) -> bool) -> rusqlite::Result<Found> {
        let mut found = Found::default();
        let mut octets = 0;
        let mut statement = self
            .connection
            .prepare_cached("SELECT row, id, count, crc, body FROM batch WHERE row > ?1 ORDER BY row")?;
        let mut rows = statement.query([range.after.map_or(i64::MIN, |row| row.0)])?;
        while found.batches.len() < range.max_batches
            && let Some(stored) = rows.next()?
        {
            let row = Row(stored.get(0)?);
            if skip(row) {
                continue;
            }
            let Some(batch) = batch(stored) else {
                found.damaged.push(row);
                continue;
            };
            octets += batch.body.len();
            if octets > range.max_bytes && !found.batches.is_empty() {
                break;
            }
            found.batches.push((row, batch));
        }
        Ok(found)
    }

    /// Whether the file still has its name. One that was deleted takes everything and keeps nothing.
    pub(super) fn is_in_place(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.identity)
    }

    /// Whether much of the file is empty and the rest is little.
    pub(super) fn is_worth_shrinking(&self) -> bool {
        self.free_pages * PAGE >= WORTH_SHRINKING && self.used_bytes() <= QUICK_TO_SHRINK
    }

    /// Gives the file's empty pages back to the disk.
    pub(super) fn shrink(&mut self) -> rusqlite::Result<()> {
        self.connection.execute_batch("VACUUM")?;
        self.rest()?;
        (self.used_pages, self.free_pages) = used_and_free(&self.connection)?;
        Ok(())
    }

    /// Whether the write-ahead log should go into the file.
    pub(super) fn has_long_log(&self) -> bool {
        self.logged >= LONG_LOG
    }

    /// Brings the write-ahead log into the file, so that it is written from its start again.
    pub(super) fn shorten_log(&mut self) -> rusqlite::Result<()> {
        self.logged = 0;
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }

    /// Brings the write-ahead log into the file, and its length to nothing.
    pub(super) fn rest(&mut self) -> rusqlite::Result<()> {
        self.logged = 0;
        open::checkpoint(&self.connection)
    }

    /// Closes the file; the write-ahead log is gone then.
    pub(super) fn close(self) -> rusqlite::Result<()> {
        self.connection.close().map_err(|(_, error)| error)
    }

    /// Closes the file as it is.
    pub(super) fn abandon(self) {
        open::keep_log(&self.connection);
        // It is closed in any case.
        drop(self.connection.close());
    }

    fn take_over(&mut self, before: Option<Before>) -> rusqlite::Result<()> {
        let (stored, owner) = read_totals(&self.connection)?;
        self.totals = stored;
        let greatest = "SELECT max(row) FROM batch";
        match self.connection.query_row(greatest, [], |row| row.get::<_, Option<i64>>(0))? {
            Some(row) => self.totals.row = self.totals.row.max(row),
            None => self.totals.level = Level::default(),
        }
        if let Some(before) = before {
            self.is_ours = owner == before.owner.as_bytes();
            if self.is_ours && stored.row > before.totals.row {
                let transaction =
                    self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let untold = (Row(before.totals.row + 1), Row(i64::MAX));
                take_rows(&mut *transaction.prepare_cached(DELETE)?, untold, &mut self.totals.level)?;
                write_totals(&transaction, self.totals, self.owner)?;
                transaction.commit()?;
            }
            // What this process calls rows only ever grows, whatever file they are in.
            self.totals.row = self.totals.row.max(before.totals.row);
        }
        (self.used_pages, self.free_pages) = used_and_free(&self.connection)?;
        Ok(())
    }

    fn set_synchronous(&mut self, wanted: Synchronous) -> rusqlite::Result<()> {
        if self.in_force != wanted {
            open::set_synchronous(&self.connection, wanted)?;
            self.in_force = wanted;
        }
        Ok(())
    }
}

/// Deletes rows with [`DELETE`] and takes them off `level`. What they held.
fn take_rows(
    delete: &mut Statement<'_>,
    (first, last): (Row, Row),
    level: &mut Level,
) -> rusqlite::Result<Level> {
    let mut gone = Level::default();
    let mut rows = delete.query([first.0, last.0])?;
    while let Some(row) = rows.next()? {
        gone.batches += 1;
        gone.beacons += from_sql(row.get(0)?);
        gone.octets += from_sql(row.get(1)?);
    }
    level.batches = level.batches.saturating_sub(gone.batches);
    level.beacons = level.beacons.saturating_sub(gone.beacons);
    level.octets = level.octets.saturating_sub(gone.octets);
    Ok(gone)
}

/// A row as a batch, unless it is damaged.
fn batch(stored: &rusqlite::Row<'_>) -> Option<Batch> {
    let id = Uuid::from_slice(stored.get_ref(1).ok()?.as_blob().ok()?).ok()?;
    let count = from_sql(stored.get(2).ok()?);
    let checksum: u32 = stored.get(3).ok()?;
    let body = stored.get_ref(4).ok()?.as_blob().ok()?;
    let batch = || Batch { id, body: Bytes::copy_from_slice(body), count, tickets: Vec::new() };
    (crc(body) == checksum).then(batch)
}

fn read_totals(connection: &Connection) -> rusqlite::Result<(Totals, Vec<u8>)> {
    connection.query_row("SELECT batches, beacons, octets, row, owner FROM total WHERE one = 1", [], |row| {
        let level = Level {
            batches: from_sql(row.get(0)?),
            beacons: from_sql(row.get(1)?),
            octets: from_sql(row.get(2)?),
        };
        Ok((Totals { level, row: row.get(3)? }, row.get(4)?))
    })
}

fn write_totals(connection: &Connection, totals: Totals, owner: Uuid) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached(
        "INSERT OR REPLACE INTO total (one, batches, beacons, octets, row, owner) VALUES (1, ?1, ?2, ?3, ?4, ?5)",
    )?;
    let Totals { level, row } = totals;
    let [batches, beacons, octets] = [level.batches, level.beacons, level.octets].map(to_sql);
    update.execute(params![batches, beacons, octets, row, owner.as_bytes()]).map(drop)
}

/// Pages in use and pages free, within the current transaction.
fn used_and_free(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let number = |pragma: &str| {
        connection.prepare_cached(pragma)?.query_row([], |row| row.get::<_, i64>(0)).map(from_sql)
    };
    let (all, free) = (number("PRAGMA page_count")?, number("PRAGMA freelist_count")?);
    Ok((all.saturating_sub(free), free))
}

/// Most pages that a row with a body this long can take: its leaf, a page of the tree above, and the rest of the body.
fn pages_for(octets: usize) -> u64 {
    2 + (octets as u64).div_ceil(PAGE - 4)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
