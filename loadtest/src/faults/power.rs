//! A power cut of the edge's machine, as its disk would see it: what no fsync had covered may be there, or not, or in part.
//!
//! The edge runs under `strace`, which writes down every write and fsync of the spool's files, without their content.
//! After a SIGKILL each sector that was written after the last fsync of its file has begun is, by a seeded draw, left as it
//! is, zeroed, or filled with garbage, and what made a file longer may be cut off. Files that only one process maps (the
//! index of a write-ahead log) are gone. Not covered: a disk that lies about fsync, names in folders, lengths that shrank.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use fastrand::Rng;

use crate::Error;

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;
/// For the tracer to write its last line.
const TRACE_LIMIT: Duration = Duration::from_secs(10);
const CALLS: &str = "trace=write,pwrite64,lseek,ftruncate,fsync,fdatasync,rename,unlink";

/// `strace` around the edge.
#[derive(Debug)]
pub(crate) struct Tracer {
    trace: PathBuf,
    spool: PathBuf,
    /// How long each file was when all of it was on disk.
    lengths: Mutex<BTreeMap<PathBuf, u64>>,
}

impl Tracer {
    /// Whether `strace` is there and may trace; else why not.
    pub(crate) fn check() -> Result<(), String> {
        let tried = Command::new("strace")
            .args(["-D", "-f", "--seccomp-bpf", "-y", "-e", CALLS, "-o", "/dev/null", "true"])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("strace cannot be run: {error}"))?;
        if tried.status.success() {
            return Ok(());
        }
        Err(format!("strace: {}", String::from_utf8_lossy(&tried.stderr).trim()))
    }

    /// For an edge whose spool is in `spool`; the trace goes to a file in `folder`.
    pub(crate) fn new(folder: &Path, spool: &Path) -> Self {
        Self { trace: folder.join("strace.txt"), spool: spool.to_owned(), lengths: Mutex::default() }
    }

    /// What is to be put before the edge's command.
    pub(crate) fn prefix(&self) -> Vec<String> {
        // -D: the process that is started is the edge itself, and the tracer is its grandchild.
        let words = ["strace", "-D", "-f", "--seccomp-bpf", "-y", "-s", "0", "-e", CALLS, "-o"];
        let trace = self.trace.display().to_string();
        words.map(str::to_owned).into_iter().chain([trace, "--".to_owned()]).collect()
    }

    /// Waits until the spool's log begins to be copied into its file, or the time is over.
    ///
    /// # Errors
    /// When the trace cannot be read.
    pub(crate) fn await_checkpoint(&self, limit: Duration) -> Result<(), Error> {
        let start = Instant::now();
        let read = || {
            let mut file = File::open(&self.trace)?;
            file.seek(SeekFrom::End(0))?;
            let mut fresh = String::new();
            while start.elapsed() < limit && !begins_checkpoint(&fresh) {
                // Of what was looked at only a line that has not ended is of interest.
                fresh.drain(..fresh.rfind('\n').map_or(0, |end| end + 1));
                sleep(Duration::from_millis(1));
                file.read_to_string(&mut fresh)?;
            }
            Ok(())
        };
        read().map_err(Error::io("trace of the edge"))
    }

    /// Undoes what was not on disk when process `pid` was killed; says how many octets that were.
    ///
    /// # Errors
    /// When the trace does not come to its end, or a file cannot be changed.
    pub(crate) fn undo(&self, pid: u32, seed: u64) -> Result<u64, Error> {
        let trace = self.whole_trace(pid)?;
        let mut lengths = self.lengths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut rng = Rng::with_seed(seed);
        let mut undone = 0;
        for (path, unsynced) in unsynced_writes(&trace, &self.spool) {
            let Ok(file) = File::options().write(true).open(&path) else { continue };
            let on_disk = lengths.get(&path).copied().unwrap_or(0).max(unsynced.synced_end);
            undo(&file, &unsynced.writes, on_disk, &mut rng)
                .map_err(Error::io("undoing what was not on disk"))?;
            undone += unsynced.writes.iter().map(|(_, octets)| octets).sum::<u64>();
        }
        lengths.clear();
        for entry in fs::read_dir(&self.spool).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension.to_string_lossy().ends_with("-shm")) {
                fs::remove_file(&path).map_err(Error::io("undoing what was not on disk"))?;
            } else if let Ok(metadata) = entry.metadata() {
                lengths.insert(path, metadata.len());
            }
        }
        Ok(undone)
    }

    fn whole_trace(&self, pid: u32) -> Result<String, Error> {
        let pid = pid.to_string();
        let is_end = |line: &str| {
            // Short numbers are filled up with blanks.
            let words = line.trim_start().split_once(' ');
            words.is_some_and(|(thread, call)| {
                thread == pid && call.trim_start().starts_with("+++ killed by SIGKILL")
            })
        };
        let start = Instant::now();
        loop {
            let trace = fs::read_to_string(&self.trace).map_err(Error::io("trace of the edge"))?;
            if trace.lines().rev().take(200).any(is_end) {
                return Ok(trace);
            }
            if start.elapsed() > TRACE_LIMIT {
                let source = std::io::Error::other("strace has not told the end of the edge");
                return Err(Error::Io { what: "trace of the edge", source });
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// Whether a trace has a write to a spool's file itself, and not to its log.
fn begins_checkpoint(trace: &str) -> bool {
    trace.lines().any(|line| line.contains(" pwrite64(") && line.contains(".spool>, "))
}

/// One file's writes that no fsync covers, as offset and length, and how far those go that one does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Unsynced {
    writes: Vec<(u64, u64)>,
    synced_end: u64,
    position: u64,
    /// For each thread inside an fsync: how many of the writes it will cover.
    covers: BTreeMap<String, usize>,
}

/// Reads a trace; only files in `folder` count.
fn unsynced_writes(trace: &str, folder: &Path) -> BTreeMap<PathBuf, Unsynced> {
    let mut files: BTreeMap<PathBuf, Unsynced> = BTreeMap::new();
    // A call that another thread's line interrupted, by thread.
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.trim_start().split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(head) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, head);
            if let Some((name, file)) = call_on(head, folder, &mut files)
                && matches!(name, "fsync" | "fdatasync")
            {
                file.covers.insert(thread.to_owned(), file.writes.len());
            }
            continue;
        }
        let joined;
        let call = if call.starts_with("<... ") {
            let Some(head) = begun.remove(thread) else { continue };
            let Some((_, tail)) = call.split_once("resumed>") else { continue };
            joined = format!("{}{}", head.trim_end(), tail.trim_start());
            joined.as_str()
        } else {
            call
        };
        let Some((arguments, result)) = call.rsplit_once(" = ") else { continue };
        let Ok(result) = result.split(' ').next().unwrap_or_default().parse::<u64>() else { continue };
        if let Some(names) = arguments.strip_prefix("rename(").or_else(|| arguments.strip_prefix("unlink(")) {
            move_file(names, &mut files);
            continue;
        }
        let Some((name, file)) = call_on(arguments, folder, &mut files) else { continue };
        let last = || arguments.trim_end_matches([')', ' ']).rsplit_once(", ")?.1.parse::<u64>().ok();
        match name {
            "lseek" => file.position = result,
            "write" => {
                file.writes.push((file.position, result));
                file.position += result;
            }
            "pwrite64" => file.writes.extend(last().map(|offset| (offset, result))),
            // A length is on disk with the next fsync, as octets are.
            "ftruncate" => file.writes.extend(last().map(|length| (length, 0))),
            _ => {
                let covered = file.covers.remove(thread).unwrap_or(file.writes.len());
                let end = file.writes.drain(..covered).map(|(offset, length)| offset + length).max();
                file.synced_end = file.synced_end.max(end.unwrap_or(0));
            }
        }
    }
    // A call that was under way when the process died may have done its part.
    for head in begun.values() {
        if let Some(("pwrite64", file)) = call_on(head, folder, &mut files) {
            let numbers: Vec<u64> = head.rsplit(", ").map_while(|text| text.trim().parse().ok()).collect();
            if let [offset, length] = numbers[..] {
                file.writes.push((offset, length));
            }
        }
    }
    files
}

/// What is known of a file goes with it to its new name, or away with it: `"/a", "/b"`, or `"/a"`.
fn move_file(names: &str, files: &mut BTreeMap<PathBuf, Unsynced>) {
    let mut names = names.split('"').skip(1).step_by(2).map(PathBuf::from);
    let moved = names.next().and_then(|from| files.remove(&from));
    if let Some(to) = names.next() {
        files.remove(&to);
        files.extend(moved.map(|file| (to, file)));
    }
}

/// The name of a call like `fsync(9</spool/main.spool>)` and the file that it is about, if that is in `folder`.
fn call_on<'a, 'f>(
    call: &'a str,
    folder: &Path,
    files: &'f mut BTreeMap<PathBuf, Unsynced>,
) -> Option<(&'a str, &'f mut Unsynced)> {
    let (name, rest) = call.split_once('(')?;
    let path = Path::new(rest.split_once('<')?.1.split_once('>')?.0);
    path.starts_with(folder).then(|| (name, files.entry(path.to_owned()).or_default()))
}

fn undo(file: &File, writes: &[(u64, u64)], on_disk: u64, rng: &mut Rng) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    // A third of the power cuts take everything, the others some.
    let takes_all = rng.u8(..3) == 0;
    for &(offset, octets) in writes {
        let end = (offset + octets).min(length);
        let mut from = offset;
        while from < end {
            let to = ((from / SECTOR + 1) * SECTOR).min(end);
            let mut sector = vec![0; (to - from) as usize];
            let fate = if takes_all { 1 } else { rng.u8(..3) };
            if fate == 2 {
                rng.fill(&mut sector);
            }
            if fate > 0 {
                file.write_all_at(&sector, from)?;
            }
            from = to;
        }
    }
    if length > on_disk && (takes_all || rng.bool()) {
        file.set_len(if takes_all { on_disk } else { rng.u64(on_disk..length) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_tells_what_no_fsync_covers() {
        let trace = "\
            7 pwrite64(9</s/a>, \"\"..., 100, 0) = 100\n\
            7 write(3</elsewhere/b>, \"\"..., 8) = 8\n\
            7 fdatasync(9</s/a>) = 0\n\
            7 pwrite64(9</s/a>, \"\"..., 50, 100) = 50\n\
            7 fsync(9</s/a> <unfinished ...>\n\
            8 pwrite64(9</s/a>, \"\"..., 10, 200) = 10\n\
            7 <... fsync resumed>) = 0\n\
            7 pwrite64(5</s/new>, \"\"..., 10, 90) = 10\n\
            7 fsync(5</s/new>) = 0\n\
            7 pwrite64(6</s/c>, \"\"..., 10, 900) = 10\n\
            7 rename(\"/s/new\", \"/s/c\") = 0\n\
            7 pwrite64(6</s/gone>, \"\"..., 10, 900) = 10\n\
            7 unlink(\"/s/gone\") = 0\n\
            8 lseek(4</s/b>, 4096, SEEK_SET) = 4096\n\
            7 ftruncate(9</s/a>, 300) = 0\n\
            7 fdatasync(9</s/a>) = 0\n\
            8 write(4</s/b>, \"\"..., 24) = 24\n\
            8 write(4</s/b>, \"\"..., 6) = 6\n\
            8 fsync(4</s/b>) = -1 EIO (Input/output error)\n\
            8 pwrite64(4</s/b>, \"\"..., 7, 9 <unfinished ...>\n\
            7 +++ killed by SIGKILL +++\n";
        let files = unsynced_writes(trace, Path::new("/s"));
        let seen: Vec<_> = files
            .iter()
            .map(|(path, file)| (path.to_str().unwrap(), file.writes.as_slice(), file.synced_end))
            .collect();
        assert_eq!(
            seen,
            [
                ("/s/a", &[][..], 300),
                ("/s/b", &[(4096, 24), (4120, 6), (9, 7)][..], 0),
                ("/s/c", &[][..], 100)
            ]
        );
    }

    #[test]
    fn a_checkpoint_is_a_write_to_the_file_itself() {
        assert!(begins_checkpoint("7 pwrite64(9</s/main.spool>, \"\"..., 4096, 0) = 4096\n"));
        assert!(!begins_checkpoint(
            "7 pwrite64(9</s/main.spool-wal>, \"\"..., 24, 32) = 24\n7 fsync(9</s/main.spool>"
        ));
    }

    #[test]
    fn only_what_was_not_on_disk_changes() {
        for seed in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            fs::write(&path, vec![0x11; 5000]).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            undo(&file, &[(1000, 1000), (4000, 1000)], 4000, &mut Rng::with_seed(seed)).unwrap();
            let left = fs::read(&path).unwrap();
            assert!((4000..=5000).contains(&left.len()));
            let changed = |at: usize| left[at] != 0x11;
            assert!(!(0..1000).chain(2000..4000).any(changed), "seed {seed}");
        }
    }
}
