//! Files that cannot be used, disks that fail: the spool says so, keeps what it had, and comes back.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use rusqlite::Connection;

use super::*;

/// A file system of its own, of this many KiB; none without the right to mount one.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(kib: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(folder.path());
        let is_mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !is_mounted {
            eprintln!("skipped: a file system cannot be mounted here");
        }
        is_mounted.then(|| Self(folder))
    }

    fn remount(&self, options: &str) {
        let status =
            Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.0.path()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

fn aside_of(folder: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // Without what SQLite kept beside them.
    names
        .filter(|path| path.extension().is_some_and(|it| it.to_string_lossy().starts_with("corrupt-")))
        .filter(|path| !path.to_string_lossy().ends_with("-wal"))
        .collect()
}

/// A file with these batches in it.
fn filled(path: &Path, bodies: &[&str]) {
    let rig = Rig::start(options(path));
    rig.append_all(bodies.iter().map(|body| batch(body, 1)));
    rig.stop();
}

fn sql(path: &Path, statements: &str) {
    Connection::open(path).unwrap().execute_batch(statements).unwrap();
}

#[test]
fn files_that_are_no_good_spools_are_set_aside() {
    type Spoil = fn(&Path);
    let table: [(&str, Spoil, u64); 9] = [
        ("not a database", |path| fs::write(path, "x".repeat(10_000)).unwrap(), 1),
        ("a short text", |path| fs::write(path, "hello").unwrap(), 1),
        (
            "another application's",
            |path| {
                fs::remove_file(path).unwrap();
                sql(path, "CREATE TABLE mine (x); INSERT INTO mine VALUES (1)");
            },
            1,
        ),
        ("a newer version", |path| sql(path, "PRAGMA user_version = 2"), 1),
        ("other tables", |path| sql(path, "ALTER TABLE batch ADD COLUMN more TEXT"), 1),
        ("a table too many", |path| sql(path, "CREATE TABLE more (x)"), 1),
        (
            "cut off",
            |path| {
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(4096 + 100).unwrap();
            },
            1,
        ),
        (
            "overwritten",
            |path| {
                let mut octets = fs::read(path).unwrap();
                octets[4096..].fill(0x5A);
                fs::write(path, octets).unwrap();
            },
            1,
        ),
        ("empty", |path| fs::write(path, "").unwrap(), 0),
    ];
    for (what, spoil, set_aside) in table {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.spool");
        filled(&path, &["old\n"]);
        spoil(&path);
        let spoilt = fs::read(&path).unwrap();
        let rig = Rig::start(options(&path));
        assert_eq!(rig.state(), State::Working, "{what}");
        assert_eq!(rig.spool.damage().files, set_aside, "{what}");
        assert_eq!(rig.spool.level(), Level::default(), "{what}");
        let kept = aside_of(folder.path());
        assert_eq!(kept.len() as u64, set_aside, "{what}");
        assert!(kept.iter().all(|kept| fs::read(kept).unwrap() == spoilt), "{what}: kept as it was");
        rig.append(&batch("new\n", 1)).unwrap();
        assert_eq!(rig.bodies(), ["new\n"]);
        rig.stop();
        assert_eq!(Rig::start(options(&path)).bodies(), ["new\n"], "{what}");
    }
}

/// What a power cut in the middle of a checkpoint may leave of `path`, which is open: its log, and a file whose first
/// page was being written.
fn torn(path: &Path, octet: u8, octets: usize) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("main.spool");
    let log = |path: &Path| aside::with_suffix(path, "-wal");
    fs::copy(log(path), log(&copy)).unwrap();
    let mut content = fs::read(path).unwrap();
    content[..octets].fill(octet);
    fs::write(&copy, content).unwrap();
    (folder, copy)
}

#[test]
fn a_first_page_that_was_lost_in_a_checkpoint_comes_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    let rig = Rig::start(options(&path));
    let bodies = ["a", "b", "c"].map(|letter| letter.repeat(20_000));
    rig.append_all(bodies.iter().map(|body| batch(body, 1)));
    for (octet, octets) in [(0, 512), (0x5A, 512), (0, 4096), (0xFF, 4096)] {
        let (kept, copy) = torn(&path, octet, octets);
        assert_eq!(inspect::look(&copy, true).unwrap().destinations["/queue/beacons"].batches, 3);
        let torn = Rig::start(options(&copy));
        assert_eq!((torn.state(), torn.spool.damage().files), (State::Working, 0), "{octet} {octets}");
        assert_eq!(torn.spool.recovered().batches, 3);
        assert_eq!(torn.bodies(), bodies);
        torn.stop();
        assert_eq!(aside_of(kept.path()), [] as [PathBuf; 0]);
    }
    rig.stop();
}

#[test]
fn another_applications_file_is_set_aside_unchanged_if_only_its_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine");
    let foreign = Connection::open(&path).unwrap();
    foreign.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE mine (x)").unwrap();
    let (kept, copy) = torn(&path, 0x5A, 512);
    let before = (fs::read(&copy).unwrap(), fs::read(aside::with_suffix(&copy, "-wal")).unwrap());
    let rig = Rig::start(options(&copy));
    assert_eq!((rig.state(), rig.spool.damage().files), (State::Working, 1));
    let aside = aside_of(kept.path()).pop().unwrap();
    let after = (fs::read(&aside).unwrap(), fs::read(aside::with_suffix(&aside, "-wal")).unwrap());
    assert!(before == after);
    rig.stop();
}

#[test]
fn a_log_without_its_file_does_not_get_into_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    fs::write(aside::with_suffix(&path, "-wal"), vec![7; 5000]).unwrap();
    let rig = Rig::start(options(&path));
    assert_eq!(rig.state(), State::Working);
    rig.append(&batch("new\n", 1)).unwrap();
    let names =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let kept: Vec<String> = names.filter(|name| name.starts_with("main.spool.corrupt-")).collect();
    assert!(kept.len() == 1 && kept[0].ends_with("-wal"), "{kept:?}");
}

#[test]
fn damaged_batches_are_set_aside_in_the_file_and_the_others_come() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    let long = "long ".repeat(4000);
    filled(&path, &["a\n", "b\n", &long, "d\n"]);
    sql(
        &path,
        "UPDATE batch SET body = x'00' WHERE body = x'620a'; UPDATE batch SET id = x'01' WHERE row = 4",
    );
    // One octet of a page in the middle of the long body.
    let mut octets = fs::read(&path).unwrap();
    let at = octets.windows(5).rposition(|five| five == b"long ").unwrap();
    octets[at] ^= 1;
    fs::write(&path, octets).unwrap();

    let rig = Rig::start(options(&path));
    assert_eq!(rig.spool.recovered().batches, 4);
    assert_eq!(rig.bodies(), ["a\n"]);
    rig.wait_until(|spool| spool.level().batches == 1);
    assert_eq!(rig.spool.damage(), Damage { files: 0, batches: 3, beacons: 3 });
    rig.append(&batch("e\n", 1)).unwrap();
    assert_eq!(rig.bodies(), ["a\n", "e\n"]);
    rig.stop();
    let kept: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM damaged", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 3);
}

#[test]
fn a_file_that_goes_bad_while_it_is_used_is_set_aside_and_its_beacons_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    let rig = Rig::start(options(&path));
    let body = "x".repeat(60_000);
    // Far more than SQLite keeps in memory.
    let rows = rig.append_all((0..400).map(|_| batch(&body, 3)));
    rig.wait_until(|_| fs::metadata(aside::with_suffix(&path, "-wal")).unwrap().len() == 0);
    // Through another name: closing a file of this process drops its locks.
    let copy = folder.path().join("copy");
    fs::hard_link(&path, &copy).unwrap();
    let size = fs::metadata(&copy).unwrap().len();
    let script = format!(
        "dd if=/dev/urandom of={} bs=4096 seek=1 count={} conv=notrunc",
        copy.display(),
        size / 4096 - 1
    );
    let status = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    assert_eq!(rig.read(Some(rows[100])).map(|read| read.len()), Err(Refused::Failing));
    assert_eq!(rig.spool.damage(), Damage { files: 1, batches: 0, beacons: 1200 });
    assert_eq!(rig.spool.level(), Level::default());
    let State::Failing(told) = rig.state() else { panic!() };
    assert!(told.contains("set aside"), "{told}");
    rig.wait(|state| *state == State::Working);
    let row = rig.append(&batch("new\n", 1)).unwrap();
    assert!(row > rows[399], "a row is not used again, whatever file it is in");
    assert_eq!(rig.bodies(), ["new\n"]);
    assert_eq!(aside_of(folder.path()).len(), 1);
}

#[test]
fn a_file_that_is_deleted_while_it_is_used_is_noticed_and_its_beacons_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    let rig = Rig::start(options(&path));
    let row = rig.append(&batch("a\nb\n", 2)).unwrap();
    fs::remove_file(&path).unwrap();
    rig.wait_until(|spool| spool.damage().beacons == 2);
    rig.wait(|state| *state == State::Working);
    assert!(rig.append(&batch("c\n", 1)).unwrap() > row);
    assert_eq!(rig.bodies(), ["c\n"]);
    assert_eq!((rig.spool.recovered(), rig.spool.level()), (Level::default(), level(1, 1, 2)));
    assert!(path.exists());
}

#[test]
fn what_is_in_the_way_is_told_and_the_spool_works_when_it_has_gone() {
    type Make = fn(&Path);
    let table: [(&str, Make, Make); 4] = [
        ("not a file", |path| fs::create_dir(path).unwrap(), |path| fs::remove_dir(path).unwrap()),
        (
            "not a file",
            |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            |path| fs::remove_file(path).unwrap(),
        ),
        (
            "Not a directory",
            |path| {
                fs::remove_dir(path.parent().unwrap()).unwrap();
                fs::write(path.parent().unwrap(), "").unwrap();
            },
            |path| fs::remove_file(path.parent().unwrap()).unwrap(),
        ),
        (
            "symbolic link",
            |path| std::os::unix::fs::symlink(path, path).unwrap(),
            |path| fs::remove_file(path).unwrap(),
        ),
    ];
    for (reason, block, unblock) in table {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in/main.spool");
        fs::create_dir(path.parent().unwrap()).unwrap();
        block(&path);
        let rig = Rig::start(options(&path));
        let State::Failing(told) = rig.state() else { panic!("{reason}") };
        assert!(told.contains(reason), "{told}");
        assert_eq!(rig.append(&batch("a\n", 1)), Err(Refused::Failing));
        assert_eq!(rig.read(None).map(|read| read.len()), Err(Refused::Failing));
        unblock(&path);
        rig.wait(|state| *state == State::Working);
        rig.append(&batch("a\n", 1)).unwrap();
    }
}

#[test]
fn a_file_in_use_is_taken_over_when_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.spool");
    let first = Rig::start(options(&path));
    first.append(&batch("first\n", 5)).unwrap();
    // SQLite keeps connections of one process apart as it does processes.
    let second = Connection::open(&path).unwrap();
    assert!(second.query_row("SELECT count(*) FROM batch", [], |row| row.get::<_, i64>(0)).is_err());
    drop(second);
    first.stop();

    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; DELETE FROM damaged").unwrap();
    let rig = Rig::start(options(&path));
    let State::Failing(told) = rig.state() else { panic!() };
    assert!(told.contains("another process"), "{told}");
    assert_eq!(rig.spool.recovered(), Level::default());
    drop(holder);
    rig.wait(|state| *state == State::Working);
    assert_eq!(rig.spool.recovered(), level(1, 5, 6));
    assert_eq!(rig.bodies(), ["first\n"]);
    assert_eq!(rig.spool.damage(), Damage::default());
}

#[test]
fn a_full_disk_refuses_and_comes_back_with_room() {
    let Some(disk) = Tmpfs::mount(8 << 10) else { return };
    let path = disk.0.path().join("main.spool");
    let rig = Rig::start(options(&path));
    let body = "x".repeat(60_000);
    let mut rows = Vec::new();
    let refused = loop {
        match rig.append(&batch(&body, 1)) {
            Ok(row) => rows.push(row),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::NoSpace);
    let State::Failing(told) = rig.state() else { panic!() };
    assert!(told.contains("full"), "{told}");
    assert!(rows.len() > 30, "{}", rows.len());
    let read = rig.read(None).unwrap();
    assert_eq!(read.iter().map(|(row, _)| *row).collect::<Vec<_>>(), rows, "what is in it can be read");
    for row in &rows[..20] {
        rig.spool.remove(*row);
    }
    assert_eq!(rig.read(None).unwrap().len(), rows.len() - 20);
    disk.remount("size=32m");
    rig.wait(|state| *state == State::Working);
    rows.push(rig.append(&batch(&body, 1)).unwrap());
    rig.wait_until(|spool| spool.level().batches == rows.len() as u64 - 20);
    rig.stop();

    // Full from the start: what is there can be read.
    let size = |name: &str| fs::metadata(disk.0.path().join(name)).map_or(0, |found| found.len());
    fs::write(disk.0.path().join("filler"), vec![1; (32 << 20) - size("main.spool") as usize - (1 << 16)])
        .ok();
    drop(
        Command::new("sh")
            .arg("-c")
            .arg(format!("cat /dev/zero > {}/rest 2>/dev/null", disk.0.path().display()))
            .status(),
    );
    let rig = Rig::start(options(&path));
    assert_eq!(rig.read(None).unwrap().len(), rows.len() - 20);
    assert_eq!(rig.append(&batch(&body, 1)), Err(Refused::NoSpace));
    fs::remove_file(disk.0.path().join("filler")).unwrap();
    rig.wait(|state| *state == State::Working);
    rig.append(&batch(&body, 1)).unwrap();
}

#[test]
fn the_floor_of_free_space_is_kept() {
    let Some(disk) = Tmpfs::mount(16 << 10) else { return };
    let path = disk.0.path().join("main.spool");
    let rig = Rig::start(SpoolOptions { min_free_bytes: 8 << 20, ..options(&path) });
    rig.append(&batch("a\n", 1)).unwrap();
    fs::write(disk.0.path().join("filler"), vec![1; 9 << 20]).unwrap();
    // Looked at within 250 ms.
    rig.wait_until(|_| rig.append(&batch("b\n", 1)) == Err(Refused::NoSpace));
    let State::Failing(told) = rig.state() else { panic!() };
    assert!(told.contains("8388608 octets"), "{told}");
    fs::remove_file(disk.0.path().join("filler")).unwrap();
    rig.wait(|state| *state == State::Working);
    rig.append(&batch("c\n", 1)).unwrap();
}

#[test]
fn a_disk_that_turns_read_only_is_told_and_comes_back() {
    let Some(disk) = Tmpfs::mount(16 << 10) else { return };
    let path = disk.0.path().join("main.spool");
    filled(&path, &["a\n"]);
    disk.remount("ro");
    let rig = Rig::start(options(&path));
    assert!(matches!(rig.state(), State::Failing(_)), "{:?}", rig.state());
    assert_eq!(rig.append(&batch("b\n", 1)), Err(Refused::Failing));
    disk.remount("rw");
    rig.wait(|state| *state == State::Working);
    assert_eq!(rig.bodies(), ["a\n"]);
    assert_eq!(rig.spool.recovered(), level(1, 1, 2));
}
