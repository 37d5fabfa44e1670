use std::{fmt, str::FromStr};

use percent_encoding::percent_decode_str;

/// Where a broker is and who we are there: `stomp://user:password@host:port/vhost`.
///
/// User, password and vhost are percent-decoded. Without a path the vhost is `/`, as with `amqp://` URLs; `/%2F` says
/// the same explicitly. The port defaults to 61613. Neither `Debug` nor `Display` shows the password.
///
/// ```
/// let url: stompwire::client::BrokerUrl = "stomp://app:p%40ss@rabbit.example:61613/shop".parse().unwrap();
/// assert_eq!((url.host(), url.port(), url.vhost()), ("rabbit.example", 61613, "shop"));
/// assert_eq!(url.to_string(), "stomp://app:***@rabbit.example:61613/shop");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    host: String,
    port: u16,
    login: Option<String>,
    passcode: Option<String>,
    vhost: String,
}

/// Why a text is no [`BrokerUrl`]. Never repeats the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// No URL at all.
    #[error("not a URL: {0}; write stomp://user:password@host:61613/vhost")]
    Malformed(String),
    /// Another scheme.
    #[error("the scheme is {0:?}; write stomp://user:password@host:61613/vhost")]
    Scheme(String),
    /// TLS, which this version does not offer.
    #[error("TLS ({0}://) is not supported by this version; write stomp://")]
    Tls(String),
    /// A path of more than one segment, or a query.
    #[error("after host and port only the vhost may follow; write a slash inside its name as %2F")]
    Vhost,
    /// Percent-encoded octets that are not UTF-8.
    #[error("the percent-encoded {0} is not UTF-8")]
    NotUtf8(&'static str),
}

/// STOMP's port at RabbitMQ and ActiveMQ.
const DEFAULT_PORT: u16 = 61613;

impl BrokerUrl {
    /// The host's name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The user, if given.
    #[must_use]
    pub fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }

    /// The password, if given.
    #[must_use]
    pub fn passcode(&self) -> Option<&str> {
        self.passcode.as_deref()
    }

    /// The virtual host.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// The same with another password, from a file for example.
    #[must_use]
    pub fn with_passcode(mut self, passcode: impl Into<String>) -> Self {
        self.passcode = Some(passcode.into());
        self
    }
}

impl FromStr for BrokerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let uri: http::Uri =
            text.parse().map_err(|error: http::uri::InvalidUri| UrlError::Malformed(error.to_string()))?;
        let missing = |what: &str| UrlError::Malformed(format!("there is no {what}"));
        match uri.scheme_str().ok_or_else(|| missing("scheme"))? {
            "stomp" => {}
            tls @ ("stomps" | "stomp+ssl" | "stomp+tls") => return Err(UrlError::Tls(tls.into())),
            other => return Err(UrlError::Scheme(other.into())),
        }
        let authority = uri.authority().ok_or_else(|| missing("host"))?;
        if authority.host().is_empty() {
            return Err(missing("host"));
        }
        let user_info = authority.as_str().rsplit_once('@').map(|(user_info, _)| user_info);
        let (login, passcode) = match user_info.map(|info| info.split_once(':').unwrap_or((info, ""))) {
            Some((login, passcode)) => {
                (Some(decode(login, "user")?), Some(decode(passcode, "password")?).filter(|p| !p.is_empty()))
            }
            None => (None, None),
        };
        let vhost = uri.path().strip_prefix('/').unwrap_or(uri.path());
        if vhost.contains('/') || uri.query().is_some() {
            return Err(UrlError::Vhost);
        }
        let vhost = if vhost.is_empty() { "/".into() } else { decode(vhost, "vhost")? };
        // `http` accepts a port that is no number by reporting none.
        let host_port = authority.as_str().rsplit('@').next().unwrap_or_default();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if host_port == authority.host() => DEFAULT_PORT,
            None => return Err(UrlError::Malformed("the port is not a number up to 65535".into())),
        };
        // An IPv6 address is written in brackets and connected to without them.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, login, passcode, vhost })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stomp://")?;
        match (&self.login, &self.passcode) {
            (Some(login), Some(_)) => write!(f, "{login}:***@")?,
            (Some(login), None) => write!(f, "{login}@")?,
            (None, _) => {}
        }
        let vhost = if self.vhost == "/" { "%2F" } else { &self.vhost };
        if self.host.contains(':') {
            write!(f, "[{}]:{}/{vhost}", self.host, self.port)
        } else {
            write!(f, "{}:{}/{vhost}", self.host, self.port)
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn decode(text: &str, what: &'static str) -> Result<String, UrlError> {
    Ok(percent_decode_str(text).decode_utf8().map_err(|_| UrlError::NotUtf8(what))?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_decoded_and_the_password_is_never_shown() {
        let table = [
            ("stomp://h", ("h", 61613, None, None, "/"), "stomp://h:61613/%2F"),
            ("stomp://h:1/", ("h", 1, None, None, "/"), "stomp://h:1/%2F"),
            ("stomp://u@h/%2F", ("h", 61613, Some("u"), None, "/"), "stomp://u@h:61613/%2F"),
            (
                "stomp://u:a%40b%3A@h:2/v%2Fw",
                ("h", 2, Some("u"), Some("a@b:"), "v/w"),
                "stomp://u:***@h:2/v/w",
            ),
            ("stomp://[::1]:3/x", ("::1", 3, None, None, "x"), "stomp://[::1]:3/x"),
        ];
        for (text, expected, shown) in table {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!(
                (url.host(), url.port(), url.login(), url.passcode(), url.vhost()),
                expected,
                "{text}"
            );
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn bad_urls_say_what_would_be_right_and_repeat_nothing() {
        let bad = [
            "",
            "stomp://",
            "localhost",
            "http://h",
            "stomps://h",
            "stomp://u:hunter2@h/a/b",
            "stomp://u:hunter2@h:99999",
            "stomp://h/%FF",
            "stomp://u:hunter2@h:port/",
            "stomp://h/v?x=hunter2",
        ];
        for text in bad {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
