//! A hand-written HTTP server that notes every octet it gets and answers as a test wants, and the program under test.

use std::{
    collections::BTreeMap,
    io::Read,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

const GIF: &[u8; 43] =
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\
                         \x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

/// What the server does with its n-th request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// 200 with a GIF.
    Answer,
    /// The same in two pieces, cut within the head.
    AnswerInPieces,
    /// The same, with `Connection: close`, and the connection is closed.
    AnswerAndClose,
    /// The same, and the connection is closed a little later without a word.
    AnswerAndCloseLater,
    /// Another status without a body.
    Status(u16),
    /// The whole server stands still for so long, and then answers.
    Stall(Duration),
    /// The connection is closed without an answer.
    Close,
    /// The answer has chunks, which a beacon's answer never has.
    Chunked,
    /// No answer, ever.
    Silence,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The connection it came on, counted from 0.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The sequence number in the query.
    pub(crate) fn seq(&self) -> u64 {
        let seq = &self.query["seq"];
        assert_eq!(seq.len(), 12, "{seq}");
        seq.parse().unwrap()
    }
}

/// A server on loopback in a thread of this process; it ends when the value is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    requests: Mutex<Vec<Request>>,
    faults: Mutex<Vec<String>>,
    connections: AtomicUsize,
    action: Box<dyn Fn(usize) -> Action + Send + Sync>,
}

impl Server {
    /// Starts a server that does `action(n)` with its n-th request, counted from 0.
    pub(crate) fn start(action: impl Fn(usize) -> Action + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            faults: Mutex::default(),
            connections: AtomicUsize::new(0),
            action: Box::new(action),
        });
        let (stop, stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let theirs = shared.clone();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, theirs) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("test-server".to_owned()).spawn(serve).unwrap();
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/b.gif", self.address)
    }

    /// What has arrived, after a check that all of it was well-formed.
    pub(crate) fn requests(&self) -> Vec<Request> {
        assert_eq!(*self.shared.faults.lock().unwrap(), Vec::<String>::new());
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Err(fault) = serve(stream, connection, &shared).await {
                shared.faults.lock().unwrap().push(fault);
            }
        });
    }
}

/// Serves one connection; an error is something that a well-formed client does not do.
async fn serve(mut stream: TcpStream, connection: usize, shared: &Shared) -> Result<(), String> {
    stream.set_nodelay(true).unwrap();
    let mut octets = Vec::new();
    loop {
        let (request, length) = loop {
            if let Some(whole) = parse(&octets, connection)? {
                break whole;
            }
            match stream.read_buf(&mut octets).await {
                Ok(0) if octets.is_empty() => return Ok(()),
                Ok(0) => return Err(format!("closed within a request: {}", octets.escape_ascii())),
                Ok(_) => {}
                Err(_) => return Ok(()),
            }
        };
        if octets.len() > length {
            return Err("octets after the request: pipelined, or a wrong Content-Length".to_owned());
        }
        octets.clear();
        let number = {
            let mut requests = shared.requests.lock().unwrap();
            requests.push(request);
            requests.len() - 1
        };
        if !act((shared.action)(number), &mut stream).await {
            return Ok(());
        }
    }
}

/// Whether the connection goes on.
async fn act(action: Action, stream: &mut TcpStream) -> bool {
    let answer = |extra: &str| {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\nContent-Length: 43\r\n{extra}\r\n")
                .into_bytes();
        answer.extend_from_slice(GIF);
        answer
    };
    let (octets, goes_on) = match action {
        Action::Answer => (answer(""), true),
        Action::AnswerInPieces => {
            let answer = answer("");
            if stream.write_all(&answer[..30]).await.is_err() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            (answer[30..].to_vec(), true)
        }
        Action::AnswerAndClose => (answer("Connection: close\r\n"), false),
        Action::AnswerAndCloseLater => {
            let written = stream.write_all(&answer("")).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop(written);
            return false;
        }
        Action::Status(status) => {
            (format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").into_bytes(), true)
        }
        Action::Stall(time) => {
            thread::sleep(time);
            (answer(""), true)
        }
        Action::Close => return false,
        Action::Chunked => (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), true),
        Action::Silence => {
            // Until the client has had enough and closes.
            let mut rest = [0];
            drop(stream.read(&mut rest).await);
            return false;
        }
    };
    stream.write_all(&octets).await.is_ok() && goes_on
}

/// A request and its length, when it is whole.
fn parse(octets: &[u8], connection: usize) -> Result<Option<(Request, usize)>, String> {
    let Some(end) = octets.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&octets[..end]).map_err(|error| error.to_string())?;
    let fault = |what: &str| format!("{what} in {head}");
    let mut lines = head.split("\r\n");
    let request_line = lines.next().unwrap_or_default();
    let [method, target, "HTTP/1.1"] = request_line.split(' ').collect::<Vec<_>>()[..] else {
        return Err(fault("request line"));
    };
    if !head.bytes().all(|octet| (0x20..0x7f).contains(&octet) || octet == b'\r' || octet == b'\n') {
        return Err(fault("octets that are not printable ASCII"));
    }
    let mut fields = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| fault("field"))?;
        if name.is_empty() || value.is_empty() || value.trim() != value || name.contains(' ') {
            return Err(fault("field"));
        }
        if fields.insert(name.to_ascii_lowercase(), value.to_owned()).is_some() {
            return Err(fault("field given twice"));
        }
    }
    if !fields.contains_key("host") {
        return Err(fault("no Host"));
    }
    let (path, query) = target.split_once('?').ok_or_else(|| fault("no query"))?;
    if path != "/b.gif" {
        return Err(fault("path"));
    }
    let mut parameters = BTreeMap::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').ok_or_else(|| fault("query"))?;
        if parameters.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(fault("parameter given twice"));
        }
    }
    let length: usize = match (method, fields.get("content-length")) {
        ("GET", None) => 0,
        ("POST", Some(length)) => length.parse().map_err(|_| fault("Content-Length"))?,
        _ => return Err(fault("method and Content-Length")),
    };
    let Some(body) = octets.get(end + 4..end + 4 + length) else { return Ok(None) };
    let request =
        Request { connection, method: method.to_owned(), query: parameters, fields, body: body.to_vec() };
    Ok(Some((request, end + 4 + length)))
}

/// The program under test, killed when the value is dropped before it has ended.
pub(crate) struct Loadtest {
    child: Child,
}

/// What the program left behind.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The JSON on standard output, after a check that the program ended well.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl Loadtest {
    /// Starts `loadtest http` with `arguments`, separated by spaces.
    pub(crate) fn start(arguments: &str) -> Self {
        Self::start_in(arguments, &std::env::temp_dir())
    }

    /// The same, with `temporary` as the folder for temporary files.
    pub(crate) fn start_in(arguments: &str, temporary: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .arg("http")
            .args(arguments.split_whitespace())
            .env("TMPDIR", temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGINT).unwrap();
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, ten seconds at most. What it prints has to fit into a pipe, which it does many times over.
    pub(crate) fn wait(mut self) -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(10);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "loadtest did not end");
            thread::sleep(Duration::from_millis(5));
        };
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Outcome { status, stdout, stderr }
    }

    /// Starts it and waits for its end.
    pub(crate) fn run(arguments: &str) -> Outcome {
        Self::start(arguments).wait()
    }
}

impl Drop for Loadtest {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
