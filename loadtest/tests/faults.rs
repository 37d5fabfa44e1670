//! The judge at its work, in short: every mode under every fault, an edge that breaks its word, and Ctrl-C.
//!
//! The program under judgement is the `beacon-edge` that is built with these tests (`cargo test --workspace`); where they
//! are built alone (`cargo test -p loadtest`) it is built if there is none or if it is older than its sources.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use clap::ValueEnum;
use loadtest::{
    faults::{Fault, Mode, Plan, report::Report, run, trial::Trial},
    interrupt::Interrupt,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const LIMIT: Duration = Duration::from_secs(60);

/// The edge beside the program of this package.
fn edge() -> &'static Path {
    static EDGE: OnceLock<PathBuf> = OnceLock::new();
    EDGE.get_or_init(|| {
        let path = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("beacon-edge");
        if modified(&path) < newest_source() {
            let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            build.args(["build", "--locked", "-p", "beacon-edge", "--bin", "beacon-edge"]);
            if !cfg!(debug_assertions) {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "beacon-edge cannot be built");
        }
        path
    })
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// When what the edge is built from changed last.
fn newest_source() -> Option<SystemTime> {
    fn newest(path: &Path) -> Option<SystemTime> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| newest(&entry.path())).max().flatten().max(modified(path))
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    ["src", "stomp/src", "Cargo.lock"].iter().filter_map(|name| newest(&workspace.join(name))).max()
}

fn plan(program: &Path, trials: Vec<Trial>) -> Plan {
    Plan { trials, settle: LIMIT, program: program.to_owned(), progress: false }
}

/// A second of beacons, at a rate that a test build on a busy machine can take.
fn trial(mode: Mode, fault: Fault, seed: u64) -> Trial {
    Trial { mode, fault, seed, beacons: 4000, rate: 4000.0, connections: 64 }
}

fn told(report: &Report) -> String {
    let broken = report.outcomes.iter().filter(|outcome| !outcome.verdict.violations.is_empty());
    broken.fold(report.table(), |text, outcome| format!("{text}\n{outcome:#?}"))
}

#[test]
fn every_mode_keeps_its_word_under_every_fault() {
    let mut trials = Vec::new();
    for &mode in Mode::value_variants() {
        for &fault in Fault::value_variants() {
            // Three nodes take their time: one mode has to do.
            if fault != Fault::NodeLoss || mode == Mode::Confirmed {
                trials.push(trial(mode, fault, 1));
            }
        }
    }
    trials.extend((2..=3).map(|seed| trial(Mode::Spooled, Fault::Sigkill, seed)));
    let report = run(&plan(edge(), trials.clone()), &Interrupt::default()).unwrap();
    assert_eq!(report.complaint(), None, "{}", told(&report));
    for trial in trials {
        let cell = report.cells.iter().find(|cell| (cell.mode, cell.fault) == (trial.mode, trial.fault));
        let cell = cell.expect("every trial is in a cell");
        match &cell.not_measured {
            Some(reason) => eprintln!("{} {}: {reason}", cell.mode.name(), cell.fault.name()),
            None => assert!(cell.promised > 0, "{}", told(&report)),
        }
    }
    // What was done has been felt: something came twice, and a ring goes with its edge.
    let twice: u64 = report.cells.iter().map(|cell| cell.duplicates).sum();
    assert!(twice > 0, "nothing came twice: {}", told(&report));
    let kills = report.cells.iter().find(|cell| (cell.mode, cell.fault) == (Mode::Ring, Fault::Sigkill));
    assert!(kills.unwrap().lost_with_a_killed_edge > 0, "a kill cost nothing: {}", told(&report));
}

/// `synchronous = "normal"` says spooled before the disk has it: no power cut may overlook that.
#[test]
fn an_edge_that_says_spooled_too_early_is_convicted() {
    let folder = tempfile::tempdir().unwrap();
    let liar = folder.path().join("liar");
    let script = format!(
        "#!/bin/sh\n{{ cat \"$2\"; printf '\\n[destinations.main.spool]\\nsynchronous = \"normal\"\\n'; }} > \"$2.too\"\n\
         exec {} --config \"$2.too\"\n",
        edge().display()
    );
    fs::write(&liar, script).unwrap();
    fs::set_permissions(&liar, fs::Permissions::from_mode(0o755)).unwrap();
    // Odd seeds begin without a broker at hand: what is spooled then is nowhere else.
    let trials = [1, 3, 5].map(|seed| trial(Mode::Spooled, Fault::PowerCut, seed)).into();
    let report = run(&plan(&liar, trials), &Interrupt::default()).unwrap();
    if let Some(reason) = report.cells.iter().find_map(|cell| cell.not_measured.as_ref()) {
        return eprintln!("not tested: {reason}");
    }
    assert!(report.failures.is_empty(), "{}", told(&report));
    let complaint = report.complaint().expect("a lie");
    assert!(complaint.contains("broke their promise"), "{complaint}");
    assert!(
        told(&report).contains("obligations were lost with an edge that was killed"),
        "{}",
        told(&report)
    );
}

#[test]
fn ctrl_c_leaves_a_report_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (temporary, json) = (folder.path().join("tmp"), folder.path().join("report.json"));
    fs::create_dir(&temporary).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["faults", "--mode", "ring", "--fault", "sigkill", "--seeds", "1..500"])
        .args(["--beacons", "2000", "--rate", "2000", "--report"])
        .arg(&json)
        .arg("--edge")
        .arg(edge())
        .env("TMPDIR", &temporary)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("ring sigkill seed 1: at "), "{first}");
    kill(Pid::from_raw(program.id() as i32), Signal::SIGINT).unwrap();
    // Its output has to be taken, or it could not end.
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success(), "{rest:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("interrupted"), "{table}");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["interrupted"], true);
    assert!(report["schedules"].as_u64().unwrap() >= 1);
    assert_eq!(report["outcomes"][0]["verdict"]["violations"], serde_json::json!([]));

    // Everything that was started names a file in that folder.
    let start = Instant::now();
    while let Some(left) = process_that_names(&temporary) {
        assert!(start.elapsed() < LIMIT, "left behind: {left}");
        sleep(Duration::from_millis(50));
    }
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn process_that_names(folder: &Path) -> Option<String> {
    let folder = folder.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .find(|line| line.contains(folder))
}

#[test]
fn what_cannot_be_done_is_refused() {
    for (line, reason) in [
        ("faults --rate 0", "--rate: between 1 and 1,000,000"),
        ("faults --edge /nonexistent", "there is no such file"),
        ("faults --markdown x --seeds 3", "first and last"),
        ("faults --markdown /nonexistent/page.md", "--markdown /nonexistent/page.md: No such file"),
        ("faults --markdown Cargo.toml", "no lines <!-- begin: loadtest faults -->"),
        ("faults latency --rounds 0", "--rounds: 1 to 1000"),
        ("faults outage --outage 0", "--outage: 1 to 3600"),
        ("faults drain --backlog 0", "--backlog: 1 to 100,000"),
        ("faults --mode ring latency", "cannot be used with"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest")).args(line.split(' ')).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(reason), "{line}: {told}");
    }
}
