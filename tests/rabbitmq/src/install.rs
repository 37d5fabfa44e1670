//! Where RabbitMQ is installed.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Names the folder of `rabbitmq-server`; then no other is searched for it.
const BIN_VARIABLE: &str = "RABBITMQ_BIN";

/// The scripts of Debian, Ubuntu and the RPM packages. They come first because the ones of the same name in
/// `/usr/sbin`, which a search path finds, change to the user `rabbitmq`.
const PACKAGED: &str = "/usr/lib/rabbitmq/bin";

/// Where else it is often found: Homebrew, the generic archive, the container images.
const USUAL: [&str; 7] = [
    "/opt/homebrew/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/opt/rabbitmq/sbin",
    "/usr/local/bin",
    "/opt/erlang/bin",
];

/// The programs that make up a node.
#[derive(Debug)]
pub(crate) struct Install {
    pub(crate) server: PathBuf,
    pub(crate) epmd: PathBuf,
}

impl Install {
    /// Looks for the programs.
    pub(crate) fn find() -> Result<Self, Error> {
        let path: Vec<PathBuf> =
            env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
        let usual = || USUAL.iter().map(PathBuf::from);
        let server_folders: Vec<PathBuf> = match env::var_os(BIN_VARIABLE) {
            Some(folder) => vec![PathBuf::from(folder)],
            None => {
                [PathBuf::from(PACKAGED)].into_iter().chain(path.iter().cloned()).chain(usual()).collect()
            }
        };
        let server = find_in(&server_folders, "rabbitmq-server")?;
        // It belongs to Erlang, which need not be where RabbitMQ is.
        let epmd_folders: Vec<PathBuf> = path
            .into_iter()
            .chain(usual())
            .chain(["/usr/bin".into(), "/usr/lib/erlang/bin".into()])
            .collect();
        let epmd = find_in(&epmd_folders, "epmd")?;
        Ok(Self { server, epmd })
    }
}

fn find_in(folders: &[PathBuf], program: &'static str) -> Result<PathBuf, Error> {
    folders.iter().map(|folder| folder.join(program)).find(|file| is_executable(file)).ok_or_else(|| {
        let mut names: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        names.dedup();
        Error::NotInstalled { program, looked_in: names.join(", ") }
    })
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_the_remedy_and_the_folders() {
        let error =
            find_in(&["/nowhere".into(), "/nowhere/else".into()], "rabbitmq-server").unwrap_err().to_string();
        for part in
            ["`rabbitmq-server`", "/nowhere, /nowhere/else", "make deps", "apt-get install rabbitmq-server"]
        {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}
