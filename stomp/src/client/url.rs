use std::{fmt, str::FromStr};

use percent_encoding::percent_decode_str;

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

/// What carries the octets. Only what this build can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Tcp,
    #[cfg(feature = "rustls")]
    Tls,
    #[cfg(feature = "ws")]
    WebSocket,
    #[cfg(all(feature = "rustls", feature = "ws"))]
    WebSocketOverTls,
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
    /// Most URLs in a list.
    pub const MAX_LIST: usize = 64;

    /// Several brokers of one cluster, in the order written: hosts that share all the rest,
    /// `stomp://user:password@a:61613,b:61613/vhost`, or whole URLs, `stomp://a/vhost,stomp+ssl://b/vhost`. Blanks
    /// around a comma do not count. Inside a vhost or path a comma is written `%2C`.
    ///
    /// # Errors
    /// [`UrlError`], for a list of more than [`BrokerUrl::MAX_LIST`] too.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, UrlError> {
        let mut urls = Vec::new();
        for whole in split_before_schemes(text) {
            let (before, hosts, after) = split_around_hosts(whole)?;
            for host in hosts.split(',') {
                if urls.len() == Self::MAX_LIST {
                    return Err(UrlError::List("more than 64 brokers in one list"));
                }
                urls.push(format!("{before}{}{after}", host.trim()).parse()?);
            }
        }
        Ok(urls)
    }

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

impl Scheme {
    fn parse(text: &str) -> Result<Self, UrlError> {
        match &*text.to_ascii_lowercase() {
            "stomp" => Ok(Self::Tcp),
            #[cfg(feature = "rustls")]
            "stomp+ssl" | "stomps" | "stomp+tls" => Ok(Self::Tls),
            #[cfg(not(feature = "rustls"))]
            "stomp+ssl" | "stomps" | "stomp+tls" => {
                Err(UrlError::Feature { scheme: "stomp+ssl", features: "feature `rustls`" })
            }
            #[cfg(feature = "ws")]
            "ws" => Ok(Self::WebSocket),
            #[cfg(not(feature = "ws"))]
            "ws" => Err(UrlError::Feature { scheme: "ws", features: "feature `ws`" }),
            #[cfg(all(feature = "rustls", feature = "ws"))]
            "wss" => Ok(Self::WebSocketOverTls),
            #[cfg(not(all(feature = "rustls", feature = "ws")))]
            "wss" => {
                Err(UrlError::Feature { scheme: "wss", features: "features `rustls` and `ws` together" })
            }
            _ => Err(UrlError::Scheme(text.into())),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "stomp",
            #[cfg(feature = "rustls")]
            Self::Tls => "stomp+ssl",
            #[cfg(feature = "ws")]
            Self::WebSocket => "ws",
            #[cfg(all(feature = "rustls", feature = "ws"))]
            Self::WebSocketOverTls => "wss",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            // RabbitMQ's and ActiveMQ's.
            Self::Tcp => 61613,
            #[cfg(feature = "rustls")]
            Self::Tls => 61614,
            // RFC 6455, section 3.
            #[cfg(feature = "ws")]
            Self::WebSocket => 80,
            #[cfg(all(feature = "rustls", feature = "ws"))]
            Self::WebSocketOverTls => 443,
        }
    }

    const fn is_tls(self) -> bool {
        match self {
            Self::Tcp => false,
            #[cfg(feature = "rustls")]
            Self::Tls => true,
            #[cfg(feature = "ws")]
            Self::WebSocket => false,
            #[cfg(all(feature = "rustls", feature = "ws"))]
            Self::WebSocketOverTls => true,
        }
    }

    const fn is_web_socket(self) -> bool {
        match self {
            Self::Tcp => false,
            #[cfg(feature = "rustls")]
            Self::Tls => false,
            #[cfg(feature = "ws")]
            Self::WebSocket => true,
            #[cfg(all(feature = "rustls", feature = "ws"))]
            Self::WebSocketOverTls => true,
        }
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

/// The list in pieces that begin with a scheme each.
fn split_before_schemes(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let text = rest?;
        let comma = text.match_indices(',').map(|(at, _)| at).find(|at| begins_with_scheme(&text[at + 1..]));
        rest = comma.map(|at| &text[at + 1..]);
        Some(text[..comma.unwrap_or(text.len())].trim())
    })
}

/// No user, password or host can look like this: a slash ends all of them.
fn begins_with_scheme(text: &str) -> bool {
    let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    text.trim_start().trim_start_matches(is_of_scheme).starts_with("://")
}

/// Scheme, user and password; the hosts with their ports; path and query.
fn split_around_hosts(url: &str) -> Result<(&str, &str, &str), UrlError> {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let after = url[authority..].find(['/', '?', '#']).map_or(url.len(), |at| authority + at);
    let hosts = url[authority..after].rfind('@').map_or(authority, |at| authority + at + 1);
    if url[authority..after].matches('@').count() > 1 {
        return Err(UrlError::List("user and password come once, before the first host; or list whole URLs"));
    }
    if url[after..].contains(',') {
        return Err(UrlError::List("all hosts come before the path; a comma in a vhost is written %2C"));
    }
    Ok((&url[..hosts], &url[hosts..after], &url[after..]))
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

    #[test]
    fn every_scheme_is_known_or_names_the_feature_it_needs() {
        let tls = cfg!(feature = "rustls");
        let ws = cfg!(feature = "ws");
        let table = [
            ("stomp", true, "stomp", 61613, ""),
            ("STOMP", true, "stomp", 61613, ""),
            ("stomp+ssl", tls, "stomp+ssl", 61614, "`rustls`"),
            ("stomps", tls, "stomp+ssl", 61614, "`rustls`"),
            ("stomp+tls", tls, "stomp+ssl", 61614, "`rustls`"),
            ("ws", ws, "ws", 80, "`ws`"),
            ("wss", tls && ws, "wss", 443, "`rustls` and `ws`"),
        ];
        for (scheme, known, name, port, feature) in table {
            match format!("{scheme}://u:hunter2@h").parse::<BrokerUrl>() {
                Ok(url) => {
                    assert!(known, "{scheme}");
                    assert_eq!((url.scheme(), url.port(), url.vhost()), (name, port, "/"));
                    assert_eq!(url.is_tls(), feature.contains("rustls"), "{scheme}");
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(!known && error.contains(feature) && error.contains(name), "{error}");
                }
            }
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

    #[test]
    fn a_list_is_hosts_that_share_the_rest_or_whole_urls() {
        let table: [(&str, &[&str]); 6] = [
            ("stomp://h/v", &["stomp://h:61613/v"]),
            (
                "stomp://u:p@a:1,b:2,[::1]/v",
                &["stomp://u:***@a:1/v", "stomp://u:***@b:2/v", "stomp://u:***@[::1]:61613/v"],
            ),
            ("stomp://a/v,stomp://u@b:2/", &["stomp://a:61613/v", "stomp://u@b:2/%2F"]),
            (
                " stomp://a , stomp://b, c/v ",
                &["stomp://a:61613/%2F", "stomp://b:61613/v", "stomp://c:61613/v"],
            ),
            // A comma in a password may stand as it is, in a vhost it is escaped.
            ("stomp://u:p,w@a,b/v%2Cw", &["stomp://u:***@a:61613/v,w", "stomp://u:***@b:61613/v,w"]),
            ("stomp://a-b.c,d", &["stomp://a-b.c:61613/%2F", "stomp://d:61613/%2F"]),
        ];
        for (text, expected) in table {
            let urls = BrokerUrl::parse_list(text).unwrap();
            assert_eq!(urls.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
        }
        assert_eq!(BrokerUrl::parse_list("stomp://u:p,w@a,b").unwrap()[1].passcode(), Some("p,w"));
    }

    #[test]
    fn a_bad_list_says_what_would_be_right_and_repeats_nothing() {
        let long = format!("stomp://u:hunter2@h{}", ",h".repeat(BrokerUrl::MAX_LIST));
        assert_eq!(BrokerUrl::parse_list(&long[..long.len() - 2]).unwrap().len(), BrokerUrl::MAX_LIST);
        let bad = [
            ("", "write stomp://"),
            (",", "write stomp://"),
            ("a,b", "write stomp://"),
            ("stomp://a,,b", "write stomp://"),
            ("stomp://a,", "write stomp://"),
            ("stomp://a/,", "before the path"),
            ("stomp://a/v,b:2", "before the path"),
            ("stomp://u:hunter2@a,u:hunter2@b/", "before the first host"),
            ("stomp://a,amqp://u:hunter2@b", "the scheme is \"amqp\""),
            (&long, "more than 64"),
        ];
        for (text, remedy) in bad {
            let error = BrokerUrl::parse_list(text).unwrap_err().to_string();
            assert!(error.contains(remedy), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
