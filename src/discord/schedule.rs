//! When Discord is asked next. Pure: time and chance are arguments.

use std::time::{Duration, Instant};

use super::answer::Answer;

/// Between two questions, where nothing calls for one earlier. Session starts that others make with
/// the same token are then known of; Discord's numbers change no faster.
const PERIOD: Duration = Duration::from_mins(30);

/// The same while at most one session start in [`LOW`] is left.
const PERIOD_WHEN_LOW: Duration = Duration::from_mins(5);
const LOW: u64 = 5;

/// Discord's reset is asked after a moment later, so that it has happened there too.
const AFTER_RESET: Duration = Duration::from_secs(5);

/// No two questions follow each other faster.
const LEAST: Duration = Duration::from_secs(1);

/// After the first failure, doubled by each further one.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_mins(5);

/// The state between questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    /// `None`: never again.
    next: Option<Instant>,
    /// In a row.
    failures: u32,
}

impl Schedule {
    /// The first question is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { next: Some(now), failures: 0 }
    }

    /// When the next question is due; `None`: there is none, the token is no good.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether the last question went unanswered.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Takes note of what came. `chance` is a random number from 0 to 1, so that many gateways that
    /// failed together do not come back together.
    pub(super) fn note(&mut self, answer: &Answer, now: Instant, chance: f64) {
        let wait = match answer {
            Answer::Told { limit, pause } => {
                self.failures = 0;
                let is_low = limit.remaining.saturating_mul(LOW) <= limit.total;
                let period = if is_low { PERIOD_WHEN_LOW } else { PERIOD };
                let reset = Duration::from_millis(limit.reset_after_ms) + AFTER_RESET.mul_f64(1.0 + chance);
                let due = period.mul_f64(0.9 + 0.2 * chance);
                // An answer without a reset to wait for tells 0.
                let next = if limit.reset_after_ms > 0 { due.min(reset) } else { due };
                next.max(*pause)
            }
            Answer::Unauthorized => {
                self.next = None;
                return;
            }
            Answer::RateLimited { retry_after: Some(told) } => {
                self.failures = self.failures.saturating_add(1);
                *told + told.mul_f64(0.1 * chance) + FIRST_BACK_OFF.mul_f64(chance)
            }
            Answer::RateLimited { retry_after: None } | Answer::Failed(_) => self.back_off(chance),
        };
        self.next = Some(now + wait.max(LEAST));
    }

    /// Half of it is certain.
    fn back_off(&mut self, chance: f64) -> Duration {
        let doubled = FIRST_BACK_OFF.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        doubled.min(MAX_BACK_OFF).mul_f64(0.5 + 0.5 * chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::shards::SessionStartLimit;

    const CHANCES: [f64; 3] = [0.0, 0.5, 1.0];

    fn told(remaining: u64, reset_after_ms: u64) -> Answer {
        let limit =
            SessionStartLimit { shards: 1, max_concurrency: 1, total: 1000, remaining, reset_after_ms };
        Answer::Told { limit, pause: Duration::ZERO }
    }

    fn failed() -> Answer {
        Answer::Failed("502".to_owned())
    }

    /// How long after each of these answers the next question is due, in ms.
    fn waits(answers: &[Answer], chance: f64) -> Vec<u128> {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now);
        let mut wait = |answer: &Answer| {
            schedule.note(answer, now, chance);
            let next = schedule.next().expect("asks again");
            let wait = next - now;
            now = next;
            wait.as_millis()
        };
        answers.iter().map(&mut wait).collect()
    }

    #[test]
    fn the_first_question_is_asked_at_once_and_then_every_half_an_hour_or_so() {
        let now = Instant::now();
        assert_eq!(Schedule::new(now).next(), Some(now));
        let day = 24 * 3_600_000;
        assert_eq!(
            CHANCES.map(|chance| waits(&[told(999, day)], chance)[0]),
            [1_620_000, 1_800_000, 1_980_000]
        );
    }

    #[test]
    fn little_left_is_looked_at_more_often() {
        let day = 24 * 3_600_000;
        assert_eq!(
            waits(&[told(201, day), told(200, day), told(0, day)], 0.5),
            [1_800_000, 300_000, 300_000]
        );
    }

    #[test]
    fn the_reset_is_asked_after_when_it_has_happened() {
        assert_eq!(CHANCES.map(|chance| waits(&[told(0, 60_000)], chance)[0]), [65_000, 67_500, 70_000]);
        assert_eq!(waits(&[told(1000, 0)], 0.5), [1_800_000], "no session was started: nothing resets");
    }

    #[test]
    fn failures_double_the_wait_up_to_five_minutes_and_an_answer_ends_that() {
        let mut answers = vec![failed(); 10];
        answers.extend([told(1000, 0), failed()]);
        let expected = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 1_980, 1].map(|seconds: u128| seconds * 1000);
        assert_eq!(waits(&answers, 1.0), expected);
        let least = waits(&answers[..10], 0.0);
        assert_eq!(least, [1_000, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 150_000]);
        assert_eq!(waits(&vec![failed(); 99], 1.0)[98], 300_000);
    }

    #[test]
    fn a_rate_limit_is_waited_for_in_full() {
        let limited = |seconds| Answer::RateLimited { retry_after: Some(Duration::from_secs(seconds)) };
        assert_eq!(
            CHANCES.map(|chance| waits(&[limited(3600)], chance)[0]),
            [3_600_000, 3_780_500, 3_961_000]
        );
        assert_eq!(waits(&[limited(0)], 0.0), [1_000]);
        assert_eq!(waits(&[Answer::RateLimited { retry_after: None }, failed()], 1.0), [1_000, 2_000]);
        let Answer::Told { limit, .. } = told(1000, 0) else { unreachable!() };
        let pause = Duration::from_hours(2);
        assert_eq!(waits(&[Answer::Told { limit, pause }], 0.5), [7_200_000]);
    }

    #[test]
    fn a_wrong_token_is_never_asked_with_again() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.note(&Answer::Unauthorized, now, 0.5);
        assert_eq!(schedule.next(), None);
    }
}
