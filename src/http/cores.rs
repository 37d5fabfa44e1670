//! Which core a worker runs on, if it is to stay on one.
//!
//! A worker that is woken by its client is often put on its client's core, although another core idles. Where workers
//! and what sends to them share a machine, staying put is worth more than what the scheduler can gain by moving them.

use std::io;

/// Binds the calling thread to the core for worker `lane`: the last of those that it may use, or so many before that,
/// and around again when there are fewer cores than workers. The first ones are where other work tends to be. Returns
/// the core's number.
#[cfg(target_os = "linux")]
pub(super) fn bind(lane: usize) -> io::Result<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let allowed = sched_getaffinity(None)?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).rev().filter(|&core| allowed.is_set(core)).collect();
    let core = *cores.get(lane % cores.len().max(1)).ok_or(io::ErrorKind::NotFound)?;
    let mut own = CpuSet::new();
    own.set(core);
    sched_setaffinity(None, &own)?;
    Ok(core)
}

/// There is no such thing here.
#[cfg(not(target_os = "linux"))]
pub(super) fn bind(_lane: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::thread::sched_getaffinity;

    use super::*;

    #[test]
    fn workers_take_the_cores_from_the_last_to_the_first_and_around_again() {
        let allowed = sched_getaffinity(None).unwrap();
        let cores: Vec<usize> =
            (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
        let bound = |lane| {
            let bind_there = move || (bind(lane).unwrap(), sched_getaffinity(None).unwrap());
            std::thread::scope(|scope| scope.spawn(bind_there).join().unwrap())
        };
        for lane in 0..cores.len() + 1 {
            let (core, own) = bound(lane);
            assert_eq!(core, cores[cores.len() - 1 - lane % cores.len()], "worker {lane}");
            assert_eq!((own.count(), own.is_set(core)), (1, true), "worker {lane}");
        }
        assert_eq!(sched_getaffinity(None).unwrap(), allowed, "this thread stays free");
    }
}
