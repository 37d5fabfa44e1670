//! The limit on open files, which ten thousand connections meet first.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Error;

/// Sees to it that this process may open `needed` files, raising its limit as far as it may.
///
/// # Errors
/// [`Error::OpenFiles`] with what to raise, when the hard limit is lower and this user may not lift it.
pub fn allow_open_files(needed: u64) -> Result<(), Error> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|errno| Error::Io { what: "limit on open files", source: errno.into() })?;
    if soft >= needed {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed))
        .map_err(|_| Error::OpenFiles { needed, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_allowed_and_what_cannot_be_is_refused_with_the_number() {
        allow_open_files(16).unwrap();
        let error = allow_open_files(u64::MAX - 1).unwrap_err().to_string();
        assert!(error.contains("open files are needed and the hard limit is"), "{error}");
    }
}
