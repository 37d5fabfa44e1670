//! The program as a process of its own.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::LIMIT;

/// The running program. Killed by its id on drop.
pub(crate) struct Program {
    pub(crate) child: Child,
    log: BufReader<std::process::ChildStderr>,
    seen: String,
}

impl Program {
    pub(crate) fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-edge"));
        command
            .env("BEACON_EDGE__HTTP__LISTEN", "127.0.0.1:0")
            .env("BEACON_EDGE__ADMIN__LISTEN", "127.0.0.1:0");
        command
    }

    pub(crate) fn start(env: &[(&str, &str)]) -> Self {
        let mut child = Self::command()
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log, seen: String::new() }
    }

    /// Reads the log up to the line that says where it serves: HTTP and admin.
    pub(crate) fn addresses(&mut self) -> (SocketAddr, SocketAddr) {
        let line = self.line_with(" serves ");
        let address = |name: &str| {
            let (_, rest) = line.split_once(name).unwrap();
            rest.split_whitespace().next().unwrap().parse().unwrap()
        };
        (address("http="), address("admin="))
    }

    pub(crate) fn line_with(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "no line with {what:?} in:\n{}", self.seen);
            self.seen.push_str(&line);
            if line.contains(what) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the end: exit status, and the rest of the log.
    pub(crate) fn end(mut self) -> (i32, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < LIMIT, "it does not end");
            thread::sleep(Duration::from_millis(10));
        };
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (status.code().expect("not killed"), std::mem::take(&mut self.seen) + &rest)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already if the test went well.
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}
