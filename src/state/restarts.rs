//! How often an actor may crash before it is given up (Erlang/OTP calls this restart intensity).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// More restarts than this …
const MAX_RESTARTS: usize = 5;

/// … in this time are too many.
const WITHIN: Duration = Duration::from_secs(10);

/// One actor's restarts.
#[derive(Debug, Default)]
pub struct Restarts(VecDeque<Instant>);

impl Restarts {
    /// Notes a restart; true: that was one too many.
    pub fn note(&mut self, now: Instant) -> bool {
        while self.0.pop_front_if(|at| now.saturating_duration_since(*at) >= WITHIN).is_some() {}
        self.0.push_back(now);
        self.0.len() > MAX_RESTARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_restart_in_ten_seconds_is_one_too_many() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        let mut note = |second| restarts.note(start + Duration::from_secs(second));
        assert!((0..5).all(|second| !note(second)));
        assert!(note(9));
        // Half a minute later all of them are forgotten.
        assert!(!note(40));
    }
}
