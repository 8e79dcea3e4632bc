//! What the time is: by the monotonic clock while the process runs, by the wall clock over restarts.

use std::time::{Duration, Instant};

/// The moment of a step, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// What intervals are measured by.
    pub instant: Instant,
    /// Unix time in ms: what is persisted.
    pub unix_ms: u64,
    /// How far `instant` is behind the real monotonic clock: for how long the pool has stood still.
    pub stood_still: Duration,
}

/// A wall clock that moved by more than this against the monotonic one was set, or is being brought to
/// another time: what is stored goes by what it was. Much less than what permits have to spare.
const STEP_MS: u64 = 100;

/// The pool's own time in ms: Unix time as it was at the start, and from then on by the monotonic
/// clock alone. So a jump of the wall clock moves no deadline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeline {
    start: Now,
    /// As of the last step.
    stood_still: Duration,
    /// How far the wall clock was ahead of the real monotonic one when everything was stored by it.
    ahead_ms: i64,
}

impl Timeline {
    pub(super) fn new(start: Now) -> Self {
        Self { start, stood_still: start.stood_still, ahead_ms: Self::ahead_ms(start, start) }
    }

    pub(super) fn start_ms(&self) -> u64 {
        self.start.unix_ms
    }

    pub(super) fn ms(&self, instant: Instant) -> u64 {
        self.start.unix_ms + millis(instant.saturating_duration_since(self.start.instant))
    }

    /// The time of a step.
    pub(super) fn pass(&mut self, now: Now) -> u64 {
        self.stood_still = now.stood_still;
        self.ms(now.instant)
    }

    /// A moment of the real clock; one before a standstill comes out too early by that.
    pub(super) fn real_ms(&self, instant: Instant) -> u64 {
        self.ms(instant.checked_sub(self.stood_still).unwrap_or(self.start.instant))
    }

    pub(super) fn instant(&self, ms: u64) -> Instant {
        self.start.instant + Duration::from_millis(ms.saturating_sub(self.start.unix_ms))
    }

    /// Whether the wall clock was set since everything was stored by it.
    pub(super) fn is_off(&self, now: Now) -> bool {
        Self::ahead_ms(self.start, now).abs_diff(self.ahead_ms) > STEP_MS
    }

    /// As [`is_off`](Self::is_off), and everything is stored now if it was.
    pub(super) fn adjust(&mut self, now: Now) -> bool {
        let is_off = self.is_off(now);
        if is_off {
            self.ahead_ms = Self::ahead_ms(self.start, now);
        }
        is_off
    }

    fn ahead_ms(start: Now, now: Now) -> i64 {
        let real = now.instant + now.stood_still;
        let passed = real.saturating_duration_since(start.instant + start.stood_still);
        now.unix_ms.cast_signed() - (start.unix_ms + millis(passed)).cast_signed()
    }

    /// A time of the pool's as of the last step, by the real clock.
    pub(super) fn real_of(&self, ms: u64) -> u64 {
        ms + millis(self.stood_still.saturating_sub(self.start.stood_still))
    }

    /// As [`drift_ms`](Self::drift_ms), of the real clock.
    pub(super) fn real_drift_ms(&self, now: Now) -> i64 {
        Self::ahead_ms(self.start, now)
    }

    /// How far the wall clock is ahead of this time by now.
    pub(super) fn drift_ms(&self, now: Now) -> i64 {
        now.unix_ms.cast_signed() - self.ms(now.instant).cast_signed()
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_is_a_drift_and_moves_nothing() {
        let start = Now { instant: Instant::now(), unix_ms: 1_000_000, stood_still: Duration::ZERO };
        let timeline = Timeline::new(start);
        let later = start.instant + Duration::from_secs(3);
        assert_eq!(timeline.ms(later), 1_003_000);
        assert_eq!(timeline.instant(1_003_000), later);
        assert_eq!(timeline.drift_ms(Now { instant: later, unix_ms: 1_003_000, ..start }), 0);
        assert_eq!(timeline.drift_ms(Now { instant: later, unix_ms: 903_000, ..start }), -100_000);
    }

    #[test]
    fn a_clock_that_was_set_is_off_until_everything_is_stored_by_it_and_a_standstill_is_no_such_thing() {
        let start = Now { instant: Instant::now(), unix_ms: 1_000_000, stood_still: Duration::ZERO };
        let mut timeline = Timeline::new(start);
        let later = Now { instant: start.instant + Duration::from_secs(3), unix_ms: 1_003_100, ..start };
        assert!(!timeline.is_off(later));
        let stood = Now { stood_still: Duration::from_mins(1), unix_ms: later.unix_ms + 60_000, ..later };
        assert!(!timeline.is_off(stood));
        for unix_ms in [1_003_101, 1_000_000] {
            let set = Now { unix_ms, ..later };
            assert!(timeline.is_off(set) && timeline.adjust(set) && !timeline.adjust(set), "{unix_ms}");
        }
    }
}
