use rabbitmq_node::*;
use std::time::*;
fn main() {
    let n = Node::start().unwrap();
    let v = n.new_vhost().unwrap();
    v.declare_queue("Q", &QueueOptions::of_kind(QueueKind::Quorum)).unwrap();
    for _ in 0..20 { v.publish("amq.default","Q",b"x",&serde_json::json!({"delivery_mode":2})).unwrap(); }
    println!("{:?}", v.queue_counts("Q"));
    println!("{}", n.eval("[{T,dets:info(T,auto_save),dets:sync(T)} || T <- dets:all()]").unwrap()); if std::env::args().nth(1).is_some() { std::thread::sleep(Duration::from_secs(3)); }
    n.kill().unwrap(); n.start_again().unwrap();
    let t=Instant::now();
    for _ in 0..3 { println!("{:?} {:?}", t.elapsed(), v.queue_counts("Q").map_err(|e| e.to_string().split("}`").last().unwrap_or_default().to_owned())); 
    println!("{}", n.eval("[{Q, catch sys:get_state(whereis('test-1_Q'),500)} || Q <- ['test-1_Q']]").map(|s| s.chars().take(1800).collect::<String>()).unwrap_or_else(|e|e.to_string())); 
    println!("{}", n.eval("[ets:lookup(ra_state, 'test-1_Q'), ets:tab2list(ra_leaderboard)]").unwrap_or_else(|e|e.to_string())); }
    println!("{}", std::fs::read_to_string(n.folder().join("rabbit.log")).unwrap().lines().filter(|l| l.contains("ra")||l.contains("Q")||l.contains("ueue")).filter(|l|!l.contains("Feature")).map(|l|l.chars().take(260).collect::<String>()).collect::<Vec<_>>().join("\n"));
}
