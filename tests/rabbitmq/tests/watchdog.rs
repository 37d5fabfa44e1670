//! A test process that is killed, or that ends with a shared node, leaves no process and no folder behind.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rabbitmq_node::shared;

/// Tells this binary, when it runs itself, how the child is to end.
const END: &str = "RABBITMQ_NODE_TEST_END";

#[test]
fn a_killed_owner_takes_its_node_along() {
    let (mut owner, report) = start_owner("wait");
    let (pids, folder) = parse(&report);
    assert!(pids.iter().all(|pid| support::is_running(*pid)), "{pids:?}");
    owner.kill().unwrap();
    owner.wait().unwrap();
    support::eventually(|| pids.iter().all(|pid| !support::is_running(*pid)));
    support::eventually(|| !folder.exists());
}

#[test]
fn a_shared_node_goes_with_its_process() {
    let (mut owner, report) = start_owner("return");
    let (pids, folder) = parse(&report);
    assert!(owner.wait().unwrap().success());
    support::eventually(|| pids.iter().all(|pid| !support::is_running(*pid)));
    support::eventually(|| !folder.exists());
}

/// Not a test: the process that owns the node in the tests above.
#[test]
#[ignore = "it is run by the other tests of this file"]
fn owner() {
    let node = shared();
    println!("REPORT {:?} {}", node.processes(), node.folder().display());
    if env::var(END).as_deref() == Ok("wait") {
        loop {
            std::thread::park();
        }
    }
}

fn start_owner(end: &str) -> (Child, String) {
    let mut owner = Command::new(env::current_exe().unwrap())
        .args(["--exact", "owner", "--ignored", "--nocapture"])
        .env(END, end)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let report = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("REPORT ").map(|(_, report)| report.to_owned()))
        .expect("the owner started its node");
    // Drained, so that what the test harness prints later finds a reader.
    std::thread::Builder::new().name("drain".into()).spawn(move || lines.for_each(drop)).unwrap();
    (owner, report)
}

/// `[1, 2, 3] /a/folder`
fn parse(report: &str) -> (Vec<u32>, &Path) {
    let (pids, folder) = report.strip_prefix('[').unwrap().split_once("] ").unwrap();
    (pids.split(", ").map(|pid| pid.parse().unwrap()).collect(), Path::new(folder))
}
