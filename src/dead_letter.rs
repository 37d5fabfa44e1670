//! Dead letters: batches that were given up, kept in a file for people. The format is in `docs/dead-letters.md`.
//!
//! A batch gets here when it has cost the connection each time it was sent although others were confirmed. That is rare,
//! so nothing is held between two writes: each opens the file anew (an operator may have moved it away meanwhile), and
//! returns when the batch is on the disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{task::spawn_blocking, time::timeout};
use uuid::Uuid;

/// The version of the format.
const VERSION: u32 = 1;
/// A disk may hang; delivery must not.
const PATIENCE: Duration = Duration::from_secs(10);
/// Characters kept of a server's explanation.
const MAX_ERROR: usize = 1000;

/// A batch that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The batch's id, under which a broker may have seen it.
    pub id: Uuid,
    /// How many beacons.
    pub count: u64,
    /// Their lines, each with its line feed.
    pub body: Bytes,
    /// How often it was sent.
    pub attempts: u32,
    /// How the last connection ended.
    pub error: String,
}

/// Why a dead letter was not written: its beacons are lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// The bound would be exceeded.
    #[error(
        "{} has no room for {octets} octets more: dead_letter_max_bytes is {max_bytes}; move the file away",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        octets: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// The configuration keeps none.
    #[error("dead letters are not kept: dead_letter_max_bytes is 0")]
    Off,
    /// The disk.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The disk said nothing. The batch may still come to be written.
    #[error("{} was not written within {PATIENCE:?}", .0.display())]
    TimedOut(PathBuf),
}

/// The dead letters of one destination. A handle: clones write to the same file, one at a time.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    destination: String,
    max_bytes: u64,
    /// What has been told of the file.
    told: Mutex<Told>,
    /// Held while the file is written.
    writing: Mutex<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Works,
    Fails,
}

/// The line in front of a batch. Its first key tells it from a beacon.
#[derive(Serialize)]
struct Head<'a> {
    dead_letter: u32,
    ts: u64,
    destination: &'a str,
    batch: String,
    beacons: u64,
    octets: u64,
    attempts: u32,
    error: &'a str,
}

impl DeadLetters {
    /// Letters of `destination`, to go to `dir/destination.ndjson`, which never grows beyond `max_bytes`; 0 keeps none.
    /// Touches no disk: folder and file are made when they are needed.
    #[must_use]
    pub fn open(dir: impl Into<PathBuf>, destination: &str, max_bytes: u64) -> Self {
        let shared = Shared {
            dir: dir.into(),
            destination: destination.to_owned(),
            max_bytes,
            told: Mutex::new(Told::Works),
            writing: Mutex::new(()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Where they go.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.shared.dir.join(format!("{}.ndjson", self.shared.destination))
    }

    /// Writes a letter, durably when this returns `Ok`; after an error the file is what it was before. Blocks for as long
    /// as the disk does. That the file cannot be written, and that it can again, is logged once.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub fn write(&self, letter: &DeadLetter) -> Result<(), DeadLetterError> {
        let written = self.append(letter);
        self.tell(&written);
        written
    }

    /// [`DeadLetters::write`] on another thread, for at most 10 s. Cancel safe: the letter is then written or not at all.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn set_aside(&self, letter: DeadLetter) -> Result<(), DeadLetterError> {
        let letters = self.clone();
        match timeout(PATIENCE, spawn_blocking(move || letters.write(&letter))).await {
            Ok(Ok(written)) => written,
            Ok(Err(ended)) => Err(DeadLetterError::Io { path: self.path(), cause: io::Error::other(ended) }),
            Err(_) => {
                let late = Err(DeadLetterError::TimedOut(self.path()));
                self.tell(&late);
                late
            }
        }
    }

    fn append(&self, letter: &DeadLetter) -> Result<(), DeadLetterError> {
        let Shared { dir, max_bytes, .. } = &*self.shared;
        if *max_bytes == 0 {
            return Err(DeadLetterError::Off);
        }
        let path = self.path();
        let failed = |cause| DeadLetterError::Io { path: path.clone(), cause };
        let record = self.record(letter).map_err(failed)?;
        let Some(_one_at_a_time) = self.shared.writing.try_lock_for(PATIENCE) else {
            return Err(DeadLetterError::TimedOut(path));
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let (mut file, is_new) = open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        // A crash in the middle of a record leaves a line without its end.
        let gap: &[u8] = if ends_a_line(&mut file, length).map_err(failed)? { b"" } else { b"\n" };
        let octets = (gap.len() + record.len()) as u64;
        if length.saturating_add(octets) > *max_bytes {
            return Err(DeadLetterError::Full { path, octets, max_bytes: *max_bytes });
        }
        // A new name has to last as well.
        let keep_name = || if is_new { File::open(dir)?.sync_all() } else { Ok(()) };
        let written = file
            .write_all(gap)
            .and_then(|()| file.write_all(&record))
            .and_then(|()| file.sync_all())
            .and_then(|()| keep_name());
        if let Err(cause) = written {
            // If not even that works, the next writer ends the torn line.
            drop(file.set_len(length));
            return Err(failed(cause));
        }
        Ok(())
    }

    /// The head, and the lines as they are.
    fn record(&self, letter: &DeadLetter) -> io::Result<Vec<u8>> {
        let DeadLetter { id, count, body, attempts, error } = letter;
        let end = error.char_indices().nth(MAX_ERROR).map_or(error.len(), |(end, _)| end);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let head = Head {
            dead_letter: VERSION,
            ts: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            destination: &self.shared.destination,
            batch: id.to_string(),
            beacons: *count,
            octets: body.len() as u64,
            attempts: *attempts,
            error: &error[..end],
        };
        let mut record = serde_json::to_vec(&head)?;
        record.push(b'\n');
        record.extend_from_slice(body);
        if record.last() != Some(&b'\n') {
            record.push(b'\n');
        }
        Ok(record)
    }

    fn tell(&self, written: &Result<(), DeadLetterError>) {
        let now = match written {
            Ok(()) => Told::Works,
            Err(DeadLetterError::Off) => return,
            Err(_) => Told::Fails,
        };
        if std::mem::replace(&mut *self.shared.told.lock(), now) == now {
            return;
        }
        let destination = &self.shared.destination;
        match written {
            Ok(()) => tracing::info!(destination, "dead letters can be written again"),
            Err(error) => tracing::error!(
                destination,
                %error,
                "a dead letter could not be written: the beacons of batches that are given up are lost until this is \
                 mended"
            ),
        }
    }
}

/// The file, and whether it was made just now. Only its owner may read it: beacons hold addresses of people.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let options = || {
        let mut options = OpenOptions::new();
        options.read(true).append(true).mode(0o600);
        options
    };
    let (file, is_new) = match options().create_new(true).open(path) {
        Ok(file) => (file, true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (options().open(path)?, false),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    Ok((file, is_new))
}

fn ends_a_line(file: &mut File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(1) else { return Ok(true) };
    let mut octet = [0];
    file.seek(SeekFrom::Start(last))?;
    file.read_exact(&mut octet)?;
    Ok(octet == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, process::Command};

    use serde_json::Value;

    use super::*;

    const LINES: &str = "{\"v\":1,\"id\":\"a\"}\n{\"v\":1,\"id\":\"b\"}\n";

    fn letter(body: &str) -> DeadLetter {
        DeadLetter {
            id: Uuid::from_u128(7),
            count: body.lines().count() as u64,
            body: Bytes::copy_from_slice(body.as_bytes()),
            attempts: 5,
            error: "the server answered ERROR: \"no\"\nmore".to_owned(),
        }
    }

    fn kinds(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let kind = |line: &str| match serde_json::from_str::<Value>(line) {
            Ok(value) if value["dead_letter"] == 1 => "head".to_owned(),
            Ok(value) => value["id"].as_str().unwrap().to_owned(),
            Err(_) => format!("torn {line}"),
        };
        text.lines().map(kind).collect()
    }

    #[test]
    fn a_letter_is_a_head_and_the_lines_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::open(dir.path().join("made/when needed"), "main", 1 << 20);
        assert!(!dir.path().join("made").exists(), "before it is needed nothing is made");
        letters.write(&letter(LINES)).unwrap();
        letters.write(&letter("{\"v\":1,\"id\":\"c\"}\n")).unwrap();

        let path = letters.path();
        assert_eq!(kinds(&path), ["head", "a", "b", "head", "c"]);
        let text = fs::read_to_string(&path).unwrap();
        let head: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert!(head["ts"].as_u64().unwrap() > 1_700_000_000_000);
        for (key, value) in [
            ("destination", Value::from("main")),
            ("batch", Value::from("00000000-0000-0000-0000-000000000007")),
            ("beacons", Value::from(2)),
            ("octets", Value::from(LINES.len())),
            ("attempts", Value::from(5)),
            ("error", Value::from("the server answered ERROR: \"no\"\nmore")),
        ] {
            assert_eq!(head[key], value, "{key}");
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // What the documentation tells an operator to do.
        let beacons = Command::new("grep").args(["-v", "^{\"dead_letter\":"]).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8(beacons.stdout).unwrap(), format!("{LINES}{{\"v\":1,\"id\":\"c\"}}\n"));
    }

    #[test]
    fn the_bound_holds_and_a_file_that_was_moved_away_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::open(dir.path(), "main", 500);
        let mut written = 0;
        let full = loop {
            match letters.write(&letter(LINES)) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(full, DeadLetterError::Full { max_bytes: 500, .. }), "{full}");
        assert!(full.to_string().ends_with("move the file away"), "{full}");
        assert!((1..5).contains(&written));
        assert!(fs::metadata(letters.path()).unwrap().len() <= 500);
        fs::rename(letters.path(), dir.path().join("seen")).unwrap();
        letters.write(&letter(LINES)).unwrap();
        assert_eq!(kinds(&letters.path()), ["head", "a", "b"]);
        let none = DeadLetters::open(dir.path().join("none"), "main", 0).write(&letter(LINES)).unwrap_err();
        assert!(matches!(none, DeadLetterError::Off) && !dir.path().join("none").exists());
    }

    #[test]
    fn a_torn_line_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::open(dir.path(), "main", 1 << 20);
        fs::write(letters.path(), "{\"v\":1,\"id\":\"a\"}\n{\"v\":1,\"i").unwrap();
        letters.write(&letter(LINES)).unwrap();
        assert_eq!(kinds(&letters.path()), ["a", "torn {\"v\":1,\"i", "head", "a", "b"]);
    }

    #[tokio::test]
    async fn a_disk_that_does_not_work_is_an_error_until_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let in_the_way = dir.path().join("letters");
        fs::write(&in_the_way, "a file where the folder should be").unwrap();
        let letters = DeadLetters::open(&in_the_way, "main", 1 << 20);
        for _ in 0..2 {
            let error = letters.set_aside(letter(LINES)).await.unwrap_err();
            assert!(matches!(error, DeadLetterError::Io { .. }), "{error}");
            assert!(error.to_string().contains("letters/main.ndjson: "), "{error}");
        }
        fs::remove_file(&in_the_way).unwrap();
        letters.set_aside(letter(LINES)).await.unwrap();
        assert_eq!(kinds(&letters.path()), ["head", "a", "b"]);

        let device = DeadLetters::open(dir.path(), "device", 1 << 20);
        std::os::unix::fs::symlink("/dev/full", device.path()).unwrap();
        let error = device.set_aside(letter(LINES)).await.unwrap_err();
        assert!(error.to_string().contains("not a file"), "{error}");
    }
}
