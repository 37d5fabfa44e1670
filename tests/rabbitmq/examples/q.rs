//! x
use rabbitmq_node::*;
use std::time::*;
fn main() {
    for c in ["log.file.level = info", "management_agent.disable_metrics_collector = false", "log.file.level = info", "management_agent.disable_metrics_collector = false"] {
    let t=Instant::now();
    let n = Node::builder().config(c).start().unwrap();
    println!("{c}: start {:?}", t.elapsed());
    if std::env::args().nth(1).is_some() { let v = n.new_vhost().unwrap();
    v.declare_queue("Q", &QueueOptions::default()).unwrap(); }
    let t=Instant::now(); n.stop().unwrap(); println!("stop {:?}", t.elapsed());
}}
