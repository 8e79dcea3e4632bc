//! TLS: the files of `tls_cert`, `tls_key` and `tls_client_ca`, and the handshakes with what is in
//! them.
//!
//! A reload reads all of them again, and replaces all that is in force or nothing: handshakes that
//! begin from then on use it, connections that stand know nothing of it. Sessions of TLS are not
//! resumed: connections live long, and so each client certificate is verified by what is in force.

mod name;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::config::Config;

/// What was wrong with a file, and what was expected of it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{setting}: cannot read `{}`: {why}; expected {}", .path.display(), expected(.setting))]
    Unreadable { setting: &'static str, path: PathBuf, why: io::Error },
    #[error("{setting}: `{}` has none: {why}; expected {}", .path.display(), expected(.setting))]
    NotPem { setting: &'static str, path: PathBuf, why: pem::Error },
    #[error("{setting}: cannot use `{}`: {why}; expected {}", .path.display(), expected(.setting))]
    Unusable { setting: &'static str, path: PathBuf, why: rustls::Error },
    #[error("tls_client_ca: cannot use `{}`: {why}; expected {}", .path.display(), expected("tls_client_ca"))]
    Verifier { path: PathBuf, why: VerifierBuilderError },
    #[error(
        "tls_cert, tls_key: `{}` and `{}` do not go together: {why}; expected the private key of the first \
         certificate", .certificate.display(), .key.display()
    )]
    Pair { certificate: PathBuf, key: PathBuf, why: rustls::Error },
}

fn expected(setting: &str) -> &'static str {
    match setting {
        "tls_cert" => "a PEM file of the certificate, then those that vouch for it, if any",
        "tls_key" => "a PEM file of the certificate's private key",
        _ => "a PEM file of the certificates that vouch for clients'",
    }
}

/// What is in force, and where it is read from.
pub(super) struct Tls {
    files: Files,
    in_force: RwLock<Arc<ServerConfig>>,
    reloading: Mutex<()>,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// A handshake that went well.
pub(super) struct Handshake {
    pub(super) stream: TlsStream<TcpStream>,
    /// Of the client certificate's subject, where one was shown.
    pub(super) common_name: Option<String>,
}

impl Tls {
    /// `None` where the settings name no certificate.
    pub(super) fn load(config: &Config) -> Result<Option<Self>, TlsError> {
        let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) else { return Ok(None) };
        let files = Files {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: config.tls_client_ca.clone(),
        };
        let in_force = RwLock::new(Arc::new(files.read()?));
        Ok(Some(Self { files, in_force, reloading: Mutex::default() }))
    }

    /// Reads the files again. Where one of them is broken, what was in force stays so.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        // One at a time: an older reading must not win over a newer one.
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let read = Arc::new(self.files.read()?);
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// The handshake, which may take that long.
    pub(super) async fn accept(&self, stream: TcpStream, time: Duration) -> io::Result<Handshake> {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone();
        let accepted = tokio::time::timeout(time, TlsAcceptor::from(in_force).accept(stream)).await;
        let stream = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let common_name = shown.and_then(name::common_name);
        Ok(Handshake { stream, common_name })
    }
}

impl Files {
    fn read(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates("tls_cert", &self.certificate)?;
        let key = read("tls_key", &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|why| TlsError::NotPem {
            setting: "tls_key",
            path: self.key.clone(),
            why,
        })?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|why| self.pair(why))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|why| TlsError::Verifier { path: path.clone(), why })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|why| self.pair(why))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn pair(&self, why: rustls::Error) -> TlsError {
        TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone(), why }
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls_client_ca", path)? {
        roots.add(certificate).map_err(|why| TlsError::Unusable {
            setting: "tls_client_ca",
            path: path.to_owned(),
            why,
        })?;
    }
    Ok(roots)
}

/// At least one.
fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let not_pem = |why| TlsError::NotPem { setting, path: path.to_owned(), why };
    let text = read(setting, path)?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(not_pem)?;
    if certificates.is_empty() { Err(not_pem(pem::Error::NoItemsFound)) } else { Ok(certificates) }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|why| TlsError::Unreadable { setting, path: path.to_owned(), why })
}
