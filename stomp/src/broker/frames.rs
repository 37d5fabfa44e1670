//! What each frame of a client does.

use std::collections::VecDeque;

use super::{
    connection::{Blocked, Connection},
    faults::{Admission, ReceiptId},
    hub::{self, Published},
    message::{Message, Tag},
    refusal::Refusal,
    subscription::{AckMode, Verdict, Wish},
    transactions::Step,
};
use crate::proto::{Command, Frame, Time, Version};

/// What is left to do for a frame.
type Rest = VecDeque<Step>;

impl Connection {
    /// CONNECT or STOMP.
    pub(super) fn connect(&mut self, frame: &Frame, now: Time) {
        let outcome = self.check_connect(frame);
        let session = format!("session-{}", self.id);
        match outcome.map(|()| self.session.accept(&session, now)) {
            Ok(Ok(())) => self.shared.hub().opened(self.id, self.session.version()),
            Ok(Err(error)) => self.fail(&error.to_string(), None),
            Err(refusal) => self.fail(&refusal.to_string(), None),
        }
    }

    /// Any frame between CONNECT and DISCONNECT.
    pub(super) fn handle(&mut self, frame: Frame, now: Time) {
        let outcome = match frame.command() {
            Command::Send if self.control_seen.is_poison(&frame) => {
                crate::log::debug!(connection = self.id, "closed: told that this SEND is poison");
                self.finish();
                return;
            }
            Command::Send => match self.faults.take_send_fault() {
                None => self.send(&frame),
                Some(ReceiptId::Named) => Err(Refusal::ToldToFailSend),
                Some(ReceiptId::Omitted) => {
                    self.fail(&Refusal::ToldToFailSend.to_string(), None);
                    return;
                }
            },
            Command::Subscribe => self.subscribe(&frame),
            Command::Unsubscribe => self.unsubscribe(&frame),
            Command::Ack => self.settle(&frame, Verdict::Ack),
            Command::Nack => self.settle(&frame, Verdict::Nack),
            Command::Begin => {
                header(&frame, "transaction").and_then(|name| self.transactions.begin(name)).map(nothing)
            }
            Command::Commit => self.end_transaction(&frame).and_then(|steps| self.run(steps)),
            Command::Abort => self.end_transaction(&frame).map(|_| Rest::new()),
            // The session lets no other command through.
            _ => Ok(Rest::new()),
        };
        self.conclude(frame, outcome, now);
    }

    /// Goes on with a frame that found no room.
    pub(super) fn handle_blocked(&mut self, blocked: Blocked, now: Time) {
        let outcome = self.run(blocked.steps);
        self.conclude(blocked.frame, outcome, now);
    }

    fn conclude(&mut self, frame: Frame, outcome: Result<Rest, Refusal>, now: Time) {
        match outcome {
            Ok(rest) if rest.is_empty() => {
                self.receipts.processed(&frame, &self.control_seen, &mut self.session, now);
            }
            Ok(steps) => self.block(Blocked { frame, steps }, now),
            Err(refusal) => self.fail(&refusal.to_string(), Some(&frame)),
        }
    }

    fn check_connect(&self, frame: &Frame) -> Result<(), Refusal> {
        if self.control_seen.admission == Admission::RefuseConnect {
            return Err(Refusal::ToldToRefuseConnect);
        }
        let Some((login, passcode)) = &self.shared.options.credentials else { return Ok(()) };
        let given = (frame.header("login"), frame.header("passcode"));
        if given == (Some(login), Some(passcode)) { Ok(()) } else { Err(Refusal::Credentials) }
    }

    fn send(&mut self, frame: &Frame) -> Result<Rest, Refusal> {
        let message = Message::from_send(frame, destination(frame)?);
        if let Some(transaction) = frame.header("transaction") {
            return self.transactions.add(transaction, Step::Publish(message)).map(nothing);
        }
        // Not by way of `run`: a SEND without a transaction costs no queue of steps.
        let published = self.shared.hub().publish(&message)?;
        Ok(match published {
            Published::Done => Rest::new(),
            Published::NoRoomYet => Rest::from([Step::Publish(message)]),
        })
    }

    fn subscribe(&mut self, frame: &Frame) -> Result<Rest, Refusal> {
        let id = match frame.header("id") {
            None if self.session.version() > Version::V1_0 => return Err(missing(frame, "id")),
            id => id,
        };
        let ack = match frame.header("ack") {
            None | Some("auto") => AckMode::Auto,
            Some("client") => AckMode::Client,
            Some("client-individual") => AckMode::ClientIndividual,
            Some(other) => return Err(bad(frame, "ack", other)),
        };
        let prefetch = frame
            .header("prefetch-count")
            .map(|text| text.parse().map_err(|_| bad(frame, "prefetch-count", text)))
            .transpose()?;
        let wish = Wish { id, destination: destination(frame)?, ack, prefetch };
        self.shared.hub().subscribe(self.id, &wish).map(nothing)
    }

    fn unsubscribe(&mut self, frame: &Frame) -> Result<Rest, Refusal> {
        let key = match frame.header("id") {
            Some(id) => id,
            None if self.session.version() == Version::V1_0 => header(frame, "destination")?,
            None => return Err(missing(frame, "id")),
        };
        self.shared.hub().unsubscribe(self.id, key).map(nothing)
    }

    /// ACK or NACK.
    fn settle(&mut self, frame: &Frame, verdict: Verdict) -> Result<Rest, Refusal> {
        let version = self.session.version();
        if verdict == Verdict::Nack && version == Version::V1_0 {
            return Err(Refusal::NotInVersion { command: frame.command(), version });
        }
        let (id, subscription_id) = match version {
            Version::V1_0 => (header(frame, "message-id")?, frame.header("subscription")),
            Version::V1_1 => (header(frame, "message-id")?, Some(header(frame, "subscription")?)),
            Version::V1_2 => (header(frame, "id")?, None),
        };
        let tag = Tag::parse(id).ok_or_else(|| Refusal::NothingToAcknowledge(id.into()))?;
        let Some(transaction) = frame.header("transaction") else {
            return self.shared.hub().settle(self.id, tag, subscription_id, verdict).map(nothing);
        };
        let step = Step::Settle { tag, subscription_id: subscription_id.map(Into::into), verdict };
        self.transactions.add(transaction, step).map(nothing)
    }

    fn end_transaction(&mut self, frame: &Frame) -> Result<Rest, Refusal> {
        self.transactions.end(header(frame, "transaction")?)
    }

    /// Takes the steps until one finds no room. Returns what is left.
    fn run(&mut self, mut steps: Rest) -> Result<Rest, Refusal> {
        while let Some(step) = steps.pop_front() {
            match &step {
                Step::Publish(message) => {
                    let published = self.shared.hub().publish(message)?;
                    if published == Published::NoRoomYet {
                        steps.push_front(step);
                        break;
                    }
                }
                Step::Settle { tag, subscription_id, verdict } => {
                    self.shared.hub().settle(self.id, *tag, subscription_id.as_deref(), *verdict)?;
                }
            }
        }
        Ok(steps)
    }
}

fn destination(frame: &Frame) -> Result<&str, Refusal> {
    let destination = header(frame, "destination")?;
    if hub::names_nothing(destination) {
        return Err(bad(frame, "destination", destination));
    }
    Ok(destination)
}

fn header<'a>(frame: &'a Frame, name: &'static str) -> Result<&'a str, Refusal> {
    frame.header(name).ok_or_else(|| missing(frame, name))
}

fn missing(frame: &Frame, header: &'static str) -> Refusal {
    Refusal::MissingHeader { command: frame.command(), header }
}

fn bad(frame: &Frame, header: &'static str, value: &str) -> Refusal {
    Refusal::BadHeader { command: frame.command(), header, value: value.into() }
}

fn nothing((): ()) -> Rest {
    Rest::new()
}
