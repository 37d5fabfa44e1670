//! The program as an operator meets it: what it prints, how it ends, what its exit status says.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod support;

use std::{
    collections::BTreeSet,
    io::Read,
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rabbitmq_node::{QueueOptions, shared};
use support::{Browser, LIMIT, consume, drive, program::Program, scrape};

const QUIET: Duration = Duration::from_secs(2);

fn run(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    Program::command().args(arguments).envs(env.iter().copied()).output().unwrap()
}

#[test]
fn sigterm_under_load_loses_nothing_that_was_answered() {
    let vhost = shared().new_vhost().unwrap();
    vhost.declare_queue("beacons", &QueueOptions::default()).unwrap();
    for signal in ["TERM", "INT"] {
        let brokers = format!("[{:?}]", vhost.stomp_url());
        let mut program = Program::start(&[
            ("BEACON_EDGE__DESTINATIONS__MAIN__BROKERS", &brokers),
            ("BEACON_EDGE__DESTINATIONS__MAIN__DESTINATION", "/amq/queue/beacons"),
            ("BEACON_EDGE__SHUTDOWN__DEADLINE", "30s"),
        ]);
        let (http, admin) = program.addresses();
        let answered: BTreeSet<u64> = thread::scope(|scope| {
            let driving = scope.spawn(|| drive(http, u64::MAX, 16, &AtomicBool::new(false)));
            let enough = |metrics: &std::collections::BTreeMap<String, f64>| {
                metrics["beacon_edge_beacons_accepted_total{destination=\"main\"}"] > 20_000.0
            };
            while !enough(&scrape(admin)) {
                thread::sleep(Duration::from_millis(20));
            }
            program.signal(signal);
            driving.join().unwrap()
        });
        let (code, log) = program.end();
        assert_eq!(code, 0, "{log}");
        let last = log.lines().last().unwrap();
        assert!(last.contains("stopped, everything accepted was delivered; main: "), "{log}");

        let consumed = consume(&vhost.stomp_url(), "beacons", QUIET);
        let missing: Vec<_> = answered.difference(&consumed.numbers()).copied().collect();
        assert!(missing.is_empty(), "{} answered beacons are missing after SIG{signal}", missing.len());
        // An answer may be lost on its way, a beacon may not: the report counts what was accepted.
        let accepted = consumed.numbers().len();
        assert!(
            last.contains(&format!("main: {accepted} accepted, {accepted} confirmed")),
            "{accepted}: {last}"
        );
        assert_eq!(consumed.duplicates(), 0);
    }
}

#[test]
fn what_cannot_be_delivered_in_time_is_counted_and_shows_in_the_exit_status() {
    let mut program = Program::start(&[
        ("BEACON_EDGE__DESTINATIONS__MAIN__BROKERS", "[\"stomp://app:hunter2@127.0.0.1:1/\"]"),
        ("BEACON_EDGE__SHUTDOWN__DEADLINE", "300ms"),
    ]);
    let (http, _) = program.addresses();
    assert_eq!(drive(http, 100, 2, &AtomicBool::new(false)).len(), 100);
    program.signal("TERM");
    let (code, log) = program.end();
    assert_eq!(code, 3, "{log}");
    let last = log.lines().last().unwrap();
    assert!(
        last.contains("stopped before everything was delivered; main: 100 accepted, 0 confirmed, dropped: "),
        "{log}"
    );
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn a_request_in_flight_is_answered_before_the_end() {
    use std::io::Write as _;
    let mut program = Program::start(&[]);
    let (http, _) = program.addresses();
    let mut slow = std::net::TcpStream::connect(http).unwrap();
    slow.write_all(b"POST /b?seq=1 HTTP/1.1\r\nHost: edge\r\nContent-Length: 5\r\n\r\nhell").unwrap();
    thread::sleep(Duration::from_millis(200));
    program.signal("TERM");
    thread::sleep(Duration::from_millis(200));
    let refused = std::net::TcpStream::connect(http).and_then(|mut late| {
        late.write_all(b"GET /b.gif HTTP/1.1\r\nHost: edge\r\n\r\n")?;
        late.set_read_timeout(Some(LIMIT))?;
        late.read_exact(&mut [0])
    });
    assert!(refused.is_err(), "a new connection was served during the shutdown");
    slow.write_all(b"o").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let (code, log) = program.end();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("main: 1 accepted, 1 confirmed"), "{log}");
}

#[test]
fn a_first_run_says_where_to_click_and_every_place_answers() {
    let mut program = Program::start(&[]);
    let (http, admin) = program.addresses();
    let (status, gif) = Browser::get(http, "/b.gif?event=hello").unwrap();
    assert_eq!((status, gif.starts_with("GIF89a")), (200, true));
    let start = Instant::now();
    let page = loop {
        let (status, page) = Browser::get(admin, "/").unwrap();
        assert_eq!(status, 200);
        if page.contains("event=hello&quot;") {
            break page;
        }
        assert!(start.elapsed() < LIMIT, "the beacon is not on the page: {page}");
    };
    assert!(page.contains("&quot;route&quot;:&quot;pixel&quot;"), "{page}");
    program.signal("TERM");
    let mut printed = String::new();
    program.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    for expected in [
        format!("http://{http}/b.gif"),
        format!("http://{http}/b\n"),
        format!("http://{admin}/"),
        format!("curl -i 'http://{http}/b.gif?event=hello'"),
        "stomp://127.0.0.1:".to_owned(),
    ] {
        assert!(printed.contains(&expected), "no {expected:?} in {printed}");
    }
    assert_eq!(program.end().0, 0);
}

#[test]
fn mistakes_are_named_with_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, "[http]\nlistne = \"127.0.0.1:1\"\n[destinations.main]\n").unwrap();
    let output = run(&["--config", file.to_str().unwrap()], &[("BEACON_EDGE__HTTP__WORKERS", "many")]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    for expected in ["listne", "`listen`", "BEACON_EDGE__HTTP__WORKERS", "destinations.main.brokers"] {
        assert!(error.contains(expected), "no {expected:?} in {error}");
    }
    let output = run(&["--config", "/nowhere.toml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nowhere.toml"));
}

#[test]
fn the_configuration_in_force_is_printed_without_passwords() {
    let broker = ("BEACON_EDGE__DESTINATIONS__MAIN__BROKERS", "[\"stomp://app:hunter2@rabbit/\"]");
    let output = run(&["config"], &[broker]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(printed.contains("stomp://app:***@rabbit") && !printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("max_body_bytes = \"64KiB\""), "{printed}");
}

#[test]
fn a_port_that_is_taken_is_said_and_nothing_is_left_running() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for name in ["BEACON_EDGE__HTTP__LISTEN", "BEACON_EDGE__ADMIN__LISTEN"] {
        let output = run(&[], &[(name, &address)]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(&address) && error.contains("in use"), "{error}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut program = Program::start(&[
        ("BEACON_EDGE__DESTINATIONS__MAIN__BROKERS", "[\"stomp://127.0.0.1:1/\"]"),
        ("BEACON_EDGE__SHUTDOWN__DEADLINE", "50s"),
    ]);
    let (http, _) = program.addresses();
    assert_eq!(drive(http, 1, 1, &AtomicBool::new(false)).len(), 1);
    let stopping = AtomicBool::new(false);
    program.signal("TERM");
    program.line_with("shutting down");
    stopping.store(true, Ordering::Relaxed);
    let start = Instant::now();
    program.signal("INT");
    let (code, log) = program.end();
    assert_eq!(code, 3, "{log}");
    assert!(start.elapsed() < Duration::from_secs(10) && log.contains("second signal"), "{log}");
}
