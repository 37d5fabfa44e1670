//! The machine that a measurement was made on, for every result: figures without it mean little.

use std::{collections::BTreeMap, fs, thread};

use serde::Serialize;

use crate::report::{grouped, rounded};

/// The packages that this program was built from, with their versions.
const LOCK: &str = include_str!("../../Cargo.lock");

/// What a measurement was made on. What could not be found out is `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: Option<String>,
    /// Processors that this program may use.
    pub cores: usize,
    /// Memory of the machine in MiB.
    pub memory_mib: Option<u64>,
    /// The limit on this program's memory in MiB, if its control group sets one.
    pub memory_limit_mib: Option<u64>,
    /// Name and version of the system.
    pub system: Option<String>,
    /// Version of the kernel.
    pub kernel: Option<String>,
    /// Processes that ran or wanted to, as a mean over the minute before.
    pub load_1m: Option<f64>,
    /// Versions of what took part, by name; this program is among them.
    pub versions: BTreeMap<String, String>,
}

impl Machine {
    /// Asks the kernel.
    pub fn read() -> Self {
        let file = |path: &str| fs::read_to_string(path).ok();
        let group = file("/proc/self/cgroup").and_then(|text| own_group(&text));
        let limit = group.and_then(|group| file(&format!("/sys/fs/cgroup{group}/memory.max")));
        Self {
            cpu: file("/proc/cpuinfo").and_then(|text| field(&text, "model name", ':')),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: file("/proc/meminfo").and_then(|text| memory_mib(&text)),
            memory_limit_mib: limit.and_then(|text| Some(text.trim().parse::<u64>().ok()? >> 20)),
            system: file("/etc/os-release").and_then(|text| field(&text, "PRETTY_NAME", '=')),
            kernel: file("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
            load_1m: file("/proc/loadavg")
                .and_then(|text| Some(rounded(text.split_whitespace().next()?.parse().ok()?, 2))),
            versions: BTreeMap::from([("loadtest".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        }
    }

    /// The same with the version of something that takes part, such as a broker.
    #[must_use]
    pub fn with_version(mut self, name: &str, version: &str) -> Self {
        self.versions.insert(name.to_owned(), version.to_owned());
        self
    }

    /// The same with the versions of libraries that this program was built from. One that it was not is left out.
    #[must_use]
    pub fn with_libraries(mut self, names: &[&str]) -> Self {
        let known = names.iter().filter_map(|name| Some(((*name).to_owned(), locked(LOCK, name)?)));
        self.versions.extend(known);
        self
    }

    /// Names and values for a report.
    pub fn facts(&self) -> Vec<(String, String)> {
        let mib = |mib: Option<u64>| mib.map(|mib| format!("{} MiB", grouped(mib)));
        let versions = self.versions.iter().map(|(name, version)| format!("{name} {version}"));
        [
            ("Processor", self.cpu.clone()),
            ("Cores", Some(self.cores.to_string())),
            ("Memory", mib(self.memory_mib)),
            ("Memory limit", mib(self.memory_limit_mib)),
            ("System", self.system.clone()),
            ("Kernel", self.kernel.clone()),
            ("Load before the run (1 min)", self.load_1m.map(|load| load.to_string())),
            ("Versions", Some(versions.collect::<Vec<_>>().join(", "))),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }
}

/// The first value of the field `name`, without quotes.
fn field(text: &str, name: &str, separator: char) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(separator)?;
        (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn memory_mib(meminfo: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, "MemTotal", ':')?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

/// This process's place in the tree of control groups (version 2).
fn own_group(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// The version of a package in a `Cargo.lock`.
fn locked(lock: &str, name: &str) -> Option<String> {
    let mut lines =
        lock.lines().skip_while(|line| line.strip_prefix("name = ") != Some(&format!("\"{name}\"")));
    lines.nth(1)?.strip_prefix("version = ").map(|version| version.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU @ 2.0GHz\nprocessor\t: 1\nmodel name\t: B\n";
        assert_eq!(field(cpuinfo, "model name", ':').as_deref(), Some("A CPU @ 2.0GHz"));
        assert_eq!(
            field("ID=x\nPRETTY_NAME=\"Some OS 1\"\n", "PRETTY_NAME", '=').as_deref(),
            Some("Some OS 1")
        );
        assert_eq!(memory_mib("MemTotal:       24683000 kB\nMemFree: 1 kB\n"), Some(24_104));
        assert_eq!(memory_mib("MemTotal: lots\n"), None);
        assert_eq!(own_group("12:cpu:/a\n0::/user.slice/x\n").as_deref(), Some("/user.slice/x"));
    }

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::read()
            .with_version("RabbitMQ", "3.10.8")
            .with_libraries(&["tokio", "nothing-of-that-name"]);
        assert!(
            machine.cores >= 1 && machine.memory_mib > Some(0) && machine.kernel.is_some(),
            "{machine:?}"
        );
        let versions: Vec<&str> = machine.versions.keys().map(String::as_str).collect();
        assert_eq!(versions, ["RabbitMQ", "loadtest", "tokio"]);
        assert!(machine.versions["tokio"].starts_with("1."), "{machine:?}");
        assert!(
            machine
                .facts()
                .iter()
                .any(|(name, value)| name == "Versions" && value.contains("RabbitMQ 3.10.8"))
        );
    }
}
