//! An nginx of our own: one process on loopback that answers every request with its built-in GIF.
//!
//! It runs as the present user, in a temporary folder, on a port that is free, without an access log. It is one process
//! (`master_process off`), so that its CPU clock counts all that serves. It is ended by its process id when the value is
//! dropped; only SIGKILL of this program leaves it behind.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Error,
    cores::{Core, bind_process},
    cpu::Process,
};

/// Starts that are tried, each on another port, before giving up.
const ATTEMPTS: usize = 5;

/// How long a start may take.
const START_DEADLINE: Duration = Duration::from_secs(5);

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    process: Process,
    address: SocketAddr,
    version: String,
    /// Its configuration, logs and temporary files; removed with it.
    _folder: TempDir,
}

impl Nginx {
    /// Starts nginx with room for `connections` and waits until it takes connections. Blocks for some milliseconds, at
    /// most a few seconds.
    ///
    /// # Errors
    /// [`Error::Nginx`] with what to install when there is none, or with what it says when it does not start.
    pub fn start(connections: usize) -> Result<Self, Error> {
        let program = find().ok_or_else(|| {
            Error::Nginx(
                "no nginx in PATH, /usr/sbin or /usr/local/sbin; install it (Debian, Ubuntu: apt install nginx-light)"
                    .to_owned(),
            )
        })?;
        let version = version(&program)?;
        let mut failure = String::new();
        for _ in 0..ATTEMPTS {
            match Self::attempt(&program, &version, connections)? {
                Ok(nginx) => return Ok(nginx),
                Err(message) => failure = message,
            }
        }
        Err(Error::Nginx(format!("{} does not start: {failure}", program.display())))
    }

    /// Binds it to the last core that this program may use. From outside, because nginx heeds `worker_cpu_affinity` in
    /// workers of a master only.
    ///
    /// # Errors
    /// [`Error::Io`] when the kernel refuses.
    pub fn pin(&self) -> Result<(), Error> {
        bind_process(self.process.pid(), Core::FromLast(0))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process that serves.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What it calls itself, for example `nginx/1.22.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// One start. The inner error is one that another port may cure.
    fn attempt(program: &Path, version: &str, connections: usize) -> Result<Result<Self, String>, Error> {
        let folder =
            TempDir::with_prefix("loadtest-nginx-").map_err(Error::io("temporary folder for nginx"))?;
        // Free now; should another process take it before nginx does, the next attempt has another one.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(Error::io("free port for nginx"))?;
        let config = folder.path().join("nginx.conf");
        fs::write(&config, configuration(address, connections))
            .map_err(Error::io("configuration of nginx"))?;
        let stderr = fs::File::create(folder.path().join("stderr")).map_err(Error::io("log of nginx"))?;
        let child = Command::new(program)
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            // Out of the terminal's group: Ctrl-C is for this program, which then ends nginx itself.
            .process_group(0)
            .spawn()
            .map_err(Error::io("start of nginx"))?;
        // From here on the guard ends it, whatever happens.
        let mut guard = Guard(Some(child));
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            let Some(child) = &mut guard.0 else { break };
            if child.try_wait().map_err(Error::io("wait for nginx"))?.is_some() {
                return Ok(Err(complaints(folder.path())));
            }
            if TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok() {
                let pid = i32::try_from(child.id()).unwrap_or(-1);
                let process = Process::attach(Some("nginx"), pid)?;
                let Some(child) = guard.0.take() else { break };
                return Ok(Ok(Self {
                    child,
                    process,
                    address,
                    version: version.to_owned(),
                    _folder: folder,
                }));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(Err(format!("it takes no connections within {} s", START_DEADLINE.as_secs())))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a child that has not become an [`Nginx`] yet.
struct Guard(Option<Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

/// Kills by process id and waits. A child that was not waited for keeps its id, so nobody else can be hit.
fn end(child: &mut Child) {
    child.kill().unwrap_or_default();
    drop(child.wait());
}

/// nginx in `PATH`, or where distributions put it outside of a user's `PATH`.
fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/local/nginx/sbin"].map(PathBuf::from))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("nginx"))
        .find(|program| program.is_file())
}

/// `nginx -v` says `nginx version: nginx/1.22.1` on stderr.
fn version(program: &Path) -> Result<String, Error> {
    let output =
        Command::new(program).arg("-v").stdin(Stdio::null()).output().map_err(Error::io("nginx -v"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(said.split_whitespace().find(|word| word.starts_with("nginx/")).unwrap_or("nginx").to_owned())
}

fn configuration(address: SocketAddr, connections: usize) -> String {
    format!(
        "daemon off;\n\
         master_process off;\n\
         worker_processes 1;\n\
         pid nginx.pid;\n\
         error_log stderr warn;\n\
         events {{ worker_connections {}; }}\n\
         http {{\n\
         \x20   access_log off;\n\
         \x20   keepalive_requests 1000000000;\n\
         \x20   keepalive_timeout 3600s;\n\
         \x20   client_body_temp_path body;\n\
         \x20   proxy_temp_path proxy;\n\
         \x20   fastcgi_temp_path fastcgi;\n\
         \x20   uwsgi_temp_path uwsgi;\n\
         \x20   scgi_temp_path scgi;\n\
         \x20   server {{\n\
         \x20       listen {address} backlog=4096;\n\
         \x20       location / {{ empty_gif; }}\n\
         \x20   }}\n\
         }}\n",
        connections + 64,
    )
}

/// The end of what nginx wrote to stderr.
fn complaints(folder: &Path) -> String {
    let said = fs::read(folder.join("stderr")).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let last: Vec<&str> = said.lines().rev().take(3).collect();
    if last.is_empty() {
        "it ended without a word".to_owned()
    } else {
        last.into_iter().rev().collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn it_answers_with_a_gif_and_is_gone_after_drop() {
        if find().is_none() {
            eprintln!("skipped: no nginx on this machine");
            return;
        }
        let nginx = Nginx::start(8).unwrap();
        assert!(nginx.version().starts_with("nginx/"), "{}", nginx.version());
        let mut stream = TcpStream::connect(nginx.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"GET /b.gif?x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", answer.escape_ascii());
        assert!(answer.windows(6).any(|octets| octets == b"GIF89a"), "{}", answer.escape_ascii());
        assert!(nginx.process().cpu_time().unwrap() > Duration::ZERO);

        let (pid, folder) = (nginx.process().pid(), nginx._folder.path().to_owned());
        drop(nginx);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(!folder.exists());
    }

    #[test]
    fn what_nginx_says_when_it_fails_is_passed_on() {
        let Some(program) = find() else {
            eprintln!("skipped: no nginx on this machine");
            return;
        };
        // More connections than nginx takes for a number.
        let failure = Nginx::attempt(&program, "nginx", usize::MAX - 64).unwrap().unwrap_err();
        assert!(failure.contains("invalid number"), "{failure}");
    }
}
