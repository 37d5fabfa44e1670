//! The in-memory broker, held against a client that somebody else wrote: stomp.py, in every version of STOMP. What is
//! claimed and how it is seen is in `foreign/scenarios.py`.

#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::{path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use stompwire::{
    broker::{Broker, BrokerBuilder, Overflow},
    proto::HeartBeat,
};
use tokio::{process::Command, time::timeout};

/// All scenarios take a few seconds; beside busy loops on every core some more.
const LIMIT: Duration = Duration::from_secs(120);
/// Of the script.
const HEART_BEAT: Duration = Duration::from_millis(200);
/// A script that loses scenarios is noticed.
const RUNS: usize = 78;

/// A line of the script.
#[derive(Debug, Deserialize)]
struct Run {
    scenario: String,
    version: String,
    error: Option<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_claim_holds_for_a_foreign_client() {
    let open = started(Broker::builder()).await;
    let guarded = started(Broker::builder().credentials("edge", "pass:word\\")).await;
    let drop_head = started(Broker::builder().max_messages(3)).await;
    let refuse = started(Broker::builder().max_messages(3).overflow(Overflow::Refuse)).await;
    let block = started(Broker::builder().max_messages(3).overflow(Overflow::Block)).await;
    let hostless = started(Broker::builder().allow_missing_host()).await;
    let heart_beats = started(Broker::builder().heart_beat(HeartBeat::every(HEART_BEAT))).await;
    let brokers = [
        ("open", &open),
        ("guarded", &guarded),
        ("drop_head", &drop_head),
        ("refuse", &refuse),
        ("block", &block),
        ("hostless", &hostless),
        ("heart_beats", &heart_beats),
    ];
    let ports = brokers.map(|(name, broker)| format!("{name:?}: {}", broker.local_addr().port()));

    let runs = script(&format!("{{{}}}", ports.join(", "))).await;
    let failed: Vec<String> = runs
        .iter()
        .filter_map(|run| Some(format!("{} in {}:\n{}", run.scenario, run.version, run.error.as_ref()?)))
        .collect();
    assert!(failed.is_empty(), "{} of {} failed\n\n{}", failed.len(), runs.len(), failed.join("\n"));
    assert_eq!(runs.len(), RUNS);

    for (name, broker) in brokers {
        for (queue, info) in broker.queues() {
            assert_eq!((info.messages, info.unacked, info.consumers), (0, 0, 0), "{name}: {queue}: {info:?}");
        }
    }
}

async fn started(builder: BrokerBuilder) -> Broker {
    builder.start().await.unwrap()
}

/// Runs the script to its end. The process is gone when this returns, and when it does not.
async fn script(ports: &str) -> Vec<Run> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = folder.join("../target/python/bin/python");
    assert!(python.exists(), "stomp.py is not installed here ({}): run `make deps`", python.display());
    let script = Command::new(python)
        .arg(folder.join("tests/foreign/scenarios.py"))
        .arg(ports)
        // Otherwise stomp.py looks up this machine's names.
        .env("STOMP_SKIP_HOSTNAME_SCAN", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(LIMIT, script).await.expect("the script ends in time").unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{stderr}")))
        .collect()
}
