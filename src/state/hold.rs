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
    /// How long these were together: whoever finds no room asks for it, however often.
    spent: Duration,
}

impl HoldBudget {
    pub fn new(hold: Duration) -> Self {
        Self { hold, holds: VecDeque::new(), spent: Duration::ZERO }
    }

    /// How long a hold that begins now may be.
    pub fn left(&mut self, now: Instant) -> Duration {
        let is_over = |(end, _): &mut (Instant, Duration)| now.saturating_duration_since(*end) >= WINDOW;
        while let Some((_, length)) = self.holds.pop_front_if(is_over) {
            self.spent -= length;
        }
        self.hold.saturating_sub(self.spent)
    }

    /// A hold that began at `start` ended now.
    pub fn spend(&mut self, start: Instant, now: Instant) {
        let length = now.saturating_duration_since(start);
        self.holds.push_back((now, length));
        self.spent += length;
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
