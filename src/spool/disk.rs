//! Free space on the disk of a spool, looked at now and then.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// How often the disk is asked, at most, while little is written.
const LOOK: Duration = Duration::from_millis(250);
/// It is asked again when so much was written.
const WRITTEN: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct FreeSpace {
    folder: PathBuf,
    /// What is to stay free.
    floor: u64,
    looked_at: Option<Instant>,
    written: u64,
    free: u64,
}

impl FreeSpace {
    pub(super) fn new(folder: PathBuf, floor: u64) -> Self {
        Self { folder, floor, looked_at: None, written: 0, free: 0 }
    }

    /// Whether more than the floor is free, with so many octets about to be written.
    pub(super) fn is_enough_for(&mut self, octets: u64) -> bool {
        self.written = self.written.saturating_add(octets);
        if self.looked_at.is_none_or(|at| at.elapsed() >= LOOK) || self.written >= WRITTEN {
            self.look();
        }
        self.free.saturating_sub(self.written) >= self.floor
    }

    /// Whether it is clearly enough, after it was not.
    pub(super) fn is_ample(&mut self) -> bool {
        self.look();
        self.free >= self.floor.saturating_add((self.floor / 8).clamp(1 << 20, WRITTEN))
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    fn look(&mut self) {
        // What cannot be asked is left to the writing to find out.
        self.free = rustix::fs::statvfs(&self.folder)
            .map_or(u64::MAX, |found| found.f_bavail.saturating_mul(found.f_frsize));
        self.looked_at = Some(Instant::now());
        self.written = 0;
    }
}
