//! A line to the inside of the broker: Erlang expressions go in through its standard input, terms come back on its
//! standard error.
//!
//! `rabbitmqctl` does the same through Erlang distribution, but each call starts an Erlang VM, which takes one to two
//! seconds; here a call takes less than a millisecond. The line is also how the broker learns that its owner is gone.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStderr, ChildStdin};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::Error;

/// The part that runs in the broker, for the `-eval` of its command line.
pub(crate) const PROGRAM: &str = include_str!("control.erl");

const MARK: &str = "@rabbitmq-node ";
/// The id of the message that says that the broker is up.
const READY: u64 = 0;
/// An answer longer than this is cut off and so not recognised.
const LONGEST_LINE: u64 = 16 << 20;
/// Lines of other output kept for error reports.
const KEPT_LINES: usize = 60;

/// What an expression came to: the term it returned, or the one it raised.
type Outcome = Result<String, String>;

/// The line to one run of the broker.
#[derive(Debug)]
pub(crate) struct Control {
    input: Mutex<(ChildStdin, u64)>,
    shared: Arc<Shared>,
}

/// What the broker says of itself when it is up.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) pid: u32,
    pub(crate) version: String,
}

/// Why waiting for the broker to be up ended.
#[derive(Debug)]
pub(crate) enum NotReady {
    TooLate,
    Ended,
    Refused(String),
}

#[derive(Debug, Default)]
struct Shared {
    /// `None` once the line is closed, so that nobody waits for an answer that cannot come.
    waiting: Mutex<Option<HashMap<u64, SyncSender<Outcome>>>>,
    other_output: Mutex<VecDeque<String>>,
}

/// Resolves when the broker is up; handed out once, with the line.
#[derive(Debug)]
pub(crate) struct Startup(Receiver<Outcome>);

impl Control {
    /// Takes over the two pipes of a broker that was just spawned.
    pub(crate) fn open(input: ChildStdin, output: ChildStderr) -> Result<(Self, Startup), Error> {
        let (sender, receiver) = sync_channel(1);
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Some(HashMap::from([(READY, sender)]))),
            ..Shared::default()
        });
        let reader = Arc::clone(&shared);
        thread::Builder::new()
            .name("rabbitmq-node".into())
            .spawn(move || reader.read_all(output))
            .map_err(Error::io("start the thread that reads from the broker"))?;
        Ok((Self { input: Mutex::new((input, READY)), shared }, Startup(receiver)))
    }

    /// Evaluates an Erlang expression, without its final full stop, and returns the term on one line.
    pub(crate) fn eval(&self, expression: &str, limit: Duration) -> Result<String, Error> {
        let failed = |reason: String| Error::Eval { expression: on_one_line(expression), reason };
        let (sender, receiver) = sync_channel(1);
        let id = {
            let mut input = self.input.lock();
            input.1 += 1;
            let id = input.1;
            match self.shared.waiting.lock().as_mut() {
                Some(waiting) => waiting.insert(id, sender),
                None => return Err(Error::NotRunning),
            };
            let line = format!("{id} {}.\n", on_one_line(expression));
            input.0.write_all(line.as_bytes()).map_err(|_| Error::NotRunning)?;
            id
        };
        match receiver.recv_timeout(limit) {
            Ok(outcome) => outcome.map_err(failed),
            Err(RecvTimeoutError::Disconnected) => Err(Error::NotRunning),
            Err(RecvTimeoutError::Timeout) => {
                self.shared.forget(id);
                Err(failed(format!("no answer within {limit:?}")))
            }
        }
    }

    /// The last lines of the broker's standard error that were not answers.
    pub(crate) fn other_output(&self) -> Vec<String> {
        self.shared.other_output.lock().iter().cloned().collect()
    }
}

impl Startup {
    /// Waits until the broker is up.
    pub(crate) fn wait(self, limit: Duration) -> Result<Ready, NotReady> {
        match self.0.recv_timeout(limit) {
            Ok(Ok(said)) => {
                parse_ready(&said).ok_or_else(|| NotReady::Refused(format!("unexpected greeting {said:?}")))
            }
            Ok(Err(state)) => Err(NotReady::Refused(format!("its boot state is {state}"))),
            Err(RecvTimeoutError::Timeout) => Err(NotReady::TooLate),
            Err(RecvTimeoutError::Disconnected) => Err(NotReady::Ended),
        }
    }
}

impl Shared {
    fn read_all(&self, output: ChildStderr) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => self.take_line(String::from_utf8_lossy(&line).trim_end()),
            }
        }
        // Drops the senders: whoever waits is told that the broker is gone.
        *self.waiting.lock() = None;
    }

    fn take_line(&self, line: &str) {
        match parse_answer(line) {
            Some((id, outcome)) => {
                if let Some(sender) = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&id)) {
                    // The asker may have given up at this moment.
                    sender.try_send(outcome).ok();
                }
            }
            None if line.is_empty() => {}
            None => {
                let mut kept = self.other_output.lock();
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(line.to_owned());
            }
        }
    }

    fn forget(&self, id: u64) {
        if let Some(waiting) = self.waiting.lock().as_mut() {
            waiting.remove(&id);
        }
    }
}

/// An Erlang binary with the octets of `text`: no quoting can go wrong.
pub(crate) fn erlang_binary(text: &str) -> String {
    let octets: Vec<String> = text.bytes().map(|octet| octet.to_string()).collect();
    format!("<<{}>>", octets.join(","))
}

/// Also what keeps an expression of several lines one request.
fn on_one_line(expression: &str) -> String {
    expression.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn parse_answer(line: &str) -> Option<(u64, Outcome)> {
    let mut parts = line.strip_prefix(MARK)?.splitn(3, ' ');
    let id = parts.next()?.parse().ok()?;
    let tag = parts.next()?;
    let term = parts.next().unwrap_or_default().to_owned();
    match tag {
        "ok" => Some((id, Ok(term))),
        "error" => Some((id, Err(term))),
        _ => None,
    }
}

fn parse_ready(said: &str) -> Option<Ready> {
    let (pid, version) = said.split_once(' ')?;
    Some(Ready { pid: pid.parse().ok()?, version: version.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_other_output() {
        let cases = [
            ("@rabbitmq-node 7 ok {a,\"b c\"}", Some((7, Ok("{a,\"b c\"}".to_owned())))),
            ("@rabbitmq-node 8 error {error,badarg}", Some((8, Err("{error,badarg}".to_owned())))),
            ("@rabbitmq-node 9 ok", Some((9, Ok(String::new())))),
            ("@rabbitmq-node x ok 1", None),
            ("@rabbitmq-node 9 maybe 1", None),
            ("Gracefully halting Erlang VM", None),
        ];
        for (line, expected) in cases {
            assert_eq!(parse_answer(line), expected, "{line}");
        }
    }

    #[test]
    fn text_becomes_octets() {
        assert_eq!(erlang_binary("a\"é"), "<<97,34,195,169>>");
        assert_eq!(erlang_binary(""), "<<>>");
    }
}
