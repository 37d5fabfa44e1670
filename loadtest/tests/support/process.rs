//! Processes of the tests: their output and end, and what descends from them.

use std::{
    fs,
    io::Read,
    process::{Child, Output},
    thread,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};

/// A run beside programs that keep every core busy.
const LIMIT: Duration = Duration::from_secs(240);

/// Waits for the end of a program; its output is read meanwhile, so that it does not wait for us.
pub(crate) fn finish(mut child: Child) -> Output {
    let start = Instant::now();
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        let read = move || {
            let mut octets = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut octets).unwrap();
            }
            octets
        };
        thread::Builder::new().spawn(read).unwrap()
    };
    let stdout = read(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = read(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > LIMIT {
            send(child.id(), Signal::SIGKILL);
            panic!("no end within {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(10));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Asks until there is an answer.
pub(crate) fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = what() {
            return value;
        }
        assert!(start.elapsed() < LIMIT);
        thread::sleep(Duration::from_millis(10));
    }
}

fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

pub(crate) fn is_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| state == 'Z' || state == 'X')
}

fn children(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// Everything that descends from a process.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let own = children(root);
    own.iter().copied().chain(own.iter().flat_map(|child| family(*child))).collect()
}

/// Asks a program to end.
pub(crate) fn interrupt(program: &Child) {
    send(program.id(), Signal::SIGINT);
}

fn send(pid: u32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Each of the processes ends, soon.
pub(crate) fn assert_gone(processes: &[u32]) {
    processes.iter().for_each(|pid| wait_for(|| is_gone(*pid).then_some(())));
}

pub(crate) fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
