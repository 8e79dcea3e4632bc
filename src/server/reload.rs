//! SIGHUP: reads anew what can be, without ending a connection.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::networker::entrance::Entrance;
use crate::reload::reload_all;

/// Reloads everything at each SIGHUP, for ever. Where there is nothing, the signal ends the process,
/// as it does by itself.
pub(super) async fn at_hangup(entrance: Arc<Entrance>) {
    if entrance.reloads.is_empty() {
        return;
    }
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return log::error!("SIGHUP cannot be caught: {error}"),
    };
    while hangups.recv().await.is_some() {
        log::info!("SIGHUP came");
        let entrance = entrance.clone();
        // A disk may take its time.
        let _ = tokio::task::spawn_blocking(move || reload_all(&entrance.reloads)).await;
    }
}
