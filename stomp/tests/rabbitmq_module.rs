//! The module `rabbitmq` on a live RabbitMQ: names lead where they say, and every header arrives as what it is called; and
//! what it writes can be read.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::time::Duration;

use proptest::prelude::*;
use rabbitmq_node::{QueueOptions as Declared, Vhost, shared};
use stompwire::{
    Frame, Headers,
    client::{Client, ConnectOptions, ConnectionError, Message, Subscribe, Subscription, Unconfirmed},
    rabbitmq::{
        Destination, DestinationError, Properties, QueueKind, QueueOptions, StreamOffset,
        SubscriptionOptions, needs_escaped_connect,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Names with everything that a slip in escaping would change.
const EXOTIC: [&str; 12] =
    ["a/b", "/", "//", "100%", "%25", "%2f", "%/2F", "a b", " a ", "a:b\\c", "grün ☃", "%C3%BC"];

fn vhost() -> Vhost {
    shared().new_vhost().unwrap()
}

async fn connect(vhost: &Vhost) -> Client {
    connect_to(&vhost.stomp_url(), ConnectOptions::default()).await.unwrap()
}

async fn connect_to(url: &str, options: ConnectOptions) -> Result<Client, ConnectionError> {
    timeout(LIMIT, Client::connect(&url.parse().unwrap(), options)).await.expect("in time")
}

async fn send(client: &Client, destination: &Destination, more: &Headers) -> Result<(), Unconfirmed> {
    let mut frame = Frame::send(&destination.to_header().unwrap(), "x");
    more.iter().for_each(|(name, value)| frame.headers_mut().push(name, value));
    timeout(LIMIT, client.send_with_receipt(frame).await.unwrap()).await.expect("resolved")
}

async fn subscribe(client: &Client, destination: &Destination, more: &Headers) -> Subscription {
    let subscribe = Subscribe::to(destination.to_header().unwrap());
    let subscribe =
        more.iter().fold(subscribe, |subscribe, (name, value)| subscribe.with_header(name, value));
    timeout(LIMIT, client.subscribe(subscribe)).await.expect("in time").unwrap()
}

async fn next(messages: &mut Subscription) -> Message {
    timeout(LIMIT, messages.next()).await.expect("a message").unwrap().unwrap()
}

async fn close(client: Client) {
    client.close(LIMIT).await.unwrap();
}

/// A queue as RabbitMQ has it: `{Durable,AutoDelete,Exclusive,Arguments}`, the arguments by name; or `none`. Without
/// [what RabbitMQ adds](without_default_kind).
fn queue(vhost: &Vhost, name: &str) -> String {
    let binary = |text: &str| {
        let octets: Vec<String> = text.bytes().map(|octet| octet.to_string()).collect();
        format!("<<{}>>", octets.join(","))
    };
    let ask = "case rabbit_amqqueue:lookup(rabbit_misc:r(VHOST, queue, QUEUE)) of
        {ok, Q} -> {amqqueue:is_durable(Q), amqqueue:is_auto_delete(Q),
            amqqueue:get_exclusive_owner(Q) =/= none, lists:sort(amqqueue:get_arguments(Q))};
        _ -> none
    end";
    let ask = ask.replace("VHOST", &binary(vhost.name())).replace("QUEUE", &binary(name));
    without_default_kind(&shared().eval(&ask).unwrap())
}

/// Since 4.0 RabbitMQ notes with each queue that it is a classic one, whether that was asked for or not; 3.10 notes what was
/// asked for.
fn without_default_kind(queue: &str) -> String {
    const CLASSIC: &str = r#"{<<"x-queue-type">>,longstr,<<"classic">>}"#;
    if shared().version().starts_with("3.") {
        return queue.to_owned();
    }
    queue.replace(&format!(",{CLASSIC}"), "").replace(CLASSIC, "")
}

fn nothing() -> Headers {
    Headers::new()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exotic_names_lead_to_their_queues_and_back() {
    let vhost = vhost();
    let client = connect(&vhost).await;
    for name in EXOTIC {
        vhost.declare_exchange(&format!("x{name}"), "direct").unwrap();
        for (prefix, exchange) in
            [("amq", None), ("x", Some(format!("x{name}"))), ("t", Some("amq.topic".into()))]
        {
            let queue = format!("{prefix}{name}");
            vhost.declare_queue(&queue, &Declared::default()).unwrap();
            if let Some(exchange) = exchange {
                vhost.bind(&exchange, &queue, name).unwrap();
            }
        }
        // The destination; where its message is to be found, with which exchange and key.
        let cases = [
            (Destination::amq_queue(format!("amq{name}")), format!("amq{name}"), "", &*format!("amq{name}")),
            (Destination::queue(format!("q{name}")), format!("q{name}"), "", &*format!("q{name}")),
            (Destination::exchange(format!("x{name}"), name), format!("x{name}"), &*format!("x{name}"), name),
            (Destination::topic(name), format!("t{name}"), "amq.topic", name),
        ];
        for (destination, queue, exchange, key) in cases {
            send(&client, &destination, &nothing()).await.unwrap();
            assert_eq!(vhost.queue_depth(&queue).unwrap(), 1, "{destination:?}");
            let message = &vhost.get_messages(&queue, 1).unwrap()[0];
            assert_eq!((&*message.exchange, &*message.routing_key), (exchange, key), "{destination:?}");

            // The way back: what MESSAGE says, read and written again, leads to the same queue.
            let header = destination.to_header().unwrap();
            send(&client, &destination, &nothing()).await.unwrap();
            let mut messages = subscribe(&client, &Destination::amq_queue(&queue), &nothing()).await;
            let message = next(&mut messages).await;
            let said = Destination::from_message(message.header("destination").unwrap()).unwrap();
            let expected = match destination {
                Destination::AmqQueue(name) => Destination::Queue(name),
                other => other,
            };
            assert_eq!(said, expected, "{header} in a SEND, {message:?}");
            messages.ack(&message).await.unwrap();
        }
    }
    close(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_escaped_slash_in_a_name_cannot_be_expressed() {
    let vhost = vhost();
    vhost.declare_queue("a%2Fb", &Declared::default()).unwrap();
    vhost.declare_queue("a/b", &Declared::default()).unwrap();
    assert_eq!(
        Destination::amq_queue("a%2Fb").to_header(),
        Err(DestinationError::Inexpressible("a%2Fb".into()))
    );
    let client = connect(&vhost).await;
    for text in ["/amq/queue/a%2Fb", "/amq/queue/a%252Fb"] {
        let frame = Frame::send(text, "x");
        timeout(LIMIT, client.send_with_receipt(frame).await.unwrap()).await.unwrap().unwrap();
    }
    // The second went to a queue that is not there: a percent sign is not escaped.
    assert_eq!((vhost.queue_depth("a%2Fb").unwrap(), vhost.queue_depth("a/b").unwrap()), (0, 1));
    close(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_routing_key_is_one() {
    let vhost = vhost();
    vhost.declare_exchange("x", "direct").unwrap();
    vhost.declare_queue("q", &Declared::default()).unwrap();
    vhost.bind("x", "q", "").unwrap();
    let client = connect(&vhost).await;
    for text in ["/exchange/x", "/exchange/x/"] {
        let destination: Destination = text.parse().unwrap();
        assert_eq!(destination, Destination::exchange("x", ""));
        send(&client, &destination, &nothing()).await.unwrap();
        let frame = Frame::send(text, "x");
        timeout(LIMIT, client.send_with_receipt(frame).await.unwrap()).await.unwrap().unwrap();
    }
    let messages = vhost.get_messages("q", 10).unwrap();
    assert_eq!(messages.len(), 4);
    assert!(messages.iter().all(|message| message.exchange == "x" && message.routing_key.is_empty()));
    close(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_here_is_refused_there() {
    let vhost = vhost();
    for text in [
        "/queue/",
        "/queue/a/b",
        "/exchange//k",
        "/exchange/x/k/l",
        "/topic/",
        "/other/a",
        "/reply-queue/",
        "",
    ] {
        assert!(text.parse::<Destination>().is_err());
        let client = connect(&vhost).await;
        let frame = Frame::send(text, "x");
        let lost = timeout(LIMIT, client.send_with_receipt(frame).await.unwrap()).await.unwrap();
        assert!(lost.is_err(), "{text:?}");
        let end = client.ended().await;
        assert!(matches!(end, ConnectionError::ServerError(_)), "{text:?}: {end}");
    }
    let client = connect(&vhost).await;
    send(&client, &"bare%2Fname".parse().unwrap(), &nothing()).await.unwrap();
    let frame = Frame::send("bare%2Fname", "x");
    timeout(LIMIT, client.send_with_receipt(frame).await.unwrap()).await.unwrap().unwrap();
    assert_eq!(vhost.queue_depth("bare/name").unwrap(), 2);
    close(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_options_arrive_by_send_and_by_subscribe() {
    type Set = fn(&mut QueueOptions);
    let cases: Vec<(Set, &str)> = vec![
        (|_| {}, "{true,false,false,[]}"),
        (
            |o| o.kind = Some(QueueKind::Classic),
            r#"{true,false,false,[{<<"x-queue-type">>,longstr,<<"classic">>}]}"#,
        ),
        (
            |o| o.kind = Some(QueueKind::Quorum),
            r#"{true,false,false,[{<<"x-queue-type">>,longstr,<<"quorum">>}]}"#,
        ),
        (
            |o| o.kind = Some(QueueKind::Stream),
            r#"{true,false,false,[{<<"x-queue-type">>,longstr,<<"stream">>}]}"#,
        ),
        (
            |o| o.message_ttl = Some(Duration::from_micros(60_000_999)),
            r#"{true,false,false,[{<<"x-message-ttl">>,long,60000}]}"#,
        ),
        (
            |o| o.expires = Some(Duration::from_secs(90)),
            r#"{true,false,false,[{<<"x-expires">>,long,90000}]}"#,
        ),
        (|o| o.max_length = Some(7), r#"{true,false,false,[{<<"x-max-length">>,long,7}]}"#),
        (
            |o| o.max_length_bytes = Some(1 << 40),
            r#"{true,false,false,[{<<"x-max-length-bytes">>,long,1099511627776}]}"#,
        ),
        (|o| o.max_priority = Some(9), r#"{true,false,false,[{<<"x-max-priority">>,long,9}]}"#),
        (
            |o| {
                o.dead_letter_exchange = Some("  dead:letters ".into());
                o.dead_letter_routing_key = Some("a/b%".into());
            },
            r#"{true,false,false,[{<<"x-dead-letter-exchange">>,longstr,<<"dead:letters">>},{<<"x-dead-letter-routing-key">>,longstr,<<"a/b%">>}]}"#,
        ),
        (|o| o.durable = false, "{false,false,false,[]}"),
        (|o| o.auto_delete = true, "{true,true,false,[]}"),
        (|o| o.exclusive = true, "{false,false,true,[]}"),
        (
            |o| {
                o.durable = false;
                o.auto_delete = true;
                o.exclusive = true;
                o.max_length = Some(1);
            },
            r#"{false,true,true,[{<<"x-max-length">>,long,1}]}"#,
        ),
    ];
    let vhost = vhost();
    let client = connect(&vhost).await;
    for (number, (set, expected)) in cases.into_iter().enumerate() {
        let expected = without_default_kind(expected);
        let mut options = QueueOptions::default();
        set(&mut options);
        let mut properties = Properties::default();
        properties.persistent = true;
        let mut headers = properties.headers();
        options.push_to(&mut headers);
        let name = format!("sent {number}");
        send(&client, &Destination::queue(&name), &headers).await.unwrap();
        assert_eq!(queue(&vhost, &name), expected, "by SEND: {options:?}");
        if options.exclusive || options.kind == Some(QueueKind::Stream) {
            assert_eq!(vhost.queue_depth(&name).unwrap(), 1, "{options:?}");
        } else {
            // What made the queue is in it.
            let message = &vhost.get_messages(&name, 1).unwrap()[0];
            assert_eq!(message.properties["delivery_mode"], 2);
        }
        let name = format!("subscribed {number}");
        let _kept = subscribe(&client, &Destination::queue(&name), &options.headers()).await;
        assert_eq!(queue(&vhost, &name), expected, "by SUBSCRIBE: {options:?}");
    }
    close(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_options_is_refused_and_overflow_is_not_passed_on() {
    let vhost = vhost();
    let client = connect(&vhost).await;
    let more: Headers = [("x-overflow", "reject-publish"), ("x-max-length", "5")].into_iter().collect();
    send(&client, &Destination::queue("q"), &more).await.unwrap();
    assert_eq!(queue(&vhost, "q"), r#"{true,false,false,[{<<"x-max-length">>,long,5}]}"#);
    // Once for each connection: in this one the queue is known, in the next it is declared again.
    send(&client, &Destination::queue("q"), &nothing()).await.unwrap();
    close(client).await;
    let client = connect(&vhost).await;
    assert!(send(&client, &Destination::queue("q"), &nothing()).await.is_err());
    let ConnectionError::ServerError(error) = client.ended().await else { panic!("no ERROR") };
    assert_eq!(error.header("message"), Some("precondition_failed"));
    assert_eq!(vhost.queue_depth("q").unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_property_is_set() {
    let vhost = vhost();
    vhost.declare_queue("q", &Declared::default()).unwrap();
    let client = connect(&vhost).await;
    let mut properties = Properties::default();
    properties.persistent = true;
    properties.content_type = Some("application/x-ndjson");
    properties.content_encoding = Some("identity");
    properties.priority = Some(7);
    properties.correlation_id = Some("c:1\\");
    properties.reply_to = Some("/queue/answers%2Feu");
    properties.expiration = Some(Duration::from_micros(3_600_000_999));
    properties.message_id = Some("grün");
    properties.timestamp = Some(1_700_000_000);
    properties.message_type = Some("beacons");
    properties.user_id = Some(vhost.user());
    properties.app_id = Some("edge");
    let mut more = properties.headers();
    more.push("x-own", "1");
    send(&client, &Destination::amq_queue("q"), &more).await.unwrap();
    let message = &vhost.get_messages("q", 1).unwrap()[0];
    let mut seen = message.properties.clone();
    let headers = seen.remove("headers").unwrap();
    let expected = serde_json::json!({
        "delivery_mode": 2,
        "content_type": "application/x-ndjson",
        "content_encoding": "identity",
        "priority": 7,
        "correlation_id": "c:1\\",
        "reply_to": "/queue/answers%2Feu",
        "expiration": "3600000",
        "message_id": "grün",
        "timestamp": 1_700_000_000,
        "type": "beacons",
        "user_id": "guest",
        "app_id": "edge",
    });
    assert_eq!(serde_json::Value::from(seen), expected);
    // What is no property is stored as it is: nothing of the above, but what the frame itself needed.
    let names: Vec<&str> = headers.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["content-length", "receipt", "x-own"]);

    send(&client, &Destination::amq_queue("q"), &Properties::default().headers()).await.unwrap();
    let mut seen = vhost.get_messages("q", 1).unwrap()[0].properties.clone();
    seen.remove("headers");
    assert!(seen.is_empty(), "{seen:?}");
    close(client).await;

    for (name, value) in [("user-id", "somebody-else"), ("message-id", "m")] {
        let client = connect(&vhost).await;
        let more: Headers = [(name, value)].into_iter().collect();
        assert!(send(&client, &Destination::amq_queue("q"), &more).await.is_err(), "{name}");
        let end = client.ended().await;
        assert!(matches!(end, ConnectionError::ServerError(_)), "{name}: {end}");
    }
    assert_eq!(vhost.queue_depth("q").unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persistent_false_would_make_the_queue_transient() {
    let vhost = vhost();
    let client = connect(&vhost).await;
    let more: Headers = [("persistent", "false")].into_iter().collect();
    send(&client, &Destination::queue("q"), &more).await.unwrap();
    assert_eq!(queue(&vhost, "q"), "{false,true,true,[]}");
    close(client).await;
    // And the order counts, as `QueueOptions::push_to` says.
    let client = connect(&vhost).await;
    let more: Headers = [("durable", "false"), ("persistent", "true")].into_iter().collect();
    send(&client, &Destination::queue("r"), &more).await.unwrap();
    assert_eq!(queue(&vhost, "r"), "{true,false,false,[]}");
    close(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_read_from_where_it_is_said() {
    let vhost = vhost();
    let client = connect(&vhost).await;
    let mut stream = QueueOptions::default();
    stream.kind = Some(QueueKind::Stream);
    let destination = Destination::queue("s");
    for number in 0..5 {
        let mut more = stream.headers();
        more.push("number", &number.to_string());
        send(&client, &destination, &more).await.unwrap();
    }
    let cases = [
        (StreamOffset::First, "0"),
        (StreamOffset::Offset(3), "3"),
        (StreamOffset::Timestamp(0), "0"),
        (StreamOffset::Last, "4"),
        (StreamOffset::Next, "5"),
    ];
    for (offset, expected) in cases {
        let mut options = SubscriptionOptions::default();
        options.stream_offset = Some(offset);
        let mut more = stream.headers();
        options.push_to(&mut more);
        let reader = connect(&vhost).await;
        let mut messages = subscribe(&reader, &destination, &more).await;
        if offset == StreamOffset::Next {
            let mut more = stream.headers();
            more.push("number", "5");
            send(&client, &destination, &more).await.unwrap();
        }
        let message = next(&mut messages).await;
        assert_eq!(message.header("number"), Some(expected), "{offset:?}");
        messages.ack(&message).await.unwrap();
        close(reader).await;
    }
    close(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_durable_subscription_outlives_its_connection() {
    let vhost = vhost();
    vhost.declare_exchange("x", "direct").unwrap();
    for (number, destination) in [Destination::topic("t"), Destination::exchange("x", "k")].iter().enumerate()
    {
        let name = format!("mine/{number}");
        let mut options = SubscriptionOptions::default();
        options.queue_name = Some(name.clone());
        // Without `durable` it ends with its last consumer.
        let client = connect(&vhost).await;
        let _kept = subscribe(&client, destination, &options.headers()).await;
        let transient = queue(&vhost, &name);
        assert!(transient.starts_with("{false,true,"), "{transient}");
        close(client).await;
        let begin = std::time::Instant::now();
        while queue(&vhost, &name) != "none" {
            assert!(begin.elapsed() < LIMIT, "it stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }

        options.durable = true;
        let client = connect(&vhost).await;
        let _kept = subscribe(&client, destination, &options.headers()).await;
        let durable = queue(&vhost, &name);
        assert_eq!(durable, "{true,false,false,[]}");
        close(client).await;
        let client = connect(&vhost).await;
        send(&client, destination, &nothing()).await.unwrap();
        vhost.wait_for_depth(&name, 1, LIMIT).unwrap();
        let mut messages = subscribe(&client, destination, &options.headers()).await;
        let message = next(&mut messages).await;
        assert_eq!(
            Destination::from_message(message.header("destination").unwrap()).as_ref(),
            Ok(destination)
        );
        close(client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_queue_gets_the_answer() {
    let vhost = vhost();
    vhost.declare_queue("requests", &Declared::default()).unwrap();
    // Over a bare socket: nobody subscribes to the answers.
    let mut asker = TcpStream::connect(vhost.stomp_addr()).await.unwrap();
    let here = Destination::TempQueue("a/b".into()).to_header().unwrap();
    let frames = format!(
        "CONNECT\naccept-version:1.2\nhost:{}\nlogin:guest\npasscode:guest\n\n\0\
         SEND\ndestination:/amq/queue/requests\nreply-to:{here}\n\nwhat?\0",
        vhost.name()
    );
    asker.write_all(frames.as_bytes()).await.unwrap();

    let client = connect(&vhost).await;
    let mut requests = subscribe(&client, &Destination::amq_queue("requests"), &nothing()).await;
    let request = next(&mut requests).await;
    let reply_to: Destination = request.header("reply-to").unwrap().parse().unwrap();
    assert!(
        matches!(&reply_to, Destination::ReplyQueue(name) if name.starts_with("amq.gen-")),
        "{reply_to:?}"
    );
    assert_eq!(reply_to.to_header().unwrap(), request.header("reply-to").unwrap());
    send(&client, &reply_to, &nothing()).await.unwrap();
    requests.ack(&request).await.unwrap();

    let mut read = Vec::new();
    while !read.ends_with(b"\n\nx\0\n") {
        let count = timeout(LIMIT, asker.read_buf(&mut read)).await.expect("an answer").unwrap();
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&read));
    }
    let read = String::from_utf8(read).unwrap();
    assert!(read.contains("\nsubscription:/temp-queue/a/b\n"), "{read}");
    close(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_switch_is_needed_for_a_backslash_and_harmless_otherwise() {
    let vhost = vhost();
    for (number, (passcode, needed)) in
        [("plain", false), ("co:lon", false), ("back\\slash", true), ("\\n", true)].into_iter().enumerate()
    {
        let user = format!("{}-{number}", vhost.name());
        vhost.add_user(&user, passcode).unwrap();
        vhost.set_permissions(&user, ".*", ".*", ".*").unwrap();
        assert_eq!(needs_escaped_connect(&user, passcode, vhost.name()), needed);
        for escape in [false, true] {
            let mut options = ConnectOptions::default();
            options.session.escape_connect = escape;
            let connected = connect_to(&vhost.stomp_url_as(&user, passcode), options).await;
            assert_eq!(connected.is_ok(), escape || !needed, "{passcode:?}, escaped: {escape}");
        }
    }
}

/// What RabbitMQ's source does to a name in the `destination` of a MESSAGE (the live tests show the same).
fn in_message(name: &str) -> String {
    let escaped = |octet: u8| {
        if octet == b'/' || octet == b'%' || !(32..=127).contains(&octet) {
            format!("%{octet:02X}")
        } else {
            char::from(octet).to_string()
        }
    };
    name.bytes().map(escaped).collect()
}

fn name() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof![Just("/".to_owned()), Just("%".into()), Just("2F".into()), Just("%25".into()), ".{1,3}"];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(first in name(), second in name()) {
        let all = [
            Destination::exchange(&first, &second),
            Destination::amq_queue(&first),
            Destination::queue(&first),
            Destination::topic(&first),
            Destination::TempQueue(first.clone()),
            Destination::ReplyQueue(first.clone()),
        ];
        for destination in all {
            let names = if matches!(destination, Destination::Exchange { .. }) { vec![&first, &second] } else { vec![&first] };
            match destination.to_header() {
                Ok(header) => prop_assert_eq!(header.parse(), Ok(destination)),
                Err(DestinationError::Empty) => prop_assert!(first.is_empty()),
                Err(_) => prop_assert!(names.iter().any(|name| name.contains("%2F"))),
            }
        }
    }

    #[test]
    fn what_a_message_says_is_read(first in name(), second in name()) {
        prop_assume!(!first.is_empty());
        let header = format!("/exchange/{}/{}", in_message(&first), in_message(&second));
        prop_assert_eq!(Destination::from_message(&header), Ok(Destination::exchange(&first, &second)));
        let header = format!("/queue/{}", in_message(&first));
        prop_assert_eq!(Destination::from_message(&header), Ok(Destination::queue(&first)));
    }

    #[test]
    fn no_text_is_a_panic(text in ".{0,40}", tail in "[/%a-f0-9]{0,12}") {
        for text in [&text, &format!("/queue/{tail}"), &format!("/exchange/{tail}"), &tail] {
            if let Ok(destination) = text.parse::<Destination>() {
                prop_assert!(destination.to_header().is_ok_and(|header| header.parse() == Ok(destination)));
            }
            drop(Destination::from_message(text));
        }
    }
}
