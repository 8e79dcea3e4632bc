//! SIGHUP: reads anew what can be, without ending a connection.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::networker::entrance::Entrance;
use crate::reload::reload_all;

/// What comes by SIGHUP.
pub(super) struct Hangups {
    signals: Signal,
    /// Whether there is something to reload.
    has_any: bool,
}

/// Catches SIGHUP from now on, also where there is nothing to reload: by itself it would end the process without a
/// drain, and whoever sends it need not know the settings.
pub(super) fn catch(has_any: bool) -> Option<Hangups> {
    let signals = signal(SignalKind::hangup());
    let signals = signals.inspect_err(|error| log::error!("SIGHUP cannot be caught: {error}")).ok()?;
    Some(Hangups { signals, has_any })
}

/// Reloads everything at each SIGHUP, for ever.
pub(super) async fn at_hangup(hangups: Option<Hangups>, entrance: Arc<Entrance>) {
    let Some(Hangups { mut signals, has_any }) = hangups else { return };
    while signals.recv().await.is_some() {
        if !has_any {
            log::info!(
                "SIGHUP came, and there is nothing to reload: neither credentials nor a TLS certificate"
            );
            continue;
        }
        log::info!("SIGHUP came");
        let entrance = entrance.clone();
        // A disk may take its time.
        let _ = tokio::task::spawn_blocking(move || reload_all(&entrance.reloads)).await;
    }
}
