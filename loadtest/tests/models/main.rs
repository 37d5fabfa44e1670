//! `loadtest models` as a program, short; and what each baseline puts on the wire, at a peer that looks.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test by panicking, as the tests do")]

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use browser::assert_page;
use peer::{Peer, Seen};
use process::{assert_gone, family, finish, interrupt, text, wait_for};

#[path = "../support/browser.rs"]
mod browser;
#[path = "../support/cores.rs"]
mod cores;
mod peer;
#[path = "../support/process.rs"]
mod process;

const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

/// The arguments of a process, each behind a NUL.
fn command_line(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// beacon-edge beside the program under test, built by the first who asks.
fn edge() -> &'static Path {
    static BUILT: OnceLock<std::path::PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let path = Path::new(PROGRAM).with_file_name("beacon-edge");
        let release = PROGRAM.contains("/release/").then_some("--release");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "beacon-edge", "--bin", "beacon-edge"])
            .args(release)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(built.success() && path.exists(), "beacon-edge at {}", path.display());
        path
    })
}

/// A baseline server, killed at the end of the test, with its address and that of its counts.
struct Server(Child, String, String);

impl Server {
    fn start(arguments: &str) -> Self {
        let mut child = Command::new(PROGRAM)
            .arg("model-server")
            .args(arguments.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            |key| line.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap().to_owned();
        Self(child, address("http="), address("counts="))
    }

    /// The JSON of a load of `requests` over `connections`.
    fn load(&self, requests: u64, connections: usize) -> Value {
        self.loaded(&format!("--requests {requests} --connections {connections}"))
    }

    /// What it says that it has accepted and confirmed.
    fn counts(&self) -> String {
        std::io::read_to_string(TcpStream::connect(&self.2).unwrap()).unwrap()
    }

    fn loaded(&self, arguments: &str) -> Value {
        let run = Command::new(PROGRAM)
            .args(["http", &format!("http://{}/b.gif", self.1)])
            .args(arguments.split(' '))
            .arg("--json")
            .output()
            .unwrap();
        serde_json::from_slice(&run.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Runs a baseline against a peer that keeps each receipt back for a while, and says what the peer has seen.
fn seen(arguments: &str, requests: u64, connections: usize) -> Seen {
    let peer = Peer::start(Duration::from_millis(3));
    let server = Server::start(&format!("{arguments} --stomp {}", peer.url()));
    let json = server.load(requests, connections);
    assert_eq!(json["requests_succeeded"], requests, "{json}");
    peer.wait_for_beacons(requests)
}

#[test]
fn the_first_model_has_one_frame_outstanding_on_each_of_its_pooled_connections() {
    let seen = seen("--sink direct --pool 4", 400, 12);
    assert_eq!(seen.beacons, 400);
    assert_eq!(seen.messages, 400);
    assert_eq!(seen.most_outstanding, 1, "on any connection");
    assert_eq!(seen.connections, 4, "the pool is used, and bounded");
    assert_eq!(seen.without_receipt, 0);
    assert_eq!(seen.transient, 0);
}

#[test]
fn without_receipts_none_is_asked_for() {
    let seen = seen("--sink direct-unconfirmed --pool 4", 400, 12);
    assert_eq!((seen.beacons, seen.without_receipt), (400, 400));
    assert_eq!(seen.connections, 4);
}

#[test]
fn each_step_of_the_path_changes_what_it_says() {
    let one = seen("--sink ring", 60, 12);
    assert_eq!((one.most_outstanding, one.connections, one.messages), (1, 1, 60));
    let pipelined = seen("--sink ring --window 64", 400, 12);
    assert_eq!((pipelined.connections, pipelined.messages), (1, 400));
    assert!((2..=12).contains(&pipelined.most_outstanding), "{}", pipelined.most_outstanding);
    let pooled = seen("--sink ring --window 64 --connections 3", 400, 12);
    assert_eq!(pooled.connections, 3);
    assert!(pooled.most_outstanding <= 12, "the answers still wait: {}", pooled.most_outstanding);
    let packed = seen("--sink ring --window 64 --connections 3 --answer-at-once --pack 50", 2000, 12);
    assert_eq!(packed.beacons, 2000);
    assert!(packed.messages < 1000 && packed.most_beacons <= 50, "{packed:?}");
}

#[test]
fn the_second_models_front_half_has_in_redis_what_it_has_accepted() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut redis = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let address = format!("127.0.0.1:{port}");
    let length = || {
        let mut stream = TcpStream::connect(&address).ok()?;
        stream.write_all(b"LLEN beacons\r\nQUIT\r\n").ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        Some(said)
    };
    assert_eq!(wait_for(length), ":0\r\n+OK\r\n");
    let server = Server::start(&format!("--sink redis --pool 4 --redis {address}"));
    assert_eq!(server.load(400, 12)["requests_succeeded"], 400);
    let (counts, held) = (server.counts(), length());
    redis.kill().unwrap();
    redis.wait().unwrap();
    assert!(counts.starts_with("accepted 400\n"), "{counts}");
    assert_eq!(held.as_deref(), Some(":400\r\n+OK\r\n"));
}

#[test]
fn threads_that_take_requests_are_bound_from_the_last_core_on_when_asked_to() {
    let cores = cores::allowed();
    let bound = |arguments: &str| {
        let server = Server::start(&format!("--sink redis --redis 127.0.0.1:1 --workers 3 {arguments}"));
        cores::bound(server.0.id(), "worker-")
    };
    let last = |before: usize| cores[cores.len() - 1 - before % cores.len()];
    let expected: Vec<(String, usize)> =
        (0..3).map(|number| (format!("worker-{number}"), last(number))).collect();
    assert_eq!(bound("--pin"), expected);
    if cores.len() > 1 {
        assert_eq!(bound(""), []);
    }
}

#[test]
fn pinned_models_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let run = Command::new(PROGRAM)
        .args("models --models stomp-direct,redis-front --rounds 1 --probes 1 --probe 300ms".split(' '))
        .args("--duration 300ms --connections 4 --common-rate 200 --deaths 0 --pin".split(' '))
        .arg(format!("--json={}", file("json").display()))
        .args(["--html".into(), file("page.html")])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    let json: Value = serde_json::from_str(&std::fs::read_to_string(file("json")).unwrap()).unwrap();
    assert_eq!(json["settings"]["pinned"], true);
    assert_eq!(json["models"][1]["failure"], Value::Null);
    for (said, what) in [
        (text(&run.stdout), "Threads: pinned"),
        (std::fs::read_to_string(file("page.html")).unwrap(), "<dd>pinned: "),
    ] {
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn an_answer_waits_for_its_receipt_or_does_not() {
    let peer = Peer::start(Duration::from_secs(3600));
    let waits = Server::start(&format!("--sink direct --pool 2 --stomp {}", peer.url()));
    let json = waits.loaded("--duration 300ms --connections 2 --timeout 200ms");
    assert_eq!(json["requests_succeeded"], 0, "{json}");
    let goes_on = Server::start(&format!("--sink ring --window 64 --answer-at-once --stomp {}", peer.url()));
    assert_eq!(goes_on.load(50, 2)["requests_succeeded"], 50);
}

#[test]
fn all_models_are_measured_and_the_death_of_the_broker_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let run = Command::new(PROGRAM)
        .args("models --models stomp-direct,stomp-direct-unconfirmed,redis-front,redis-agent,edge-one,edge-packed,edge-confirmed,path-packed".split(' '))
        .args("--rounds 1 --probes 1 --probe 400ms --duration 300ms --connections 8 --common-rate 200".split(' '))
        .args("--deaths 1 --death-duration 3s".split(' '))
        .arg("--edge")
        .arg(edge())
        .arg(format!("--json={}", file("json").display()))
        .args(["--csv".into(), file("csv"), "--html".into(), file("page.html")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(file("json")).unwrap()).unwrap();
    assert_eq!((&json["interrupted"], &json["common_rate"]), (&false.into(), &200.0.into()));
    let names = |row: &Value| -> HashSet<String> {
        let processes = row["rounds"][0]["at_common"]["processes"].as_array().unwrap();
        processes.iter().map(|process| process["name"].as_str().unwrap().to_owned()).collect()
    };
    let rows = json["models"].as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for row in rows {
        let model = row["model"].as_str().unwrap();
        assert_eq!(row["failure"], Value::Null, "{model}: {said}");
        let load = &row["rounds"][0]["at_common"];
        assert!(load["latency"]["count"].as_u64().unwrap() > 20, "{model}: {load}");
        assert_eq!((&load["refused"], &load["drained"]), (&0.into(), &true.into()), "{model}: {load}");
        for process in load["processes"].as_array().unwrap() {
            assert!(process["cpu_us_per_beacon"].as_f64().unwrap() > 0.0, "{model}: {process}");
            assert!(process["peak_mib"].as_f64().unwrap() > 1.0, "{model}: {process}");
        }
        let expected: &[&str] = match model {
            "redis-front" => &["server", "redis"],
            "redis-agent" => &["server", "redis", "agent", "rabbitmq"],
            "edge-one" | "edge-packed" | "edge-confirmed" => &["beacon-edge", "rabbitmq"],
            _ => &["server", "rabbitmq"],
        };
        assert_eq!(names(row), expected.iter().map(|&name| name.to_owned()).collect(), "{model}");

        if model == "redis-front" {
            assert_eq!(row["deaths"], Value::Array(Vec::new()), "the broker's death is none of its business");
            continue;
        }
        let death = &row["deaths"][0];
        let verdict = &death["verdict"];
        let (sent, refused) = (death["sent"].as_u64().unwrap(), death["refused"].as_u64().unwrap());
        assert_eq!(verdict["answered"].as_u64().unwrap() + refused, sent, "{model}: {death}");
        if model != "stomp-direct-unconfirmed" {
            assert_eq!(verdict["missing"], 0, "{model} loses nothing that it has answered: {death}");
        }
    }
    let csv = std::fs::read_to_string(file("csv")).unwrap();
    assert!(csv.lines().count() > 12 && csv.contains("\nredis-agent,models,1,common,200,"), "{csv}");
    let note = |what: &str| {
        json["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains(what))
    };
    assert!(note("redis-front is half of a model"), "{}", json["notes"]);
    let both = ["edge-packed", "redis-front"].map(|name| {
        let row = rows.iter().find(|row| row["model"] == name).unwrap();
        row["rounds"][0]["sustained_rate"].as_f64()
    });
    let factor = json["packed_to_front"]["median"].as_f64();
    assert_eq!(both.iter().all(Option::is_some), factor.is_some() && note("edge-packed ÷ redis-front: × "));
    if let ([Some(packed), Some(front)], Some(factor)) = (both, factor) {
        assert!((factor - packed / front).abs() < 0.001, "{factor}, not {packed} ÷ {front}");
    }
    let html = std::fs::read_to_string(file("page.html")).unwrap();
    assert!(!html.contains("<script") && !html.contains("src=\"http"));
    // For both groups a plot of the rate; for each load one of answer times, CPU and memory.
    let loads = ["models", "path"].map(|group| {
        let rows = || rows.iter().filter(|row| row["group"] == group);
        let any = |load: &str| rows().any(|row| !row["rounds"][0][load].is_null());
        usize::from(any("at_sustained")) + usize::from(any("at_common"))
    });
    let plots = loads.iter().map(|loads| 1 + 3 * loads).sum();
    assert_page(
        &file("page.html"),
        plots,
        &["redis-agent", "sending to the answer (µs), logarithmic", "The broker killed"],
    );
}

#[test]
fn ctrl_c_leaves_a_valid_report_and_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("json");
    let mut child = Command::new(PROGRAM)
        .args(
            "models --models redis-agent --rounds 50 --probe 400ms --duration 300ms --connections 4"
                .split(' '),
        )
        .args(["--common-rate", "100", "--deaths", "0"])
        .arg(format!("--json={}", json.display()))
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    // The first search is over, and the next measurement has begun.
    said.by_ref().map(Result::unwrap).find(|line| line.contains("sustains")).unwrap();
    let family = family(child.id());
    assert!(family.len() >= 4, "RabbitMQ, Redis, server, agent: {family:?}");
    interrupt(&child);
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(json["interrupted"], true);
    assert_eq!(json["models"][0]["rounds"].as_array().unwrap().len(), 1);
    assert_eq!(json["models"][0]["failure"], Value::Null);
    assert_gone(&family);
}

#[test]
fn ctrl_c_before_anything_was_measured_and_during_a_death() {
    for (line, dead) in
        [("--rounds 9 --deaths 0", false), ("--rounds 1 --probes 1 --deaths 9 --death-duration 4s", true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("json");
        let mut child = Command::new(PROGRAM)
            .args("models --models stomp-direct --probe 400ms --duration 300ms --common-rate 100".split(' '))
            .args(line.split(' '))
            .arg(format!("--json={}", json.display()))
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut all = wait_for(|| {
            let family = family(child.id());
            let serving = family.iter().any(|pid| command_line(*pid).contains("model-server"));
            let is_dead = !family.iter().any(|pid| command_line(*pid).contains("beam.smp"));
            (serving && is_dead == dead).then_some(family)
        });
        interrupt(&child);
        // Those too that it starts after that: a broker that is dead comes back first.
        wait_for(|| {
            all.extend(family(child.id()));
            child.try_wait().unwrap()
        });
        let output = finish(child);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
        assert_eq!(report["interrupted"], true, "{line}: {report}");
        assert_eq!((&report["models"][0]["failure"], &report["failure"]), (&Value::Null, &Value::Null));
        assert_gone(&all);
    }
}

#[test]
fn a_broker_that_ends_by_itself_is_told_and_the_other_models_go_on_with_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let child = Command::new(PROGRAM)
        .args("models --models stomp-direct,path-packed --rounds 1 --probes 1 --probe 1s".split(' '))
        .args("--duration 300ms --connections 4 --common-rate 100 --deaths 0".split(' '))
        .arg(format!("--json={}", file("json").display()))
        .args(["--html".into(), file("page.html")])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let broker = wait_for(|| {
        let family = family(child.id());
        let is = |pid: &u32, what: &str| command_line(*pid).contains(what);
        let serving = family.iter().any(|pid| is(pid, "--sink\0direct"));
        family.into_iter().find(|pid| serving && is(pid, "beam.smp"))
    });
    let before = family(child.id());
    kill(Pid::from_raw(i32::try_from(broker).unwrap()), Signal::SIGKILL).unwrap();
    let output = finish(child);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("stomp-direct: RabbitMQ has ended by itself (round 1/1)"), "{said}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(file("json")).unwrap()).unwrap();
    let failure = |place: usize| report["models"][place]["failure"].as_str();
    assert!(failure(0).is_some_and(|why| why.contains("ended by itself")), "{report:#}");
    assert_eq!((failure(1), &report["failure"]), (None, &Value::Null), "{report:#}");
    let load = &report["models"][1]["rounds"][0]["at_common"];
    assert_eq!((&load["refused"], &load["drained"]), (&0.into(), &true.into()), "{report:#}");
    let page = std::fs::read_to_string(file("page.html")).unwrap();
    assert!(page.contains("Note: stomp-direct: RabbitMQ has ended by itself"), "{page}");
    assert_gone(&before);
}

#[test]
fn impossible_arguments_are_refused_with_the_reason() {
    for (arguments, reason) in [
        ("--rounds 0", "--rounds 0: between 1 and 1000"),
        ("--models edge-packed --edge /nonexistent/edge", "/nonexistent/edge"),
        ("--memory 1M", "RabbitMQ alone needs more"),
    ] {
        let run = Command::new(PROGRAM).arg("models").args(arguments.split(' ')).output().unwrap();
        assert_eq!(run.status.code(), Some(2), "{arguments}");
        assert!(String::from_utf8_lossy(&run.stderr).contains(reason), "{arguments}");
    }
}
