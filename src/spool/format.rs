//! The format of a spool's file: an SQLite database with these tables. `docs/spool.md` explains it to operators.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use rusqlite::Connection;

use super::aside::with_suffix;

/// `PRAGMA application_id`: the letters BESP.
pub(super) const APPLICATION_ID: i32 = 0x4245_5350;
/// `PRAGMA user_version`. A change that an older edge would misread takes the next number.
pub(super) const VERSION: i32 = 1;
/// Octets of a page.
pub(super) const PAGE: u64 = 4096;

/// `total` is kept in every transaction so that a large file is opened without reading it. `total.row` is the greatest
/// row ever given, `total.owner` who opened the file last.
pub(super) const SCHEMA: &str = "
CREATE TABLE batch (
    row INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    destination TEXT NOT NULL,
    count INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    made INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE damaged (
    row INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    destination TEXT NOT NULL,
    count INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    made INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE total (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    batches INTEGER NOT NULL,
    beacons INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    row INTEGER NOT NULL,
    owner BLOB NOT NULL
) STRICT;
INSERT INTO total VALUES (1, 0, 0, 0, 0, x'');
";

/// What the first octets of a file say. They hold even when there is a write-ahead log: see `open.rs`. But a power cut in the
/// middle of a checkpoint may leave anything there, and then only the log has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing in it.
    Empty,
    /// A spool that this version can read.
    Spool,
    /// A spool of a later version of the format.
    Newer(i32),
    /// An SQLite database of another application.
    Foreign(i32),
    /// Anything else, with a write-ahead log beside it: SQLite has to be asked, see [`Kind::asked`].
    InLog,
    /// Anything else.
    NotSqlite,
}

impl Kind {
    /// Looks at a regular file. Nothing may have it open in this process: closing it would drop SQLite's locks.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        const HEADER: usize = 100;
        let mut header = Vec::with_capacity(HEADER);
        File::open(path)?.take(HEADER as u64).read_to_end(&mut header)?;
        if header.is_empty() {
            return Ok(Self::Empty);
        }
        if header.len() < HEADER || !header.starts_with(b"SQLite format 3\0") {
            let has_log = fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0);
            return Ok(if has_log { Self::InLog } else { Self::NotSqlite });
        }
        let number =
            |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Ok(Self::of_numbers(number(68), number(60)))
    }

    /// What SQLite makes of file and log together.
    pub(super) fn asked(connection: &Connection) -> rusqlite::Result<Self> {
        let number = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
        Ok(Self::of_numbers(number("application_id")?, number("user_version")?))
    }

    fn of_numbers(application: i32, version: i32) -> Self {
        match (application, version) {
            (APPLICATION_ID, version @ ..=VERSION) if version > 0 => Self::Spool,
            (APPLICATION_ID, version) => Self::Newer(version),
            (application, _) => Self::Foreign(application),
        }
    }
}

/// The checksum of a body that is kept with it: CRC-32 as in Ethernet and gzip.
pub(super) fn crc(body: &[u8]) -> u32 {
    crc32fast::hash(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_schema() {
        let documented = include_str!("../../docs/spool.md");
        for line in SCHEMA.lines() {
            assert!(documented.contains(line), "docs/spool.md has no line {line:?}");
        }
        assert!(documented.contains(&format!("application_id = {APPLICATION_ID}")));
        assert!(documented.contains(&format!("user_version = {VERSION}")));
    }

    #[test]
    fn a_header_says_what_a_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let header = |application: i32, version: i32| {
            let mut header = vec![0; 100];
            header[..16].copy_from_slice(b"SQLite format 3\0");
            header[68..72].copy_from_slice(&application.to_be_bytes());
            header[60..64].copy_from_slice(&version.to_be_bytes());
            header
        };
        for (octets, kind) in [
            (Vec::new(), Kind::Empty),
            (header(APPLICATION_ID, VERSION), Kind::Spool),
            (header(APPLICATION_ID, VERSION + 1), Kind::Newer(VERSION + 1)),
            (header(APPLICATION_ID, 0), Kind::Newer(0)),
            (header(0, VERSION), Kind::Foreign(0)),
            (header(APPLICATION_ID, VERSION)[..99].to_vec(), Kind::NotSqlite),
            (vec![b'x'; 5000], Kind::NotSqlite),
        ] {
            std::fs::write(&path, octets).unwrap();
            assert_eq!(Kind::of(&path).unwrap(), kind);
        }
        std::fs::write(folder.path().join("file-wal"), "x").unwrap();
        assert_eq!(Kind::of(&path).unwrap(), Kind::InLog);
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc(b"123456789"), 0xCBF4_3926);
    }
}
