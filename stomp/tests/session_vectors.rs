//! Replays `vectors/session.json`: scripts for one side of a connection on a virtual clock; `CONFORMANCE.md` says what
//! the items are.
//!
//! A vector is an object with these keys:
//!
//! | key | meaning |
//! |---|---|
//! | `id`, `item` | a unique name; the item of the list that it shows |
//! | `role` | whose session it is: `"client"` or `"server"` |
//! | `options` | options that differ from the default ones, times in milliseconds; heart-beats are off and receipts awaited for ever by default |
//! | `open` | a version, or a list of them: the handshake of that version is done already |
//! | `refused` | instead of steps: the variant of `SessionError` with which a client session refuses its options |
//! | `steps` | what happens, in order; each is one of those below |
//! | `note` | why |
//!
//! | step | meaning |
//! |---|---|
//! | `{"in": octets}` | the peer sent these octets (the characters U+0000 to U+00FF) |
//! | `{"out": octets}` | the session wants to write exactly these, all of which are written |
//! | `{"at": time}` | time passes, up to so many milliseconds since the start; nothing was due before |
//! | `{"do": {…}}` | the owner calls the session: see [`Call`]; with `refused`, the variant of the error |
//! | `{"event": …}` | the session said this: see [`Event`] |
//! | `{"fails": variant}` | the session cannot go on: a variant of `SessionError`, or the one of `DecodeError` inside it |
//! | `{"pending": [token, …]}` | the connection has ended: these tokens are handed back |
//! | `{"open": boolean}`, `{"version": text}` | whether frames can be sent; the version in force |
//!
//! Nothing may be left over: what the session wants to write, and what it says, must be in the script right where it
//! comes up. A frame is written as in the other files. Each script is replayed with the octets of each `in` whole, octet
//! by octet, and split at every offset.
#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;
use session::{Client, Server, Side};
use stompwire::proto::{ClientOptions, HeartBeat, Limits, ServerOptions, Version};
use vectors::{FrameText, LimitsText, Octets, OneOrMore, Role, items_of, load};

#[path = "vectors/session.rs"]
mod session;
mod vectors;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    id: String,
    item: u8,
    role: Role,
    #[serde(default)]
    options: Options,
    open: Option<OneOrMore>,
    refused: Option<String>,
    #[serde(default)]
    steps: Vec<Step>,
    #[expect(dead_code, reason = "for readers")]
    note: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Options {
    host: Option<String>,
    login: Option<String>,
    passcode: Option<String>,
    headers: Vec<(String, String)>,
    versions: Option<Vec<String>>,
    stomp_command: bool,
    heart_beat: (u64, u64),
    grace: Option<f32>,
    connect_timeout: Option<u64>,
    receipt_timeout: Option<u64>,
    close_timeout: Option<u64>,
    escape_connect: bool,
    without_content_length: bool,
    without_host: bool,
    limits: LimitsText,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Step {
    In(Octets),
    Out(Octets),
    At(u64),
    Do(Call),
    Event(Event),
    Fails(String),
    Pending(Vec<String>),
    Open(bool),
    Version(String),
}

/// What the owner does, by the name of the method. `token` asks for a receipt.
#[derive(Deserialize)]
struct Call {
    #[serde(flatten)]
    what: What,
    token: Option<String>,
    transaction: Option<u64>,
    refused: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// `send`, `send_with_receipt` or `send_in`; of a server `send`.
    Send(FrameText),
    Subscribe {
        id: u64,
        destination: String,
        ack: String,
    },
    Unsubscribe(u64),
    Ack {
        subscription: u64,
        message: FrameText,
    },
    Nack {
        subscription: u64,
        message: FrameText,
    },
    Begin(u64),
    Commit(u64),
    Abort(u64),
    Disconnect(()),
    /// A server's: the header `session`.
    Accept(String),
    ReceiptFor(FrameText),
    /// The message and the frame at fault.
    Error(String, Option<FrameText>),
}

/// What the session says.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Event {
    /// Of a client.
    Connected {
        version: String,
        #[serde(default)]
        server: Option<String>,
        #[serde(default)]
        session: Option<String>,
        #[serde(default)]
        sends_every: Option<u64>,
        #[serde(default)]
        server_patience: Option<u64>,
    },
    Receipt(String),
    StrayReceipt,
    /// The subscription and the frame.
    Message(u64, session::Seen),
    StrayMessage(session::Seen),
    /// The frame and the token of the frame at fault.
    Error(session::Seen, Option<String>),
    Disconnected,
    /// The receipt timeout of this token is over.
    Expired(String),
    /// Of a server.
    Connect(session::Seen),
    Frame(session::Seen),
    Disconnect,
}

#[test]
fn scripts() {
    for vector in load::<Vector>("session") {
        let versions = match &vector.open {
            Some(versions) => versions.iter().map(Some).collect(),
            None => vec![None],
        };
        for open in versions {
            let longest = vector.steps.iter().map(|step| match step {
                Step::In(octets) => octets.0.len(),
                _ => 0,
            });
            let longest = longest.max().unwrap_or_default();
            let show = |how| format!("{} {} {how}", vector.id, open.unwrap_or_default());
            vector.replay(open, &show("whole".to_owned()), |octets| vec![octets]);
            vector.replay(open, &show("octet by octet".to_owned()), |octets| octets.chunks(1).collect());
            for at in 1..longest {
                let split = |octets: &'_ [u8]| octets.len().min(at);
                vector.replay(open, &show(format!("split at {at}")), |octets| {
                    let (first, rest) = octets.split_at(split(octets));
                    vec![first, rest]
                });
            }
        }
    }
}

#[test]
fn every_item_of_sessions_has_a_vector_and_every_id_is_unique() {
    let ids = load::<Vector>("session").into_iter().map(|vector| (vector.id, vector.item));
    let items = items_of(&ids.collect::<Vec<_>>());
    assert!(items.is_superset(&(23..=38).collect::<BTreeSet<u8>>()), "{items:?}");
}

impl Vector {
    fn replay(&self, open: Option<&str>, show: &str, cut: impl for<'a> Fn(&'a [u8]) -> Vec<&'a [u8]>) {
        let mut side: Box<dyn Side> = match self.role {
            Role::Server => Box::new(Server::new(self.options.server())),
            Role::Client => match Client::new(self.options.client()) {
                Ok(client) => Box::new(client),
                Err(error) => {
                    assert_eq!(Some(session::variant(&error)), self.refused, "{show}");
                    return;
                }
            },
        };
        assert_eq!(self.refused, None, "{show}: the options are accepted");
        if let Some(version) = open {
            side.handshake(version);
        }
        let mut replay = Replay { side: &mut *side, now: Duration::ZERO, failed: None };
        for (number, step) in self.steps.iter().enumerate() {
            replay.step(step, &format!("{show}, step {}", number + 1), &cut);
        }
        replay.nothing_is_left(&format!("{show}, at the end"));
    }
}

struct Replay<'a> {
    side: &'a mut dyn Side,
    now: Duration,
    /// The variant of the error that was not in the script yet.
    failed: Option<String>,
}

impl Replay<'_> {
    fn step(&mut self, step: &Step, show: &str, cut: impl for<'b> Fn(&'b [u8]) -> Vec<&'b [u8]>) {
        match step {
            Step::Out(expected) => {
                let octets = self.side.written(self.now);
                assert_eq!(
                    octets.escape_ascii().to_string(),
                    expected.0.escape_ascii().to_string(),
                    "{show}"
                );
                return;
            }
            Step::Event(expected) => {
                return assert_eq!(self.side.event().as_ref(), Some(expected), "{show}");
            }
            Step::Fails(expected) => {
                assert_eq!(self.side.event(), None, "{show}: an event comes first");
                return assert_eq!(self.failed.take().as_ref(), Some(expected), "{show}");
            }
            _ => self.nothing_is_left(show),
        }
        match step {
            Step::In(octets) => {
                for chunk in cut(&octets.0) {
                    self.failed = self.side.read(chunk, self.now).err().map(|error| session::variant(&error));
                    if self.failed.is_some() {
                        break;
                    }
                }
            }
            Step::At(millis) => {
                let at = Duration::from_millis(*millis);
                assert!(at >= self.now, "{show}: time does not go back");
                let due = self.side.next_timeout();
                assert!(due.is_none_or(|due| due >= at), "{show}: something is due at {due:?}");
                self.now = at;
                self.failed = self.side.time_out(at).err().map(|error| session::variant(&error));
            }
            Step::Do(call) => {
                let refused = self.side.call(call, self.now).err();
                assert_eq!(refused.as_ref().map(session::variant), call.refused, "{show}");
                assert!(refused.is_none_or(|error| error.is_callers()), "{show}: it is the caller's mistake");
            }
            Step::Pending(tokens) => assert_eq!(self.side.pending(), *tokens, "{show}"),
            Step::Open(open) => assert_eq!(self.side.is_open(), *open, "{show}"),
            Step::Version(version) => assert_eq!(self.side.version().as_str(), version, "{show}"),
            Step::Out(_) | Step::Event(_) | Step::Fails(_) => {}
        }
    }

    fn nothing_is_left(&mut self, show: &str) {
        assert_eq!(self.side.event(), None, "before {show}: an event");
        assert_eq!(self.failed, None, "before {show}: a failure");
        let octets = self.side.written(self.now);
        assert!(octets.is_empty(), "before {show}: it wants to write {}", octets.escape_ascii());
    }
}

impl Options {
    fn client(&self) -> ClientOptions {
        let mut options = ClientOptions::default();
        if let Some(host) = &self.host {
            options.host.clone_from(host);
        }
        options.login.clone_from(&self.login);
        options.passcode.clone_from(&self.passcode);
        self.headers.iter().for_each(|(name, value)| options.headers.push(name, value));
        options.versions = self.versions(options.versions);
        options.stomp_command = self.stomp_command;
        options.heart_beat = self.heart_beat();
        options.heart_beat_grace = self.grace.unwrap_or(options.heart_beat_grace);
        options.connect_timeout = time(self.connect_timeout, options.connect_timeout);
        options.receipt_timeout = self.receipt_timeout.map(Duration::from_millis);
        options.close_timeout = time(self.close_timeout, options.close_timeout);
        options.escape_connect = self.escape_connect;
        options.content_length = !self.without_content_length;
        options.limits = self.limits();
        options
    }

    fn server(&self) -> ServerOptions {
        let mut options = ServerOptions::default();
        options.server = "test/1".into();
        options.versions = self.versions(options.versions);
        options.heart_beat = self.heart_beat();
        options.heart_beat_grace = self.grace.unwrap_or(options.heart_beat_grace);
        options.connect_timeout = time(self.connect_timeout, options.connect_timeout);
        options.require_host = !self.without_host;
        options.limits = self.limits();
        options
    }

    fn versions(&self, default: Vec<Version>) -> Vec<Version> {
        let parse = |version: &String| Version::parse(version).expect("a version");
        self.versions.as_ref().map_or(default, |versions| versions.iter().map(parse).collect())
    }

    fn heart_beat(&self) -> HeartBeat {
        let (send, receive) = self.heart_beat;
        HeartBeat { send: Duration::from_millis(send), receive: Duration::from_millis(receive) }
    }

    fn limits(&self) -> Limits {
        self.limits.limits()
    }
}

fn time(millis: Option<u64>, default: Duration) -> Duration {
    millis.map_or(default, Duration::from_millis)
}
