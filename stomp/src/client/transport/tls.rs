//! TLS by rustls: whom to trust, who we are, and the handshake.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tokio::{net::TcpStream, task::spawn_blocking};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer, ServerName,
            pem::{self, PemObject},
        },
    },
};

use super::{BrokerUrl, ConnectionError, TlsError, explain};

/// Whom to trust and who we are, for `stomp+ssl://` and `wss://` URLs.
///
/// The default trusts the authorities that the system trusts and shows no certificate. Whatever is set, a server is
/// trusted only with a valid certificate for the host of the URL; nothing switches that off. The versions are TLS 1.2
/// and 1.3.
///
/// Files are read anew for each connection, so a certificate that was renewed in place is taken up by the next one.
///
/// ```no_run
/// # use stompwire::client::{ConnectOptions, TlsOptions};
/// let mut options = ConnectOptions::default();
/// options.tls = TlsOptions::default()
///     .with_ca_file("/etc/rabbit/ca.pem")
///     .with_client_identity_file("/etc/rabbit/client.pem", "/etc/rabbit/client.key");
/// ```
#[derive(Clone, Default)]
pub struct TlsOptions {
    authorities: Vec<Pem>,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
}

/// Certificates or a key, in PEM (RFC 7468).
#[derive(Clone)]
enum Pem {
    Octets(Bytes),
    File(PathBuf),
}

impl TlsOptions {
    /// Trusts the certificates in this PEM, and no longer the system's authorities. Called again it adds to them. A
    /// server's self-signed certificate may be one, unless it is marked as an authority
    /// ([`CertificateFault::IsAuthority`](super::CertificateFault::IsAuthority)).
    #[must_use]
    pub fn with_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities.push(Pem::octets(pem));
        self
    }

    /// [`TlsOptions::with_ca_pem`] from a file.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities.push(Pem::File(path.into()));
        self
    }

    /// Shows this certificate to a server that asks for one: our own first, then those that lead to an authority which
    /// the server knows, and the private key (PKCS #8, PKCS #1 or SEC1, not encrypted).
    ///
    /// With RabbitMQ's `stomp.ssl_cert_login` the certificate is also the login; leave user and password out of the URL
    /// then.
    #[must_use]
    pub fn with_client_identity_pem(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((Pem::octets(chain), Pem::octets(key)));
        self
    }

    /// [`TlsOptions::with_client_identity_pem`] from files, which may be the same.
    #[must_use]
    pub fn with_client_identity_file(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(chain.into()), Pem::File(key.into())));
        self
    }

    /// Asks for this name (SNI, RFC 6066 section 3) and checks the certificate for it, instead of the URL's host: for a
    /// broker behind a tunnel or a forwarded port.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

/// Never shows a key or a certificate, only where they come from.
impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("authorities", &self.authorities)
            .field("identity", &self.identity)
            .field("server_name", &self.server_name)
            .finish()
    }
}

/// All that a handshake needs.
pub(super) struct Connector {
    config: ClientConfig,
    name: ServerName<'static>,
}

impl Connector {
    /// Reads and checks what the options name. Cancel safe.
    pub(super) async fn new(url: &BrokerUrl, options: &TlsOptions) -> Result<Self, ConnectionError> {
        let host = options.server_name.as_deref().unwrap_or(url.host());
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| TlsError::Options(format!("{host:?} is neither a DNS name nor an IP address")))?;
        let options = options.clone();
        let config = spawn_blocking(move || config(&options)).await.map_err(io::Error::other)??;
        Ok(Self { config, name })
    }

    /// Cancel safe: dropping the future closes the socket.
    pub(super) async fn shake_hands(self, tcp: TcpStream) -> Result<TlsStream<TcpStream>, ConnectionError> {
        TlsConnector::from(Arc::new(self.config)).connect(self.name, tcp).await.map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                TlsError::Closed.into()
            } else {
                explain(error)
            }
        })
    }
}

fn config(options: &TlsOptions) -> Result<ClientConfig, TlsError> {
    // Ours by name: a provider that other crates installed for the process, or a lack of one, changes nothing here.
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Options(error.to_string()))?
        .with_root_certificates(roots(&options.authorities)?);
    let Some((chain, key)) = &options.identity else { return Ok(builder.with_no_client_auth()) };
    let what = "the client certificate";
    let chain_der = chain.certificates(what)?;
    let key_der = PrivateKeyDer::from_pem_slice(&key.read("the private key")?)
        .map_err(|error| key.unusable("the private key", &explain_pem(&error)))?;
    builder.with_client_auth_cert(chain_der, key_der).map_err(|error| chain.unusable(what, &error))
}

fn roots(authorities: &[Pem]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if authorities.is_empty() {
        let found = rustls_native_certs::load_native_certs();
        // Systems carry some that nobody can parse; those are no reason to trust none.
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(TlsError::Options(format!(
                "this system has no certificate authorities{why}; give the broker's with TlsOptions::with_ca_file"
            )));
        }
    }
    for pem in authorities {
        let what = "the certificate authority";
        for certificate in pem.certificates(what)? {
            roots.add(certificate).map_err(|error| pem.unusable(what, &error))?;
        }
    }
    Ok(roots)
}

impl Pem {
    fn octets(pem: impl Into<Vec<u8>>) -> Self {
        Self::Octets(pem.into().into())
    }

    fn read(&self, what: &str) -> Result<Bytes, TlsError> {
        match self {
            Self::Octets(octets) => Ok(octets.clone()),
            Self::File(path) => {
                std::fs::read(path).map(Bytes::from).map_err(|error| self.unusable(what, &error))
            }
        }
    }

    /// At least one.
    fn certificates(&self, what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let pem = self.read(what)?;
        let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|error| self.unusable(what, &explain_pem(&error)))?;
        if found.is_empty() {
            return Err(self.unusable(what, &"it holds no PEM block BEGIN CERTIFICATE"));
        }
        Ok(found)
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::Octets(_) => None,
            Self::File(path) => Some(path),
        }
    }

    fn unusable(&self, what: &str, why: &dyn fmt::Display) -> TlsError {
        TlsError::Options(match self.path() {
            Some(path) => format!("{what} in {} is unusable: {why}", path.display()),
            None => format!("{what} is unusable: {why}"),
        })
    }
}

/// The parser's own words, unless they could quote what it read.
fn explain_pem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "it holds no PEM block of that kind",
        pem::Error::MissingSectionEnd { .. } => "a PEM block has no end",
        pem::Error::IllegalSectionStart { .. } => "a PEM block begins wrongly",
        pem::Error::Base64Decode(_) => "a PEM block is not base64",
        _ => "it is not PEM",
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Octets(_) => f.write_str("***"),
            Self::File(path) => path.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_say_which_and_why_and_quote_nothing() {
        let secret = "hunter2";
        let half = format!("-----BEGIN CERTIFICATE-----\n{secret}");
        let table = [
            (
                TlsOptions::default().with_ca_file("/nowhere/ca.pem"),
                "the certificate authority in /nowhere/ca.pem is unusable",
            ),
            (
                TlsOptions::default().with_ca_pem(secret),
                "the certificate authority is unusable: it holds no PEM block",
            ),
            (TlsOptions::default().with_ca_pem(half), "a PEM block has no end"),
            (
                TlsOptions::default().with_client_identity_file("/nowhere/c", "/nowhere/k"),
                "the client certificate in /nowhere/c is unusable",
            ),
        ];
        for (options, expected) in table {
            let error = config(&options).map(drop).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(expected) && !text.contains(secret), "{text}");
            assert!(!error.is_retryable());
            assert!(!format!("{options:?}").contains(secret), "{options:?}");
        }
    }

    #[tokio::test]
    async fn a_host_that_no_certificate_can_name_is_refused() {
        let url = "stomp+ssl://a..b/".parse().unwrap();
        let error = Connector::new(&url, &TlsOptions::default()).await.map(drop).unwrap_err();
        assert!(matches!(error, ConnectionError::Tls(TlsError::Options(_))), "{error}");
    }
}
