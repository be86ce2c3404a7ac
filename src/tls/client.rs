//! TLS for the commands of our own that ask a server over HTTPS.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{server_name, words};

/// Whom a command trusts, and what it shows.
#[derive(Debug, Clone, Default)]
pub struct ApiFiles {
    /// PEM: authorities in place of the system's.
    pub ca: Option<PathBuf>,
    /// PEM: the certificate that is shown, and its key.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Settings for requests.
pub struct ApiTls(Arc<ClientConfig>);

impl ApiTls {
    /// Reads the files. Errs with a sentence that names the one that cannot be used.
    pub fn load(files: &ApiFiles) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match &files.ca {
            Some(file) => {
                let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
                for found in CertificateDer::pem_file_iter(file).map_err(|e| failed(&e))? {
                    roots.add(found.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
                }
                if roots.is_empty() {
                    return Err(failed(&"there is no certificate in it"));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let config = match (&files.cert, &files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let failed =
                    |file: &PathBuf, error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
                let chain = CertificateDer::pem_file_iter(cert).map_err(|e| failed(cert, &e))?;
                let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|e| failed(cert, &e))?;
                let private = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, &e))?;
                builder.with_client_auth_cert(chain, private).map_err(|e| failed(key, &e))?
            }
            _ => return Err("a client certificate and its key are needed together".to_owned()),
        };
        Ok(Self(Arc::new(config)))
    }

    /// Trusts the authorities of a PEM text; the system's, where it is empty.
    pub fn trusting(pem: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match pem.trim().is_empty() {
            true => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
            false => {
                for found in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let found = found.map_err(|error| error.to_string())?;
                    roots.add(found).map_err(|error| error.to_string())?;
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| error.to_string())?;
        Ok(Self(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
    }

    /// The handshake with the server that is called `host`.
    pub async fn stream(&self, stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, String> {
        let name = server_name(host)?;
        let handshake = TlsConnector::from(self.0.clone()).connect(name, stream);
        handshake.await.map_err(|error| format!("TLS handshake with {host}: {}", words::server(&error)))
    }
}
