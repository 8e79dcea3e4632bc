//! One log line for a burst of refusals, at most once a second for each connection.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::protocol::error::ErrorCode;
use crate::protocol::name::Name;

const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// What was refused and not logged yet.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    by_code: BTreeMap<ErrorCode, u64>,
    dead: u64,
    logged: Option<Instant>,
}

impl Refusals {
    pub(crate) fn note(&mut self, source: &Name, code: ErrorCode) {
        *self.by_code.entry(code).or_default() += 1;
        log::debug!("a message of {source} was refused: {}", code.as_str());
    }

    pub(crate) fn note_dead(&mut self) {
        self.dead += 1;
    }

    /// Logs what was noted, if the last time is long enough ago.
    pub(crate) fn log(&mut self, source: &Name) {
        if self.by_code.is_empty() || self.logged.is_some_and(|logged| logged.elapsed() < LOG_INTERVAL) {
            return;
        }
        self.logged = Some(Instant::now());
        let codes: Vec<String> =
            self.by_code.iter().map(|(code, count)| format!("{count} {}", code.as_str())).collect();
        log::info!("messages of {source} were refused: {}", codes.join(", "));
        if self.dead > 0 {
            log::warn!(
                "{} of these are dead: the mailbox of {source} had no room for their ERRORs",
                self.dead
            );
        }
        self.by_code.clear();
        self.dead = 0;
    }
}
