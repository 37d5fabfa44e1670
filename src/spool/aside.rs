//! Files that cannot be used are kept under another name, a few of them.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Most files set aside for one spool.
pub(super) const KEPT: usize = 4;
/// What SQLite keeps beside a file, and what belongs to it.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Renames a file with its companions to `NAME.corrupt-<milliseconds since 1970>`. Where it is now, and what had to be
/// deleted to keep their number bounded.
pub(super) fn set_aside(path: &Path) -> io::Result<(PathBuf, Vec<PathBuf>)> {
    let mut stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    // A clock that went back, or files of one millisecond: the newest has the highest number all the same.
    if let Some((&newest, _)) = kept(path)?.last_key_value() {
        stamp = stamp.max(newest + 1);
    }
    let target = loop {
        let target = with_suffix(path, &format!(".corrupt-{stamp}"));
        if !exists(&target)? {
            break target;
        }
        stamp += 1;
    };
    // Companions first: left alone they would be taken for those of the next file of this name.
    for companion in COMPANIONS {
        rename(&with_suffix(path, companion), &with_suffix(&target, companion))?;
    }
    rename(path, &target)?;
    Ok((target, prune(path)?))
}

/// Whether SQLite left a companion of this file.
pub(super) fn has_companions(path: &Path) -> io::Result<bool> {
    for companion in COMPANIONS {
        if exists(&with_suffix(path, companion))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Deletes a file with its companions.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    for suffix in COMPANIONS.into_iter().chain([""]) {
        match fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// `path` with something behind its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The files set aside for this one: by their number, the octets of each with its companions.
fn kept(path: &Path) -> io::Result<BTreeMap<u128, u64>> {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".corrupt-");
    let mut kept = BTreeMap::<u128, u64>::new();
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        // A companion may stand alone.
        let number =
            rest.and_then(|rest| std::str::from_utf8(rest).ok()?.split('-').next()?.parse::<u64>().ok());
        if let Some(number) = number {
            *kept.entry(number.into()).or_default() += entry.metadata()?.len();
        }
    }
    Ok(kept)
}

/// Keeps the newest, and of the others the largest.
fn prune(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut kept = kept(path)?;
    let mut deleted = Vec::new();
    while kept.len() > KEPT {
        let others = kept.iter().rev().skip(1);
        let Some((&number, _)) = others.min_by_key(|&(number, octets)| (*octets, *number)) else { break };
        kept.remove(&number);
        let old = with_suffix(path, &format!(".corrupt-{number}"));
        delete(&old)?;
        deleted.push(old);
    }
    Ok(deleted)
}

/// The folder that a file is in.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != OsStr::new("") => parent,
        _ => Path::new("."),
    }
}

fn exists(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is missing need not be renamed.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_with_their_companions_and_the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.spool");
        let mut kept = Vec::new();
        for turn in 0..KEPT + 2 {
            for suffix in ["", "-wal", "-shm"] {
                fs::write(with_suffix(&path, suffix), format!("{turn}{suffix}")).unwrap();
            }
            let (target, deleted) = set_aside(&path).unwrap();
            assert!(!exists(&path).unwrap() && !has_companions(&path).unwrap());
            for suffix in ["", "-wal", "-shm"] {
                assert_eq!(
                    fs::read_to_string(with_suffix(&target, suffix)).unwrap(),
                    format!("{turn}{suffix}")
                );
            }
            kept.push(target);
            let expected = if kept.len() > KEPT { vec![kept.remove(0)] } else { Vec::new() };
            assert_eq!(deleted, expected);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), KEPT * 3);
    }

    #[test]
    fn the_newest_is_kept_when_the_clock_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.spool");
        let tomorrow = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() + 86_400_000;
        for number in 0..KEPT as u128 {
            fs::write(with_suffix(&path, &format!(".corrupt-{}", tomorrow + number)), "as long").unwrap();
        }
        // Not one of ours, and no number to add one to.
        fs::write(with_suffix(&path, &format!(".corrupt-{}", u128::MAX)), "").unwrap();
        fs::write(&path, "short").unwrap();
        let (target, deleted) = set_aside(&path).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "short");
        assert_eq!(target, with_suffix(&path, &format!(".corrupt-{}", tomorrow + KEPT as u128)));
        assert_eq!(deleted, [with_suffix(&path, &format!(".corrupt-{tomorrow}"))]);
    }

    #[test]
    fn companions_without_a_file_go_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.spool");
        fs::write(with_suffix(&path, "-wal"), "old").unwrap();
        let (target, _) = set_aside(&path).unwrap();
        assert_eq!(fs::read_to_string(with_suffix(&target, "-wal")).unwrap(), "old");
        assert!(!has_companions(&path).unwrap());
    }
}
