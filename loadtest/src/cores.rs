//! Cores: which of them may be used, and binding a thread or a process to one. A scheduler likes to wake a thread on the
//! core of whoever woke it; on few cores load and server then share one while another idles.

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::Error;

/// One of the cores that may be used, counted from either end. Counting goes around: of two cores the third is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// So many behind the first, 0 for the first itself.
    FromFirst(usize),
    /// So many before the last, 0 for the last itself.
    FromLast(usize),
}

/// The numbers of the cores that the calling thread may use, in ascending order.
///
/// # Errors
/// [`Error::Io`] when the kernel does not say, as where there are more than 1024.
pub fn allowed() -> Result<Vec<usize>, Error> {
    of(Pid::from_raw(0))
}

/// Binds the calling thread to one of the cores that it may use; from then on that is the only one.
///
/// # Errors
/// [`Error::Io`] when the kernel refuses.
pub fn bind_thread(core: Core) -> Result<(), Error> {
    bind(Pid::from_raw(0), core)
}

/// Binds a process that has one thread to one of the cores that the calling thread may use.
///
/// # Errors
/// [`Error::Io`] when the kernel refuses.
pub fn bind_process(pid: i32, core: Core) -> Result<(), Error> {
    bind(Pid::from_raw(pid), core)
}

fn of(pid: Pid) -> Result<Vec<usize>, Error> {
    let set = sched_getaffinity(pid)
        .map_err(|errno| Error::Io { what: "cores that may be used", source: errno.into() })?;
    Ok((0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect())
}

fn bind(pid: Pid, core: Core) -> Result<(), Error> {
    let failed = |source| Error::Io { what: "binding to a core", source };
    let number = core.among(&allowed()?).ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    let mut set = CpuSet::new();
    set.set(number).map_err(|errno| failed(errno.into()))?;
    sched_setaffinity(pid, &set).map_err(|errno| failed(errno.into()))
}

impl Core {
    fn among(self, cores: &[usize]) -> Option<usize> {
        let count = cores.len();
        let place = match self {
            Self::FromFirst(behind) => behind.checked_rem(count)?,
            Self::FromLast(before) => count.checked_sub(1 + before.checked_rem(count)?)?,
        };
        cores.get(place).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::{process, thread};

    use super::*;

    #[test]
    fn counting_goes_around_from_either_end() {
        let cores = [2, 3, 7];
        let places = |core: fn(usize) -> Core| [0, 1, 2, 3, 4].map(|n| core(n).among(&cores).unwrap());
        assert_eq!(places(Core::FromFirst), [2, 3, 7, 2, 3]);
        assert_eq!(places(Core::FromLast), [7, 3, 2, 7, 3]);
        assert_eq!((Core::FromFirst(5).among(&[]), Core::FromLast(5).among(&[])), (None, None));
    }

    #[test]
    fn a_bound_thread_has_that_core_alone_and_others_keep_theirs() {
        let before = allowed().unwrap();
        for core in [Core::FromFirst(0), Core::FromFirst(1), Core::FromLast(0), Core::FromLast(1)] {
            let expected = vec![core.among(&before).unwrap()];
            let bound = thread::scope(|scope| {
                let bound = scope.spawn(|| bind_thread(core).and_then(|()| allowed()).unwrap());
                bound.join().unwrap()
            });
            assert_eq!(bound, expected, "{core:?}");
        }
        assert_eq!(allowed().unwrap(), before);
    }

    #[test]
    fn a_process_is_bound_from_outside_and_one_that_is_not_there_is_an_error() {
        let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let outcome = bind_process(pid, Core::FromLast(0)).and_then(|()| of(Pid::from_raw(pid)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(outcome.unwrap(), [*allowed().unwrap().last().unwrap()]);
        let error = bind_process(i32::MAX, Core::FromLast(0)).unwrap_err().to_string();
        assert!(error.starts_with("binding to a core: "), "{error}");
    }
}
