//! Processes of the operating system: who descends from whom, and who is gone.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A process, safe against the reuse of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks from the boot of the system to the start of the process.
    started: u64,
}

impl Process {
    /// Whether the process has ended. One that nobody has reaped yet has ended too.
    pub(crate) fn is_gone(&self) -> bool {
        Stat::read(self.pid).is_none_or(|stat| stat.started != self.started || stat.ended)
    }

    /// Kills it, unless it is gone.
    pub(crate) fn kill(&self) {
        if let Some(pid) = rustix_pid(self.pid)
            && !self.is_gone()
        {
            // It may end between the look and the blow.
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

/// Everything that descends from a process, itself excluded. Empty on systems without `/proc`; there the children of
/// a killed broker are left to end by themselves, which they do when the pipe from it closes.
pub(crate) fn descendants(root: u32) -> Vec<Process> {
    let mut children: HashMap<u32, Vec<Process>> = HashMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some(stat) = Stat::read(pid)
        {
            children.entry(stat.parent).or_default().push(Process { pid, started: stat.started });
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            next.push(child.pid);
            found.push(child);
        }
    }
    found
}

/// Sends SIGKILL to a process group; a group that is gone is fine.
pub(crate) fn kill_group(leader: u32) {
    if let Some(leader) = rustix_pid(leader) {
        kill_process_group(leader, Signal::KILL).ok();
    }
}

fn rustix_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The fields of `/proc/PID/stat` that are of use here.
struct Stat {
    parent: u32,
    started: u64,
    ended: bool,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
        // The second field is the name in parentheses, and a name may contain anything.
        let (_, after_name) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        Some(Self {
            ended: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_child_is_a_descendant_until_it_is_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let family = descendants(std::process::id());
        let found = *family.iter().find(|process| process.pid == child.id()).expect("the child is in /proc");
        assert!(!found.is_gone());
        found.kill();
        child.wait().unwrap();
        assert!(found.is_gone());
    }
}
