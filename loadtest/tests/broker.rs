//! `loadtest broker` against real brokers: what it counts, what it writes, and what it does when something goes wrong.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test by panicking, as the tests do")]

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use rabbitmq_node::Node;
use serde_json::Value;
use stompwire::broker::Broker;

use browser::assert_page;
use process::{assert_gone, family, finish, interrupt, text, wait_for};

#[path = "support/browser.rs"]
mod browser;
#[path = "support/process.rs"]
mod process;

#[test]
fn stomp_alone_against_the_in_memory_broker() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = runtime.block_on(async { Broker::builder().start().await }).unwrap();
    for mode in [
        "--mode both",
        "--mode both --rate 200 --connections 2 --consumers 1",
        "--mode consume --prefill 300",
    ] {
        let report = run(&format!("--uri {} --time 300ms --warmup 100ms --rounds 2 {mode}", broker.url()));
        assert_eq!(report["protocols"], serde_json::json!(["stomp"]), "{mode}");
        let client = &report["points"][0]["clients"][0];
        assert_eq!(client["rounds"].as_array().unwrap().len(), 2, "{mode}: {report:#}");
        for round in client["rounds"].as_array().unwrap() {
            assert_arrived(round, mode);
            assert!(positive(&round["messages_per_second"]), "{mode}: {round:#}");
            // The queue is named in each frame, and each body is 256 octets.
            if mode == "--mode both" && !round["octets_sent_per_message"].is_null() {
                let octets = round["octets_sent_per_message"].as_f64().unwrap();
                assert!((300.0..700.0).contains(&octets), "{octets}");
            }
        }
    }
}

#[test]
fn all_clients_against_rabbitmq_as_a_page_a_table_and_csv() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let line = format!(
        "--mode both --sweep queues --time 300ms --warmup 100ms --rounds 1 --csv {} --html {}",
        file("r.csv").display(),
        file("r.html").display()
    );
    let report = run(&line);
    assert!(report["failure"].is_null(), "{report:#}");
    let points = report["points"].as_array().unwrap();
    let queues: Vec<&Value> = points.iter().map(|point| &point["queue"]).collect();
    assert_eq!(queues, ["classic", "quorum", "stream"]);
    for point in points {
        let clients = point["clients"].as_array().unwrap();
        let names: Vec<&Value> = clients.iter().map(|client| &client["protocol"]).collect();
        assert_eq!(names, ["stomp", "lapin", "amqprs"]);
        for client in clients {
            let round = &client["rounds"][0];
            assert_arrived(round, &format!("{} {}", point["queue"], client["protocol"]));
            for figure in ["messages_per_second", "broker_cpu_us_per_message", "client_cpu_us_per_message"] {
                assert!(positive(&round[figure]), "{figure}: {round:#}");
            }
            assert_eq!(round["unconfirmed"], 0);
            assert!(positive(&client["confirm_latency"]["p99_us"]), "{client:#}");
        }
    }
    assert!(report["machine"]["versions"]["RabbitMQ"].is_string(), "{report:#}");
    let csv = fs::read_to_string(file("r.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 3 * 3, "{csv}");
    assert!(csv.starts_with("id,time (s),published (msg/s),"), "{csv}");
    assert_page(&file("r.html"), 4, &["STOMP (stompwire)", "AMQP 0.9.1 (lapin)", "AMQP 0.9.1 (amqprs)"]);
}

#[test]
fn ctrl_c_leaves_a_result_and_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("r.json"), folder.path().join("r.html"));
    let line = format!(
        "--time 300ms --warmup 100ms --rounds 1 --sweep window --json={} --html {}",
        json.display(),
        html.display()
    );
    let said = folder.path().join("said");
    let program = command(&line).stderr(fs::File::create(&said).unwrap()).spawn().unwrap();
    // The fourth round is beyond the first point.
    wait_for(|| fs::read_to_string(&said).unwrap().contains("round 4 of 42").then_some(()));
    let broker = family(program.id());
    assert!(!broker.is_empty());
    interrupt(&program);
    let output = finish(program);
    assert!(output.status.success(), "{}", fs::read_to_string(&said).unwrap());
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["interrupted"], true);
    let points = report["points"].as_array().unwrap();
    assert!((1..14).contains(&points.len()), "{report:#}");
    assert!(fs::read_to_string(html).unwrap().contains("Interrupted"));
    assert_gone(&broker);
}

#[test]
fn a_broker_that_goes_away_is_reported_with_what_was_measured() {
    let node = Node::start().unwrap();
    let vhost = node.vhost("/").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("r.json");
    let line = format!(
        "--uri {} --uri {} --time 60s --warmup 0 --rounds 1 --protocols stomp --json={}",
        vhost.stomp_url(),
        vhost.amqp_url(),
        json.display()
    );
    let program = start(&line);
    wait_for(|| {
        let connections = "length(rabbit_connection_tracking:list(<<\"/\">>))";
        (node.eval(connections).unwrap() != "0").then_some(())
    });
    node.kill().unwrap();
    let output = finish(program);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("loadtest: the broker: STOMP (stompwire): "),
        "{}",
        text(&output.stderr)
    );
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let round = &report["points"][0]["clients"][0]["rounds"][0];
    assert!(round["failure"].is_string() && report["failure"].is_string(), "{report:#}");
}

#[test]
fn impossible_arguments_and_brokers_that_are_not_there() {
    for (line, code, reason) in [
        ("--window 0", 2, "with nothing in flight nothing can be sent"),
        ("--body 11", 2, "has 12 octets"),
        ("--queue stream --mode both --prefetch 0", 2, "lets nobody consume a stream"),
        ("--uri stomp://127.0.0.1:1/ --time 100ms", 1, "the broker: STOMP (stompwire)"),
        ("--uri amqp://127.0.0.1:1/%2f --time 100ms", 1, "the broker: "),
    ] {
        let output = finish(start(line));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        assert!(said.contains(reason), "{line}: {said}");
    }
}

/// Nothing lost, nothing twice, nothing out of order.
fn assert_arrived(round: &Value, what: &str) {
    assert!(round["failure"].is_null(), "{what}: {round:#}");
    for fault in ["lost", "duplicates", "out_of_order", "gaps", "foreign"] {
        assert_eq!(round["integrity"][fault], 0, "{what}: {round:#}");
    }
    assert!(positive(&round["integrity"]["arrived"]), "{what}: {round:#}");
}

fn run(line: &str) -> Value {
    let output = finish(start(&format!("{line} --json")));
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn start(line: &str) -> Child {
    command(line).spawn().unwrap()
}

fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg("broker").args(line.split_whitespace()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn positive(figure: &Value) -> bool {
    figure.as_f64().is_some_and(|figure| figure > 0.0)
}
