//! A process of ours that cannot outlive this program: a shell stands between, which kills it when its own standard input
//! ends, that is when this program has ended, whichever way.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::Failure;
use crate::cpu::Process;

/// `$@` is the program with its arguments. The shell says the process's id, waits for the end of its standard input, and
/// makes sure. Signals are ignored by it only once the program runs, which would inherit that.
const WATCHDOG: &str = r#""$@" </dev/null & pid=$!
trap '' HUP INT TERM
echo "pid $pid"
read -r line
kill -s KILL "$pid" 2>/dev/null
wait "$pid""#;

/// How long a process may take to say that it serves.
const START: Duration = Duration::from_secs(20);

/// How long it may take to end when it is asked to; then it is killed.
const END: Duration = Duration::from_secs(5);

/// Octets of what a process said that an error repeats.
const TAIL: usize = 2000;

/// A running process. It is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Supervised {
    name: &'static str,
    watchdog: Child,
    process: Process,
    log: PathBuf,
    _folder: TempDir,
}

impl Supervised {
    /// Starts `program` as `name`, and waits until what it says contains `sign`. Blocks.
    ///
    /// # Errors
    /// [`Failure::Start`] with what the process said.
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        sign: &str,
    ) -> Result<Self, Failure> {
        let failed = |reason: String| Failure::Start { name, reason };
        let io = |what: &str, error: io::Error| failed(format!("{what}: {error}"));
        let folder =
            TempDir::with_prefix(format!("loadtest-{name}-")).map_err(|error| io("a folder", error))?;
        let log = folder.path().join("log");
        let (stdout, stderr) = File::create(&log)
            .and_then(|file| Ok((file.try_clone()?, file)))
            .map_err(|error| io("its log", error))?;
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "sh"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(append(&log, stdout))
            .stderr(append(&log, stderr))
            // Out of the terminal's group: Ctrl-C is for this program.
            .process_group(0)
            .spawn()
            .map_err(|error| io("/bin/sh", error))?;
        // From here on dropping it ends all.
        let mut watchdog = Watchdog(Some(watchdog));
        let deadline = Instant::now() + START;
        let mut process = None;
        loop {
            // Asked before reading: what it says while it ends is in the log that is read afterwards.
            let ended = process.as_ref().is_some_and(|process: &Process| process.resident_octets().is_err());
            let said = fs::read_to_string(&log).unwrap_or_default();
            if process.is_none() {
                process =
                    field(&said, "pid ").and_then(|pid| Process::attach(Some(name), pid.parse().ok()?).ok());
            }
            if let Some(process) = &process
                && said.lines().any(|line| line.contains(sign))
            {
                let Some(watchdog) = watchdog.0.take() else { return Err(failed("it has ended".to_owned())) };
                return Ok(Self { name, watchdog, process: process.clone(), log, _folder: folder });
            }
            if ended || Instant::now() > deadline {
                let what = if ended { "it has ended" } else { "it does not serve" };
                return Err(failed(format!("{what}; it said:\n{}", tail(&said))));
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// The process, for measuring.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// The address behind `key=` in what it said.
    ///
    /// # Errors
    /// [`Failure::Start`] when it said none.
    pub(crate) fn address(&self, key: &str) -> Result<SocketAddr, Failure> {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let found =
            said.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok());
        found.ok_or_else(|| Failure::Start {
            name: self.name,
            reason: format!("it named no {key}=ADDRESS:\n{}", tail(&said)),
        })
    }

    /// Ends it in good order, or else by force. Blocks for at most some seconds.
    pub(crate) fn stop(self) {
        // It may have ended by itself.
        kill(Pid::from_raw(self.process.pid()), Signal::SIGTERM).unwrap_or_default();
        let deadline = Instant::now() + END;
        while self.process.resident_octets().is_ok() && Instant::now() < deadline {
            sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        end(&mut self.watchdog);
    }
}

/// Ends a watchdog that has not become a [`Supervised`] yet.
struct Watchdog(Option<Child>);

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

/// The shell kills the process when its standard input ends, and then ends itself.
fn end(watchdog: &mut Child) {
    drop(watchdog.stdin.take());
    watchdog.wait().map(drop).unwrap_or_default();
}

/// Both streams write to one file, each behind what is there.
fn append(path: &Path, otherwise: File) -> Stdio {
    File::options().append(true).open(path).unwrap_or(otherwise).into()
}

/// What follows `key` at the start of a line.
fn field<'a>(said: &'a str, key: &str) -> Option<&'a str> {
    said.lines().find_map(|line| line.strip_prefix(key)).filter(|_| said.contains('\n'))
}

fn tail(said: &str) -> &str {
    let mut start = said.len().saturating_sub(TAIL);
    while !said.is_char_boundary(start) {
        start += 1;
    }
    &said[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, sign: &str) -> Result<Supervised, Failure> {
        Supervised::start("test", Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()], &[], sign)
    }

    #[test]
    fn a_process_is_gone_when_its_value_is() {
        let child = sh("echo serves at=127.0.0.1:77; exec sleep 60", "serves").unwrap();
        assert_eq!(child.address("at").unwrap().port(), 77);
        assert!(child.address("nowhere").is_err());
        let pid = child.process().pid();
        // The shell says so before it becomes what serves.
        let deadline = Instant::now() + START;
        while !fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().starts_with("sleep") {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(2));
        }
        let start = Instant::now();
        child.stop();
        assert!(start.elapsed() < END, "it ends when it is asked to");
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn one_that_ignores_being_asked_is_killed_and_one_that_fails_says_why() {
        let child = sh("trap '' TERM; echo serves; while :; do sleep 1; done", "serves").unwrap();
        let pid = child.process().pid();
        let start = Instant::now();
        child.stop();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(start.elapsed() >= END);
        let failure = sh("echo no port free; exit 1", "serves").unwrap_err().to_string();
        assert!(failure.contains("no port free"), "{failure}");
    }
}
