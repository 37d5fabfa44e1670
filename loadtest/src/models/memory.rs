//! The largest resident memory of a process since a moment of our choosing.

use std::fs;

/// Forgets the peak so far, where the kernel allows it; otherwise peaks count from the start of the process.
pub(crate) fn forget_peak(pid: i32) {
    // 5: "reset the peak resident set size"; see proc_pid_clear_refs(5).
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap_or_default();
}

/// The peak in octets; `None` when the process has ended.
pub(crate) fn peak(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_peak_is_there_and_a_process_that_is_not_has_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        forget_peak(own);
        assert!(peak(own).unwrap() > 100_000);
        assert_eq!(peak(i32::MAX), None);
    }
}
