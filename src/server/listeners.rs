//! Where the gateway listens, opened before it starts: what is wrong there, its user can mend.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use super::tls::{Tls, TlsError};
use super::unix::{self, SocketFile, UnixError};
use crate::config::Config;
use crate::reload::Reloadable;

/// Why the gateway cannot listen: one line each, with the setting.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("listen: cannot listen on {address}: {why} (--listen chooses another)")]
    Tcp { address: SocketAddr, why: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Unix(#[from] UnixError),
}

/// All that [`run`](super::run) listens on.
pub struct Listeners {
    pub(super) tcp: TcpListener,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) unix: Option<(UnixListener, SocketFile)>,
}

impl Listeners {
    /// Opens what the settings name.
    pub fn open(config: &Config) -> Result<Self, ListenError> {
        let tls = Tls::load(config)?.map(Arc::new);
        let address = config.listen;
        let tcp = TcpListener::bind(address).map_err(|why| ListenError::Tcp { address, why })?;
        let unix = config.unix.as_deref().map(|path| unix::open(path, config.unix_mode)).transpose()?;
        Ok(Self { tcp, tls, unix })
    }

    /// What of it can be read again.
    pub(super) fn reloadable(&self) -> Vec<Reloadable> {
        let tls = self
            .tls
            .clone()
            .map(|tls| Reloadable { name: "TLS certificate", reload: Box::new(move || Ok(tls.reload()?)) });
        tls.into_iter().collect()
    }
}
