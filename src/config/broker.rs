//! The address of a broker, and secrets. Neither shows a password in `Debug`, in errors or in a printed
//! configuration.

use std::fmt;

use serde::ser::{Serialize, Serializer};

const EMBEDDED: &str = "embedded";
const FORM: &str = "\"stomp://user:password@host:61613/vhost\" (stomp+ssl:// and port 61614 for TLS), or \"embedded\" for \
                    the broker inside this process";
const HIDDEN: &str = "***";

/// One broker of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broker {
    /// The broker inside this process: for first runs, not for production.
    Embedded,
    /// A broker reached over STOMP.
    Url(BrokerUrl),
}

/// The URL of a broker. `Debug`, `Display` and `Serialize` show it with `***` in the place of the password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl(String);

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Broker {
    /// Reads `"embedded"` or a URL. The scheme, the host and the port are looked at; the rest is left to the client.
    ///
    /// # Errors
    ///
    /// What is wrong and what would be right, without the text itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == EMBEDDED {
            return Ok(Self::Embedded);
        }
        check_url(text).map_err(|problem| format!("{problem}; write {FORM}"))?;
        Ok(Self::Url(BrokerUrl(text.to_owned())))
    }
}

impl BrokerUrl {
    /// The URL with its password.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether the broker is reached over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        !self.0.starts_with("stomp://")
    }
}

impl Secret {
    /// Keeps `text` from being printed.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => out.write_str(EMBEDDED),
            Self::Url(url) => fmt::Display::fmt(url, out),
        }
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", redact(&self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(HIDDEN)
    }
}

impl Serialize for Broker {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `brokers` in the configuration: a list of strings, or one string. Errors do not quote them.
pub(super) mod list {
    use std::fmt;

    use serde::de::{self, Deserializer, SeqAccess, Visitor};
    use serde::ser::Serializer;

    use super::{Broker, FORM};

    pub(crate) fn serialize<S: Serializer>(brokers: &[Broker], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(brokers)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Broker>, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Vec<Broker>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "a list of strings, each {FORM}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<Broker>, E> {
                Ok(vec![Broker::parse(text).map_err(E::custom)?])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Broker>, A::Error> {
                let mut brokers = Vec::new();
                while let Some(text) = items.next_element::<String>()? {
                    brokers.push(Broker::parse(&text).map_err(de::Error::custom)?);
                }
                Ok(brokers)
            }
        }

        deserializer.deserialize_any(List)
    }
}

/// Puts `***` in the place of whatever stands between `://` and an `@`, except a plain user name. For text that may
/// quote a URL, well-formed or not: it rather hides too much.
pub(super) fn redact(text: &str) -> String {
    let Some((before, rest)) = text.split_once("://") else { return text.to_owned() };
    // The last `@` of all: an `@` or `/` in a password that should have been percent-encoded must not split it.
    let Some((credentials, after)) = rest.rsplit_once('@') else { return text.to_owned() };
    match credentials.split_once(':') {
        Some((user, _)) if user.chars().all(is_plain) => format!("{before}://{user}:{HIDDEN}@{after}"),
        None if credentials.chars().all(is_plain) => text.to_owned(),
        _ => format!("{before}://{HIDDEN}@{after}"),
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~%+".contains(c)
}

fn check_url(text: &str) -> Result<(), &'static str> {
    let Some((scheme, rest)) = text.split_once("://") else { return Err("a broker without a scheme") };
    match scheme {
        "stomp" | "stomp+ssl" | "stomps" | "stomp+tls" => {}
        _ => return Err("a broker with a scheme other than stomp and stomp+ssl"),
    }
    if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a broker URL with a blank in it");
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if path.contains('@') {
        return Err("a broker URL with an `@` behind its host (write `/` as %2F and `@` as %40 in user, \
                    password and vhost)");
    }
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host_and_port.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (host_and_port, None),
    };
    if host.is_empty() || host == "[]" {
        return Err("a broker URL without a host");
    }
    match port.map(str::parse::<u16>) {
        None | Some(Ok(1..)) => Ok(()),
        Some(Ok(0) | Err(_)) => Err("a broker URL whose port is not a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_client_can_use() {
        assert_eq!(Broker::parse("embedded"), Ok(Broker::Embedded));
        for url in [
            "stomp://localhost",
            "stomp://localhost:61613",
            "stomp://guest:guest@127.0.0.1:61613/",
            "stomp://u:p%40w@rabbit.example/beacons",
            "stomp://[::1]:61613/%2F",
            "stomp://[::1]",
            "stomp+ssl://u:p@rabbit:61614/v",
            "stomps://rabbit",
            "stomp+tls://rabbit",
        ] {
            let Ok(Broker::Url(parsed)) = Broker::parse(url) else { panic!("{url} was refused") };
            assert_eq!(parsed.reveal(), url);
        }
    }

    #[test]
    fn refuses_without_quoting() {
        for (url, says) in [
            ("", "without a scheme"),
            ("u:hunter2@rabbit:61613", "without a scheme"),
            ("amqp://u:hunter2@rabbit", "scheme other than stomp"),
            ("wss://u:hunter2@rabbit", "scheme other than stomp"),
            ("stomp://u:hunter2@", "without a host"),
            ("stomp://u:hunter2@:61613", "without a host"),
            ("stomp://u:hunter2@rabbit:port", "port is not a number"),
            ("stomp://u:hunter2@rabbit:0", "port is not a number"),
            ("stomp://u:hunter2@rabbit:65536", "port is not a number"),
            ("stomp://u:hun/ter2@rabbit", "write `/` as %2F"),
            ("stomp://u:hunter2@rab bit", "a blank"),
        ] {
            let problem = Broker::parse(url).unwrap_err();
            assert!(problem.contains(says), "{url}: {problem}");
            assert!(problem.contains("stomp://user:password@host:61613/vhost"), "no advice: {problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn never_shows_a_password() {
        for (url, shown) in [
            ("stomp://u:hunter2@rabbit/v", "stomp://u:***@rabbit/v"),
            ("stomp://u:a:hunter2@rabbit", "stomp://u:***@rabbit"),
            ("stomp://u:a@hunter2@rabbit", "stomp://u:***@rabbit"),
            ("stomp://u:hun/ter2@rabbit", "stomp://u:***@rabbit"),
            ("stomp://hunter2!@rabbit", "stomp://***@rabbit"),
            ("stomp://u@rabbit", "stomp://u@rabbit"),
            ("stomp://rabbit:61613", "stomp://rabbit:61613"),
        ] {
            let broker = Broker::Url(BrokerUrl(url.to_owned()));
            assert_eq!(broker.to_string(), shown);
            assert!(!format!("{broker:?}").contains("hunter2"));
            assert_eq!(serde_json::to_string(&broker).unwrap(), format!("\"{shown}\""));
        }
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "***");
    }
}
