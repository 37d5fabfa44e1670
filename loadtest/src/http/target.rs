//! Where the load goes: a URL taken apart, its host resolved, and only loopback unless asked otherwise.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
};

use url::{Host, Position, Url};

use crate::Error;

/// A server and a resource on it.
#[derive(Debug, Clone)]
pub struct Target {
    url: Url,
    /// Where to connect to.
    pub address: SocketAddr,
    /// Value of the `Host` field.
    pub host: String,
    /// Path and query as they go on the request line, ending in `?` or `&`.
    pub path_and_query: String,
}

impl Target {
    /// Takes a URL apart and resolves its host.
    ///
    /// # Errors
    /// [`Error::Argument`] for anything but `http` and `https`, for user names and fragments, for hosts that do not resolve, and
    /// for addresses outside loopback unless `allow_remote`.
    pub fn parse(text: &str, allow_remote: bool) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Argument(format!("{text}: {reason}"));
        let url = Url::parse(text).map_err(|error| refuse(format!("not a URL: {error}")))?;
        match url.scheme() {
            "http" | "https" => {}
            other => return Err(refuse(format!("scheme {other} is neither http nor https"))),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("a user name or password is not sent by beacons".to_owned()));
        }
        if url.fragment().is_some() {
            return Err(refuse("a fragment (#…) never reaches a server".to_owned()));
        }

        let port = url.port_or_known_default().unwrap_or(80);
        let addresses: Vec<SocketAddr> = match url.host() {
            Some(Host::Ipv4(ip)) => vec![SocketAddr::from((ip, port))],
            Some(Host::Ipv6(ip)) => vec![SocketAddr::from((ip, port))],
            Some(Host::Domain(name)) => (name, port)
                .to_socket_addrs()
                .map_err(|error| refuse(format!("host {name} does not resolve: {error}")))?
                .collect(),
            None => return Err(refuse("no host".to_owned())),
        };
        // IPv4 first: a server on "localhost" more often listens there alone than on ::1 alone.
        let address = addresses
            .iter()
            .find(|address| address.is_ipv4())
            .or(addresses.first())
            .copied()
            .ok_or_else(|| refuse("its host has no address".to_owned()))?;
        if !allow_remote && !address.ip().is_loopback() {
            return Err(refuse(format!(
                "{} is not a loopback address; load on another machine's server needs --allow-remote (and its owner's leave)",
                address.ip()
            )));
        }

        let host = url[Position::BeforeHost..Position::AfterPort].to_owned();
        let mut path_and_query = url[Position::BeforePath..Position::AfterQuery].to_owned();
        path_and_query.push(if url.query().is_some() { '&' } else { '?' });
        Ok(Self { url, address, host, path_and_query })
    }

    /// Whether TLS is spoken to it.
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The name, or the address, that its certificate has to be for.
    pub fn name(&self) -> &str {
        self.url.host_str().unwrap_or_default().trim_matches(['[', ']'])
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_addresses_hosts_and_paths() {
        let cases = [
            ("http://127.0.0.1:8080/b.gif", "127.0.0.1:8080", "127.0.0.1:8080", "/b.gif?"),
            ("http://127.0.0.1", "127.0.0.1:80", "127.0.0.1", "/?"),
            ("http://[::1]:81/b?site=7", "[::1]:81", "[::1]:81", "/b?site=7&"),
            ("https://localhost:8443/b", "127.0.0.1:8443", "localhost:8443", "/b?"),
            ("http://127.9.9.9:80/a b", "127.9.9.9:80", "127.9.9.9", "/a%20b?"),
        ];
        for (url, address, host, path) in cases {
            let target = Target::parse(url, false).unwrap();
            assert_eq!(target.address.to_string(), address, "{url}");
            assert_eq!(target.host, host, "{url}");
            assert_eq!(target.path_and_query, path, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_a_target_is_refused_with_the_reason() {
        let cases = [
            ("ftp://127.0.0.1/", "scheme ftp is neither http nor https"),
            ("http://u:p@127.0.0.1/", "user name"),
            ("http://127.0.0.1/#top", "fragment"),
            ("127.0.0.1:80", "not a URL"),
            ("http://192.0.2.1/", "--allow-remote"),
            ("http://0.0.0.0/", "--allow-remote"),
        ];
        for (url, reason) in cases {
            let error = Target::parse(url, false).unwrap_err();
            assert!(matches!(error, Error::Argument(_)));
            assert!(error.to_string().contains(reason), "{url}: {error}");
        }
        assert!(Target::parse("http://192.0.2.1/", true).is_ok());
    }
}
