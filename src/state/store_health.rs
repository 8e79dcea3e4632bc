//! Whether what has to be stored is stored: what the allocator tells, and operators ask.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A write that takes longer is told while it is still under way.
const LONG: Duration = Duration::from_secs(2);

/// How the store does. Nothing is wrong at first, and where everything is in memory.
#[derive(Debug, Default)]
pub struct StoreHealth {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failing: Option<String>,
    writing_since: Option<Instant>,
    failures: u64,
}

impl StoreHealth {
    /// A write begins.
    pub fn begin(&self, now: Instant) {
        self.state().writing_since = Some(now);
    }

    /// It is durable. Whether the one before failed.
    pub fn succeed(&self) -> bool {
        let mut state = self.state();
        state.writing_since = None;
        state.failing.take().is_some()
    }

    /// It failed, and is tried again. Whether that is news.
    pub fn fail(&self, why: String) -> bool {
        let mut state = self.state();
        state.writing_since = None;
        state.failures += 1;
        state.failing.replace(why.clone()) != Some(why)
    }

    /// Why nothing is granted now.
    pub fn trouble(&self, now: Instant) -> Option<String> {
        let state = self.state();
        let is_long = state.writing_since.is_some_and(|since| now.saturating_duration_since(since) > LONG);
        let long = || is_long.then(|| format!("a write to data_dir takes longer than {LONG:?}"));
        state.failing.clone().or_else(long)
    }

    /// How many writes have failed since the start of the process.
    pub fn failures(&self) -> u64 {
        self.state().failures
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_once_and_over_with_the_next_success() {
        let (health, now) = (StoreHealth::default(), Instant::now());
        assert_eq!(health.trouble(now), None);
        assert!(health.fail("the disk is full".to_owned()));
        health.begin(now);
        assert!(!health.fail("the disk is full".to_owned()), "the same again");
        assert_eq!(health.trouble(now).as_deref(), Some("the disk is full"));
        assert!(health.fail("the disk is gone".to_owned()));
        assert!(health.succeed());
        assert!(!health.succeed());
        assert_eq!((health.trouble(now), health.failures()), (None, 3));
    }

    #[test]
    fn a_write_that_does_not_end_is_told() {
        let (health, now) = (StoreHealth::default(), Instant::now());
        health.begin(now);
        assert_eq!(health.trouble(now + LONG), None);
        let trouble = health.trouble(now + LONG + Duration::from_millis(1)).unwrap();
        assert!(trouble.contains("takes longer than 2s"), "{trouble}");
        health.succeed();
        assert_eq!(health.trouble(now + 2 * LONG), None);
    }
}
