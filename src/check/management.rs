//! RabbitMQ's management API, as far as it says where a message goes.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use stompwire::client::BrokerUrl;
use ureq::Agent;

use crate::config::DestinationConfig;

const LIMIT: Duration = Duration::from_secs(10);
/// An exchange may have many bindings.
const LARGEST_ANSWER: u64 = 16 << 20;

/// Where a message would go.
pub(super) enum Route {
    /// To a queue, or to what cares for the unroutable.
    To(String),
    /// It is not for us to say.
    Unclear(String),
    /// It would be confirmed and dropped, or refused.
    Nowhere { what: String, remedy: String },
}

/// The API of one broker.
pub(super) struct Management {
    agent: Agent,
    base: String,
    authorization: String,
}

impl Management {
    /// `None` if there is no `management_url`.
    pub(super) fn new(config: &DestinationConfig, urls: &[BrokerUrl]) -> Result<Option<Self>, String> {
        let url = config.management_url.reveal();
        if url.is_empty() {
            return Ok(None);
        }
        let rest = url.strip_prefix("http://").ok_or("not an http:// URL")?;
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => {
                let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
                let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
                (format!("{}:{}", decoded(user), decoded(password)), host)
            }
            None => {
                let broker = urls.first().ok_or("no broker whose user could be taken")?;
                let (user, password) = (broker.login(), broker.passcode());
                (format!("{}:{}", user.unwrap_or("guest"), password.unwrap_or("guest")), rest)
            }
        };
        let agent = Agent::config_builder().timeout_global(Some(LIMIT)).http_status_as_error(false).build();
        Ok(Some(Self {
            agent: agent.into(),
            base: format!("http://{}/api", host.trim_end_matches('/')),
            authorization: format!("Basic {}", STANDARD.encode(credentials)),
        }))
    }

    /// Of a message to the queue itself.
    pub(super) fn queue(&self, vhost: &str, queue: &str) -> Result<Route, String> {
        Ok(match self.get(&["queues", vhost, queue])? {
            Some(found) => {
                let kind = found["type"].as_str().unwrap_or("classic");
                Route::To(format!("the queue is there ({kind})"))
            }
            None => Route::Nowhere {
                what: format!("there is no queue {queue:?}: beacons would be confirmed and dropped"),
                remedy: "declare it, or use /queue/NAME, which declares it".to_owned(),
            },
        })
    }

    /// Of a message to an exchange, with this key.
    pub(super) fn exchange(&self, vhost: &str, exchange: &str, key: &str) -> Result<Route, String> {
        let Some(found) = self.found(vhost, exchange)? else {
            return Ok(Route::Nowhere {
                what: format!("there is no exchange {exchange:?}"),
                remedy: "declare it and bind a queue to it".to_owned(),
            });
        };
        let bindings = self.get(&["exchanges", vhost, exchange, "bindings", "source"])?;
        let bindings = bindings.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let kind = found["type"].as_str().unwrap_or_default();
        let matching = bindings
            .iter()
            .find(|binding| matches(kind, binding["routing_key"].as_str().unwrap_or_default(), key));
        if let Some(binding) = matching {
            let (to, name) = (&binding["destination_type"], &binding["destination"]);
            let (to, name) = (to.as_str().unwrap_or("queue"), name.as_str().unwrap_or_default());
            return Ok(Route::To(format!("{kind} exchange, bound to {to} {name:?}")));
        }
        if let Some(other) = self.alternate(vhost, &found) {
            return Ok(Route::Unclear(format!(
                "nothing is bound for the key {key:?}: all goes to the alternate {other:?}"
            )));
        }
        if !bindings.is_empty() && !["direct", "fanout", "topic"].contains(&kind) {
            return Ok(Route::Unclear(format!(
                "there is the exchange, of type {kind}, with {} bindings",
                bindings.len()
            )));
        }
        Ok(Route::Nowhere {
            what: format!(
                "no queue is bound to {exchange:?} for the key {key:?}: beacons would be confirmed and dropped"
            ),
            remedy: "bind a queue, or set an alternate-exchange policy (docs/rabbitmq.md)".to_owned(),
        })
    }

    /// Where the exchange sends what nothing is bound for, by its arguments or its policy.
    fn alternate(&self, vhost: &str, found: &Value) -> Option<String> {
        let named = |place: &Value| place["alternate-exchange"].as_str().map(str::to_owned);
        named(&found["arguments"]).or_else(|| {
            // A user who may not see policies is told the worst.
            let policy = self.get(&["policies", vhost, found["policy"].as_str()?]).ok()??;
            named(&policy["definition"])
        })
    }

    /// The exchange. RabbitMQ 3.10 without its statistics (`disable_metrics_collector`) fails when asked for one, but
    /// lists all.
    fn found(&self, vhost: &str, exchange: &str) -> Result<Option<Value>, String> {
        let problem = match self.get(&["exchanges", vhost, exchange]) {
            Ok(found) => return Ok(found),
            Err(problem) => problem,
        };
        let all = self.get(&["exchanges", vhost]).map_err(|_| problem)?;
        let named = |all: &[Value]| all.iter().find(|found| found["name"] == exchange).cloned();
        Ok(all.as_ref().and_then(Value::as_array).and_then(|all| named(all)))
    }

    /// `None` for what is not there.
    fn get(&self, path: &[&str]) -> Result<Option<Value>, String> {
        let path: String = path
            .iter()
            .map(|segment| format!("/{}", utf8_percent_encode(segment, NON_ALPHANUMERIC)))
            .collect();
        let url = format!("{}{path}", self.base);
        let mut answer = self
            .agent
            .get(&url)
            .header("authorization", &self.authorization)
            .call()
            .map_err(|error| format!("{url}: {error}"))?;
        match answer.status().as_u16() {
            404 => return Ok(None),
            200 => {}
            status => return Err(format!("{url}: status {status}")),
        }
        let text = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string();
        let text = text.map_err(|error| format!("{url}: {error}"))?;
        serde_json::from_str(&text).map(Some).map_err(|error| format!("{url}: {error}"))
    }
}

/// Whether a binding takes a key.
fn matches(kind: &str, binding: &str, key: &str) -> bool {
    match kind {
        "fanout" => true,
        "direct" => binding == key,
        "topic" => {
            let (pattern, words): (Vec<&str>, Vec<&str>) =
                (binding.split('.').collect(), key.split('.').collect());
            topic_matches(&pattern, &words)
        }
        _ => false,
    }
}

/// `*` is one word, `#` any number of them. Row by row, so that many `#` cost no more than their number.
fn topic_matches(pattern: &[&str], words: &[&str]) -> bool {
    // Whether the pattern so far takes the first so many words.
    let mut taken = vec![false; words.len() + 1];
    taken[0] = true;
    for part in pattern {
        if *part == "#" {
            let first = taken.iter().position(|&taken| taken).unwrap_or(taken.len());
            taken[first..].fill(true);
        } else {
            for end in (1..=words.len()).rev() {
                taken[end] = taken[end - 1] && (*part == "*" || *part == words[end - 1]);
            }
            taken[0] = false;
        }
    }
    taken[words.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_take_the_keys_that_rabbitmq_says() {
        for (kind, binding, key, takes) in [
            ("fanout", "", "anything", true),
            ("direct", "web", "web", true),
            ("direct", "web", "web.eu", false),
            ("topic", "web.*", "web.eu", true),
            ("topic", "web.*", "web", false),
            ("topic", "web.#", "web", true),
            ("topic", "#", "a.b.c", true),
            ("topic", "*.b.#.d", "a.b.c.c.d", true),
            ("topic", "*.b.#.d", "a.b.c", false),
            ("topic", "#.#.#.x", "a.b.c.d.e.f", false),
            ("headers", "", "x", false),
        ] {
            assert_eq!(matches(kind, binding, key), takes, "{kind} {binding} {key}");
        }
    }
}
