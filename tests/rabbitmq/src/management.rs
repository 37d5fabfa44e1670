//! The management API over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

use crate::error::Error;
use crate::node::GUEST;

const LIMIT: Duration = Duration::from_secs(30);
/// Messages are read through the API, and RabbitMQ allows 128 MiB for one.
const LARGEST_ANSWER: u64 = 1 << 30;

/// RFC 3986 leaves these alone everywhere.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A client of one node's management API.
#[derive(Debug)]
pub(crate) struct Management {
    agent: Agent,
    address: SocketAddr,
    authorization: String,
}

impl Management {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(LIMIT))
            .http_status_as_error(false)
            // A connection from before a restart of the broker must not be used after it.
            .max_idle_connections(0)
            .proxy(None)
            .build();
        let authorization = format!("Basic {}", STANDARD.encode(format!("{GUEST}:{GUEST}")));
        Self { agent: config.into(), address, authorization }
    }

    pub(crate) fn put(&self, path: &[&str], body: &Value) -> Result<(), Error> {
        self.request("PUT", path, Some(body)).map(drop)
    }

    pub(crate) fn post(&self, path: &[&str], body: &Value) -> Result<Value, Error> {
        self.request("POST", path, Some(body))
    }

    pub(crate) fn delete(&self, path: &[&str]) -> Result<(), Error> {
        self.request("DELETE", path, None).map(drop)
    }

    fn request(&self, method: &'static str, path: &[&str], body: Option<&Value>) -> Result<Value, Error> {
        let path: String =
            ["api"].iter().chain(path).map(|segment| format!("/{}", percent_encoded(segment))).collect();
        let failed = |status, reason| Error::Management { method, path: path.clone(), status, reason };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .body(body.map(Value::to_string).unwrap_or_default())
            .map_err(|error| failed(None, error.to_string()))?;
        let mut answer = self.agent.run(request).map_err(|error| failed(None, error.to_string()))?;
        let status = answer.status();
        let text = answer
            .body_mut()
            .with_config()
            .limit(LARGEST_ANSWER)
            .read_to_string()
            .map_err(|error| failed(Some(status.as_u16()), error.to_string()))?;
        if !status.is_success() {
            return Err(failed(Some(status.as_u16()), format!("{status} {text}")));
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text)
            .map_err(|error| failed(Some(status.as_u16()), format!("{error} in {text}")))
    }
}

/// `text` as one segment of a path or of the user part of a URL.
pub(crate) fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}
