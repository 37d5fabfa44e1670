//! CPU time and resident memory of other processes.
//!
//! CPU time is read from the process's own CPU clock (`clock_getcpuclockid(3)`): user and system time of all its
//! threads, those that have ended included, in nanoseconds and current at the moment of reading. `/proc/PID/stat`
//! counts in ticks of 10 ms, and `/proc/PID/task/*/schedstat` lags by up to a scheduler tick and forgets ended threads.
//!
//! Time that the kernel spends in network interrupts is charged to whichever thread they interrupt, here and in
//! `/proc` alike: over loopback that is mostly the sender of a packet.

use std::{fs, time::Duration};

use nix::{sys::time::TimeSpec, time::ClockId, unistd::Pid};

use crate::Error;

/// A process whose CPU time and memory are measured.
#[derive(Debug, Clone)]
pub struct Process {
    name: String,
    pid: i32,
    clock: ClockId,
}

impl Process {
    /// Finds process `pid`; `name` labels it in reports, by default what the kernel calls it (`/proc/PID/comm`).
    ///
    /// # Errors
    /// [`Error::Process`] when there is no such process.
    pub fn attach(name: Option<&str>, pid: i32) -> Result<Self, Error> {
        let label = name.unwrap_or("process").to_owned();
        let failed = |reason: String| Error::Process { name: label.clone(), pid, reason };
        if pid <= 0 {
            return Err(failed("a process id is a positive number".to_owned()));
        }
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"))
            .map_err(|_| failed("no such process".to_owned()))?
            .trim()
            .to_owned();
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid))
            .map_err(|errno| failed(format!("no CPU clock: {}", errno.desc())))?;
        let process = Self { name: name.map_or(comm, str::to_owned), pid, clock };
        process.cpu_time()?;
        Ok(process)
    }

    /// Its label in reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// User and system time that it has used since its start, all threads together.
    ///
    /// # Errors
    /// [`Error::Process`] when it has ended.
    pub fn cpu_time(&self) -> Result<Duration, Error> {
        self.clock.now().map(to_duration).map_err(|_| self.gone())
    }

    /// Resident memory (`VmRSS`) in octets.
    ///
    /// # Errors
    /// [`Error::Process`] when it has ended.
    pub fn resident_octets(&self) -> Result<u64, Error> {
        fs::read_to_string(format!("/proc/{}/status", self.pid))
            .ok()
            .and_then(|status| resident_octets(&status))
            .ok_or_else(|| self.gone())
    }

    fn gone(&self) -> Error {
        Error::Process { name: self.name.clone(), pid: self.pid, reason: "it has ended".to_owned() }
    }
}

/// User and system time of the calling thread; zero should the clock not be readable.
pub fn thread_cpu_time() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().map(to_duration).unwrap_or_default()
}

/// The `VmRSS` line of a `/proc/PID/status`, in octets. A zombie has none.
fn resident_octets(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn to_duration(time: TimeSpec) -> Duration {
    Duration::from(time)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn resident_memory_is_read_from_a_status_file() {
        assert_eq!(resident_octets("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(resident_octets("Name:\tx\nState:\tZ (zombie)\n"), None);
        assert_eq!(resident_octets("VmRSS:\tmuch kB\n"), None);
    }

    #[test]
    fn own_cpu_time_grows_by_what_this_thread_burns() {
        let own = Process::attach(None, i32::try_from(std::process::id()).unwrap()).unwrap();
        let (before, thread_before) = (own.cpu_time().unwrap(), thread_cpu_time());
        let start = Instant::now();
        while thread_cpu_time() - thread_before < Duration::from_millis(20) {
            assert!(start.elapsed() < Duration::from_secs(10));
        }
        let used = own.cpu_time().unwrap() - before;
        assert!(used >= Duration::from_millis(20), "{used:?}");
        assert!(own.resident_octets().unwrap() > 100_000);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error_with_its_id() {
        let error = Process::attach(Some("edge"), i32::MAX).unwrap_err().to_string();
        assert_eq!(error, format!("cannot measure process edge (pid {}): no such process", i32::MAX));
        assert!(Process::attach(None, -1).is_err());
    }
}
