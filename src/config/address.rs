//! Listening addresses in the configuration: `"127.0.0.1:8080"`, `"[::1]:8080"`.

use std::net::SocketAddr;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use serde::ser::Serializer;

const FORM: &str = "an IP address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"";

/// An address that has to be there.
pub(super) mod one {
    use super::{Deserializer, FORM, Serializer, SocketAddr, de, text};

    pub(crate) fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        let text = text(deserializer)?;
        text.parse().map_err(|_| de::Error::custom(format_args!("\"{text}\" is not {FORM}")))
    }
}

/// An address, or an empty string for none.
pub(super) mod optional {
    use super::{Deserializer, FORM, Serializer, SocketAddr, de, text};

    pub(crate) fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = text(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        let address = text.parse().map_err(|_| {
            de::Error::custom(format_args!("\"{text}\" is not {FORM}, nor empty (\"\" switches it off)"))
        })?;
        Ok(Some(address))
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer)
}
