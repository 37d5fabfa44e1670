//! The spool from outside: a process that is killed while it appends, and the commands for the files it leaves.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use beacon_edge::{
    batch::Batch,
    spool::{Level, Refused, Row, Spool, SpoolOptions, State, Synchronous},
};
use bytes::Bytes;
use rabbitmq_node::{QueueOptions, shared};
use rusqlite::Connection;
use uuid::Uuid;

/// Longer than any step takes.
const LIMIT: Duration = Duration::from_secs(60);
/// The file, for the part of a test that runs in a process of its own.
const FILE: &str = "BEACON_EDGE_TEST_SPOOL";

fn options(path: &Path) -> SpoolOptions {
    SpoolOptions {
        path: path.to_owned(),
        destination: "/queue/beacons".to_owned(),
        max_bytes: 256 << 20,
        min_free_bytes: 0,
        synchronous: Synchronous::Normal,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn batch(body: impl Into<Bytes>, count: u64) -> Batch {
    Batch { id: Uuid::now_v7(), body: body.into(), count, tickets: Vec::new() }
}

/// A spool with these bodies, closed.
fn filled(path: &Path, bodies: impl IntoIterator<Item = String>) {
    let (spool, thread) = Spool::start(options(path)).unwrap();
    runtime().block_on(async {
        for body in bodies {
            let count = body.lines().count() as u64;
            spool.append(&batch(body, count)).await.unwrap();
        }
    });
    thread.join(Instant::now() + LIMIT);
}

/// This program, running one of its ignored tests.
fn child(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--quiet"]).env(FILE, path);
    command
}

fn beacon_edge(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_beacon-edge")).args(arguments).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

#[test]
#[ignore = "runs in a process that is killed"]
fn appends_until_it_is_killed() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let mut options = options(Path::new(&path));
    if Uuid::now_v7().as_bytes()[15].is_multiple_of(2) {
        options.synchronous = Synchronous::Full;
    }
    let (spool, _thread) = Spool::start(options).unwrap();
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..16 {
            let spool = spool.clone();
            tasks.spawn(async move {
                for turn in 0.. {
                    // Up to 70 KB, so that groups and the log end anywhere.
                    let batch = batch(vec![turn as u8; (turn * 7919 + task * 131) % 70_000], 1);
                    let row = spool.append(&batch).await.unwrap();
                    // One write: a line is there as a whole or not at all.
                    std::io::stdout().write_all(format!("+{}\n", batch.id).as_bytes()).unwrap();
                    if turn % 2 == 1 {
                        spool.remove(row);
                        std::io::stdout().write_all(format!("-{}\n", batch.id).as_bytes()).unwrap();
                    }
                }
            });
        }
        tasks.join_next().await;
    });
}

#[test]
fn what_was_appended_survives_kill_9_and_nothing_comes_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    let mut owed = BTreeSet::<Uuid>::new();
    let mut last_row = None::<Row>;
    for round in 0..20_usize {
        let mut process = child("appends_until_it_is_killed", &path).stdout(Stdio::piped()).spawn().unwrap();
        let mut removed = BTreeSet::new();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let (mut line, mut seen) = (String::new(), 0);
        // To the end: what it wrote before it died is in the pipe.
        while lines.read_line(&mut line).unwrap() > 0 {
            let (sign, id) = line.split_at(1);
            match (sign, id.trim().parse()) {
                ("+", Ok(id)) => assert!(owed.insert(id)),
                ("-", Ok(id)) => assert!(removed.insert(id)),
                _ => {}
            }
            line.clear();
            seen += 1;
            if seen == 20 + round * 37 {
                process.kill().unwrap();
            }
        }
        process.wait().unwrap();

        let (spool, thread) = Spool::start(options(&path)).unwrap();
        assert_eq!(*spool.state().borrow(), State::Working);
        let read = runtime().block_on(spool.read(None, usize::MAX, usize::MAX)).unwrap();
        let rows: Vec<Row> = read.iter().map(|(row, _)| *row).collect();
        assert!(rows.is_sorted_by(|one, other| one < other));
        let found: BTreeSet<Uuid> = read.iter().map(|(_, batch)| batch.id).collect();
        assert_eq!(found.len(), read.len(), "nothing twice");
        let octets = read.iter().map(|(_, batch)| batch.body.len() as u64).sum();
        let level = Level { batches: rows.len() as u64, beacons: rows.len() as u64, octets };
        assert_eq!((spool.recovered(), spool.level()), (level, level));
        // What was removed may be there again, what was not has to be.
        assert_eq!(owed.difference(&found).filter(|id| !removed.contains(id)).count(), 0);
        assert!(last_row < rows.last().copied().or(last_row), "rows only grow");
        last_row = rows.last().copied();
        rows.iter().for_each(|row| spool.remove(*row));
        thread.join(Instant::now() + LIMIT);
        owed.clear();
        assert_eq!(spool.level(), Level::default());
    }
}

#[test]
#[ignore = "runs in a process of another user"]
fn starts_as_nobody() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let (spool, _thread) = Spool::start(options(Path::new(&path))).unwrap();
    println!("{:?}", spool.state().borrow());
    println!("{:?}", runtime().block_on(spool.append(&batch("a\n", 1))));
}

#[test]
fn without_permission_it_says_so_and_does_not_fail() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    filled(&path, ["a\n".to_owned()]);
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(folder.path(), 0o555);
    let is_root = fs::write(folder.path().join("probe"), "").is_ok();
    let fresh = folder.path().join("new.spool");
    let table = [
        (0o000, &path, "Permission denied"),
        (0o444, &path, "Permission denied"),
        (0o666, &path, "its folder"),
        (0o666, &fresh, "Permission denied"),
    ];
    for (file_mode, file, reason) in table {
        mode(&path, file_mode);
        let mut command = child("starts_as_nobody", file);
        if is_root {
            command.uid(65534).gid(65534);
        }
        let output = command.output().unwrap();
        let said = text(&output.stdout);
        assert!(output.status.success(), "{said}{}", text(&output.stderr));
        assert!(
            said.contains("Failing") && said.contains(reason),
            "{file_mode:o} {}: {said}",
            file.display()
        );
        assert!(said.contains(&format!("{:?}", Err::<(), _>(Refused::Failing))), "{said}");
    }
    mode(folder.path(), 0o755);
}

#[test]
fn inspect_tells_what_is_in_files_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a strange%name?.spool");
    filled(&path, ["a\nb\n".to_owned(), "c\n".to_owned()]);
    fs::write(folder.path().join("main.spool.corrupt-1"), "x".repeat(5000)).unwrap();
    fs::write(folder.path().join("other"), "").unwrap();
    let state = || -> BTreeMap<_, _> {
        let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    };
    let before = state();
    let folder_name = folder.path().to_str().unwrap();

    let output = beacon_edge(&["spool", "inspect", path.to_str().unwrap()]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    assert!(said.contains("/queue/beacons: 2 batches, 3 beacons, 6 octets, oldest "), "{said}");
    assert!(said.contains("every CRC matches"), "{said}");
    let output = beacon_edge(&["spool", "inspect", folder_name]);
    assert_eq!(output.status.code(), Some(1), "one of them is no spool");
    let said = text(&output.stdout);
    assert!(said.contains("2 batches") && said.contains("corrupt-1: 4.9 KiB\n  not a spool"), "{said}");
    assert_eq!(state(), before);

    // By the folder of the configuration.
    let config = folder.path().join("edge.toml");
    fs::write(
        &config,
        format!(
            "[spool]\ndir = {folder_name:?}\n[destinations.main]\nbrokers = \"stomp://localhost\"\n[routes.b]"
        ),
    )
    .unwrap();
    let before = state();
    let output = beacon_edge(&["spool", "inspect", "--no-verify", "--config", config.to_str().unwrap()]);
    let said = text(&output.stdout);
    assert!(said.contains("2 batches") && said.contains("not verified"), "{said}{}", text(&output.stderr));
    assert_eq!(state(), before);

    // In use, then left as by a process that was killed.
    let (spool, thread) = Spool::start(options(&path)).unwrap();
    runtime().block_on(spool.append(&batch("d\n", 1))).unwrap();
    let said = text(&beacon_edge(&["spool", "inspect", path.to_str().unwrap()]).stdout);
    assert!(said.contains(&format!("in use by process {}", std::process::id())), "{said}");
    let copy = folder.path().join("copy.spool");
    let suffixed = |path: &Path| format!("{}-wal", path.display());
    for (from, to) in
        [(path.display().to_string(), copy.display().to_string()), (suffixed(&path), suffixed(&copy))]
    {
        // Through another process: closing it in this one would drop the locks.
        assert!(Command::new("cp").args([from, to]).status().unwrap().success());
    }
    let before = state_of(&copy);
    let said = text(&beacon_edge(&["spool", "inspect", copy.to_str().unwrap()]).stdout);
    assert!(said.contains("3 batches, 4 beacons") && said.contains("not closed properly"), "{said}");
    assert_eq!(state_of(&copy), before);
    thread.join(Instant::now() + LIMIT);

    Connection::open(&copy).unwrap().execute("UPDATE batch SET body = x'00' WHERE row = 2", []).unwrap();
    let output = beacon_edge(&["spool", "inspect", copy.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.contains("1 batches do not match their CRC"), "{said}");
}

/// A file with its companions.
fn state_of(path: &Path) -> [Option<Vec<u8>>; 3] {
    ["", "-wal", "-shm"].map(|suffix| fs::read(format!("{}{suffix}", path.display())).ok())
}

#[test]
fn replay_publishes_a_file_and_deletes_what_is_confirmed() {
    let vhost = shared().new_vhost().unwrap();
    vhost.declare_queue("beacons", &QueueOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    let bodies: Vec<String> = (0..500).map(|number| format!("{{\"seq\":{number}}}\n")).collect();
    filled(&path, bodies.clone());
    let ids: BTreeSet<String> = {
        let file = Connection::open(&path).unwrap();
        let mut ids = file.prepare("SELECT id FROM batch").unwrap();
        let ids = ids.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        ids.map(|id| Uuid::from_slice(&id.unwrap()).unwrap().to_string()).collect()
    };
    let config = folder.path().join("edge.toml");
    let write_config = |url: &str| {
        let dir = folder.path().to_str().unwrap();
        let text = format!(
            "[spool]\ndir = {dir:?}\n[destinations.main]\nbrokers = {url:?}\ndestination = \"/amq/queue/beacons\"\n\
            receipt_timeout = \"30s\"\n[routes.b]\n"
        );
        fs::write(&config, text).unwrap();
    };
    write_config(&vhost.stomp_url());
    let replay = |more: &[&str]| {
        let config = config.to_str().unwrap();
        beacon_edge(&[&["spool", "replay", "--config", config], more].concat())
    };

    let output = replay(&["--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("500 batches, 500 beacons"), "{}", text(&output.stdout));
    assert_eq!(vhost.queue_depth("beacons").unwrap(), 0);

    // While an edge has it, nothing happens.
    let (spool, thread) = Spool::start(options(&path)).unwrap();
    let output = replay(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("another process"), "{}", text(&output.stderr));
    assert_eq!(spool.level().batches, 500);
    thread.join(Instant::now() + LIMIT);

    // One of them is damaged: it stays, the others go.
    let file = Connection::open(&path).unwrap();
    file.execute("UPDATE batch SET crc = crc + 1 WHERE row = 100", []).unwrap();
    drop(file);
    let output = replay(&["--destination", "main"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}{}", text(&output.stderr));
    assert!(said.contains("499 batches, 499 beacons confirmed; 0 batches, 0 beacons left"), "{said}");
    assert!(said.contains("1 batches do not match their CRC"), "{said}");
    let messages = vhost.get_messages("beacons", 1000).unwrap();
    let sent: BTreeSet<String> = messages.iter().map(|message| text(&message.payload)).collect();
    assert_eq!(sent.len(), messages.len());
    let expected: BTreeSet<String> =
        bodies.iter().enumerate().filter(|(number, _)| *number != 99).map(|(_, body)| body.clone()).collect();
    assert_eq!(sent, expected);
    let sent_ids: BTreeSet<String> = messages
        .iter()
        .map(|message| message.properties["message_id"].as_str().unwrap().to_owned())
        .collect();
    assert!(sent_ids.is_subset(&ids) && sent_ids.len() == 499);
    let output = replay(&[path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "nothing is left to send: {}", text(&output.stdout));

    // Nobody answers; Ctrl-C.
    filled(&path, bodies[..10].iter().cloned());
    write_config("stomp://127.0.0.1:1");
    let process = Command::new(env!("CARGO_BIN_EXE_beacon-edge"))
        .args(["spool", "replay", "--config", config.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = process;
    let mut said = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("10 batches"), "{line}");
    assert!(Command::new("kill").args(["-s", "INT", &process.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    while said.read_line(&mut rest).unwrap() > 0 {}
    assert_eq!(process.wait().unwrap().code(), Some(1));
    assert!(rest.contains("10 batches, 10 beacons left") && rest.contains("interrupted"), "{rest}");

    for (arguments, says) in [
        (&["--destination", "nothing"][..], "no destination `nothing`"),
        (&["somewhere/else.spool"], "no destination `else`"),
    ] {
        let output = replay(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
}
