//! The edge under judgement: the real program, as a process of its own.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::Error;

/// From the start of the process to its first answer.
const START_LIMIT: Duration = Duration::from_secs(20);
/// From a signal that nobody can refuse to the end.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// One answer of the admin listener.
const SCRAPE_LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// Reads process ids, one a line, and kills the last one with SIGKILL when nobody can write any more: so no edge
/// outlives the judge, however the judge ends.
const WATCHDOG: &str = r#"trap '' HUP INT TERM
last=
while read -r pid; do last=$pid; done
[ -z "$last" ] || kill -s KILL "$last""#;

/// A program that is started, ended and started again with the same configuration.
#[derive(Debug)]
pub(crate) struct Edge {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    admin: SocketAddr,
    /// Put before the program: a tracer that becomes the parent's grandchild.
    prefix: Vec<String>,
    child: Option<Child>,
    watchdog: Watchdog,
}

impl Edge {
    /// Starts `program`; its log goes to the end of `log`. Returns when it answers.
    ///
    /// # Errors
    /// [`Error::Edge`] with the end of its log, when it ends or stays silent.
    pub(crate) fn start(
        program: &Path,
        config: &Path,
        log: &Path,
        admin: SocketAddr,
        prefix: Vec<String>,
    ) -> Result<Self, Error> {
        let mut edge = Self {
            program: program.to_owned(),
            config: config.to_owned(),
            log: log.to_owned(),
            admin,
            prefix,
            child: None,
            watchdog: Watchdog::start()?,
        };
        edge.start_again()?;
        Ok(edge)
    }

    /// Starts it after its end.
    ///
    /// # Errors
    /// As [`Edge::start`].
    pub(crate) fn start_again(&mut self) -> Result<(), Error> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(Error::io("log of the edge"))?;
        let mut words = self.prefix.iter().map(String::as_ref).chain([self.program.as_os_str()]);
        let first = words.next().unwrap_or_default();
        let child = Command::new(first)
            .args(words)
            .arg("--config")
            .arg(&self.config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A Ctrl-C is for the judge, which ends it in its own way.
            .process_group(0)
            .spawn()
            .map_err(|error| self.failed(&format!("cannot be run: {error}")))?;
        self.watchdog.watch(Some(child.id()));
        self.child = Some(child);
        let start = Instant::now();
        while get(self.admin, "/healthz").is_err() {
            if let Some(status) = self.exit_status()? {
                return Err(self.failed(&format!("ended while it started: {status}")));
            }
            if start.elapsed() > START_LIMIT {
                return Err(self.failed(&format!("does not answer after {START_LIMIT:?}")));
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// Its process id; 0 while it is down.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// SIGKILL. Returns when it is gone.
    ///
    /// # Errors
    /// [`Error::Edge`] when it is not.
    pub(crate) fn kill(&mut self) -> Result<(), Error> {
        self.signal(Signal::SIGKILL)?;
        self.wait(KILL_LIMIT).map(drop)
    }

    /// SIGTERM. Returns when it has ended, with its exit status.
    ///
    /// # Errors
    /// [`Error::Edge`] when it has not within `limit`.
    pub(crate) fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Its exit status if it has ended; then it is down.
    ///
    /// # Errors
    /// When the system does not say.
    pub(crate) fn exit_status(&mut self) -> Result<Option<ExitStatus>, Error> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait().map_err(Error::io("state of the edge"))?;
        if status.is_some() {
            self.watchdog.watch(None);
            self.child = None;
        }
        Ok(status)
    }

    /// One reading of its metrics.
    ///
    /// # Errors
    /// [`Error::Edge`] when it does not answer with them.
    pub(crate) fn scrape(&self) -> Result<String, Error> {
        get(self.admin, "/metrics")
            .map_err(|error| self.failed(&format!("does not tell its metrics: {error}")))
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let pid = i32::try_from(self.pid()).unwrap_or(0);
        if pid == 0 {
            return Err(self.failed("is down"));
        }
        kill(Pid::from_raw(pid), signal)
            .map_err(|errno| self.failed(&format!("cannot be signalled: {errno}")))
    }

    fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                return Err(self.failed(&format!("runs {limit:?} after its signal")));
            }
            sleep(LOOK);
        }
    }

    fn failed(&self, reason: &str) -> Error {
        let log = self.log();
        let from = log.char_indices().rev().map(|(at, _)| at).nth(1500).unwrap_or(0);
        Error::Edge { reason: reason.to_owned(), log: log[from..].trim_end().to_owned() }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            drop((child.kill(), child.wait()));
            self.watchdog.watch(None);
        }
    }
}

#[derive(Debug)]
struct Watchdog {
    process: Child,
    line: Option<ChildStdin>,
}

impl Watchdog {
    fn start() -> Result<Self, Error> {
        let mut process = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "edge-watchdog"])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::io("watchdog of the edge"))?;
        let line = process.stdin.take();
        Ok(Self { process, line })
    }

    /// Whom to kill; nobody once it has been waited for, as the number may be another's then.
    fn watch(&mut self, pid: Option<u32>) {
        if let Some(line) = &mut self.line {
            let text = pid.map_or_else(|| "\n".to_owned(), |pid| format!("{pid}\n"));
            // Without its watchdog the edge is still killed when it is dropped.
            line.write_all(text.as_bytes()).unwrap_or_default();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.line.take());
        drop(self.process.wait());
    }
}

/// Two free ports below those that the system gives to clients: a client that retries towards a port of theirs on
/// loopback can connect to itself.
pub(crate) fn free_ports() -> Result<[SocketAddr; 2], Error> {
    let mut found = Vec::with_capacity(2);
    for _ in 0..200 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..19_000)));
        if let Ok(listener) = TcpListener::bind(address) {
            found.push((address, listener));
        }
        if let [(http, _), (admin, _)] = found[..] {
            return Ok([http, admin]);
        }
    }
    Err(Error::Io { what: "free ports for the edge", source: std::io::ErrorKind::AddrInUse.into() })
}

/// The body of an answer with status 200.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, SCRAPE_LIMIT)?;
    stream.set_read_timeout(Some(SCRAPE_LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(4 << 20).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(answer.lines().next().unwrap_or("an empty answer").to_owned())),
    }
}

/// What an edge says of its beacons: from its metrics, or from the last line of its log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    pub(crate) accepted: u64,
    pub(crate) recovered: u64,
    pub(crate) confirmed: u64,
    /// On the ring, in a batch, in flight.
    pub(crate) pending: u64,
    pub(crate) spooled: u64,
    pub(crate) dropped: BTreeMap<String, u64>,
    /// Batches sent again.
    pub(crate) resent: u64,
}

impl Reading {
    /// From the text of `/metrics`, for the destination `main`.
    pub(crate) fn from_metrics(text: &str) -> Option<Self> {
        let mut reading = Self::default();
        let mut has_accepted = false;
        for line in text.lines() {
            let Some((name, value)) =
                line.strip_prefix("beacon_edge_").and_then(|line| line.rsplit_once(' '))
            else {
                continue;
            };
            let Some((name, labels)) = name.split_once('{') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let value = value as u64;
            match name {
                "beacons_accepted_total" => (reading.accepted, has_accepted) = (value, true),
                "beacons_recovered_total" => reading.recovered = value,
                "beacons_confirmed_total" => reading.confirmed = value,
                "beacons_on_ring" | "beacons_in_batch" | "beacons_in_flight" => reading.pending += value,
                "beacons_spooled" => reading.spooled = value,
                "batches_resent_total" => reading.resent = value,
                "beacons_dropped_total" => {
                    let reason = labels.split_once("reason=\"")?.1.split_once('"')?.0;
                    if value > 0 {
                        reading.dropped.insert(reason.to_owned(), value);
                    }
                }
                _ => {}
            }
        }
        has_accepted.then_some(reading)
    }

    /// From the line in which an edge takes its leave: `…; main: 7 accepted, 5 confirmed, dropped: 2 evicted`.
    pub(crate) fn from_farewell(log: &str) -> Option<Self> {
        let line = log
            .lines()
            .rev()
            .find(|line| line.contains(" stopped, ") || line.contains(" stopped before "))?;
        let (_, counts) = line.split_once("main: ")?;
        // The log may put its fields behind the message.
        let mut reading = Self::default();
        for part in counts.split([',', ';']) {
            let part = part.trim().trim_start_matches("dropped: ");
            let Some((count, what)) = part.split_once(' ') else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            let what = what.split(' ').next().unwrap_or_default();
            match what {
                "accepted" => reading.accepted = count,
                "recovered" => reading.recovered = count,
                "confirmed" => reading.confirmed = count,
                "spooled" | "in" | "left" => reading.spooled = count,
                "rejected" => {}
                reason => drop(reading.dropped.insert(reason.to_owned(), count)),
            }
        }
        Some(reading)
    }

    /// Beacons dropped, for whatever reason.
    pub(crate) fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// `accepted + recovered = confirmed + pending + spooled + dropped`.
    pub(crate) fn is_conserved(&self) -> bool {
        self.accepted + self.recovered == self.confirmed + self.pending + self.spooled + self.dropped_total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_and_farewells_are_read() {
        let metrics = "# TYPE beacon_edge_beacons_accepted counter\n\
             beacon_edge_beacons_accepted_total{destination=\"main\"} 12\n\
             beacon_edge_beacons_confirmed_total{destination=\"main\"} 5\n\
             beacon_edge_beacons_on_ring{destination=\"main\"} 1\n\
             beacon_edge_beacons_in_flight{destination=\"main\"} 2\n\
             beacon_edge_beacons_dropped_total{destination=\"main\",reason=\"ring_full\"} 4\n\
             beacon_edge_beacons_dropped_total{destination=\"main\",reason=\"evicted\"} 0\n# EOF\n";
        let reading = Reading::from_metrics(metrics).unwrap();
        assert_eq!((reading.accepted, reading.confirmed, reading.pending), (12, 5, 3));
        assert_eq!(reading.dropped, BTreeMap::from([("ring_full".to_owned(), 4)]));
        assert!(reading.is_conserved());
        assert_eq!(Reading::from_metrics("nonsense"), None);

        let log = "2026-01-01T00:00:00Z  INFO stopped, everything accepted was delivered; main: 1 accepted, 1 confirmed\n\
             2026-01-01T00:00:09Z ERROR stopped before everything was delivered; main: 9 accepted, 5 confirmed, \
             dropped: 3 ring_full, 1 shutdown_on_ring, 2 rejected took=5s connections_cut=0\n";
        let reading = Reading::from_farewell(log).unwrap();
        assert_eq!((reading.accepted, reading.confirmed, reading.dropped_total()), (9, 5, 4));
        assert!(reading.is_conserved());
    }

    #[test]
    fn the_watchdog_kills_whom_it_was_told_last() {
        let mut watched = Command::new("sleep").arg("60").spawn().unwrap();
        let mut watchdog = Watchdog::start().unwrap();
        watchdog.watch(Some(watched.id()));
        drop(watchdog);
        let status = watched.wait().unwrap();
        assert!(!status.success());

        let mut spared = Command::new("sleep").arg("60").spawn().unwrap();
        let mut watchdog = Watchdog::start().unwrap();
        watchdog.watch(Some(spared.id()));
        watchdog.watch(None);
        drop(watchdog);
        assert!(spared.try_wait().unwrap().is_none());
        spared.kill().unwrap();
        spared.wait().unwrap();
    }
}
