//! A disk that answers with an input/output error: `strace` puts it into the system calls of a running edge.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use support::{Browser, TestBroker, assert_conserved, brokers, program::Program, scrape, until};

/// What SQLite writes with, and nothing else of the edge.
const CALLS: &str = "fdatasync,fsync,pwrite64";

/// Every such call of a process fails with EIO, until this is dropped.
struct BadDisk(Child);

impl BadDisk {
    /// Why it cannot be done on this machine.
    fn check() -> Result<(), String> {
        let tried =
            Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stdin(Stdio::null()).output();
        match tried {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("strace cannot be run: {error}")),
        }
    }

    fn of(pid: u32) -> Self {
        let inject = format!("inject={CALLS}:error=EIO");
        let mut strace = Command::new("strace")
            .args([
                "-f",
                "-e",
                &format!("trace={CALLS}"),
                "-e",
                &inject,
                "-o",
                "/dev/null",
                "-p",
                &pid.to_string(),
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(strace.stderr.as_mut().unwrap());
        let attached = said.lines().map(Result::unwrap).find(|line| line.contains("attached"));
        let disk = Self(strace);
        assert!(attached.is_some(), "strace did not attach");
        disk
    }
}

impl Drop for BadDisk {
    fn drop(&mut self) {
        // It lets go of the process first.
        let pid = self.0.id().to_string();
        drop(Command::new("kill").args(["-s", "TERM", &pid]).status().and_then(|_| self.0.wait()));
    }
}

#[test]
fn a_disk_with_errors_is_told_costs_no_promise_and_is_used_again_once_it_works() {
    if let Err(reason) = BadDisk::check() {
        println!("skipped: {reason}");
        return;
    }
    let (broker, dir) = (TestBroker::start(), tempfile::tempdir().unwrap());
    let (name, url) = brokers(&broker.url());
    let mut edge = Program::start(&[
        (name, &url),
        ("BEACON_EDGE__SPOOL__DIR", dir.path().to_str().unwrap()),
        ("BEACON_EDGE__SPOOL__MIN_FREE_BYTES", "0"),
        ("BEACON_EDGE__DESTINATIONS__MAIN__SPOOL__AFTER", "20ms"),
        ("BEACON_EDGE__ROUTES__BEACON__ACK", "spooled"),
    ]);
    let (http, admin) = edge.addresses();
    let mut browser = Browser::connect(http).unwrap();
    let state = |state: &str| {
        scrape(admin)[&format!("beacon_edge_spool_state{{destination=\"main\",state=\"{state}\"}}")] == 1.0
    };
    let mut promised = BTreeSet::new();
    let mut seq = 0;
    // Without a broker only the disk is left to promise anything.
    broker.go();
    assert_eq!(browser.beacon(seq, true).unwrap(), 204);
    promised.insert(seq);
    let disk = BadDisk::of(edge.child.id());
    for _ in 0..5 {
        seq += 1;
        assert_eq!(browser.beacon(seq, true).unwrap(), 503);
    }
    until("it is told", || state("failing"));
    assert_eq!(browser.beacon(seq, false).unwrap(), 200, "what promises no disk is answered");
    drop(disk);
    until("it works again", || state("working"));
    until("promises again", || {
        seq += 1;
        let is_promised = browser.beacon(seq, true).unwrap() == 204;
        is_promised && promised.insert(seq)
    });
    assert_conserved(&scrape(admin));
    broker.come_back();
    until("all promised are there", || promised.is_subset(&broker.consumed().0.numbers()));
    edge.signal("TERM");
    let (code, log) = edge.end();
    assert_eq!(code, 0, "{log}");
    // It fails at writing, and then at being opened: each reason is told once.
    assert!((1..=2).contains(&log.matches("the spool takes nothing").count()), "{log}");
    assert_eq!(log.matches("the spool works").count(), 2, "at the start and afterwards: {log}");
    assert!(log.contains("disk I/O error"), "with the reason: {log}");
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert!(left <= 3, "nothing was set aside: {left} files");
}
