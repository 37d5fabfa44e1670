//! Implementations in other languages: a child process each, which is fed and answers line by line. `others/` has the
//! programs and what they need.

use std::{
    io::{BufRead, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use serde_json::{Value, json};

use super::{Peer, Seen, Shows, Stream};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/others");

/// What all of them have in common.
const OTHER: Peer = Peer {
    name: "",
    version: "",
    licence: "",
    released: "",
    speaks: &["1.2"],
    streams: true,
    shows: Shows::First,
    limits: "none",
    driven: "",
    required: |_| &[],
    open: |_| None,
    encode: |_| None,
    decode_run: |_, _| None,
    encode_run: |_| None,
};

/// The peers; each needs its program's packages installed (`make peers-others`).
#[must_use]
pub fn all() -> Vec<Peer> {
    vec![
        Peer {
            name: "@stomp/stompjs",
            version: "7.5.0",
            licence: "Apache-2.0",
            released: "not recorded",
            driven: "JavaScript: `Parser`, then `FrameImpl.fromRawFrame` with unescaping",
            open: |_| Some(Box::new(Remote::new(&STOMPJS))),
            ..OTHER
        },
        Peer {
            name: "stomp.py",
            version: "9.0.0",
            licence: "Apache-2.0",
            released: "2026-05",
            driven: "Python: a `BaseTransport` over a queue, then `utils.parse_frame`",
            open: |_| Some(Box::new(Remote::new(&STOMP_PY))),
            ..OTHER
        },
        Peer {
            name: "stompman",
            version: "3.16.0",
            licence: "MIT",
            released: "2026-09",
            driven: "Python: `serde.FrameParser`",
            open: |_| Some(Box::new(Remote::new(&STOMPMAN))),
            ..OTHER
        },
    ]
}

static STOMPJS: Program = Program::new("node", "stompjs.mjs");
static STOMP_PY: Program = Program::new("venv/bin/python", "stomp_py.py");
static STOMPMAN: Program = Program::new("venv/bin/python", "stompman_.py");

/// A child that is started when it is first needed, and ends when its input does.
struct Program {
    interpreter: &'static str,
    file: &'static str,
    running: Mutex<Option<(Child, ChildStdin, BufReader<ChildStdout>)>>,
}

impl Program {
    const fn new(interpreter: &'static str, file: &'static str) -> Self {
        Self { interpreter, file, running: Mutex::new(None) }
    }

    fn ask(&self, question: &Value) -> Value {
        let mut running = self.running.lock().expect("no thread panics with it");
        let (_, input, output) = running.get_or_insert_with(|| {
            let mut child = Command::new(self.interpreter)
                .arg(self.file)
                .current_dir(FOLDER)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("{} cannot be run: {error}", self.interpreter));
            let input = child.stdin.take().expect("it was asked for");
            let output = child.stdout.take().expect("it was asked for");
            (child, input, BufReader::new(output))
        });
        writeln!(input, "{question}").expect("the child reads");
        let mut line = String::new();
        output.read_line(&mut line).expect("the child writes");
        serde_json::from_str(&line).expect("the child answers in JSON")
    }
}

struct Remote {
    program: &'static Program,
    fresh: bool,
}

impl Remote {
    fn new(program: &'static Program) -> Self {
        Self { program, fresh: true }
    }
}

impl Stream for Remote {
    fn feed(&mut self, octets: &[u8], frames: &mut Vec<Seen>) -> Result<(), String> {
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let reset = std::mem::take(&mut self.fresh);
        let answer = self.program.ask(&json!({ "reset": reset, "feed": hex }));
        for frame in answer["frames"].as_array().into_iter().flatten() {
            let headers = frame[1].as_array().into_iter().flatten();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            frames.push(Seen {
                command: text(&frame[0]),
                headers: headers.map(|pair| (text(&pair[0]).into(), text(&pair[1]).into())).collect(),
                body: crate::vectors::unhex(&text(&frame[2])).expect("hexadecimal digits"),
            });
        }
        answer["error"].as_str().map_or(Ok(()), |error| Err(error.to_owned()))
    }
}
