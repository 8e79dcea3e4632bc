//! Whether others than this machine can reach the gateway, and what that then needs.

use super::{Config, ConfigError, InForce, find};

/// Without credentials, only those on this machine may reach it, unless that was asked for.
pub(super) fn check(config: &Config, in_force: &InForce) -> Result<(), ConfigError> {
    let origin = |name| in_force[name].1.of(find(name));
    if config.credentials.is_some() || config.expose_without_credentials {
        return Ok(());
    }
    if !is_on_loopback(config) {
        return Err(ConfigError::Exposed { got: config.listen.to_string(), origin: origin("listen") });
    }
    if !config.trusted_proxies.is_empty() {
        return Err(ConfigError::ExposedByProxy { origin: origin("trusted_proxies") });
    }
    Ok(())
}

/// What an operator has accepted, or may not have thought of.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let is_reachable = !is_on_loopback(config) || !config.trusted_proxies.is_empty();
    let open = (is_reachable && config.credentials.is_none()).then(|| {
        "expose_without_credentials: whoever reaches the gateway, web pages among them, can be any service, read \
         what is sent to it, and operate the gateway"
            .to_owned()
    });
    let clear =
        (!is_on_loopback(config) && config.credentials.is_some() && config.tls_cert.is_none()).then(|| {
            format!(
                "listen: tokens and messages travel to {} in the clear, as there is no tls_cert",
                config.listen
            )
        });
    open.into_iter().chain(clear).collect()
}

fn is_on_loopback(config: &Config) -> bool {
    config.listen.ip().to_canonical().is_loopback()
}
