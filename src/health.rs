//! Health: whether a destination's brokers take messages, in words for an operator: what is wrong, and what to do.
//!
//! [`of`] judges one reading, for `/readyz` and the page. [`Teller`] tells changes to the log, once each.

use std::time::{Duration, Instant};

use stompwire::{pool::BrokerStatus, publisher::LaneState};

use crate::metrics::DestinationReading;

/// A connection that has failures behind it and nothing to do is believed in after this time.
const STEADY: Duration = Duration::from_secs(1);
/// A state is told when it has held for so long: a connection that is made anew at once is no state.
const HOLD: Duration = Duration::from_millis(400);
/// A broker that comes and goes is said to be back after a time that grows up to this.
const LONGEST_HOLD: Duration = Duration::from_secs(30);
/// At most one line about connections that were made anew in this time.
const QUIET: Duration = Duration::from_secs(10);

/// Where a broker stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerState {
    /// No connection to it has been made or wanted yet.
    Unused,
    /// It takes messages.
    Working,
    /// It takes nothing, and lives: an alarm.
    Blocked,
    /// It cannot be reached, or refuses what it is sent.
    Failing(&'static Trouble),
}

/// A kind of failure.
#[derive(Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What must be in the client's error.
    signs: &'static [&'static str],
    /// What is wrong.
    pub what: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// A broker as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerHealth {
    /// Its URL without the password.
    pub broker: String,
    /// Where it stands.
    pub state: BrokerState,
    /// The last failure, in the broker's words if it had any.
    pub error: Option<String>,
}

const BLOCKED: &str = "it takes nothing: a memory or disk alarm (its heart-beats come, its receipts do not)";
const UNBLOCK: &str =
    "free memory or disk on the RabbitMQ node, see `rabbitmq-diagnostics alarms`; it goes on by itself";

/// The first whose signs are all there.
const TROUBLES: &[Trouble] = &[
    Trouble {
        signs: &["Connection refused"],
        what: "nobody listens there",
        remedy: "start RabbitMQ, enable its plugin rabbitmq_stomp, or correct the URL in `brokers`",
    },
    Trouble {
        signs: &["failed to lookup"],
        what: "its name is not known",
        remedy: "correct the host in `brokers`, or the name service",
    },
    Trouble {
        signs: &["no connection within"],
        what: "it does not answer",
        remedy: "see whether the host is up and no firewall is in between; TLS belongs to port 61614 and stomp+ssl://",
    },
    Trouble {
        signs: &["no answer to the handshake"],
        what: "it accepts connections and does not answer",
        remedy: "see whether it is overloaded, or another program has its port",
    },
    Trouble {
        signs: &["Bad CONNECT", "irtual host"],
        what: "there is no such virtual host, or the user may not use it",
        remedy: "rabbitmqctl add_vhost VHOST, rabbitmqctl set_permissions -p VHOST USER ...",
    },
    Trouble {
        signs: &["Bad CONNECT", "non-loopback"],
        what: "the user `guest` may only connect from the broker's own host",
        remedy: "make a user for the edge: rabbitmqctl add_user",
    },
    Trouble {
        signs: &["Bad CONNECT"],
        what: "the user or the password is wrong",
        remedy: "rabbitmqctl authenticate_user USER, then correct `brokers` or `password_file`",
    },
    Trouble {
        signs: &["not_found", "exchange"],
        what: "the exchange of `destination` does not exist",
        remedy: "declare it and bind a queue, or correct `destination`; `beacon-edge check` looks",
    },
    Trouble {
        signs: &["not_found"],
        what: "what `destination` names does not exist",
        remedy: "declare it, or correct `destination`; `beacon-edge check` looks",
    },
    Trouble {
        signs: &["access_refused"],
        what: "the user may not publish there",
        remedy: "rabbitmqctl set_permissions: write on the exchange (amq.default for queues), for /queue/ configure too",
    },
    Trouble {
        signs: &["precondition_failed"],
        what: "the queue exists with other properties than /queue/ declares it with",
        remedy: "use /amq/queue/NAME, which declares nothing",
    },
    Trouble {
        signs: &["the server answered ERROR"],
        what: "it refuses what it is sent",
        remedy: "see its words in `error`, and its log",
    },
    Trouble {
        signs: &["TLS"],
        what: "TLS did not come about",
        remedy: "see `error`; compare ca_file, client_cert_file and the host in `brokers` with the broker's certificate",
    },
    Trouble {
        signs: &["no receipt within"],
        what: "it lives, but does not confirm",
        remedy: "see RabbitMQ's log and the state of the queue; a quorum queue without a majority confirms nothing",
    },
    Trouble {
        signs: &["heart-beat"],
        what: "it fell silent",
        remedy: "see whether the host and the network are up",
    },
    Trouble { signs: &["closed the connection"], what: CLOSES, remedy: CLOSES_REMEDY },
    Trouble { signs: &["reset"], what: CLOSES, remedy: CLOSES_REMEDY },
    Trouble { signs: &["roken pipe"], what: CLOSES, remedy: CLOSES_REMEDY },
    Trouble { signs: &[], what: "the connection is lost or was not made", remedy: "see `error`" },
];

const CLOSES: &str = "it closes the connection without a word";
const CLOSES_REMEDY: &str = "RabbitMQ's log knows why: a restart, a queue that rejects (full, overflow = reject-publish), a deleted virtual host, a \
     frame over its max_frame_size";

/// What a client's error means.
#[must_use]
pub fn trouble(error: &str) -> &'static Trouble {
    let holds = |trouble: &&Trouble| trouble.signs.iter().all(|sign| error.contains(sign));
    TROUBLES.iter().find(holds).expect("the last one has no signs")
}

/// Each broker of a destination.
#[must_use]
pub fn of(read: &DestinationReading) -> Vec<BrokerHealth> {
    let health = |status: &BrokerStatus| BrokerHealth {
        broker: status.broker.clone(),
        state: state(status, read),
        error: status.last_error.clone(),
    };
    read.brokers.iter().map(health).collect()
}

fn state(status: &BrokerStatus, read: &DestinationReading) -> BrokerState {
    if status.connections > 0 && status.blocked == status.connections {
        return BrokerState::Blocked;
    }
    if status.failures == 0 {
        return if status.connections > 0 { BrokerState::Working } else { BrokerState::Unused };
    }
    // A broker that refuses everything accepts connections too: with messages waiting only a receipt counts.
    let is_steady = read.beacons.in_flight == 0
        && read.lanes.iter().any(|lane| {
            lane.broker == status.broker
                && lane.state == LaneState::Connected
                && lane.since.elapsed() >= STEADY
        });
    if is_steady {
        return BrokerState::Working;
    }
    BrokerState::Failing(trouble(status.last_error.as_deref().unwrap_or_default()))
}

impl BrokerState {
    /// What is wrong and what to do; `None` if nothing is known to be wrong.
    #[must_use]
    pub fn words(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Unused | Self::Working => None,
            Self::Blocked => Some((BLOCKED, UNBLOCK)),
            Self::Failing(trouble) => Some((trouble.what, trouble.remedy)),
        }
    }
}

/// Why no broker of a destination takes messages, in one sentence; `None` if one does.
#[must_use]
pub fn reason_against(name: &str, read: &DestinationReading) -> Option<String> {
    let brokers = of(read);
    if brokers.iter().any(|broker| broker.state == BrokerState::Working) {
        return None;
    }
    let troubled: Vec<String> = brokers
        .iter()
        .filter_map(|BrokerHealth { broker, state, error }| {
            let (what, remedy) = state.words()?;
            let error = match (state, error) {
                (BrokerState::Failing(_), Some(error)) => format!(" ({error})"),
                _ => String::new(),
            };
            Some(format!("{broker}: {what}{error}; {remedy}"))
        })
        .collect();
    let detail = if troubled.is_empty() { "not connected yet".to_owned() } else { troubled.join(" | ") };
    Some(format!("destination {name} has no broker that takes messages: {detail}"))
}

/// Tells the changes of one destination's brokers to the log.
#[derive(Debug)]
pub struct Teller {
    name: String,
    brokers: Vec<Told>,
}

#[derive(Debug)]
struct Told {
    state: BrokerState,
    at: Instant,
    /// What it is now, if that is something else, and since when.
    next: Option<(BrokerState, Instant)>,
    /// How long a recovery must hold to be told.
    hold: Duration,
    failures: u64,
    last_blip: Option<Instant>,
}

impl Teller {
    /// Nothing is told yet.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, brokers: Vec::new() }
    }

    /// To be called a few times a second.
    pub fn look(&mut self, read: &DestinationReading, now: Instant) {
        let brokers = of(read);
        self.brokers.resize_with(brokers.len(), || Told::new(now));
        let working = brokers.iter().filter(|broker| broker.state == BrokerState::Working).count();
        for ((health, status), told) in brokers.iter().zip(&read.brokers).zip(&mut self.brokers) {
            let taking = format!("{working} of {}", brokers.len());
            if told.changes(&health.state, now) {
                told.failures = status.failures_total;
                tell(&self.name, health, &taking, working > 0);
            } else if told.was_lost_meanwhile(status, now) {
                tracing::warn!(
                    destination = self.name,
                    broker = health.broker,
                    error = health.error,
                    "connections to the broker were lost and made again; what was not confirmed was sent again"
                );
            }
        }
    }
}

fn tell(destination: &str, health: &BrokerHealth, taking: &str, others_work: bool) {
    let BrokerHealth { broker, state, error } = health;
    match (state.words(), state, others_work) {
        (None, ..) => {
            tracing::info!(destination, broker, brokers_taking = taking, "the broker takes messages");
        }
        (Some((what, remedy)), BrokerState::Blocked, _) => {
            tracing::warn!(destination, broker, brokers_taking = taking, "the broker: {what}; {remedy}");
        }
        (Some((what, remedy)), _, true) => {
            tracing::warn!(
                destination,
                broker,
                error,
                brokers_taking = taking,
                "the broker: {what}; {remedy}"
            );
        }
        (Some((what, remedy)), _, false) => {
            tracing::error!(
                destination,
                broker,
                error,
                brokers_taking = taking,
                "the broker: {what}; {remedy}. No broker takes messages: beacons wait"
            );
        }
    }
}

impl Told {
    fn new(now: Instant) -> Self {
        Self { state: BrokerState::Unused, at: now, next: None, hold: HOLD, failures: 0, last_blip: None }
    }

    /// Whether `seen` is another state than was told, has held for long enough, and is worth a line.
    fn changes(&mut self, seen: &BrokerState, now: Instant) -> bool {
        if *seen == self.state || *seen == BrokerState::Unused {
            self.next = None;
            return false;
        }
        let since = match &self.next {
            Some((next, since)) if next == seen => *since,
            _ => {
                self.next = Some((seen.clone(), now));
                now
            }
        };
        let is_recovery = *seen == BrokerState::Working;
        let is_first = self.state == BrokerState::Unused;
        let hold = if is_recovery && is_first {
            Duration::ZERO
        } else if is_recovery {
            self.hold
        } else {
            HOLD
        };
        if now.duration_since(since) < hold {
            return false;
        }
        if !is_recovery {
            let is_relapse = !is_first && now.duration_since(self.at) < LONGEST_HOLD * 2;
            self.hold = if is_relapse { (self.hold * 2).min(LONGEST_HOLD) } else { HOLD };
        }
        self.state = seen.clone();
        self.at = now;
        self.next = None;
        true
    }

    /// Whether it works as was told, but has failed since.
    fn was_lost_meanwhile(&mut self, status: &BrokerStatus, now: Instant) -> bool {
        if self.state != BrokerState::Working || self.next.is_some() || status.failures_total == self.failures
        {
            return false;
        }
        if self.last_blip.is_some_and(|last| now.duration_since(last) < QUIET) {
            return false;
        }
        self.failures = status.failures_total;
        self.last_blip = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_meaning() {
        for (error, what) in [
            ("Connection refused (os error 111)", "nobody listens"),
            ("no connection within 5s", "does not answer"),
            ("the server answered ERROR: Bad CONNECT: Access refused for user 'u'", "password is wrong"),
            (
                "the server answered ERROR: Bad CONNECT: Virtual host 'v' access denied",
                "no such virtual host",
            ),
            (
                "the server answered ERROR: not_found: no exchange 'x' in vhost '/'",
                "exchange of `destination`",
            ),
            ("the server answered ERROR: access_refused: write access", "may not publish"),
            ("the server answered ERROR: surprising", "refuses what it is sent"),
            ("TLS: the server's certificate …", "TLS did not"),
            ("the server closed the connection", "without a word"),
            ("Connection reset by peer (os error 104)", "without a word"),
            ("something new", "lost or was not made"),
        ] {
            assert!(trouble(error).what.contains(what), "{error}: {}", trouble(error).what);
        }
    }

    #[test]
    fn a_state_is_told_once_it_holds_and_a_flapping_broker_ever_later() {
        let start = Instant::now();
        let mut told = Told::new(start);
        let failing = BrokerState::Failing(trouble("Connection refused"));
        let mut lines = Vec::new();
        let mut at = start;
        let mut look = |state: &BrokerState, millis: u64, lines: &mut Vec<BrokerState>| {
            for _ in 0..millis / 250 {
                at += Duration::from_millis(250);
                if told.changes(state, at) {
                    lines.push(state.clone());
                }
            }
        };
        look(&BrokerState::Working, 1000, &mut lines);
        look(&failing, 250, &mut lines);
        look(&BrokerState::Working, 1000, &mut lines);
        assert_eq!(lines, [BrokerState::Working], "a moment is no state");
        look(&failing, 5000, &mut lines);
        look(&BrokerState::Working, 5000, &mut lines);
        assert_eq!(lines[1..], [failing.clone(), BrokerState::Working]);
        lines.clear();
        for _ in 0..100 {
            look(&failing, 1000, &mut lines);
            look(&BrokerState::Working, 1000, &mut lines);
        }
        assert!(lines.len() <= 8, "{} lines", lines.len());
        look(&BrokerState::Working, 60_000, &mut lines);
        assert_eq!(lines.last(), Some(&BrokerState::Working));
    }
}
