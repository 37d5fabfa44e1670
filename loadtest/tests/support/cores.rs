//! Which cores the threads of a process may use, as the kernel tells everybody.

use std::fs;

/// The core of each thread whose name begins with `name`, by name; without those that may use several.
pub(crate) fn bound(pid: u32, name: &str) -> Vec<(String, usize)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut bound: Vec<(String, usize)> = threads
        .filter_map(|thread| {
            let own = fs::read_to_string(thread.path().join("comm")).ok()?.trim().to_owned();
            let status = fs::read_to_string(thread.path().join("status")).ok()?;
            match cores(&status)[..] {
                [core] if own.starts_with(name) => Some((own, core)),
                _ => None,
            }
        })
        .collect();
    bound.sort_unstable();
    bound
}

/// The cores that this thread may use.
pub(crate) fn allowed() -> Vec<usize> {
    cores(&fs::read_to_string("/proc/thread-self/status").unwrap())
}

/// Such as `0-3,8` in a line of a process's status.
fn cores(status: &str) -> Vec<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let ranges = list.trim().split(',').map(|range| range.split_once('-').unwrap_or((range, range)));
    ranges.flat_map(|(low, high)| low.parse().unwrap()..=high.parse::<usize>().unwrap()).collect()
}
