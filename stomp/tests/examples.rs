//! Every example runs: those that need a broker, at a private RabbitMQ. Cargo builds them with the tests.
#![cfg(all(feature = "tokio", feature = "broker"))]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

#[path = "support/example.rs"]
mod example;

use rabbitmq_node::shared;

use example::run;

#[test]
fn publish_and_consume() {
    let vhost = shared().new_vhost().unwrap();
    let url = vhost.stomp_url();
    assert_eq!(run("publish", &[&url]), "1000 messages confirmed\n");
    assert_eq!(vhost.queue_depth("stompwire-example").unwrap(), 1000);
    assert_eq!(run("consume", &[&url]), "1000 messages consumed\n");
    assert_eq!(vhost.queue_depth("stompwire-example").unwrap(), 0);
    assert_eq!(run("publish", &[&url]), "1000 messages confirmed\n");
    assert_eq!(run("reconnecting_consumer", &[&url, "1000"]), "1000 messages consumed\n");
    assert_eq!(vhost.queue_depth("stompwire-example").unwrap(), 0);
}

#[test]
fn quorum_queue() {
    let vhost = shared().new_vhost().unwrap();
    let shown = run("quorum_queue", &[&vhost.stomp_url()]);
    assert!(shown.ends_with(": b\"order 1\"\n"), "{shown}");
    assert_eq!(vhost.queue_depth("orders/paid").unwrap(), 0);
}

#[test]
fn those_that_need_no_broker() {
    let shown = run("own_transport", &[]);
    assert!(shown.ends_with("note Some(\"a:b\\nc\"), body b\"body with a NUL: \\0\"\n"), "{shown}");
    assert_eq!(run("testing", &[]), "both tests passed\n");
}
