//! `loadtest http` as a program, against a server that notes every octet.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test by panicking, as the tests do")]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use support::{Action, Loadtest, Server};

#[path = "support/cores.rs"]
mod cores;
mod support;
#[path = "support/tls.rs"]
mod tls;

#[test]
fn exactly_the_requests_asked_for_arrive_well_formed_each_with_its_own_number() {
    let server =
        Server::start(|number| if number % 7 == 0 { Action::AnswerInPieces } else { Action::Answer });
    let folder = tempfile::tempdir().unwrap();
    let answered = folder.path().join("answered");
    let json = Loadtest::run(&format!(
        "{} --requests 2000 --first-seq 500 --connections 8 --threads 2 --post 30 --answered {} --json",
        server.url(),
        answered.display(),
    ))
    .json();

    let requests = server.requests();
    let mut numbers: Vec<u64> = requests.iter().map(support::Request::seq).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (500..2500).collect::<Vec<_>>());
    assert_eq!(server.connections(), 8);
    assert_eq!(requests.iter().map(|request| request.connection).collect::<HashSet<_>>().len(), 8);

    let (posts, gets): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.method == "POST");
    assert_eq!((posts.len(), gets.len()), (600, 1400));
    for get in gets {
        assert!(get.body.is_empty());
        for field in
            ["user-agent", "accept", "accept-language", "accept-encoding", "referer", "sec-fetch-dest"]
        {
            assert!(get.fields.contains_key(field), "{field}");
        }
        for parameter in ["seq", "ev", "sid", "dl", "dr", "sr", "vp", "nt"] {
            assert!(get.query.contains_key(parameter), "{parameter}");
        }
    }
    for post in posts {
        assert_eq!(post.fields["content-type"], "text/plain;charset=UTF-8");
        let body: Value = serde_json::from_slice(&post.body).unwrap();
        assert_eq!(body["seq"], post.query["seq"].as_str());
    }

    assert_eq!(json["requests_sent"], 2000);
    assert_eq!(json["requests_answered"], 2000);
    assert_eq!(json["requests_succeeded"], 2000);
    assert_eq!((&json["first_seq"], &json["next_seq"]), (&500.into(), &2500.into()));
    assert_eq!(json["statuses"], serde_json::json!({ "200": 2000 }));
    assert_eq!(json["latency"]["count"], 2000);
    assert_eq!(json["interrupted"], false);
    let file = fs::read_to_string(answered).unwrap();
    let mut noted: Vec<u64> = file.lines().map(|line| line.parse().unwrap()).collect();
    noted.sort_unstable();
    assert_eq!(noted, numbers);
}

#[test]
fn the_warm_up_is_numbered_apart_and_not_counted() {
    let server = Server::start(|_| Action::Answer);
    let json =
        Loadtest::run(&format!("{} --requests 50 --connections 2 --warmup 50ms --json", server.url())).json();
    let (counted, warm_up): (Vec<u64>, Vec<u64>) =
        server.requests().iter().map(support::Request::seq).partition(|&seq| seq < 900_000_000_000);
    assert_eq!(counted.into_iter().collect::<BTreeSet<_>>(), (0..50).collect());
    assert!(!warm_up.is_empty());
    assert_eq!(json["requests_sent"], 50);
    assert_eq!(server.connections(), 2);
}

#[test]
fn the_names_of_json_fields_are_those_documented() {
    let server = Server::start(|_| Action::Answer);
    let pid = std::process::id();
    let json = Loadtest::run(&format!(
        "{} --duration 100ms --rate 200 --connections 2 --pid server={pid} --settle 10ms --idle 3 --json",
        server.url()
    ))
    .json();
    let top = "tool version url mode connections threads pinned post_percent warmup_s interrupted first_seq next_seq window_s \
               requests_sent requests_answered requests_succeeded requests_per_second statuses failures connects \
               octets_sent octets_received latency open_loop generator processes idle slow verify reference notes";
    assert_eq!(names(&json), words(top));
    assert_eq!(names(&json["failures"]), words("closed timeout malformed abandoned"));
    assert_eq!(names(&json["connects"]), words("planned reconnects failed given_up"));
    assert_eq!(
        names(&json["latency"]),
        words("count p50_us p90_us p99_us p99_9_us p99_99_us max_us mean_us")
    );
    assert_eq!(
        names(&json["open_loop"]),
        words(
            "asked_rate achieved_rate requests_due requests_unsent requests_behind_schedule send_delay_p50_us \
             send_delay_p99_us send_delay_max_us generator_kept_up"
        )
    );
    assert_eq!(names(&json["generator"]), words("cpu_us_per_request busy_percent"));
    assert_eq!(
        names(&json["processes"][0]),
        words("name pid cpu_ms cpu_us_per_request cpu_percent rss_start_mib rss_end_mib")
    );
    assert_eq!(names(&json["idle"]), words("connections requests_answered open_at_end processes"));
    assert_eq!(
        names(&json["idle"]["processes"][0]),
        words("name pid rss_before_mib rss_opened_mib rss_end_mib octets_per_connection")
    );
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for name in words(top) {
        assert!(readme.contains(&format!("`{name}")), "{name} is not in the README");
    }

    assert_eq!(json["mode"], "open");
    assert_eq!(
        (&json["processes"][0]["name"], &json["processes"][0]["pid"]),
        (&"server".into(), &pid.into())
    );
    assert!(json["processes"][0]["cpu_us_per_request"].as_f64().unwrap() > 0.0);
    assert!(json["processes"][0]["rss_end_mib"].as_f64().unwrap() > 0.5);
}

#[test]
fn an_open_loop_charges_a_stall_to_all_requests_that_were_due_in_it() {
    let stall = Duration::from_millis(400);
    let action = move |number| if number == 250 { Action::Stall(stall) } else { Action::Answer };
    let server = Server::start(action);
    let open =
        Loadtest::run(&format!("{} --rate 1000 --connections 4 --duration 1s --json", server.url())).json();
    assert_eq!(open["requests_sent"], 1000, "{open}");
    assert_eq!(open["requests_answered"], 1000);
    assert_eq!(open["open_loop"]["requests_due"], 1000);
    assert_eq!(open["open_loop"]["requests_unsent"], 0);
    // 400 of 1000 requests were due while the server stood still and waited 200 ms on average: of those, the tenth part
    // of all that waited longest waited for over 300 ms.
    assert!(us(&open, "p90_us") > 270e3, "{open}");
    assert!(us(&open, "max_us") > 390e3, "{open}");
    assert!(open["open_loop"]["requests_behind_schedule"].as_u64().unwrap() > 350, "{open}");

    // A closed loop sends nothing while it waits, and so hardly notices.
    let server = Server::start(action);
    let closed = Loadtest::run(&format!("{} --requests 1000 --connections 4 --json", server.url())).json();
    assert!(us(&closed, "max_us") > 390e3, "{closed}");
    assert!(us(&closed, "p90_us") < us(&open, "p90_us") / 2.0, "{closed}");
    assert_eq!(closed["open_loop"], Value::Null);
}

#[test]
fn a_rate_beyond_the_server_is_told_with_what_was_left_unsent() {
    // One connection and an answer every 20 ms: 50 requests a second, not 1000.
    let server = Server::start(|_| Action::Stall(Duration::from_millis(20)));
    let json =
        Loadtest::run(&format!("{} --rate 1000 --connections 1 --duration 300ms --json", server.url()))
            .json();
    let open = &json["open_loop"];
    assert_eq!(open["asked_rate"], 1000.0);
    assert!(open["achieved_rate"].as_f64().unwrap() < 60.0, "{open}");
    assert_eq!(open["requests_due"], 300);
    let unsent = open["requests_unsent"].as_u64().unwrap();
    assert_eq!(unsent + json["requests_sent"].as_u64().unwrap(), 300);
    assert!(unsent > 280, "{open}");
    assert!(has_note(&json, "due requests were not sent before the end"), "{json}");
}

#[test]
fn what_servers_do_wrong_is_counted_by_kind() {
    let every_tenth =
        |action: Action| move |number: usize| if number % 10 == 3 { action } else { Action::Answer };
    // Action, failures (closed, timeout, malformed), statuses other than 200, whether connections are opened again.
    let cases = [
        (Action::Close, (10, 0, 0), None, true),
        (Action::Chunked, (0, 0, 10), None, true),
        (Action::Silence, (0, 10, 0), None, true),
        (Action::Status(503), (0, 0, 0), Some("503"), false),
        (Action::Status(204), (0, 0, 0), Some("204"), false),
        (Action::AnswerAndClose, (0, 0, 0), None, true),
    ];
    for (action, (closed, timeout, malformed), status, reopened) in cases {
        let server = Server::start(every_tenth(action));
        let json =
            Loadtest::run(&format!("{} --requests 100 --connections 5 --timeout 250ms --json", server.url()))
                .json();
        let failed = closed + timeout + malformed;
        assert_eq!(json["failures"]["closed"], closed, "{action:?}: {json}");
        assert_eq!(json["failures"]["timeout"], timeout, "{action:?}: {json}");
        assert_eq!(json["failures"]["malformed"], malformed, "{action:?}: {json}");
        assert_eq!(json["requests_sent"], 100, "{action:?}");
        assert_eq!(json["requests_answered"], 100 - failed, "{action:?}");
        assert_eq!(json["latency"]["count"], 100 - failed, "{action:?}");
        assert_eq!(
            json["statuses"][status.unwrap_or("200")],
            if status.is_some() { 10 } else { 100 - failed }
        );
        let succeeded = 100 - failed - if status == Some("503") { 10 } else { 0 };
        assert_eq!(json["requests_succeeded"], succeeded, "{action:?}: {json}");
        // The last connections to be closed are not opened again.
        let reconnects = json["connects"]["reconnects"].as_u64().unwrap();
        assert_eq!(reopened, (5..=10).contains(&reconnects), "{action:?}: {json}");
        assert_eq!(reopened, reconnects > 0, "{action:?}: {json}");
    }
}

#[test]
fn only_what_was_answered_with_success_is_noted_as_answered() {
    let server = Server::start(|number| match number % 4 {
        0 => Action::Status(503),
        1 => Action::Close,
        _ => Action::Answer,
    });
    let folder = tempfile::tempdir().unwrap();
    let answered = folder.path().join("answered");
    // One connection: the n-th request is number n.
    let line = format!("{} --requests 40 --connections 1 --answered {}", server.url(), answered.display());
    let outcome = Loadtest::run(&line);
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let file = fs::read_to_string(answered).unwrap();
    let noted: Vec<u64> = file.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(noted, (0..40).filter(|number| number % 4 >= 2).collect::<Vec<_>>());
    assert!(outcome.stdout.contains("200: 20, 503: 10"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("10 closed before the answer"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("not 2xx"), "{}", outcome.stdout);
}

#[test]
fn connections_that_the_server_closes_while_idle_are_opened_again_without_a_failure() {
    let server = Server::start(|_| Action::AnswerAndCloseLater);
    let json =
        Loadtest::run(&format!("{} --rate 20 --connections 2 --requests 12 --json", server.url())).json();
    assert_eq!(json["requests_succeeded"], 12, "{json}");
    assert_eq!(json["failures"]["closed"], 0, "{json}");
    assert!(json["connects"]["reconnects"].as_u64().unwrap() >= 10, "{json}");
}

#[test]
fn idle_connections_are_used_once_and_counted_at_the_end() {
    // The server closes three of them soon after it has answered.
    let server =
        Server::start(|number| if number % 40 == 5 { Action::AnswerAndCloseLater } else { Action::Answer });
    let pid = std::process::id();
    let json = Loadtest::run(&format!(
        "{} --idle 120 --threads 2 --first-seq 7 --pid {pid} --duration 200ms --json",
        server.url()
    ))
    .json();
    assert_eq!(json["mode"], "idle");
    assert_eq!(json["idle"]["connections"], 120);
    assert_eq!(json["idle"]["requests_answered"], 120);
    assert_eq!(json["idle"]["open_at_end"], 117);
    assert!(json["idle"]["processes"][0]["rss_end_mib"].as_f64().unwrap() > 0.5);
    assert_eq!(json["next_seq"], 127);
    assert_eq!(server.connections(), 120);
    let numbers: BTreeSet<u64> = server.requests().iter().map(support::Request::seq).collect();
    assert_eq!(numbers, (7..127).collect());
}

#[test]
fn ctrl_c_ends_a_run_with_a_result() {
    let server = Server::start(|_| Action::Answer);
    let (mut runs, start) = (Vec::new(), Instant::now());
    for line in ["--duration 60s", "--rate 100 --requests 100000", "--warmup 60s"] {
        runs.push((line, Loadtest::start(&format!("{} --connections 3 {line} --json", server.url()))));
    }
    wait_until("all runs are connected", || server.connections() == 9);
    sleep(Duration::from_millis(200));
    for (line, run) in runs {
        run.interrupt();
        let json = run.wait().json();
        assert_eq!(json["interrupted"], true, "{line}");
        let answered = json["requests_answered"].as_u64().unwrap();
        assert_eq!(answered > 0, !line.contains("warmup"), "{line}: {json}");
        assert_eq!(json["requests_sent"], answered, "{line}");
        assert_eq!(json["next_seq"], answered, "{line}");
        let window = json["window_s"].as_f64().unwrap();
        assert!(window < 5.0, "{line}: {window} s");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn ctrl_c_does_not_wait_for_a_silent_server() {
    let server = Server::start(|number| if number < 10 { Action::Answer } else { Action::Silence });
    let run =
        Loadtest::start(&format!("{} --connections 4 --timeout 50s --requests 1000 --json", server.url()));
    wait_until("all connections wait for an answer", || server.requests().len() == 14);
    let start = Instant::now();
    run.interrupt();
    let json = run.wait().json();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(json["interrupted"], true);
    assert_eq!(json["requests_answered"], 10);
    assert_eq!(json["failures"]["abandoned"], 4);
    assert_eq!(json["requests_sent"], 14);
}

#[test]
fn threads_of_the_load_and_nginx_are_bound_when_asked_to_and_the_report_says_so() {
    let server = Server::start(|_| Action::Answer);
    let (cores, pid) = (cores::allowed(), std::process::id());
    let expected: Vec<(String, usize)> =
        (0..3).map(|number| (format!("load-{number}"), cores[number % cores.len()])).collect();
    let line = format!("{} --connections 3 --threads 3 --duration 60s --json", server.url());
    let run = Loadtest::start(&format!("{line} --pin"));
    wait_until("its threads are bound", || cores::bound(run.pid(), "load-") == expected);
    run.interrupt();
    assert_eq!(run.wait().json()["pinned"], true);
    assert!(
        Loadtest::run(&format!("{} --requests 9 --pin", server.url())).stdout.contains("1 thread pinned,")
    );
    assert_eq!(Loadtest::run(&format!("{} --requests 9 --json", server.url())).json()["pinned"], false);

    if !nginx_is_installed() {
        eprintln!("skipped: no nginx on this machine");
        return;
    }
    let run = Loadtest::start(&format!(
        "{} --connections 1 --duration 300ms --warmup 100ms --rounds 3 --settle 20ms --reference nginx --pid edge={pid} --pin",
        server.url()
    ));
    let last = vec![("nginx".to_owned(), cores[cores.len() - 1])];
    wait_until("nginx is bound", || {
        let pid = run.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().any(|child| cores::bound(child.parse().unwrap(), "nginx") == last)
    });
    assert!(run.wait().stdout.contains("one process, no log, pinned)"));
}

#[test]
fn nginx_is_measured_in_alternation_and_gone_afterwards() {
    if !nginx_is_installed() {
        eprintln!("skipped: no nginx on this machine");
        return;
    }
    let server = Server::start(|_| Action::Answer);
    let (pid, folder) = (std::process::id(), tempfile::tempdir().unwrap());
    for pace in ["", "--rate 500"] {
        let line = format!(
            "{} --reference nginx --rounds 3 --duration 150ms --warmup 50ms --settle 20ms --connections 4 --post 10 \
             --pid edge={pid} {pace} --json",
            server.url()
        );
        let json = Loadtest::start_in(&line, folder.path()).wait().json();
        let reference = &json["reference"];
        assert_eq!(names(reference), words("server rounds median"));
        assert!(reference["server"].as_str().unwrap().starts_with("nginx/"), "{reference}");
        let rounds = reference["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 3);
        for round in rounds {
            assert_eq!(names(round), words("round url reference cpu_ratio"));
            for side in [&round["url"], &round["reference"]] {
                assert_eq!(names(side), words("requests_per_second cpu_us_per_request p99_us failed"));
                assert!(side["requests_per_second"].as_f64().unwrap() > 10.0, "{round}");
                assert_eq!(side["failed"], 0, "{round}");
            }
            let quotient = round["url"]["cpu_us_per_request"].as_f64().unwrap()
                / round["reference"]["cpu_us_per_request"].as_f64().unwrap();
            assert!((round["cpu_ratio"].as_f64().unwrap() / quotient - 1.0).abs() < 0.01, "{round}");
        }
        let median = &reference["median"];
        assert_eq!(
            names(median),
            words(
                "url_requests_per_second reference_requests_per_second url_cpu_us_per_request \
                 reference_cpu_us_per_request cpu_ratio cpu_ratio_min cpu_ratio_max"
            )
        );
        let mut ratios: Vec<f64> = rounds.iter().map(|round| round["cpu_ratio"].as_f64().unwrap()).collect();
        ratios.sort_by(f64::total_cmp);
        assert_eq!(
            [&median["cpu_ratio_min"], &median["cpu_ratio"], &median["cpu_ratio_max"]]
                .map(|ratio| ratio.as_f64().unwrap()),
            ratios[..]
        );
        // The totals are those of the URL's server alone.
        assert_eq!(json["processes"][0]["name"], "edge");
        let counted = |seq: &u64| *seq < 900_000_000_000;
        let arrived =
            server.requests().iter().map(support::Request::seq).filter(counted).collect::<BTreeSet<_>>();
        assert!(arrived.len() as u64 >= json["requests_sent"].as_u64().unwrap());
        assert!((0..json["next_seq"].as_u64().unwrap()).all(|seq| arrived.contains(&seq)));
        assert_nothing_left(folder.path());
    }
}

#[test]
fn ctrl_c_during_a_comparison_ends_nginx_too() {
    if !nginx_is_installed() {
        eprintln!("skipped: no nginx on this machine");
        return;
    }
    let server = Server::start(|_| Action::Answer);
    let (pid, folder) = (std::process::id(), tempfile::tempdir().unwrap());
    let line = format!(
        "{} --reference nginx --rounds 100 --duration 20ms --warmup 0 --settle 0 --connections 2 --pid {pid} --json",
        server.url()
    );
    let run = Loadtest::start_in(&line, folder.path());
    wait_until("the comparison has begun", || !server.requests().is_empty());
    assert!(!processes_mentioning(folder.path()).is_empty());
    sleep(Duration::from_millis(300));
    run.interrupt();
    let json = run.wait().json();
    assert_eq!(json["interrupted"], true);
    assert!(json["reference"]["rounds"].as_array().unwrap().len() < 100);
    assert_nothing_left(folder.path());
}

#[test]
fn a_comparison_that_fails_ends_nginx_too() {
    if !nginx_is_installed() {
        eprintln!("skipped: no nginx on this machine");
        return;
    }
    let (pid, folder) = (std::process::id(), tempfile::tempdir().unwrap());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = format!("http://{free}/ --reference nginx --pid {pid}");
    let outcome = Loadtest::start_in(&line, folder.path()).wait();
    assert_eq!(outcome.status.code(), Some(1));
    assert!(outcome.stderr.contains(&format!("cannot connect to {free}: ")), "{}", outcome.stderr);
    assert_nothing_left(folder.path());
}

#[test]
fn what_cannot_be_done_is_refused_with_a_reason_and_status_two() {
    for (line, reason) in [
        ("https://127.0.0.1/ --ca /nonexistent", "--ca /nonexistent"),
        ("http://127.0.0.1:1/ --churn 0", "without a request"),
        (
            "http://192.0.2.1/",
            "192.0.2.1 is not a loopback address; load on another machine's server needs --allow-remote",
        ),
        ("http://127.0.0.1:1/ --rate 0", "a rate is above 0"),
        ("http://127.0.0.1:1/ --post 101", "between 0 and 100"),
        ("--json http://127.0.0.1:1/", "put it before --json"),
        ("", "<URL>"),
    ] {
        let outcome = Loadtest::run(line);
        assert_eq!(outcome.status.code(), Some(2), "{line}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(reason), "{line}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{line}");
    }
}

fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(8);
    while !reached() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

fn us(json: &Value, name: &str) -> f64 {
    json["latency"][name].as_f64().unwrap()
}

fn has_note(json: &Value, text: &str) -> bool {
    json["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains(text))
}

fn names(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap_or_else(|| panic!("not an object: {object}")).keys().cloned().collect()
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn nginx_is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join("nginx").is_file())
}

/// Neither a process nor a file of nginx is left in the folder that the program had for temporary files.
fn assert_nothing_left(folder: &Path) {
    assert_eq!(processes_mentioning(folder), Vec::<String>::new());
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}

/// Command lines of running nginx processes that name `folder`.
fn processes_mentioning(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let line = |entry: std::io::Result<fs::DirEntry>| fs::read(entry.ok()?.path().join("cmdline")).ok();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(line)
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains("nginx") && line.contains(folder))
        .collect()
}

#[test]
fn with_churn_each_connection_has_its_share_and_says_goodbye() {
    let server = Server::start(|_| Action::Answer);
    let json =
        Loadtest::run(&format!("{} --requests 60 --connections 2 --churn 5 --json", server.url())).json();
    let requests = server.requests();
    assert_eq!(requests.len(), 60);
    assert_eq!(json["requests_succeeded"], 60);
    let mut by_connection = BTreeMap::<usize, Vec<&str>>::new();
    for request in &requests {
        by_connection.entry(request.connection).or_default().push(&request.fields["connection"]);
    }
    for fields in by_connection.values() {
        assert!(fields.len() <= 5);
        for (place, field) in fields.iter().enumerate() {
            assert_eq!(*field, if place == 4 { "close" } else { "keep-alive" });
        }
    }
    assert_eq!(json["connects"]["planned"], server.connections() as u64 - 2);
    let open =
        Loadtest::run(&format!("{} --requests 40 --rate 400 -c 2 --churn 1 --json", server.url())).json();
    assert_eq!(
        (&open["requests_succeeded"], &open["connects"]["planned"]),
        (&40.into(), &38.into()),
        "{open}"
    );
    assert_eq!(open["connects"]["reconnects"], 0);
}

#[test]
fn at_a_rate_that_goes_by_ticks_none_is_left_out() {
    let server = Server::start(|_| Action::Answer);
    let json =
        Loadtest::run(&format!("{} --requests 2000 --rate 50000 -c 8 --churn 100 --json", server.url()))
            .json();
    assert_eq!(json["requests_succeeded"], 2000);
    let arrived: BTreeSet<u64> = server.requests().iter().map(support::Request::seq).collect();
    assert_eq!(arrived, (0..2000).collect());
    assert_eq!(json["open_loop"]["requests_unsent"], 0);
}

#[test]
fn bodies_have_the_sizes_asked_for() {
    let server = Server::start(|_| Action::Answer);
    let json = Loadtest::run(&format!(
        "{} --requests 32 --connections 2 --post 100 --post-octets 1000,5000 --corpus 64 --skew 0 --json",
        server.url()
    ))
    .json();
    assert_eq!(json["requests_succeeded"], 32);
    let sizes: HashSet<usize> = server.requests().iter().map(|request| request.body.len()).collect();
    assert_eq!(sizes, HashSet::from([1000, 5000]));
}

#[test]
fn slow_clients_are_told_apart_by_what_becomes_of_them() {
    // This server waits for the end of a request for ever.
    let server = Server::start(|_| Action::Answer);
    let json = Loadtest::run(&format!(
        "{} --duration 1500ms --rate 50 --connections 2 --slow 3 --slow-pace 1ms --json",
        server.url()
    ))
    .json();
    let slow = &json["slow"];
    assert_eq!(
        (&slow["connections"], &slow["timed_out"], &slow["closed"]),
        (&3.into(), &0.into(), &0.into())
    );
    assert!(slow["opened"].as_u64().unwrap() >= 3, "{slow}");
    // Those beside them are served all the while.
    assert_eq!((&json["requests_sent"], &json["requests_succeeded"]), (&75.into(), &75.into()));
}

#[test]
fn the_far_end_is_read_and_what_is_missing_is_named() {
    let broker = tls::broker();
    let front = tls::Front::start(&broker.url);
    let verify = format!("--verify {} --verify-destination /queue/beacons --verify-quiet 500ms", broker.url);
    let outcome = Loadtest::run(&format!(
        "http://{}/b.gif --requests 500 -c 4 --post 30 {verify} --json",
        front.address
    ));
    let verdict = &outcome.json()["verify"];
    assert_eq!(
        (&verdict["conserved"], &verdict["answered"], &verdict["arrived"]),
        (&true.into(), &500.into(), &500.into())
    );
    assert_eq!(
        (&verdict["missing"], &verdict["duplicates"], &verdict["strangers"]),
        (&0.into(), &0.into(), &0.into())
    );

    // A server that answers and forgets.
    let server = Server::start(|_| Action::Answer);
    let outcome =
        Loadtest::run(&format!("{} --requests 30 --first-seq 7 -c 2 {verify} --json", server.url()));
    assert_eq!(outcome.status.code(), Some(3), "{}", outcome.stderr);
    let json: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&json["verify"]["conserved"], &json["verify"]["missing"]), (&false.into(), &30.into()));
    assert_eq!(json["verify"]["missing_numbers"][0], 7);
}

#[test]
fn tls_is_spoken_to_a_server_whose_authority_is_trusted_and_to_no_other() {
    let server = Server::start(|_| Action::Answer);
    let proxy = tls::Proxy::start(server.url().split('/').nth(2).unwrap().parse().unwrap());
    let url = format!("https://localhost:{}/b.gif", proxy.address.port());
    let json = Loadtest::run(&format!(
        "{url} --requests 200 --connections 4 --ca {} --json",
        proxy.authority().display()
    ))
    .json();
    assert_eq!((&json["requests_succeeded"], &json["connects"]["reconnects"]), (&200.into(), &0.into()));
    assert_eq!(server.requests().len(), 200);
    let outcome = Loadtest::run(&format!("{url} --requests 2 --connections 1"));
    assert_eq!(outcome.status.code(), Some(1));
    assert!(outcome.stderr.contains("certificate"), "{}", outcome.stderr);
}
