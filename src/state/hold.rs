//! For how long a sender may be held back because a mailbox is full: at most `hold_ms` in any
//! second, over all its targets together.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// One sender's budget.
#[derive(Debug)]
pub struct HoldBudget {
    hold: Duration,
    /// When a hold ended, and how long it was.
    holds: VecDeque<(Instant, Duration)>,
}

impl HoldBudget {
    pub fn new(hold: Duration) -> Self {
        Self { hold, holds: VecDeque::new() }
    }

    /// How long a hold that begins now may be.
    pub fn left(&mut self, now: Instant) -> Duration {
        while self.holds.pop_front_if(|(end, _)| now.saturating_duration_since(*end) >= WINDOW).is_some() {}
        self.hold.saturating_sub(self.holds.iter().map(|(_, length)| *length).sum())
    }

    /// A hold that began at `start` ended now.
    pub fn spend(&mut self, start: Instant, now: Instant) {
        self.holds.push_back((now, now.saturating_duration_since(start)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_holds_more_than_the_budget() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut budget = HoldBudget::new(Duration::from_millis(250));
        budget.spend(at(0), at(100));
        assert_eq!(budget.left(at(100)), Duration::from_millis(150));
        budget.spend(at(500), at(650));
        assert_eq!(budget.left(at(700)), Duration::ZERO);
        assert_eq!(budget.left(at(1099)), Duration::ZERO, "the first ended less than a second ago");
        assert_eq!(budget.left(at(1100)), Duration::from_millis(100));
        assert_eq!(budget.left(at(1650)), Duration::from_millis(250));
    }
}
