//! Starting, killing, stopping and hurting nodes. The tests that leave a node as they found it share one and take
//! turns.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rabbitmq_node::{Error, Node, QueueKind, QueueOptions, shared};
use support::Stomp;

const SOON: Duration = Duration::from_secs(20);

/// The shared node, for one test at a time.
fn take_turn() -> (MutexGuard<'static, ()>, &'static Node) {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has poisoned it, which is no reason for the others to fail.
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    (turn, shared())
}

#[test]
fn confirmed_messages_of_durable_queues_survive_a_kill() {
    let (_turn, node) = take_turn();
    let vhost = node.new_vhost().unwrap();
    let queues = [QueueKind::Classic, QueueKind::Quorum].map(|kind| (kind, format!("{kind:?}")));
    let mut stomp = Stomp::connect(&vhost);
    for (kind, queue) in &queues {
        vhost.declare_queue(queue, &QueueOptions::of_kind(*kind)).unwrap();
        for number in 0..50 {
            stomp.send_and_await_receipt(&format!("/amq/queue/{queue}"), &number.to_string());
        }
    }
    let (pids, address) = (node.processes(), node.stomp_addr());

    let begun = Instant::now();
    node.kill().unwrap();
    println!("kill: {:?}", begun.elapsed());
    assert!(pids.iter().all(|pid| !support::is_running(*pid)), "{pids:?}");
    assert_eq!(stomp.read_frame(), "");
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(node.pid(), None);
    assert!(matches!(vhost.queue_depth("Classic"), Err(Error::NotRunning)));
    node.kill().unwrap();

    let begun = Instant::now();
    node.start_again().unwrap();
    println!("start_again: {:?}", begun.elapsed());
    assert_eq!(node.stomp_addr(), address);
    // At once, without waiting: the listener must be there.
    Stomp::connect(&vhost).send_and_await_receipt("/amq/queue/Classic", "50");
    vhost.wait_for_depth("Classic", 51, SOON).unwrap();
    vhost.wait_for_depth("Quorum", 50, SOON).unwrap();
    for (_, queue) in &queues {
        let numbers: Vec<u32> = vhost
            .get_messages(queue, 50)
            .unwrap()
            .iter()
            .map(|message| std::str::from_utf8(&message.payload).unwrap().parse().unwrap())
            .collect();
        assert_eq!(numbers, (0..50).collect::<Vec<_>>(), "{queue}");
    }
    assert!(matches!(node.start_again(), Err(Error::Running)));
}

#[test]
fn a_restart_keeps_persistent_messages_and_drops_the_others() {
    let (_turn, node) = take_turn();
    let vhost = node.new_vhost().unwrap();
    vhost.declare_queue("q", &QueueOptions::default()).unwrap();
    let mut stomp = Stomp::connect(&vhost);
    stomp.write("SEND\ndestination:/amq/queue/q\n\ntransient\0");
    stomp.send_and_await_receipt("/amq/queue/q", "persistent");
    assert_eq!(vhost.queue_depth("q").unwrap(), 2);
    let before = node.pid().unwrap();
    let begun = Instant::now();
    node.restart().unwrap();
    println!("restart: {:?}", begun.elapsed());
    let after = node.pid().unwrap();
    assert_ne!(before, after);
    assert!(!support::is_running(before) && support::is_running(after));
    let left: Vec<_> =
        vhost.get_messages("q", 9).unwrap().into_iter().map(|message| message.payload).collect();
    assert_eq!(left, [b"persistent"]);
}

#[test]
fn the_application_stops_and_starts_within_its_process() {
    let (_turn, node) = take_turn();
    let vhost = node.new_vhost().unwrap();
    vhost.declare_queue("q", &QueueOptions::default()).unwrap();
    let mut stomp = Stomp::connect(&vhost);
    stomp.send_and_await_receipt("/amq/queue/q", "x");
    let pid = node.pid().unwrap();

    node.stop_app().unwrap();
    while !stomp.read_frame().is_empty() {}
    assert_eq!(TcpStream::connect(node.stomp_addr()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(support::is_running(pid));

    node.start_app().unwrap();
    Stomp::connect(&vhost).send_and_await_receipt("/amq/queue/q", "y");
    assert_eq!(vhost.queue_depth("q").unwrap(), 2);
    assert_eq!(node.pid(), Some(pid));
}

#[test]
fn an_alarm_holds_publishers_back_until_it_clears() {
    let (_turn, node) = take_turn();
    let vhost = node.new_vhost().unwrap();
    vhost.declare_queue("q", &QueueOptions::default()).unwrap();
    type Set = fn(&Node, bool) -> Result<(), Error>;
    let alarms: [(&str, Set); 2] = [("memory", Node::set_memory_alarm), ("disk", Node::set_disk_alarm)];
    for (resource, set) in alarms {
        let mut stomp = Stomp::connect(&vhost);
        stomp.send_and_await_receipt("/amq/queue/q", "before");
        let depth = vhost.queue_depth("q").unwrap();

        let begun = Instant::now();
        set(node, true).unwrap();
        println!("{resource} alarm on: {:?}", begun.elapsed());
        let alarms = node.eval("rabbit_alarm:get_alarms()").unwrap();
        assert!(alarms.contains(&format!("{{resource_limit,{resource},")), "{alarms}");
        // A blocked connection still takes what was on its way, so this is more than that.
        let body = "x".repeat(1_024);
        for _ in 0..1_000 {
            stomp.write(&format!("SEND\ndestination:/amq/queue/q\n\n{body}\0"));
        }
        thread::sleep(Duration::from_millis(300));
        let held = vhost.queue_depth("q").unwrap();
        assert!(held < depth + 1_000, "the {resource} alarm held nothing back: {depth} became {held}");

        let begun = Instant::now();
        set(node, false).unwrap();
        println!("{resource} alarm off: {:?}", begun.elapsed());
        assert_eq!(node.eval("rabbit_alarm:get_alarms()").unwrap(), "[]");
        vhost.wait_for_depth("q", depth + 1_000, SOON).unwrap();
    }
}

#[test]
fn nodes_stand_side_by_side_and_leave_nothing_behind() {
    let begun = Instant::now();
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| Node::start().unwrap());
        let other = scope.spawn(|| {
            Node::builder()
                .busy_wait(false)
                .web_stomp()
                .config("stomp.default_user = guest")
                .erl_args("+S 1:1")
                .start()
                .unwrap()
        });
        (one.join().unwrap(), other.join().unwrap())
    });
    println!("two starts at once: {:?}", begun.elapsed());
    assert_ne!(one.stomp_addr(), other.stomp_addr());
    let sockets = support::listening(&other.processes());
    assert!(sockets.contains(&other.web_stomp_addr()), "{sockets:?}");
    assert!(sockets.iter().all(|socket| socket.ip().is_loopback()), "{sockets:?}");
    assert_eq!(TcpStream::connect(one.web_stomp_addr()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let (one_vhost, other_vhost) = (one.new_vhost().unwrap(), other.new_vhost().unwrap());
    one_vhost.declare_queue("q", &QueueOptions::default()).unwrap();
    other_vhost.declare_queue("q", &QueueOptions::default()).unwrap();
    Stomp::connect(&one_vhost).send_and_await_receipt("/amq/queue/q", "x");
    assert_eq!((one_vhost.queue_depth("q").unwrap(), other_vhost.queue_depth("q").unwrap()), (1, 0));
    assert_eq!(other.eval("erlang:system_info(schedulers)").unwrap(), "1");
    assert_eq!(one.eval("nodes()").unwrap(), "[]");

    let (pids, folder) = (one.processes(), one.folder().to_owned());
    assert!(pids.len() >= 4 && pids.iter().all(|pid| support::is_running(*pid)), "{pids:?}");
    // A virtual host does not keep its node alive.
    drop(one);
    assert!(pids.iter().all(|pid| !support::is_running(*pid)), "{pids:?}");
    assert!(matches!(one_vhost.queue_depth("q"), Err(Error::NotRunning)));
    drop(one_vhost);
    assert!(!folder.exists());
    assert_eq!(other_vhost.queue_depth("q").unwrap(), 0);
    // Stopped in good order it stays down without complaint.
    other.stop().unwrap();
    other.stop().unwrap();
    assert!(other.processes().is_empty());
}

#[test]
fn a_start_that_fails_says_why() {
    let begun = Instant::now();
    let wrong = Node::builder().config("no_such_key = 1").start().unwrap_err().to_string();
    println!("{:?}: {wrong}", begun.elapsed());
    assert!(wrong.contains("did not start") && wrong.contains("no_such_key"), "{wrong}");

    let late = Node::builder().start_limit(Duration::from_millis(300)).start().unwrap_err().to_string();
    assert!(late.contains("not up within 300ms"), "{late}");
}

#[test]
fn a_durable_queue_declared_just_before_a_kill_is_there_again() {
    let node = Node::start().unwrap();
    let vhost = node.new_vhost().unwrap();
    for round in 0..4 {
        let queue = format!("q{round}");
        vhost.declare_queue(&queue, &QueueOptions::default()).unwrap();
        node.kill().unwrap();
        node.start_again().unwrap();
        assert_eq!(vhost.queue_depth(&queue).unwrap(), 0);
    }
}
