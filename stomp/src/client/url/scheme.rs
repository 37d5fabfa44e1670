//! The schemes, and what this build can do of them.

use super::UrlError;

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

impl Scheme {
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
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

    pub(super) const fn name(self) -> &'static str {
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

    pub(super) const fn default_port(self) -> u16 {
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

    pub(super) const fn is_tls(self) -> bool {
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

    pub(super) const fn is_web_socket(self) -> bool {
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

#[cfg(test)]
mod tests {
    use crate::client::BrokerUrl;

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
}
