//! How fast one connection may send: so much each second, and a second's worth at once.
//!
//! Nothing is refused for coming too fast: the connection is not read for a while, and its socket
//! tells the sender to wait. (The generic cell rate algorithm of ITU-T I.371.)

use std::time::{Duration, Instant};

/// What may come at once before the rate counts, as time.
const ALLOWANCE: Duration = Duration::from_secs(1);

/// One connection's rate of one thing.
#[derive(Debug)]
pub struct Rate {
    per_second: u64,
    /// When all that came would have come, had it come at the rate.
    due: Option<Instant>,
}

impl Rate {
    /// `per_second` is above 0.
    pub fn new(per_second: u64) -> Self {
        Self { per_second, due: None }
    }

    /// So much came; gives how long nothing more may come.
    pub fn spend(&mut self, amount: u64, now: Instant) -> Option<Duration> {
        let took = Duration::from_nanos(amount.saturating_mul(1_000_000_000) / self.per_second);
        let due = self.due.map_or(now, |due| due.max(now)) + took;
        self.due = Some(due);
        due.saturating_duration_since(now).checked_sub(ALLOWANCE).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_seconds_worth_may_come_at_once_and_then_the_rate_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut rate = Rate::new(100);
        assert_eq!(rate.spend(100, at(0)), None);
        assert_eq!(rate.spend(10, at(0)), Some(Duration::from_millis(100)));
        assert_eq!(rate.spend(10, at(200)), None);
        assert_eq!(rate.spend(1, at(200)), Some(Duration::from_millis(10)));
        assert_eq!(rate.spend(100, at(60_000)), None, "a pause is no credit for more than a second");
        assert_eq!(rate.spend(100, at(60_000)), Some(Duration::from_secs(1)));
    }

    proptest! {
        #[test]
        fn who_waits_as_told_never_passes_the_rate(
            per_second in 1..5_000_000_u64,
            steps in prop::collection::vec((1..20_000_u64, 0..300_u64), 1..60),
        ) {
            let start = Instant::now();
            let (mut rate, mut now, mut sum) = (Rate::new(per_second), start, 0);
            for (amount, pause) in steps {
                now += Duration::from_millis(pause);
                let allowed = (now - start + ALLOWANCE).as_nanos() * u128::from(per_second) / 1_000_000_000 + 1;
                prop_assert!(u128::from(sum) <= allowed, "{} came where {} may", sum, allowed);
                sum += amount;
                now += rate.spend(amount, now).unwrap_or_default();
            }
        }
    }
}
