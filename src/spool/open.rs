//! From a path to an open file, or the reason why not. Bounded in time whatever is found there.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use super::{
    Synchronous, aside,
    aside::{folder, has_companions, set_aside, with_suffix},
    format::{APPLICATION_ID, Kind, PAGE, SCHEMA, VERSION},
};

/// How long another connection may hold a lock.
const BUSY: Duration = Duration::from_millis(100);
/// A file up to this size is checked as a whole. Larger ones are checked as they are read, by the CRC of each row.
const CHECKED: u64 = 16 << 20;
/// A write-ahead log that was longer is cut to this when it starts anew.
const LOG_KEPT: u64 = 16 << 20;

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is something wrong with its content: it is to be set aside.
    Spoiled(String),
    /// The disk is full.
    NoSpace(String),
    /// It may work later.
    Disk(String),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Spoiled(error.to_string()),
            Some(ErrorCode::DiskFull) => Self::NoSpace("the disk is full".into()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Disk("another process is using the file".into())
            }
            Some(ErrorCode::ReadOnly) => Self::Disk("the file, its folder or its disk is read-only".into()),
            Some(ErrorCode::CannotOpen) => Self::Disk(
                "its write-ahead log cannot be opened beside it; the folder has to be writable".into(),
            ),
            _ => match error.sqlite_error() {
                Some(code) => Self::Disk(format!("{error} (SQLite's code {})", code.extended_code)),
                None => Self::Disk(error.to_string()),
            },
        }
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace("the disk is full".into())
            }
            _ => Self::Disk(error.to_string()),
        }
    }
}

/// Whether a missing file is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Fail,
}

/// Opens the spool at `path` for this process alone.
pub(super) fn open(path: &Path, synchronous: Synchronous, missing: Missing) -> Result<Connection, Unusable> {
    let size = match fs::metadata(path) {
        // Opening a pipe would wait for its other end.
        Ok(found) if !found.is_file() => {
            return Err(Unusable::Disk("there is something that is not a file".into()));
        }
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && missing == Missing::Make => 0,
        Err(error) => return Err(error.into()),
    };
    if size == 0 && missing == Missing::Make {
        make(path)?;
    }
    let kind = Kind::of(path)?;
    known(kind)?;
    // SQLite would go on without the right to write, and fail at something else.
    OpenOptions::new().write(true).open(path)?;
    let connection = Connection::open_with_flags(path, flags())?;
    if kind == Kind::InLog {
        identify(&connection).inspect_err(|_| keep_log(&connection))?;
    }
    prepare(&connection, synchronous).inspect_err(|_| keep_log(&connection))?;
    check(&connection, size).inspect_err(|_| keep_log(&connection))?;
    Ok(connection)
}

/// Refuses what is known to be no spool of this version.
fn known(kind: Kind) -> Result<(), Unusable> {
    Err(Unusable::Spoiled(match kind {
        Kind::Spool | Kind::InLog => return Ok(()),
        Kind::Empty => "it is empty".into(),
        Kind::NotSqlite => "it is not an SQLite database".into(),
        Kind::Newer(version) => {
            format!("its format has version {version}, this beacon-edge knows {VERSION}")
        }
        Kind::Foreign(id) => format!("it is a database of another application ({id:#x})"),
    }))
}

/// The same for a file whose first page is in the log, before anything of it is changed.
fn identify(connection: &Connection) -> Result<(), Unusable> {
    connection.busy_timeout(BUSY)?;
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    known(Kind::asked(connection)?)
}

/// Makes closing leave the write-ahead log as it is: evidence, if the file is to be set aside.
pub(super) fn keep_log(connection: &Connection) {
    if let Err(error) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        tracing::debug!(%error, "the write-ahead log of a spool is not kept");
    }
}

/// Makes an empty spool under another name and renames it, so that its first page is whole and says what it is from the
/// first moment.
fn make(path: &Path) -> Result<(), Unusable> {
    let folder = folder(path);
    // Beacons are about people: not for every user of the machine. An existing folder stays as it is.
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if has_companions(path)? {
        let (target, deleted) = set_aside(path)?;
        tracing::warn!(
            file = %target.display(),
            ?deleted,
            "remains of a spool without its file were set aside"
        );
    }
    let fresh = with_suffix(path, ".new");
    aside::delete(&fresh)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let connection = Connection::open_with_flags(&fresh, flags())?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE};
        BEGIN IMMEDIATE;
        PRAGMA application_id = {APPLICATION_ID};
        PRAGMA user_version = {VERSION};
        {SCHEMA}
        COMMIT;"
    ))?;
    connection.close().map_err(|(_, error)| error)?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()?;
    Ok(())
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE
}

/// Exclusive locking before the first look at the log: then its index is in memory and nobody else can get at the file.
fn prepare(connection: &Connection, synchronous: Synchronous) -> Result<(), Unusable> {
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE;
        PRAGMA trusted_schema = OFF;
        PRAGMA cell_size_check = ON;
        PRAGMA temp_store = MEMORY;
        PRAGMA cache_size = -4096;",
    )?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Unusable::Disk(format!("SQLite keeps no write-ahead log there, but {mode}")));
    }
    connection.execute_batch(&format!(
        "PRAGMA wal_autocheckpoint = 0;
        PRAGMA journal_size_limit = {LOG_KEPT};"
    ))?;
    set_synchronous(connection, synchronous)?;
    // What a failed write may have left between the system and the disk is written anew. On a full disk that can wait.
    match checkpoint(connection) {
        Err(error) if error.sqlite_error_code() != Some(ErrorCode::DiskFull) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Sets what a commit waits for.
pub(super) fn set_synchronous(connection: &Connection, synchronous: Synchronous) -> rusqlite::Result<()> {
    connection.execute_batch(match synchronous {
        Synchronous::Full => "PRAGMA synchronous = FULL",
        Synchronous::Normal => "PRAGMA synchronous = NORMAL",
    })
}

/// Everything from the write-ahead log to the file; the log is then empty.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Tables as they should be, and for small files that every page is in order.
fn check(connection: &Connection, size: u64) -> Result<(), Unusable> {
    let mut tables = connection.prepare("SELECT sql FROM sqlite_schema ORDER BY rowid")?;
    let tables = tables.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let expected = SCHEMA.split(';').map(str::trim).filter(|statement| statement.starts_with("CREATE"));
    if !expected.eq(tables.iter().map(String::as_str)) {
        return Err(Unusable::Spoiled("its tables are not those of a spool".into()));
    }
    if size <= CHECKED {
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(Unusable::Spoiled(found));
        }
    }
    Ok(())
}
