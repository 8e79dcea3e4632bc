//! A gateway to test, and a service at the level of frames to test it with.

mod certificates;
mod discord;
mod events;
mod gateway;
mod network;
pub(crate) mod secrets;
mod service;
mod wire;

use std::time::Duration;

pub(crate) use self::certificates::{Authority, Pair};
pub(crate) use self::discord::{discord_of, discord_unauthorized, token_file};
pub(crate) use self::events::events;
pub(crate) use self::gateway::Gateway;
pub(crate) use self::network::{Host, Network};
pub(crate) use self::service::{Frame, Message, Service};
pub(crate) use self::wire::Wire;

/// The longest that any test waits for something that should happen soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Checks again and again until `found` finds something; `what` is told where it does not.
pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
