//! Virtual hosts, queues and users, on one shared node.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rabbitmq_node::{Error, QueueCounts, QueueKind, QueueOptions, shared};
use serde_json::{Map, json};
use support::Stomp;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn every_kind_of_queue_counts_what_was_confirmed() {
    let vhost = shared().new_vhost().unwrap();
    for kind in [QueueKind::Classic, QueueKind::Quorum, QueueKind::Stream] {
        let queue = format!("q-{kind:?}");
        vhost.declare_queue(&queue, &QueueOptions::of_kind(kind)).unwrap();
        assert_eq!(vhost.queue_depth(&queue).unwrap(), 0, "{kind:?}");
        let mut stomp = Stomp::connect(&vhost);
        for number in 1..=5 {
            stomp.send_and_await_receipt(&format!("/amq/queue/{queue}"), "x");
            assert_eq!(vhost.queue_depth(&queue).unwrap(), number, "{kind:?}");
        }
        vhost.delete_queue(&queue).unwrap();
        assert!(matches!(vhost.queue_depth(&queue), Err(Error::NoQueue { .. })));
    }
}

#[test]
fn delivered_messages_count_until_they_are_acknowledged() {
    let vhost = shared().new_vhost().unwrap();
    for kind in [QueueKind::Classic, QueueKind::Quorum] {
        let queue = format!("q-{kind:?}");
        vhost.declare_queue(&queue, &QueueOptions::of_kind(kind)).unwrap();
        for _ in 0..3 {
            assert!(vhost.publish("amq.default", &queue, b"x", &json!({})).unwrap());
        }
        vhost.wait_for_depth(&queue, 3, SOON).unwrap();
        let mut stomp = Stomp::connect(&vhost);
        stomp.write(&format!(
            "SUBSCRIBE\nid:1\ndestination:/amq/queue/{queue}\nack:client-individual\nprefetch-count:2\n\n\0"
        ));
        let delivered = [stomp.read_frame(), stomp.read_frame()];
        assert!(delivered.iter().all(|frame| frame.starts_with("MESSAGE\n")), "{delivered:?}");
        assert_eq!(
            vhost.queue_counts(&queue).unwrap(),
            QueueCounts { ready: 1, unacknowledged: 2 },
            "{kind:?}"
        );
        assert_eq!(vhost.queue_depth(&queue).unwrap(), 3);
        // Closing gives them back.
        drop(stomp);
        let back = QueueCounts { ready: 3, unacknowledged: 0 };
        support::eventually(|| vhost.queue_counts(&queue).unwrap() == back);
        vhost.purge(&queue).unwrap();
        vhost.wait_for_depth(&queue, 0, SOON).unwrap();
    }
}

#[test]
fn messages_come_back_octet_for_octet_with_their_properties() {
    let vhost = shared().new_vhost().unwrap();
    vhost.declare_queue("q/é ?", &QueueOptions::default()).unwrap();
    vhost.declare_exchange("x", "topic").unwrap();
    vhost.bind("x", "q/é ?", "a.*").unwrap();
    let bodies: [&[u8]; 4] = [b"", b"plain", &[0, 255, 10, 13], "\u{1F41D}".as_bytes()];
    for body in bodies {
        let properties =
            json!({ "message_id": "m-1", "delivery_mode": 2, "headers": { "beacon-count": "3" } });
        assert!(vhost.publish("x", "a.b", body, &properties).unwrap());
    }
    assert!(!vhost.publish("x", "b.b", b"nobody wants it", &json!({})).unwrap());
    let messages = vhost.get_messages("q/é ?", 10).unwrap();
    let payloads: Vec<&[u8]> = messages.iter().map(|message| &*message.payload).collect();
    assert_eq!(payloads, bodies);
    for message in &messages {
        assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("x", "a.b"));
        assert_eq!(message.properties["message_id"], "m-1");
        assert_eq!(message.properties["delivery_mode"], 2);
        assert_eq!(message.header("beacon-count"), Some(&json!("3")));
        assert!(!message.redelivered);
    }
    assert_eq!(vhost.queue_depth("q/é ?").unwrap(), 0);
}

#[test]
fn more_messages_than_one_request_brings_keep_their_order() {
    let vhost = shared().new_vhost().unwrap();
    vhost.declare_queue("q", &QueueOptions::default()).unwrap();
    let mut stomp = Stomp::connect(&vhost);
    for number in 0..1_200 {
        stomp.write(&format!("SEND\ndestination:/amq/queue/q\n\n{number}\0"));
    }
    stomp.send_and_await_receipt("/amq/queue/q", "1200");
    let numbers: Vec<String> = vhost
        .get_messages("q", 1_100)
        .unwrap()
        .into_iter()
        .map(|message| String::from_utf8(message.payload).unwrap())
        .collect();
    assert_eq!(numbers, (0..1_100).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(vhost.queue_depth("q").unwrap(), 101);
}

#[test]
fn arguments_and_policies_bound_a_queue() {
    let vhost = shared().new_vhost().unwrap();
    let bounded = QueueOptions { max_length: Some(2), ..QueueOptions::default() };
    vhost.declare_queue("argument", &bounded).unwrap();
    vhost.declare_queue("policy", &QueueOptions::default()).unwrap();
    vhost.set_policy("two", "^policy$", &json!({ "max-length": 2, "overflow": "reject-publish" })).unwrap();
    let mut stomp = Stomp::connect(&vhost);
    for body in ["1", "2", "3"] {
        stomp.send_and_await_receipt("/amq/queue/argument", body);
    }
    let kept: Vec<_> =
        vhost.get_messages("argument", 9).unwrap().into_iter().map(|message| message.payload).collect();
    assert_eq!(kept, [b"2", b"3"]);

    for body in ["1", "2"] {
        stomp.send_and_await_receipt("/amq/queue/policy", body);
    }
    // What a queue rejects costs a STOMP publisher its connection, without an ERROR.
    stomp.write("SEND\ndestination:/amq/queue/policy\nreceipt:r\n\n3\0");
    assert_eq!(stomp.read_frame(), "");
    assert_eq!(vhost.queue_depth("policy").unwrap(), 2);
    vhost.delete_policy("two").unwrap();
    Stomp::connect(&vhost).send_and_await_receipt("/amq/queue/policy", "3");
    assert_eq!(vhost.queue_depth("policy").unwrap(), 3);

    let other = QueueOptions { arguments: Map::from_iter([("x-max-length".into(), 9.into())]), ..bounded };
    let refused = vhost.declare_queue("argument", &other).unwrap_err();
    assert!(matches!(refused, Error::Management { status: Some(400), .. }), "{refused}");
}

#[test]
fn virtual_hosts_are_apart_and_go_with_their_handle() {
    let (one, other) = (shared().new_vhost().unwrap(), shared().new_vhost().unwrap());
    assert_ne!(one.name(), other.name());
    one.declare_queue("q", &QueueOptions::default()).unwrap();
    assert!(matches!(other.queue_depth("q"), Err(Error::NoQueue { .. })));

    let name = one.name().to_owned();
    drop(one);
    let again = shared().vhost(&name).unwrap();
    assert!(
        matches!(again.queue_depth("q"), Err(Error::NoQueue { .. })),
        "the queue outlived its virtual host"
    );
}

#[test]
fn a_stream_can_be_declared_while_other_virtual_hosts_go() {
    let kept = shared().new_vhost().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(shared().new_vhost().unwrap());
                }
            });
        }
        // The same one again and again: what it has to find is that a table is closed in the wrong moment.
        let declared: Result<(), Error> =
            (0..500).try_for_each(|_| kept.declare_queue("s", &QueueOptions::of_kind(QueueKind::Stream)));
        done.store(true, Ordering::Relaxed);
        declared.unwrap();
    });
}

#[test]
fn urls_carry_the_virtual_host_percent_encoded() {
    let vhost = shared().vhost("/").unwrap();
    let stomp = format!("stomp://guest:guest@{}/%2F", shared().stomp_addr());
    let amqp = format!("amqp://guest:guest@{}/%2F", shared().amqp_addr());
    assert_eq!((vhost.stomp_url(), vhost.amqp_url()), (stomp, amqp));
    let named = shared().vhost("a b/é").unwrap();
    assert_eq!(
        named.stomp_url_as("me@home", "p:w"),
        format!("stomp://me%40home:p%3Aw@{}/a%20b%2F%C3%A9", shared().stomp_addr())
    );
    Stomp::connect(&named);
}

#[test]
fn users_may_do_what_their_permissions_say() {
    let vhost = shared().new_vhost().unwrap();
    vhost.declare_queue("mine", &QueueOptions::default()).unwrap();
    vhost.add_user("writer", "secret").unwrap();
    let refused = Stomp::open(&vhost, "writer", "secret").read_frame();
    assert!(refused.starts_with("ERROR\n"), "{refused}");

    vhost.set_permissions("writer", "", "^amq\\.default$", "").unwrap();
    let mut stomp = Stomp::open(&vhost, "writer", "secret");
    assert!(stomp.read_frame().starts_with("CONNECTED\n"));
    stomp.send_and_await_receipt("/amq/queue/mine", "x");
    stomp.write("SUBSCRIBE\nid:1\ndestination:/amq/queue/mine\n\n\0");
    let refused = stomp.read_frame();
    assert!(refused.starts_with("ERROR\n") && refused.contains("access_refused"), "{refused}");
    assert_eq!(vhost.queue_depth("mine").unwrap(), 1);
}

#[test]
fn connections_of_one_virtual_host_are_closed_and_no_others() {
    let (vhost, other) = (shared().new_vhost().unwrap(), shared().new_vhost().unwrap());
    let mut closed = [Stomp::connect(&vhost), Stomp::connect(&vhost)];
    let mut kept = Stomp::connect(&other);
    assert_eq!(vhost.close_all_connections().unwrap(), 2);
    for stomp in &mut closed {
        // The adapter may say goodbye first.
        while !stomp.read_frame().is_empty() {}
    }
    other.declare_queue("q", &QueueOptions::default()).unwrap();
    kept.send_and_await_receipt("/amq/queue/q", "still here");
    assert_eq!(vhost.close_all_connections().unwrap(), 0);
}

#[test]
fn expressions_are_evaluated_side_by_side() {
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| shared().eval("timer:sleep(300), slow"));
        for number in 0..100 {
            assert_eq!(shared().eval(&format!("{number} + 1")).unwrap(), (number + 1).to_string());
        }
        slow.join().unwrap()
    });
    assert_eq!(slow.unwrap(), "slow");
    let raised = shared().eval("list_to_integer(\"x\")").unwrap_err().to_string();
    assert!(raised.contains("{error,badarg}"), "{raised}");
    let wrong = shared().eval("1 +").unwrap_err().to_string();
    assert!(wrong.contains("syntax error"), "{wrong}");
}

#[test]
fn every_socket_of_the_node_is_on_loopback() {
    let sockets = support::listening(&shared().processes());
    let stomp = shared().stomp_addr();
    assert!(sockets.contains(&stomp), "{stomp} is not among {sockets:?}");
    assert!(sockets.len() >= 5, "AMQP, STOMP, management, distribution, epmd: {sockets:?}");
    assert!(sockets.iter().all(|socket| socket.ip().is_loopback()), "{sockets:?}");
}
