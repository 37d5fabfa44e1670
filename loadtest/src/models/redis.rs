//! A Redis of our own: on loopback, in memory only, in a folder that goes with it.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use super::{Failure, child::Supervised};
use crate::cpu::Process;

/// Starts that are tried, each on another port.
const ATTEMPTS: usize = 5;

/// What Redis logs when it takes connections.
const READY: &str = "Ready to accept connections";

/// A running Redis.
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Supervised,
    address: SocketAddr,
}

impl RedisServer {
    /// Starts `program`, which refuses writes once its data take `max_octets`. Blocks for some milliseconds.
    ///
    /// Without persistence, which is the fastest that a second model can be: a Redis that dies takes its list with it.
    ///
    /// # Errors
    /// [`Failure::Start`] with what it said.
    pub(crate) fn start(program: &Path, max_octets: u64) -> Result<Self, Failure> {
        let mut failure = None;
        for _ in 0..ATTEMPTS {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .and_then(|listener| listener.local_addr())
                .map_err(|error| Failure::Start {
                    name: "redis",
                    reason: format!("no free port: {error}"),
                })?;
            let arguments = [
                "--bind",
                "127.0.0.1",
                "--port",
                &address.port().to_string(),
                "--daemonize",
                "no",
                "--save",
                "",
                "--appendonly",
                "no",
                "--maxmemory",
                &max_octets.to_string(),
                "--maxmemory-policy",
                "noeviction",
            ]
            .map(str::to_owned);
            match Supervised::start("redis", program, &arguments, &[], READY) {
                Ok(child) => return Ok(Self { child, address }),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or(Failure::Start { name: "redis", reason: "it was not tried".to_owned() }))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process, for measuring.
    pub(crate) fn process(&self) -> &Process {
        self.child.process()
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        self.child.stop();
    }
}

/// The redis-server of this machine.
pub(crate) fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from))
        .map(|folder| folder.join("redis-server"))
        .find(|program| program.is_file())
}

/// What it calls itself, for example `7.0.15`.
pub(crate) fn version(program: &Path) -> Option<String> {
    let said = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&said.stdout);
    text.split_whitespace().find_map(|word| word.strip_prefix("v=")).map(str::to_owned)
}
