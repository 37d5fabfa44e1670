//! One run of a node: its processes from start to end.
//!
//! ```text
//!  test process ──pipe──▶ beam.smp (the broker) ── erl_child_setup ── its helpers
//!       │       ──pipe──▶ watchdog (sh)
//!       └───────────────▶ epmd
//! ```
//!
//! epmd leads a process group of its own and the broker joins it. The watchdog kills that group and removes the node's
//! folder when its pipe closes without having been killed before, that is when the test process has ended without
//! dropping the node. The broker also ends by itself when its own pipe closes.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::builder::Plan;
use crate::control::{Control, NotReady, PROGRAM};
use crate::error::Error;
use crate::process::{Process, descendants, kill_group};
use crate::wait::wait_until;

const EPMD_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// After SIGKILL everything is gone within milliseconds; a loaded machine may take longer.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long the broker's helpers may take to notice that it is dead before they are killed as well.
const HELPERS_LIMIT: Duration = Duration::from_millis(500);
/// Octets of the node's log that an error report carries.
const LOG_TAIL: usize = 6_000;

/// How Erlang names a port that is in use, in its logs.
pub(crate) const PORT_TAKEN: &str = "eaddrinuse";

/// `$1` is the process group, `$2` the node's folder. A process that is dying may still write, hence the attempts.
const WATCHDOG: &str = r#"trap '' HUP INT TERM
read -r line
kill -s KILL -- "-$1"
for attempt in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$2" && break; sleep 0.3; done"#;

/// The processes of a running node. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Run {
    epmd: Child,
    watchdog: Option<Child>,
    broker: Option<Child>,
    control: Option<Arc<Control>>,
    broker_pid: u32,
    version: String,
}

impl Run {
    /// Starts the node and returns when its listeners accept connections.
    pub(crate) fn start(plan: &Plan) -> Result<Self, Error> {
        let deadline = Instant::now() + plan.start_limit;
        let mut run = Self::start_registry(plan)?;
        match run.start_broker(plan, deadline) {
            Ok(()) => Ok(run),
            Err(error) => Err(run.explain(plan, error)),
        }
    }

    /// Starts epmd, and the watchdog, alone.
    pub(crate) fn start_registry(plan: &Plan) -> Result<Self, Error> {
        let mut run = Self::start_epmd(plan)?;
        run.watchdog = Some(start_watchdog(plan, run.epmd.id())?);
        run.wait_for_epmd(plan)?;
        Ok(run)
    }

    /// The line into the broker.
    pub(crate) fn control(&self) -> Result<Arc<Control>, Error> {
        self.control.clone().ok_or(Error::NotRunning)
    }

    /// The process of the Erlang VM, which is the broker.
    pub(crate) fn broker_pid(&self) -> u32 {
        self.broker_pid
    }

    /// The version of RabbitMQ.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Every process of the node: the broker first, then its descendants, epmd and the watchdog.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let broker = self.broker.as_ref().map(Child::id);
        let helpers = descendants(self.broker_pid).into_iter().map(|process| process.pid);
        let watchdog = self.watchdog.as_ref().map(Child::id);
        broker.into_iter().chain(helpers).chain([self.epmd.id()]).chain(watchdog).collect()
    }

    /// Waits for the broker to end by itself.
    pub(crate) fn wait_for_end(&mut self, limit: Duration) -> Result<(), Error> {
        match self.broker.as_mut() {
            Some(broker) => wait_for_exit("the broker ends", broker, limit),
            None => Ok(()),
        }
    }

    /// Kills what is left of the run and waits until it is gone. A second call does nothing.
    pub(crate) fn kill(&mut self) -> Result<(), Error> {
        let family = self.broker.as_ref().map(|broker| descendants(broker.id())).unwrap_or_default();
        kill_group(self.epmd.id());
        let mut ended = wait_for_exit("epmd ends after SIGKILL", &mut self.epmd, KILL_LIMIT);
        if let Some(mut broker) = self.broker.take() {
            // It is in the group; this is for the moment between spawn and exec.
            broker.kill().ok();
            ended = ended.and(wait_for_exit("the broker ends after SIGKILL", &mut broker, KILL_LIMIT));
        }
        self.control = None;
        if let Some(mut watchdog) = self.watchdog.take() {
            watchdog.kill().ok();
            ended = ended.and(wait_for_exit("the watchdog ends after SIGKILL", &mut watchdog, KILL_LIMIT));
        }
        ended.and(wait_for_helpers(&family))
    }

    fn start_epmd(plan: &Plan) -> Result<Self, Error> {
        let epmd = Command::new(&plan.install.epmd)
            .args(["-address", "127.0.0.1", "-port", &plan.ports.epmd().port().to_string()])
            .env_clear()
            .envs(plan.environment())
            .current_dir(plan.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("run {}", plan.install.epmd.display())))?;
        Ok(Self { epmd, watchdog: None, broker: None, control: None, broker_pid: 0, version: String::new() })
    }

    fn wait_for_epmd(&mut self, plan: &Plan) -> Result<(), Error> {
        let address = plan.ports.epmd();
        wait_until(
            || format!("epmd accepts connections on {address}"),
            EPMD_LIMIT,
            || {
                TcpStream::connect_timeout(&address, CONNECT_LIMIT)
                    .map(drop)
                    .map_err(|error| error.to_string())
            },
        )?;
        match self.epmd.try_wait() {
            Ok(None) => Ok(()),
            // Somebody else answers on its port, in the words by which a lost port is told from other failures.
            _ => Err(Error::Start { reason: "epmd ended".into(), log: format!("{PORT_TAKEN}: {address}") }),
        }
    }

    fn start_broker(&mut self, plan: &Plan, deadline: Instant) -> Result<(), Error> {
        let console =
            File::create(plan.console_file()).map_err(Error::io("create the node's console file"))?;
        let group =
            i32::try_from(self.epmd.id()).map_err(|_| failed_start("a process number is out of range"))?;
        let mut broker = Command::new(&plan.install.server)
            // The program reads the standard input itself; the VM must not.
            .args(["-noinput", "-eval", PROGRAM])
            .env_clear()
            .envs(plan.environment())
            .current_dir(plan.folder())
            .stdin(Stdio::piped())
            .stdout(console)
            .stderr(Stdio::piped())
            .process_group(group)
            .spawn()
            .map_err(Error::io(format!("run {}", plan.install.server.display())))?;
        let pipes = (broker.stdin.take(), broker.stderr.take());
        self.broker_pid = broker.id();
        self.broker = Some(broker);
        let (Some(input), Some(output)) = pipes else {
            return Err(failed_start("its pipes were not opened"));
        };
        let (control, startup) = Control::open(input, output)?;
        self.control = Some(Arc::new(control));
        let ready =
            startup.wait(deadline.saturating_duration_since(Instant::now())).map_err(|why| match why {
                NotReady::TooLate => failed_start(format!("it was not up within {:?}", plan.start_limit)),
                NotReady::Ended => failed_start("it ended"),
                NotReady::Refused(state) => failed_start(state),
            })?;
        self.broker_pid = ready.pid;
        self.version = ready.version;
        for listener in &plan.listeners {
            TcpStream::connect_timeout(listener, CONNECT_LIMIT)
                .map_err(|error| failed_start(format!("its listener {listener} does not accept: {error}")))?;
        }
        Ok(())
    }

    /// Adds to a failed start what the node said.
    fn explain(&mut self, plan: &Plan, error: Error) -> Error {
        let Error::Start { reason, .. } = error else { return error };
        let exit = self.broker.as_mut().and_then(|broker| {
            wait_for_exit("the broker ends", broker, HELPERS_LIMIT).ok();
            broker.try_wait().ok().flatten()
        });
        let reason = exit.map_or_else(|| reason.clone(), |status| format!("{reason} ({status})"));
        let output = self.control.as_ref().map(|control| control.other_output()).unwrap_or_default();
        let log = [output.join("\n"), tail(&plan.console_file()), tail(&plan.log_file())].join("\n");
        Error::Start { reason, log }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // What cannot be killed now cannot be killed by saying so.
        self.kill().ok();
    }
}

fn start_watchdog(plan: &Plan, group: u32) -> Result<Child, Error> {
    Command::new("/bin/sh")
        .args(["-c", WATCHDOG, "rabbitmq-node-watchdog", &group.to_string()])
        .arg(plan.folder())
        // Not the node's folder, which it removes.
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Out of the terminal's process group, so that a Ctrl-C does not reach it.
        .process_group(0)
        .spawn()
        .map_err(Error::io("run /bin/sh as a watchdog"))
}

fn failed_start(reason: impl Into<String>) -> Error {
    Error::Start { reason: reason.into(), log: String::new() }
}

fn wait_for_exit(what: &str, child: &mut Child, limit: Duration) -> Result<(), Error> {
    wait_until(
        || what.to_owned(),
        limit,
        || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it runs".into()),
            Err(error) => Err(error.to_string()),
        },
    )
}

fn wait_for_helpers(family: &[Process]) -> Result<(), Error> {
    let look = || {
        let left: Vec<u32> =
            family.iter().filter(|process| !process.is_gone()).map(|process| process.pid).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} run")) }
    };
    let what = || "the broker's helper processes end".to_owned();
    if wait_until(what, HELPERS_LIMIT, look).is_ok() {
        return Ok(());
    }
    family.iter().for_each(Process::kill);
    wait_until(what, KILL_LIMIT, look)
}

fn tail(file: &Path) -> String {
    let Ok(octets) = fs::read(file) else { return String::new() };
    let text = &octets[octets.len().saturating_sub(LOG_TAIL)..];
    format!("--- end of {}:\n{}", file.display(), String::from_utf8_lossy(text).trim_end())
}
