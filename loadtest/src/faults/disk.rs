//! A small file system that can be filled up and emptied again.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Error;

/// A tmpfs, mounted for as long as this lives. Needs root.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts `octets` of tmpfs at `path`, which is made.
    ///
    /// # Errors
    /// When the system does not let us.
    pub(crate) fn mount(path: &Path, octets: u64) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(Error::io("folder for a small disk"))?;
        let size = format!("size={octets}");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .map_err(|errno| Error::Io { what: "small disk (tmpfs)", source: errno.into() })?;
        Ok(Self { path: path.to_owned() })
    }

    /// Leaves no octet free.
    ///
    /// # Errors
    /// When writing fails for another reason than that.
    pub(crate) fn fill(&self) -> Result<(), Error> {
        let mut file = File::create(self.filler()).map_err(Error::io("filling a small disk"))?;
        let block = vec![0x5a; 1 << 20];
        let mut size = block.len();
        while size > 0 {
            match file.write(&block[..size]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(Error::io("filling a small disk")(error)),
            }
        }
        Ok(())
    }

    /// Gives back what [`SmallDisk::fill`] took.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(crate) fn free(&self) -> Result<(), Error> {
        fs::remove_file(self.filler()).map_err(Error::io("freeing a small disk"))
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Detached, so that a file that is still open does not keep it.
        umount2(&self.path, MntFlags::MNT_DETACH).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        thread::sleep,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_it_is_freed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let disk = match SmallDisk::mount(&path, 1 << 20) {
            Ok(disk) => disk,
            Err(error) => return eprintln!("not tested: {error}"),
        };
        let write = || fs::write(path.join("file"), [1; 8192]).map_err(|error| error.kind());
        assert_eq!(write(), Ok(()));
        disk.fill().unwrap();
        fs::remove_file(path.join("file")).unwrap();
        disk.fill().unwrap();
        assert_eq!(write(), Err(ErrorKind::StorageFull));
        disk.free().unwrap();
        // The system may take a moment to have it back.
        let start = Instant::now();
        while write().is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "it stays full");
            sleep(Duration::from_millis(1));
        }
        drop(disk);
        assert!(!path.join("file").exists());
    }
}
