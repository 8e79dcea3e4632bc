//! Certificates of a test's own authority, and clients that trust it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const DAY: Duration = Duration::from_hours(24);

/// An authority, and the directory that it writes its certificates to.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// A certificate and its key, as files.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the test's authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, directory: tempfile::tempdir().unwrap() };
        fs::write(authority.file(), authority.issuer.pem()).unwrap();
        authority
    }

    /// The authority's own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.path("authority.pem")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A server's certificate for 127.0.0.1, good for a day.
    pub(crate) fn server(&self, name: &str) -> Pair {
        self.issue(name, ExtendedKeyUsagePurpose::ServerAuth, SystemTime::now() + DAY)
    }

    /// One that has expired.
    pub(crate) fn expired_server(&self, name: &str) -> Pair {
        self.issue(name, ExtendedKeyUsagePurpose::ServerAuth, SystemTime::now() - DAY)
    }

    /// A client's certificate, whose common name is `name`.
    pub(crate) fn client(&self, name: &str) -> Pair {
        self.issue(name, ExtendedKeyUsagePurpose::ClientAuth, SystemTime::now() + DAY)
    }

    /// One that has expired.
    pub(crate) fn expired_client(&self, name: &str) -> Pair {
        self.issue(name, ExtendedKeyUsagePurpose::ClientAuth, SystemTime::now() - DAY)
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose, until: SystemTime) -> Pair {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages.push(usage);
        params.not_before = (until - 2 * DAY).into();
        params.not_after = until.into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair =
            Pair { certificate: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) };
        fs::write(&pair.certificate, certificate.pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    /// A client that trusts this authority, and shows that certificate.
    pub(crate) fn trusting(&self, shown: Option<&Pair>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match shown {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_file(&pair.certificate).unwrap()],
                    PrivateKeyDer::from_pem_file(&pair.key).unwrap(),
                )
                .unwrap(),
        })
    }
}

impl Pair {
    /// The flags that make a gateway use it.
    pub(crate) fn flags(&self) -> [String; 2] {
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        [flag("tls-cert", &self.certificate), flag("tls-key", &self.key)]
    }

    /// Puts this pair where the other is.
    pub(crate) fn replace(&self, other: &Self) {
        fs::copy(&self.certificate, &other.certificate).unwrap();
        fs::copy(&self.key, &other.key).unwrap();
    }
}
