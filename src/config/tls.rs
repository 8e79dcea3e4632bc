//! What the settings of TLS demand of each other. Whether their files are good is seen when they are
//! read.

use super::{Config, ConfigError, InForce, find};

pub(super) fn check(config: &Config, in_force: &InForce) -> Result<(), ConfigError> {
    let (has_cert, has_key) = (config.tls_cert.is_some(), config.tls_key.is_some());
    let needs = |setting: &'static str, expected: &str, got: &str| {
        let (expected, got) = (expected.to_owned(), got.to_owned());
        Err(ConfigError::Value { setting, expected, got, origin: in_force[setting].1.of(find(setting)) })
    };
    match (has_cert, has_key) {
        (true, false) => needs("tls_key", "the file of the private key of tls_cert", "none"),
        (false, true) => needs("tls_cert", "the file of the certificate of tls_key", "none"),
        (false, false) if config.tls_client_ca.is_some() => {
            needs("tls_client_ca", "none without tls_cert and tls_key", "one")
        }
        _ => Ok(()),
    }
}
