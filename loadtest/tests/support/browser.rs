//! A page opened in headless Chromium.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::process::{finish, text};

/// Each plot is there and has series, each part of the text is there, nothing is asked for, nothing is complained about.
pub(crate) fn assert_page(page: &Path, plots: usize, parts: &[&str]) {
    let Some(seen) = browse(page) else {
        eprintln!("SKIPPED: no Chromium on this machine (make deps installs it); the page was not opened");
        return;
    };
    let drawn: Vec<&str> = seen.dom.split("class=\"chart\"").skip(1).collect();
    assert_eq!(drawn.len(), plots, "{}", seen.dom);
    for plot in drawn {
        let plot = &plot[..plot.find("</svg>").unwrap()];
        assert!(plot.contains("<g class=\"series ") && plot.contains("class=\"mark\""), "{plot}");
    }
    for part in parts {
        assert!(seen.dom.contains(part), "{part}: {}", seen.dom);
    }
    assert_eq!((seen.complaints, seen.requests), (Vec::new(), Vec::new()));
    a_bad_page_is_caught(&page.with_file_name("bad.html"));
}

/// A page that does both wrong.
fn a_bad_page_is_caught(page: &Path) {
    let wrong = "<img src=\"http://127.0.0.1:9/x.png\"/><script>console.error('complaint')</script>";
    fs::write(page, wrong).unwrap();
    let Browsed { complaints, requests, .. } = browse(page).unwrap();
    assert_eq!((complaints.len(), requests.len()), (1, 1), "{complaints:?} {requests:?}");
}

struct Browsed {
    dom: String,
    /// What was written to the console.
    complaints: Vec<String>,
    /// What the page asked for over the network.
    requests: Vec<String>,
}

/// Opens a page in Chromium, if there is one.
fn browse(page: &Path) -> Option<Browsed> {
    let there = |name: &&str| {
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let browser = names.into_iter().find(there)?;
    let profile = tempfile::tempdir().unwrap();
    let log = profile.path().join("net.json");
    let child = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"])
        .args(["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--log-net-log={}", log.display()))
        .arg(format!("file://{}", page.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = finish(child);
    let lines = |text: String, keep: &dyn Fn(&&str) -> bool| {
        text.lines().filter(keep).map(str::to_owned).collect::<Vec<_>>()
    };
    Some(Browsed {
        dom: text(&output.stdout),
        complaints: lines(text(&output.stderr), &|line| line.contains(":CONSOLE:")),
        // A page from a file has no origin to name; what the browser asks for itself says "not an origin".
        requests: lines(fs::read_to_string(log).unwrap(), &|line| {
            line.contains("\"initiator\":\"null\"") && line.contains("\"url\":\"http")
        }),
    })
}
