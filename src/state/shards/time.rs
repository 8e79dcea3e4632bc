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

/// The pool's own time in ms: Unix time as it was at the start, and from then on by the monotonic
/// clock alone. So a jump of the wall clock moves no deadline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeline {
    start: Now,
    /// As of the last step.
    stood_still: Duration,
}

impl Timeline {
    pub(super) fn new(start: Now) -> Self {
        Self { start, stood_still: start.stood_still }
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
}
