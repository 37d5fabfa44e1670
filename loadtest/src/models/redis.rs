//! A Redis of our own: on loopback, in memory only, in a folder that goes with it.

use std::{
    env, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use redis_protocol::resp2::types::BytesFrame;
use tokio::time::timeout;

use super::{Failure, baseline::Redis, child::Supervised};
use crate::cpu::Process;

/// Starts that are tried, each on another port.
const ATTEMPTS: usize = 5;

/// What Redis logs when it takes connections.
const READY: &str = "Ready to accept connections";

/// The list of the second model, which server and agent use unless told otherwise.
const LIST: &[u8] = b"beacons";

/// A key to see whether there is room, with a value longer than any beacon.
const ROOM: &[u8] = b"room";
const MOST: usize = 256 * 1024;

/// The longest wait for a reply: it may be busy freeing a long list.
const LIMIT: Duration = Duration::from_secs(10);

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

    /// Empties the list.
    pub(crate) async fn forget(&self) -> Result<(), Failure> {
        let forget = async {
            let mut connection = Redis::connect(self.address).await?;
            connection.command(&[b"DEL", LIST, ROOM]).await?;
            // What was freed is not the next load's memory.
            connection.command(&[b"MEMORY", b"PURGE"]).await
        };
        within_limit(forget).await.map(drop).map_err(failed)
    }

    /// Sees to it that the list holds what was accepted since it was emptied.
    ///
    /// # Errors
    /// [`Failure::List`] when it holds something else, or when Redis takes no more, which its bound has measured instead of
    /// its speed.
    pub(crate) async fn check(&self, accepted: u64, refused: u64) -> Result<(), Failure> {
        let held = match self.length().await? {
            BytesFrame::Integer(held) => u64::try_from(held).unwrap_or_default(),
            other => return Err(Failure::List(format!("it replies {other:?} to LLEN"))),
        };
        // One that has refused beacons for want of memory refuses this.
        let set = async { Redis::connect(self.address).await?.command(&[b"SET", ROOM, &[0; MOST]]).await };
        if refused > 0
            && let Err(full) = within_limit(set).await
        {
            return Err(Failure::List(format!(
                "the list fills its memory after {held} beacons ({full}): a shorter --probe and --duration, or more \
                 --memory, make room"
            )));
        }
        // What was refused may be there: without a reply in time the server does not know.
        if held < accepted || (refused == 0 && held > accepted) {
            return Err(Failure::List(format!(
                "{accepted} beacons were accepted and {held} are in the list"
            )));
        }
        Ok(())
    }

    /// What it replies to the question how long the list is.
    pub(crate) async fn length(&self) -> Result<BytesFrame, Failure> {
        within_limit(async { Redis::connect(self.address).await?.command(&[b"LLEN", LIST]).await })
            .await
            .map_err(failed)
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        self.child.stop();
    }
}

async fn within_limit<T>(ask: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(LIMIT, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn failed(error: io::Error) -> Failure {
    Failure::List(error.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_list_is_held_against_what_was_accepted_and_the_reason_is_told_when_it_is_full() {
        let redis = RedisServer::start(&find().unwrap(), 4 << 20).unwrap();
        let mut connection = Redis::connect(redis.address()).await.unwrap();
        for round in 1..=2 {
            for _ in 0..3 {
                connection.command(&[b"RPUSH", LIST, b"x"]).await.unwrap();
            }
            redis.check(3, 0).await.unwrap();
            redis.check(2, 1).await.unwrap();
            for (accepted, refused) in [(4, 0), (2, 0), (4, 1)] {
                let failure = redis.check(accepted, refused).await.unwrap_err().to_string();
                let expected = format!("redis: {accepted} beacons were accepted and 3 are in the list");
                assert_eq!(failure, expected, "round {round}");
            }
            redis.forget().await.unwrap();
            assert_eq!(redis.length().await.unwrap(), BytesFrame::Integer(0));
        }
        let line = vec![b'x'; 100_000];
        let mut accepted = 0;
        while accepted < 100 && connection.command(&[b"RPUSH", LIST, &line]).await.is_ok() {
            accepted += 1;
        }
        let failure = redis.check(accepted, 1).await.unwrap_err().to_string();
        let expected = format!("redis: the list fills its memory after {accepted} beacons (Redis says OOM");
        assert!(failure.starts_with(&expected) && failure.contains("a shorter --probe"), "{failure}");
        redis.stop();
    }
}
