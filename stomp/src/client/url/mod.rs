mod list;
mod scheme;

use std::{fmt, str::FromStr};

use percent_encoding::percent_decode_str;

pub(crate) use scheme::Scheme;

/// Where a broker is, how it is reached and who we are there.
///
/// | URL | transport | port | feature |
/// |---|---|---|---|
/// | `stomp://user:password@host:port/vhost` | TCP | 61613 | |
/// | `stomp+ssl://…/vhost`, also `stomps`, `stomp+tls` | TLS | 61614 | `rustls` |
/// | `ws://user:password@host:port/path?vhost=NAME` | WebSocket | 80 | `ws` |
/// | `wss://…/path?vhost=NAME` | WebSocket over TLS | 443 | `rustls`, `ws` |
///
/// User, password and vhost are percent-decoded. Without a vhost it is `/`, as with `amqp://` URLs; `/%2F` says the same
/// explicitly. The path of a WebSocket is the one of the HTTP request, which is why the vhost is a query there; without
/// one it is RabbitMQ's, `/ws`. RabbitMQ listens for WebSocket on port 15674, with TLS on 15673: write them.
/// Neither `Debug` nor `Display` shows the password.
///
/// Over WebSocket, mind three habits of RabbitMQ (3.10.8): it ends a connection on which nothing came for 60 s
/// (`web_stomp.cowboy_opts.idle_timeout`); it also ends one that it has to slow down if the client promised heart-beats,
/// so a fast publisher promises none ([`HeartBeat::send`](crate::proto::HeartBeat::send)); and it sends text, which fails
/// on bodies that are not UTF-8 unless `web_stomp.ws_frame = binary` is set.
///
/// ```
/// let url: stompwire::client::BrokerUrl = "stomp://app:p%40ss@rabbit.example:61613/shop".parse().unwrap();
/// assert_eq!((url.host(), url.port(), url.vhost()), ("rabbit.example", 61613, "shop"));
/// assert_eq!(url.to_string(), "stomp://app:***@rabbit.example:61613/shop");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    scheme: Scheme,
    host: String,
    port: u16,
    login: Option<String>,
    passcode: Option<String>,
    vhost: String,
    /// Of the HTTP request; empty where there is none.
    path: String,
}

/// Why a text is no [`BrokerUrl`]. Never repeats the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// No URL at all.
    #[error("not a URL: {0}; write stomp://user:password@host:61613/vhost")]
    Malformed(String),
    /// Another scheme.
    #[error(
        "the scheme is {0:?}; write stomp://, stomp+ssl://, ws:// or wss://, then user:password@host:port"
    )]
    Scheme(String),
    /// A scheme that this build was made without.
    #[error(
        "{scheme}:// needs stompwire's {features}, and this program was built without; switch it on in Cargo.toml"
    )]
    Feature {
        /// The scheme of the URL.
        scheme: &'static str,
        /// What to switch on.
        features: &'static str,
    },
    /// A path of more than one segment, or a query.
    #[error(
        "after host and port only the vhost may follow; write a slash inside its name as %2F, an @ as %40"
    )]
    Vhost,
    /// A WebSocket's query that is not the vhost.
    #[error("the query of a WebSocket URL is ?vhost=NAME and nothing else")]
    Query,
    /// A list where one URL belongs, or one that is ambiguous.
    #[error("{0}")]
    List(&'static str),
    /// Percent-encoded octets that are not UTF-8.
    #[error("the percent-encoded {0} is not UTF-8")]
    NotUtf8(&'static str),
}

impl BrokerUrl {
    /// The scheme; of several names for the same the first in the table above.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        self.scheme.name()
    }

    /// Whether everything, the password included, goes through TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.scheme.is_tls()
    }

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

    pub(crate) const fn transport(&self) -> Scheme {
        self.scheme
    }

    /// The path of the HTTP request.
    #[cfg(feature = "ws")]
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Host and port as an HTTP request and a URL write them.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// What the WebSocket handshake asks for.
    #[cfg(feature = "ws")]
    pub(crate) fn http_uri(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.authority(), self.path())
    }
}

impl FromStr for BrokerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.contains('#') {
            // `http` would cut it off, and with it the host, had it been part of a password.
            return Err(UrlError::Malformed("a # is written %23".into()));
        }
        let uri: http::Uri =
            text.parse().map_err(|error: http::uri::InvalidUri| UrlError::Malformed(error.to_string()))?;
        let missing = |what: &str| UrlError::Malformed(format!("there is no {what}"));
        let scheme = Scheme::parse(uri.scheme_str().ok_or_else(|| missing("scheme"))?)?;
        let authority = uri.authority().ok_or_else(|| missing("host"))?;
        if authority.host().is_empty() {
            return Err(missing("host"));
        }
        if authority.host().contains(',') {
            return Err(UrlError::List(
                "several hosts where one belongs; a list is for BrokerUrl::parse_list",
            ));
        }
        let user_info = authority.as_str().rsplit_once('@').map(|(user_info, _)| user_info);
        let (login, passcode) = match user_info.map(|info| info.split_once(':').unwrap_or((info, ""))) {
            Some((login, passcode)) => {
                (Some(decode(login, "user")?), Some(decode(passcode, "password")?).filter(|p| !p.is_empty()))
            }
            None => (None, None),
        };
        // What an unescaped slash in a password makes of the URL: the rest of it must not become a vhost, nor be shown.
        if uri.path().contains('@') {
            return Err(UrlError::Vhost);
        }
        let (vhost, path) = if scheme.is_web_socket() {
            let path = if uri.path().len() > 1 { uri.path() } else { DEFAULT_PATH };
            (vhost_of_query(uri.query())?, path.into())
        } else {
            let vhost = uri.path().strip_prefix('/').unwrap_or(uri.path());
            if vhost.contains('/') || uri.query().is_some() {
                return Err(UrlError::Vhost);
            }
            (vhost, String::new())
        };
        let vhost = if vhost.is_empty() { "/".into() } else { decode(vhost, "vhost")? };
        // `http` accepts a port that is no number by reporting none.
        let host_port = authority.as_str().rsplit('@').next().unwrap_or_default();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if host_port == authority.host() => scheme.default_port(),
            None => return Err(UrlError::Malformed("the port is not a number up to 65535".into())),
        };
        // An IPv6 address is written in brackets and connected to without them.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { scheme, host, port, login, passcode, vhost, path })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        match (&self.login, &self.passcode) {
            (Some(login), Some(_)) => write!(f, "{login}:***@")?,
            (Some(login), None) => write!(f, "{login}@")?,
            (None, _) => {}
        }
        let before = if self.scheme.is_web_socket() { "?vhost=" } else { "/" };
        let vhost = if self.vhost == "/" { "%2F" } else { &self.vhost };
        write!(f, "{}{}{before}{vhost}", self.authority(), self.path)
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

/// RabbitMQ's.
const DEFAULT_PATH: &str = "/ws";

fn vhost_of_query(query: Option<&str>) -> Result<&str, UrlError> {
    let Some(query) = query else { return Ok("") };
    query.strip_prefix("vhost=").filter(|vhost| !vhost.contains(['&', '@'])).ok_or(UrlError::Query)
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
            ("", "write stomp://"),
            ("stomp://", "write stomp://"),
            ("localhost", "write stomp://"),
            ("http://h", "the scheme is \"http\""),
            ("stomp://u:hunter2@h/a/b", "only the vhost"),
            ("stomp://u:hunter2@h:99999", "up to 65535"),
            ("stomp://h/%FF", "the percent-encoded vhost"),
            ("stomp://u:hunter2@h:port/", "up to 65535"),
            ("stomp://h/v?x=hunter2", "only the vhost"),
            // Octets of a password that belong escaped.
            ("stomp://u:1#hunter2@h/", "%23"),
            ("stomp://u:1/hunter2@h", "@ as %40"),
            ("stomp://u:1?hunter2@h", "only the vhost"),
            ("stomp://u:hunter2@a,b/v", "parse_list"),
        ];
        for (text, remedy) in bad {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(error.contains(remedy), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[cfg(feature = "ws")]
    #[test]
    fn of_a_web_socket_the_path_is_https_and_the_vhost_a_query() {
        let table = [
            ("ws://u:p@h:15674/ws?vhost=a%2Fb", "a/b", "ws://h:15674/ws", "ws://u:***@h:15674/ws?vhost=a/b"),
            ("ws://h", "/", "ws://h:80/ws", "ws://h:80/ws?vhost=%2F"),
            ("ws://h/?vhost=", "/", "ws://h:80/ws", "ws://h:80/ws?vhost=%2F"),
            ("ws://[::1]:1/a/b?vhost=%2F", "/", "ws://[::1]:1/a/b", "ws://[::1]:1/a/b?vhost=%2F"),
        ];
        for (text, vhost, uri, shown) in table {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!((url.vhost(), &*url.http_uri(), &*url.to_string()), (vhost, uri, shown));
        }
        for query in ["x=1", "vhost", "vhost=a&x=1", "vhost=a&vhost=b", "", "VHOST=a"] {
            let error = format!("ws://h/ws?{query}").parse::<BrokerUrl>().unwrap_err();
            assert_eq!(error, UrlError::Query, "{query}");
        }
    }
}
