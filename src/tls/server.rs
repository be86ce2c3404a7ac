//! What a TLS listener shows and whom it lets in: a certificate, and where wanted the authorities of its clients.
//!
//! All files are read aside and taken together, or none: a file that is missing or wrong leaves what was there. Whoever is
//! connected is judged anew by what is there then ([`Session::expelled`]): a client whose certificate was revoked loses its
//! connection, the others notice nothing. With client certificates no session is resumed, since a resumed one is not
//! verified.
//!
//! With lists of revoked certificates, each certificate of a client's chain needs a list of its issuer: one that nobody
//! answers for is refused, as OpenSSL and nginx do it. A list that is out of date is used on with a warning: it still names
//! whom to refuse, and refusing everybody because a download failed would be a fault of its own.
//!
//! HTTP/1.1 alone is offered (RFC 7301): every client of Consul's API speaks it, and HTTP/2 would need limits of its own on
//! streams, resets and idle connections.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::words::client;
use super::{subject, validity};
use crate::model::private;

/// Where the files of a listener are, and the least version that is spoken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// PEM: the certificate, then those between it and its authority.
    pub cert: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// PEM: the authorities of clients. Where it is absent, no client is asked for a certificate.
    pub client_ca: Option<PathBuf>,
    /// PEM: lists of certificates that the authorities revoked (RFC 5280 section 5).
    pub client_crl: Option<PathBuf>,
    pub min_version: Version,
}

/// The least version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    #[default]
    Tls12,
    Tls13,
}

/// What is wrong with a file, with its name.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", file.display())]
pub struct FileError {
    file: PathBuf,
    reason: String,
}

/// What the files said when they were read.
pub struct Loaded {
    config: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// What is not wrong, but not right either: one sentence each.
    pub warnings: Vec<String>,
}

impl Files {
    /// Reads all of them. Errs with the first that cannot be used; nothing else is touched.
    pub fn load(&self) -> Result<Loaded, FileError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut warnings = Vec::new();
        let chain: Vec<CertificateDer<'static>> = all(&self.cert, "CERTIFICATE")?;
        if let Some(first) = chain.first() {
            warnings.extend(dates(&self.cert, "the certificate", validity::certificate(first)));
        }
        let key = key(&self.key)?;
        let ours = nix::unistd::geteuid().as_raw();
        let opened = File::open(&self.key).and_then(|file| file.metadata()).ok();
        if let Some(remedy) = opened.and_then(|data| private::remedy(&data, ours)) {
            warnings.push(format!("{}, the certificate's key, {remedy}", self.key.display()));
        }
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                let why = format!("this key does not belong to the certificate in {}", self.cert.display());
                wrong(&self.key, why)
            }
            Error::InvalidCertificate(error) => wrong(&self.cert, format!("not a certificate: {error}")),
            error => wrong(&self.key, format!("the key cannot be used: {error}")),
        })?;
        let clients = self.clients(&provider, &mut warnings)?;
        let versions: &[_] = match self.min_version {
            Version::Tls12 => &[&TLS13, &TLS12],
            Version::Tls13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.map_err(|error| wrong(&self.cert, error.to_string()))?;
        let builder = match &clients {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if clients.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Loaded { config: Arc::new(config), clients, warnings })
    }

    fn clients(
        &self,
        provider: &Arc<rustls::crypto::CryptoProvider>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, FileError> {
        let Some(file) = &self.client_ca else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for authority in all::<CertificateDer<'static>>(file, "CERTIFICATE")? {
            warnings.extend(dates(file, "an authority's certificate", validity::certificate(&authority)));
            roots.add(authority).map_err(|error| wrong(file, format!("not an authority: {error}")))?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        if let Some(file) = &self.client_crl {
            let lists = all::<CertificateRevocationListDer<'static>>(file, "X509 CRL")?;
            for list in &lists {
                warnings.extend(dates(file, "a list of revoked certificates", validity::revocations(list)));
            }
            builder = builder.with_crls(lists);
        }
        builder.build().map(Some).map_err(|error| match &self.client_crl {
            // RFC 5280 section 5.1.2.1; OpenSSL writes older ones where its configuration says nothing of extensions.
            Some(list) => wrong(
                list,
                format!(
                    "it cannot be used: {error} (lists have to be of version 2, with a number: `openssl ca` needs crlnumber \
                     and crl_extensions)"
                ),
            ),
            None => wrong(file, format!("it cannot be used: {error}")),
        })
    }
}

fn wrong(file: &Path, reason: impl Into<String>) -> FileError {
    FileError { file: file.to_owned(), reason: reason.into() }
}

/// Everything of one kind in a PEM file: at least one. `label` is what stands behind BEGIN.
fn all<T: PemObject>(file: &Path, label: &str) -> Result<Vec<T>, FileError> {
    let unreadable = |error: rustls::pki_types::pem::Error| match error {
        rustls::pki_types::pem::Error::Io(error) => wrong(file, format!("cannot be read: {error}")),
        error => wrong(file, format!("this is not PEM: {error}")),
    };
    let found = T::pem_file_iter(file).map_err(unreadable)?.collect::<Result<Vec<_>, _>>();
    match found.map_err(unreadable)? {
        found if found.is_empty() => {
            Err(wrong(file, format!("there is no \"-----BEGIN {label}-----\" in it")))
        }
        found => Ok(found),
    }
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    use rustls::pki_types::pem::Error as Pem;
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        Pem::Io(error) => wrong(file, format!("cannot be read: {error}")),
        Pem::NoItemsFound => {
            let why =
                "there is no private key in it (an encrypted one has to be decrypted first: openssl pkey)";
            wrong(file, why)
        }
        error => wrong(file, format!("this is not PEM: {error}")),
    })
}

/// A warning where something is not valid now, or not for long.
fn dates(file: &Path, what: &str, times: Option<validity::Times>) -> Option<String> {
    const SOON_SECS: u64 = 7 * 86_400;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let validity::Times { from, until } = times?;
    let (file, days) = (file.display(), |secs: u64| secs / 86_400);
    if now < from {
        return Some(format!(
            "{file}: {what} is valid only in {} days (is a clock wrong?)",
            days(from - now)
        ));
    }
    match until? {
        until if until < now => Some(format!("{file}: {what} expired {} days ago", days(now - until))),
        until if until - now < SOON_SECS && until - from > 2 * SOON_SECS => {
            Some(format!("{file}: {what} expires in {} days", days(until - now)))
        }
        _ => None,
    }
}

/// A listener's settings, which can be replaced while it listens.
pub struct Server {
    current: watch::Sender<Arc<Loaded>>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Refused {
    /// The client's certificate is on a list of revoked ones.
    Revoked,
    /// All else, in words.
    Because(String),
}

/// A connection's settings, and who is at its other end.
pub struct Session {
    settings: watch::Receiver<Arc<Loaded>>,
    /// The client's certificate first.
    chain: Vec<CertificateDer<'static>>,
}

impl Server {
    pub fn new(loaded: Loaded) -> Self {
        Self { current: watch::Sender::new(Arc::new(loaded)) }
    }

    /// For connections from now on, and to judge those by that are there.
    pub fn replace(&self, loaded: Loaded) {
        self.current.send_replace(Arc::new(loaded));
    }

    /// The handshake. No time limit of its own.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<(TlsStream<S>, Session), Refused> {
        let mut settings = self.current.subscribe();
        let config = settings.borrow_and_update().config.clone();
        match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => {
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let chain = chain.iter().cloned().map(CertificateDer::into_owned).collect();
                Ok((stream, Session { settings, chain }))
            }
            Err(error) => Err(refused(&error)),
        }
    }
}

impl Session {
    /// Whom the client's certificate is of.
    pub fn subject(&self) -> Option<String> {
        subject::subject(self.chain.first()?)
    }

    /// Waits until the client may not stay: what is read later does not let it in.
    pub async fn expelled(&mut self) -> Refused {
        loop {
            if self.settings.changed().await.is_err() {
                // The listener is gone; its connections end as such.
                std::future::pending::<()>().await;
            }
            let loaded = self.settings.borrow_and_update().clone();
            if let Err(why) = recheck(&loaded, &self.chain) {
                return why;
            }
        }
    }
}

fn recheck(loaded: &Loaded, chain: &[CertificateDer<'static>]) -> Result<(), Refused> {
    let Some(verifier) = &loaded.clients else { return Ok(()) };
    let Some((shown, between)) = chain.split_first() else {
        return Err(Refused::Because("the client showed no certificate, which is required now".to_owned()));
    };
    match verifier.verify_client_cert(shown, between, UnixTime::now()) {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(CertificateError::Revoked)) => Err(Refused::Revoked),
        Err(error) => Err(Refused::Because(client(&error))),
    }
}

fn refused(error: &io::Error) -> Refused {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::Revoked)) => Refused::Revoked,
        Some(error) => Refused::Because(client(error)),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Refused::Because("the client closed the connection".to_owned())
        }
        None => Refused::Because(error.to_string()),
    }
}
