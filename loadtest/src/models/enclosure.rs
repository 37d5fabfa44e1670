//! A bounded amount of memory for all servers together, by a control group: as if they ran on a small machine. The load
//! stays outside, as it came from another machine then.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use serde::Serialize;

/// What came of `--memory`.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryLimit {
    /// Octets asked for.
    pub octets: u64,
    /// Whether a control group holds the servers to it.
    pub enforced: bool,
    /// The kind of control group, or why there is none.
    pub how: String,
    /// Processes that the kernel killed because the group was full.
    pub killed: Option<u64>,
}

impl MemoryLimit {
    /// How much, whether it holds, and by what.
    pub(crate) fn describe(&self) -> String {
        let state = if self.enforced { "enforced" } else { "NOT enforced" };
        format!("{} MiB, {state}: {}", self.octets >> 20, self.how)
    }
}

/// A control group of ours; removed with it, once its processes are gone.
#[derive(Debug)]
pub(crate) struct Enclosure {
    folder: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Enclosure {
    /// Makes a group that may use `octets`.
    ///
    /// # Errors
    /// Why there can be none, in words.
    pub(crate) fn new(octets: u64) -> Result<Self, String> {
        Self::under(Path::new("/sys/fs/cgroup"), octets)
    }

    fn under(root: &Path, octets: u64) -> Result<Self, String> {
        let name = format!("loadtest-models-{}", process::id());
        let (parent, version) = if root.join("cgroup.controllers").exists() {
            (root.to_owned(), Version::Two)
        } else if root.join("memory/cgroup.procs").exists() {
            (root.join("memory"), Version::One)
        } else {
            return Err(format!("no memory control group in {}", root.display()));
        };
        let enclosure = Self { folder: parent.join(name), version };
        if version == Version::Two {
            let subtree = parent.join("cgroup.subtree_control");
            let controls = fs::read_to_string(&subtree).unwrap_or_default();
            if !controls.split_whitespace().any(|controller| controller == "memory") {
                write(&subtree, "+memory")?;
            }
        }
        fs::create_dir(&enclosure.folder)
            .map_err(|error| format!("cannot make {}: {error}", enclosure.folder.display()))?;
        match version {
            Version::Two => {
                write(&enclosure.folder.join("memory.max"), &octets.to_string())?;
                // A machine of that size would rather have no swap at all; not all kernels count it.
                fs::write(enclosure.folder.join("memory.swap.max"), "0").unwrap_or_default();
            }
            Version::One => write(&enclosure.folder.join("memory.limit_in_bytes"), &octets.to_string())?,
        }
        Ok(enclosure)
    }

    /// What it is, for the report.
    pub(crate) fn describe(&self) -> String {
        let version = match self.version {
            Version::One => "v1",
            Version::Two => "v2",
        };
        format!("cgroup {version}, {}", self.folder.display())
    }

    /// Takes a process in, with what it starts from now on. What it holds already stays counted where it was on cgroup v1
    /// and v2 alike, so processes are taken in as soon as they run.
    ///
    /// # Errors
    /// Why it cannot be taken in; one that has ended is none.
    pub(crate) fn admit(&self, pid: u32) -> Result<(), String> {
        match fs::write(self.folder.join("cgroup.procs"), pid.to_string()) {
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) => Ok(()),
            Err(error) => Err(format!("process {pid} cannot be moved to {}: {error}", self.folder.display())),
            Ok(()) => Ok(()),
        }
    }

    /// How many processes the kernel killed for want of memory, where it says so.
    pub(crate) fn killed(&self) -> Option<u64> {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.folder.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        // It cannot be removed while a process is in it.
        fs::remove_dir(&self.folder).unwrap_or_default();
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error: io::Error| format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_control_group_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let reason = Enclosure::under(folder.path(), 1 << 30).unwrap_err();
        assert!(reason.starts_with("no memory control group in"), "{reason}");
        fs::write(folder.path().join("cgroup.controllers"), "cpu memory").unwrap();
        let enclosure = Enclosure::under(folder.path(), 1 << 30).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("cgroup.subtree_control")).unwrap(), "+memory");
        assert_eq!(fs::read_to_string(enclosure.folder.join("memory.max")).unwrap(), "1073741824");
        enclosure.admit(7).unwrap();
        assert_eq!(fs::read_to_string(enclosure.folder.join("cgroup.procs")).unwrap(), "7");
        fs::write(enclosure.folder.join("memory.events"), "low 0\noom 2\noom_kill 3\n").unwrap();
        assert_eq!(enclosure.killed(), Some(3));
    }
}
