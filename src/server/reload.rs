//! SIGHUP: reads anew what can be, without ending a connection.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::networker::entrance::Entrance;
use crate::reload::reload_all;

/// Catches SIGHUP from now on, where there is something to reload; else it ends the process, as it does
/// by itself.
pub(super) fn catch(has_any: bool) -> Option<Signal> {
    let hangups = has_any.then(|| signal(SignalKind::hangup()))?;
    hangups.inspect_err(|error| log::error!("SIGHUP cannot be caught: {error}")).ok()
}

/// Reloads everything at each SIGHUP, for ever.
pub(super) async fn at_hangup(hangups: Option<Signal>, entrance: Arc<Entrance>) {
    let Some(mut hangups) = hangups else { return };
    while hangups.recv().await.is_some() {
        log::info!("SIGHUP came");
        let entrance = entrance.clone();
        // A disk may take its time.
        let _ = tokio::task::spawn_blocking(move || reload_all(&entrance.reloads)).await;
    }
}
