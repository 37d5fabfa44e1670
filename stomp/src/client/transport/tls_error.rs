//! What can go wrong with TLS, and whose fault it was.

use std::{io, time::Duration};

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

use crate::proto::Culprit;

/// Why there is no TLS connection. Holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Our own [`TlsOptions`](super::TlsOptions) or the URL's host cannot be used; nothing was sent.
    #[error("{0}")]
    Options(String),
    /// The server's certificate is not one to trust; nothing of STOMP was sent.
    #[error("the server's certificate {0}")]
    ServerCertificate(CertificateFault),
    /// The server wants a client certificate and got none.
    #[error("the server wants a client certificate, and none is given: TlsOptions::with_client_identity_pem")]
    NoClientCertificate,
    /// The server refused our certificate, for the reason that its alert gives.
    #[error("the server refuses our client certificate (its alert: {0})")]
    ClientCertificate(String),
    /// The server refused the handshake or broke off, with this alert.
    #[error("the server broke off (its alert: {0}): does it support TLS 1.2 or 1.3?")]
    Refused(String),
    /// The server does not speak TLS, or not as it should.
    #[error("the server does not speak TLS on this port, or wrongly ({0})")]
    Protocol(String),
    /// The server closed the connection during the handshake.
    #[error("the server closed the connection during the handshake")]
    Closed,
    /// TCP was there, and the handshake was not done in time. The duration is the limit of the whole transport.
    #[error("no handshake within {0:?}")]
    Timeout(Duration),
}

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateFault {
    /// It leads to none of the authorities that are trusted.
    #[error(
        "was issued by none of the trusted authorities; the broker's own is given with TlsOptions::with_ca_file"
    )]
    UnknownIssuer,
    /// A signature does not fit: mostly one of an authority that has the name of a trusted one and another key.
    #[error("is signed with another key than that of the trusted authority; was the authority made anew?")]
    BadSignature,
    /// It is for other names than the URL's host.
    #[error("is not for {expected} but for {}", names(.presented))]
    WrongName {
        /// The name or address we asked for.
        expected: String,
        /// The names and addresses in the certificate.
        presented: Vec<String>,
    },
    /// It is no longer valid.
    #[error("expired {} ago", rough(.ago))]
    Expired {
        /// How long ago.
        ago: Duration,
    },
    /// It is not valid yet.
    #[error("is valid only in {}: is this machine's clock right?", rough(.ahead))]
    NotYetValid {
        /// How long until it is.
        ahead: Duration,
    },
    /// It is self-signed and marked as an authority (`basicConstraints` CA:TRUE, which `openssl req -x509` sets unless
    /// told otherwise). An authority's key signs certificates and is not for a server to hold, so rustls refuses it.
    #[error(
        "is marked as an authority's own; make it with basicConstraints CA:FALSE, or let that authority issue one"
    )]
    IsAuthority,
    /// Anything else.
    #[error("is not acceptable: {0}")]
    Other(String),
}

impl TlsError {
    /// At whom to look.
    #[must_use]
    pub const fn culprit(&self) -> Culprit {
        match self {
            Self::Options(_) | Self::NoClientCertificate | Self::ClientCertificate(_) => Culprit::Caller,
            Self::Timeout(_) => Culprit::Network,
            Self::ServerCertificate(_) | Self::Refused(_) | Self::Protocol(_) | Self::Closed => Culprit::Peer,
        }
    }

    /// Whether the same might work later. What an operator of the broker may be putting right this minute (a
    /// certificate that expired, for instance) counts as retryable: back off. Our own options do not.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(self, Self::Options(_))
    }

    /// The error of TLS in an [`io::Error`], where there is one.
    pub(super) fn within(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Error>().map(Self::of)
    }

    fn of(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::ServerCertificate(CertificateFault::of(error)),
            Error::NoCertificatesPresented => {
                Self::ServerCertificate(CertificateFault::Other("there is none".into()))
            }
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerIncompatible(_)
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord
            | Error::DecryptError => Self::Protocol(error.to_string()),
            other => Self::Options(other.to_string()),
        }
    }

    /// RFC 8446, section 6.2.
    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
                Self::NoClientCertificate
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => Self::ClientCertificate(format!("{alert:?}")),
            other => Self::Refused(format!("{other:?}")),
        }
    }
}

impl CertificateFault {
    fn of(error: &CertificateError) -> Self {
        let since = |from: u64, to: u64| Duration::from_secs(to.saturating_sub(from));
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::NotValidForNameContext { expected, presented } => {
                let presented = presented.iter().map(|name| bare(name).into()).collect();
                Self::WrongName { expected: expected.to_str().into_owned(), presented }
            }
            CertificateError::ExpiredContext { time, not_after } => {
                Self::Expired { ago: since(not_after.as_secs(), time.as_secs()) }
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { ahead: since(time.as_secs(), not_before.as_secs()) }
            }
            other => {
                let text = other.to_string();
                // A type of webpki's that rustls does not show.
                if text.contains("CaUsedAsEndEntity") { Self::IsAuthority } else { Self::Other(text) }
            }
        }
    }
}

/// `DnsName("a")` as rustls writes it is `a`, and `IpAddress(::1)` is `::1`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn names(names: &[String]) -> String {
    /// A certificate may hold thousands, and messages are read by people.
    const SHOWN: usize = 8;
    match names.len() {
        0 => "no name at all".into(),
        1..=SHOWN => names.join(", "),
        len => format!("{} and {} more", names[..SHOWN].join(", "), len - SHOWN),
    }
}

/// A duration in the unit in which certificates are thought of.
fn rough(duration: &Duration) -> String {
    match duration.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_culprit_and_only_our_own_options_are_final() {
        let table = [
            (
                TlsError::of(&Error::AlertReceived(AlertDescription::CertificateRequired)),
                "wants a client certificate",
            ),
            (
                TlsError::of(&Error::AlertReceived(AlertDescription::UnknownCA)),
                "our client certificate (its alert: UnknownCA)",
            ),
            (
                TlsError::of(&Error::AlertReceived(AlertDescription::ProtocolVersion)),
                "its alert: ProtocolVersion",
            ),
            (
                TlsError::ServerCertificate(CertificateFault::Expired {
                    ago: Duration::from_secs(3 * 86_400),
                }),
                "the server's certificate expired 3 days ago",
            ),
            (
                TlsError::ServerCertificate(CertificateFault::NotYetValid { ahead: Duration::from_secs(90) }),
                "the server's certificate is valid only in 90 s: is this machine's clock right?",
            ),
            (
                TlsError::ServerCertificate(CertificateFault::WrongName {
                    expected: "a".into(),
                    presented: vec![],
                }),
                "is not for a but for no name at all",
            ),
        ];
        for (error, text) in table {
            assert!(error.to_string().contains(text), "{error}");
            assert!(error.is_retryable());
        }
        assert!(!TlsError::Options("x".into()).is_retryable());
    }

    #[test]
    fn an_error_of_the_network_is_not_one_of_tls() {
        assert_eq!(TlsError::within(&io::ErrorKind::ConnectionReset.into()), None);
        assert_eq!(TlsError::within(&io::Error::other("x")), None);
    }
}
