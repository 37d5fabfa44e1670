//! `beacon-edge spool inspect`: what is in a file, without changing it.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OpenFlags};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::{
    aside::with_suffix,
    command::{EXIT_LEFT, EXIT_USAGE, Inspect},
    format::{Kind, VERSION, crc},
};
use crate::config::Config;

/// Where SQLite locks a file: the octet for a pending lock, the reserved one, and 510 for sharing.
const LOCKS: (u64, u64) = (0x4000_0000, 512);

/// What is in a file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// By STOMP destination.
    pub(super) destinations: BTreeMap<String, Tally>,
    /// Batches that the edge has set aside in the file.
    set_aside: u64,
    /// Why not everything could be read.
    broken: Option<String>,
}

/// What is in a file for one STOMP destination.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) batches: u64,
    pub(super) beacons: u64,
    pub(super) octets: u64,
    /// Whose CRC does not match.
    damaged: u64,
    /// Milliseconds since 1970.
    oldest: i64,
    newest: i64,
}

pub(super) fn run(arguments: &Inspect, config: &Config) -> ExitCode {
    let folder = [PathBuf::from(&config.spool.dir)];
    let paths = if arguments.paths.is_empty() { &folder[..] } else { &arguments.paths };
    let mut files = Vec::new();
    for path in paths {
        match files_of(path) {
            Ok(found) => files.extend(found),
            Err(error) => {
                eprintln!("beacon-edge: {}: {error}", path.display());
                return ExitCode::from(EXIT_USAGE);
            }
        }
    }
    let mut text = String::new();
    if files.is_empty() {
        text.push_str("no files\n");
    }
    let mut is_well = true;
    for file in files {
        is_well &=
            tell(&mut text, &file, !arguments.no_verify).expect("a string takes what is written to it");
    }
    // A closed pipe is the reader's choice.
    drop(io::stdout().write_all(text.as_bytes()));
    if is_well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_LEFT) }
}

/// The file itself, or the spools in a folder, those set aside too.
fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_companion = ["-wal", "-shm", "-journal"].iter().any(|suffix| name.ends_with(suffix));
        if name.ends_with(".spool") || name.contains(".spool.corrupt-") && !is_companion {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Describes a file. True if nothing is wrong with it.
fn tell(text: &mut String, path: &Path, verify: bool) -> Result<bool, fmt::Error> {
    let size = fs::metadata(path).map_or(0, |found| found.len());
    writeln!(text, "{}: {}", path.display(), Octets(size))?;
    let contents = match look(path, verify) {
        Ok(contents) => contents,
        Err(reason) => {
            writeln!(text, "  {reason}")?;
            return Ok(false);
        }
    };
    writeln!(text, "  format version {VERSION}")?;
    let log = fs::metadata(with_suffix(path, "-wal")).map_or(0, |found| found.len());
    if log > 0 {
        writeln!(text, "  not closed properly: its write-ahead log of {} was read too", Octets(log))?;
    }
    if contents.destinations.is_empty() && contents.broken.is_none() {
        writeln!(text, "  no batches")?;
    }
    for (destination, tally) in &contents.destinations {
        let Tally { batches, beacons, octets, damaged, oldest, newest } = tally;
        write!(text, "  {destination}: {batches} batches, {beacons} beacons, {}", Octets(*octets))?;
        writeln!(text, ", oldest {}, newest {}", Age(*oldest), Age(*newest))?;
        match (verify, damaged) {
            (false, _) => writeln!(text, "    not verified")?,
            (true, 0) => writeln!(text, "    every CRC matches")?,
            (true, _) => writeln!(text, "    {damaged} batches do not match their CRC and will not be sent")?,
        }
    }
    if contents.set_aside > 0 {
        writeln!(text, "  {} damaged batches set aside in the table `damaged`", contents.set_aside)?;
    }
    if let Some(reason) = &contents.broken {
        writeln!(text, "  cannot be read any further: {reason}; see `spool salvage`")?;
    }
    Ok(contents.is_whole())
}

impl Contents {
    /// Whether everything in it can be sent.
    pub(super) fn is_whole(&self) -> bool {
        self.broken.is_none()
            && self.set_aside == 0
            && self.destinations.values().all(|tally| tally.damaged == 0)
    }
}

/// Reads a file that nobody uses, or says why not. Only in a process that has no spool open: see [`Kind::of`].
pub(super) fn look(path: &Path, verify: bool) -> Result<Contents, String> {
    let found = fs::metadata(path).map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("not a file".into());
    }
    match Kind::of(path).map_err(|error| error.to_string())? {
        Kind::Spool | Kind::InLog => {}
        Kind::Empty => return Ok(Contents::default()),
        Kind::Newer(version) => {
            return Err(format!("format version {version}; this beacon-edge knows {VERSION}"));
        }
        Kind::Foreign(id) => return Err(format!("not a spool: a database of another application ({id:#x})")),
        Kind::NotSqlite => return Err("not a spool: not an SQLite database".into()),
    }
    if let Some(user) = user(path).map_err(|error| error.to_string())? {
        return Err(format!("in use by process {user}; /metrics of that edge has the figures"));
    }
    let index = with_suffix(path, "-shm");
    let had_index = index.exists();
    let contents = read(path, verify).map_err(|error| error.to_string());
    if !had_index {
        // Made for reading the write-ahead log. It holds nothing that is not in the log.
        drop(fs::remove_file(index));
    }
    contents
}

/// The process that has the file open for writing.
pub(super) fn user(path: &Path) -> io::Result<Option<i32>> {
    let file = File::open(path)?;
    let lock = Flock { start: LOCKS.0, length: LOCKS.1, ..Flock::from(FlockType::ReadLock) };
    let held = fcntl_getlk(&file, &lock)?;
    Ok(held
        .filter(|held| held.typ == FlockType::WriteLock)
        .map(|held| held.pid.map_or(0, |pid| pid.as_raw_nonzero().get())))
}

/// Opens a file for reading alone.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let has_log = fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let mut flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if has_log {
        return Connection::open_with_flags(path, flags);
    }
    // SQLite would make files beside it even for reading.
    flags |= OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(unchanging(path), flags)
}

fn read(path: &Path, verify: bool) -> rusqlite::Result<Contents> {
    let connection = connect(path)?;
    let set_aside = connection.query_row("SELECT count(*) FROM damaged", [], |row| row.get::<_, i64>(0))?;
    let mut contents = Contents { set_aside: set_aside.unsigned_abs(), ..Contents::default() };
    let body = if verify { "body" } else { "NULL" };
    let statement =
        format!("SELECT destination, count, octet_length(body), made, crc, {body} FROM batch ORDER BY row");
    let mut statement = connection.prepare(&statement)?;
    let mut rows = statement.query([])?;
    loop {
        match rows.next().and_then(|row| row.map(|row| count(row, &mut contents)).transpose()) {
            Ok(Some(())) => {}
            Ok(None) => return Ok(contents),
            Err(error) => {
                contents.broken = Some(error.to_string());
                return Ok(contents);
            }
        }
    }
}

fn count(row: &rusqlite::Row<'_>, contents: &mut Contents) -> rusqlite::Result<()> {
    let tally = contents.destinations.entry(row.get(0)?).or_default();
    let made: i64 = row.get(3)?;
    tally.oldest = if tally.batches == 0 { made } else { tally.oldest.min(made) };
    tally.newest = tally.newest.max(made);
    tally.batches += 1;
    tally.beacons += row.get::<_, i64>(1)?.unsigned_abs();
    tally.octets += row.get::<_, i64>(2)?.unsigned_abs();
    if let Ok(body) = row.get_ref(5)?.as_blob() {
        tally.damaged += u64::from(i64::from(crc(body)) != row.get::<_, i64>(4)?);
    }
    Ok(())
}

/// A URI by which SQLite takes the file as one that nobody changes.
fn unchanging(path: &Path) -> String {
    let mut uri = String::from("file:");
    for octet in path.as_os_str().as_bytes() {
        match octet {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*octet)),
            octet if octet.is_ascii_alphanumeric() => uri.push(char::from(*octet)),
            octet => write!(uri, "%{octet:02X}").expect("a string takes what is written to it"),
        }
    }
    uri + "?immutable=1"
}

/// As people read it.
pub(super) struct Octets(pub(super) u64);

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = |shift: u32| self.0 as f64 / (1_u64 << shift) as f64;
        match self.0 {
            octets @ ..0x400 => write!(f, "{octets} octets"),
            0x400..0x10_0000 => write!(f, "{:.1} KiB", unit(10)),
            0x10_0000..0x4000_0000 => write!(f, "{:.1} MiB", unit(20)),
            _ => write!(f, "{:.1} GiB", unit(30)),
        }
    }
}

/// How long ago a time in milliseconds since 1970 is.
struct Age(i64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = UNIX_EPOCH + Duration::from_millis(self.0.unsigned_abs());
        match SystemTime::now().duration_since(then).map_or(0, |age| age.as_secs()) {
            seconds @ ..120 => write!(f, "{seconds} s ago"),
            seconds @ 120..7200 => write!(f, "{} min ago", seconds / 60),
            seconds @ 7200..172_800 => write!(f, "{} h ago", seconds / 3600),
            seconds => write!(f, "{} days ago", seconds / 86_400),
        }
    }
}
