//! Runs an example as a program of its own.

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Longer than any example should take.
const LIMIT: Duration = Duration::from_secs(60);

/// What it prints. It must succeed.
pub(crate) fn run(example: &str, arguments: &[&str]) -> String {
    // …/deps/examples-1234 → …/examples/NAME
    let test = std::env::current_exe().unwrap();
    let program: PathBuf =
        test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(example);
    let mut command = Command::new(&program);
    // The consumer that asks for credentials gets those of the URL.
    if let Some((user, password)) = arguments.first().and_then(|url| credentials(url)) {
        command.env("STOMP_LOGIN", user).env("STOMP_PASSCODE", password);
    }
    let mut child = command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{}: {error}; `cargo test` without --test builds the examples", program.display())
        });
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("{example} takes longer than {LIMIT:?}: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(status.success(), "{example}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn credentials(url: &str) -> Option<(&str, &str)> {
    url.strip_prefix("stomp://")?.split_once('@')?.0.split_once(':')
}
