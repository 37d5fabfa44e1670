//! `beacon-edge check`: whether every broker lets the edge in, and whether what it publishes to is there.
//!
//! Nothing is published and nothing is declared. STOMP tells of a login and a virtual host; a missing exchange only when
//! something is sent to it, a missing queue or binding never. For these the management API is asked, if there is a
//! `management_url`.

mod management;

use std::{fmt, time::Duration};

use stompwire::{
    client::{BrokerUrl, Client, ConnectionError},
    rabbitmq::Destination,
};
use tokio::task::JoinSet;

use self::management::{Management, Route};
use crate::{
    brokers,
    config::{Broker, Config, DestinationConfig},
    delivery::DeliveryError,
    health,
};

/// For a connection that was only made to see whether it can be.
const CLOSE: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Debug)]
pub struct Report {
    findings: Vec<Finding>,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The destination's name in the configuration.
    pub destination: String,
    /// What was looked at: a broker's URL without its password, or the STOMP destination.
    pub subject: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of looking at something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good(String),
    /// Nobody knows.
    Unknown(String),
    /// Beacons would not arrive.
    Bad {
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
}

/// Looks at everything. Blocks, for at most some tens of seconds.
///
/// # Errors
/// A broker's URL that the client cannot use, or no runtime.
pub fn run(config: &Config) -> Result<Report, DeliveryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut findings = Vec::new();
    for (name, destination) in &config.destinations {
        let finding = |subject: String, verdict| Finding { destination: name.clone(), subject, verdict };
        if destination.brokers.contains(&Broker::Embedded) {
            let good = "in memory, inside the edge: for a first look".to_owned();
            findings.push(finding("embedded".to_owned(), Verdict::Good(good)));
            continue;
        }
        let urls = brokers::broker_urls(name, destination, None)?;
        for (url, verdict) in runtime.block_on(logins(&urls, destination)) {
            findings.push(finding(url, verdict));
        }
        let vhosts = distinct(urls.iter().map(BrokerUrl::vhost));
        for vhost in vhosts {
            let subject = format!("{} in virtual host {vhost}", destination.destination);
            findings.push(finding(subject, target(destination, &urls, vhost)));
        }
    }
    Ok(Report { findings })
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

/// Connects to all of them at once. In their order.
async fn logins(urls: &[BrokerUrl], config: &DestinationConfig) -> Vec<(String, Verdict)> {
    let mut connecting = JoinSet::new();
    for (index, url) in urls.iter().cloned().enumerate() {
        let options = brokers::connect_options(config);
        connecting.spawn(async move {
            let verdict = match Client::connect(&url, options).await {
                Ok(client) => {
                    let server = client.connected().and_then(|connected| connected.server.clone());
                    // It was good for what it was made for.
                    drop(client.close(CLOSE).await);
                    Verdict::Good(format!("logged in; {}", server.as_deref().unwrap_or("an unnamed server")))
                }
                Err(error) => refused(&error),
            };
            (index, url.to_string(), verdict)
        });
    }
    let mut verdicts = connecting.join_all().await;
    verdicts.sort_by_key(|(index, ..)| *index);
    verdicts.into_iter().map(|(_, url, verdict)| (url, verdict)).collect()
}

fn refused(error: &ConnectionError) -> Verdict {
    let error = error.to_string();
    let trouble = health::trouble(&error);
    Verdict::Bad { what: format!("{} ({error})", trouble.what), remedy: trouble.remedy.to_owned() }
}

/// Whether what is published gets to a queue.
fn target(config: &DestinationConfig, urls: &[BrokerUrl], vhost: &str) -> Verdict {
    let Ok(destination) = config.destination.parse::<Destination>() else {
        return Verdict::Bad {
            what: "not a destination that RabbitMQ knows".to_owned(),
            remedy: "write /queue/NAME, /amq/queue/NAME, /exchange/NAME/KEY or /topic/KEY".to_owned(),
        };
    };
    if let Destination::Queue(_) = destination {
        return Verdict::Good(
            "declared with the first beacon, if it is not there; needs configure permission".into(),
        );
    }
    let management = match Management::new(config, urls) {
        Ok(Some(management)) => management,
        Ok(None) => {
            return Verdict::Unknown(
                "not looked at: STOMP confirms a message without a queue and drops it; set management_url"
                    .into(),
            );
        }
        Err(problem) => return unreachable_api(problem),
    };
    let looked = match &destination {
        Destination::AmqQueue(queue) => management.queue(vhost, queue),
        Destination::Exchange { name, routing_key } => management.exchange(vhost, name, routing_key),
        Destination::Topic(key) => management.exchange(vhost, "amq.topic", key),
        _ => return Verdict::Unknown("not looked at".into()),
    };
    match looked {
        Ok(Route::To(where_to)) => Verdict::Good(where_to),
        Ok(Route::Unclear(why)) => Verdict::Unknown(why),
        Ok(Route::Nowhere { what, remedy }) => Verdict::Bad { what, remedy },
        Err(problem) => unreachable_api(problem),
    }
}

fn unreachable_api(problem: String) -> Verdict {
    Verdict::Bad {
        what: format!("the management API did not say ({problem})"),
        remedy:
            "correct management_url; its user needs the tag `monitoring` or `management` and the virtual host"
                .into(),
    }
}

impl Report {
    /// All lines.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many are bad.
    #[must_use]
    pub fn problems(&self) -> usize {
        self.findings.iter().filter(|finding| matches!(finding.verdict, Verdict::Bad { .. })).count()
    }
}

impl fmt::Display for Report {
    /// A table, and a last line that says how it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&Finding) -> &str| {
            self.findings.iter().map(|finding| text(finding).chars().count()).max().unwrap_or_default()
        };
        let (names, subjects) = (width(|finding| &finding.destination), width(|finding| &finding.subject));
        for Finding { destination, subject, verdict } in &self.findings {
            let (word, text) = match verdict {
                Verdict::Good(text) => ("ok", text),
                Verdict::Unknown(text) => ("?", text),
                Verdict::Bad { what, .. } => ("FAILED", what),
            };
            writeln!(f, "{destination:<names$}  {subject:<subjects$}  {word:<6}  {text}")?;
            if let Verdict::Bad { remedy, .. } = verdict {
                let indent = names + subjects + 4;
                writeln!(f, "{:indent$}  do:     {remedy}", "")?;
            }
        }
        match self.problems() {
            0 => writeln!(f, "\nNothing is wrong that could be seen."),
            1 => writeln!(f, "\n1 problem: beacons would wait, or be lost, until it is solved."),
            problems => {
                writeln!(f, "\n{problems} problems: beacons would wait, or be lost, until they are solved.")
            }
        }
    }
}
