//! How hard it is to get a core of this machine, as one thread sees it.

use std::{
    fs::File,
    io,
    time::{Duration, Instant},
};

/// How often one looks; what was seen holds meanwhile.
const LOOK: Duration = Duration::from_millis(250);
/// A thread that neither ran nor waited this long in between says nothing.
const TELLING: Duration = Duration::from_millis(1);

/// The share of its time that a thread waits for a core, of the time that it wants one: 0 on a machine with room, one
/// half where it waits as long as it runs. Linux tells both (`/proc/thread-self/schedstat`: nanoseconds on a core,
/// nanoseconds in a run queue); elsewhere, and where it does not, the share stays 0. Before the first two looks, where
/// they can be had, it is 1: who goes by it starts slowly.
#[derive(Debug)]
pub(super) struct Pressure {
    file: Option<File>,
    seen: Option<Times>,
    looked: Option<Instant>,
    share: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    ran: Duration,
    waited: Duration,
}

impl Pressure {
    /// That of no thread yet: the first to ask is the one that is looked at, and has to be the one that asks.
    pub(super) fn new() -> Self {
        Self { file: None, seen: None, looked: None, share: 0.0 }
    }

    /// The share, of late: at most one system call every 250 ms, and two more the first time.
    pub(super) fn share(&mut self, now: Instant) -> f64 {
        if self.looked.is_none() {
            self.file = File::open("/proc/thread-self/schedstat").ok();
            self.share = if self.read().is_some() { 1.0 } else { 0.0 };
        }
        if self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK) {
            self.looked = Some(now);
            if let Some(times) = self.read() {
                self.note(times);
            }
        }
        self.share
    }

    fn read(&self) -> Option<Times> {
        Times::read(self.file.as_ref()?).ok().flatten()
    }

    fn note(&mut self, times: Times) {
        let Some(before) = self.seen.replace(times) else { return };
        let (ran, waited) =
            (times.ran.saturating_sub(before.ran), times.waited.saturating_sub(before.waited));
        if ran + waited >= TELLING {
            let latest = waited.as_secs_f64() / (ran + waited).as_secs_f64();
            // Half of what was seen before, so that one bad moment is not taken for a bad time.
            self.share = f64::midpoint(self.share, latest);
        }
    }
}

impl Times {
    #[cfg(unix)]
    fn read(file: &File) -> io::Result<Option<Self>> {
        use std::os::unix::fs::FileExt as _;

        let mut text = [0; 96];
        let octets = file.read_at(&mut text, 0)?;
        Ok(Self::parse(&text[..octets]))
    }

    #[cfg(not(unix))]
    fn read(_file: &File) -> io::Result<Option<Self>> {
        Ok(None)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
        let mut time = || Some(Duration::from_nanos(numbers.next()?.parse().ok()?));
        Some(Self { ran: time()?, waited: time()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ran_ms: u64, waited_ms: u64) -> Times {
        Times { ran: Duration::from_millis(ran_ms), waited: Duration::from_millis(waited_ms) }
    }

    #[test]
    fn the_share_is_of_the_time_between_two_looks_and_follows_slowly() {
        let mut pressure = Pressure::new();
        let mut after = |ran, waited| {
            pressure.note(times(ran, waited));
            pressure.share
        };
        assert_eq!(after(1000, 9000), 0.0, "what was before the first look does not count");
        assert_eq!(after(1010, 9010), 0.25, "half of a half");
        assert_eq!(after(1020, 9020), 0.375);
        assert_eq!(after(1020, 9020), 0.375, "neither ran nor waited");
        assert_eq!(after(1120, 9020), 0.1875);
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        assert_eq!(
            Times::parse(b"149502 17 4\n"),
            Some(Times { ran: Duration::from_nanos(149_502), waited: Duration::from_nanos(17) })
        );
        for text in [&b""[..], b"1", b"x 1 2", b"1 -2 3", b"\xff 1 1", b"99999999999999999999 1 1"] {
            assert_eq!(Times::parse(text), None, "{text:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_works_undisturbed_or_not_has_a_share_below_one() {
        let mut pressure = Pressure::new();
        let start = Instant::now();
        assert_eq!(pressure.share(start), 1.0, "not known yet");
        let file = pressure.file.as_ref().expect("Linux has it");
        let before = Times::read(file).unwrap().unwrap();
        while Times::read(file).unwrap().unwrap().ran < before.ran + Duration::from_millis(5) {
            assert!(start.elapsed() < Duration::from_secs(60), "this thread runs and its time stands still");
        }
        let share = pressure.share(start + LOOK);
        assert!((0.0..1.0).contains(&share), "{share}");
    }
}
