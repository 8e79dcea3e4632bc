//! Holds back an id that dies too often, longer each time, so that a shard that cannot live does not
//! use up the day's session starts.

use serde::{Deserialize, Serialize};

/// More deaths than this …
const MAX_DEATHS: usize = 5;

/// … in this time are a crash loop; and who lives that long is out of it.
const WITHIN_MS: u64 = 10 * 60 * 1000;

const FIRST_DELAY_MS: u64 = 10 * 1000;
const MAX_DELAY_MS: u64 = 10 * 60 * 1000;

/// An id's latest deaths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashRecord {
    /// When it died, at most [`MAX_DEATHS`] times.
    recent: Vec<u64>,
    /// How often in a row it has been held back.
    held_back: u32,
    /// Until when it was last.
    until_ms: u64,
}

impl CrashRecord {
    /// Notes a death; until when the id is held back, if it is.
    pub(super) fn note(&mut self, now: u64) -> Option<u64> {
        self.recent.retain(|at| at + WITHIN_MS > now);
        let is_still_looping = self.held_back > 0 && now < self.until_ms + WITHIN_MS;
        let is_looping = is_still_looping || self.recent.len() >= MAX_DEATHS;
        self.recent.push(now);
        if self.recent.len() > MAX_DEATHS {
            self.recent.remove(0);
        }
        if !is_looping {
            self.held_back = 0;
            return None;
        }
        let delay = FIRST_DELAY_MS.saturating_mul(1 << self.held_back.min(16)).min(MAX_DELAY_MS);
        self.held_back += 1;
        self.until_ms = now + delay;
        Some(self.until_ms)
    }

    /// However the clock was set meanwhile, nothing is later than it would be from now on.
    pub(super) fn clamp(&mut self, now: u64) {
        self.recent.iter_mut().for_each(|at| *at = (*at).min(now));
        self.until_ms = self.until_ms.min(now + MAX_DELAY_MS);
    }

    pub(super) fn times_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        let until = (self.until_ms > 0).then_some(&mut self.until_ms);
        self.recent.iter_mut().chain(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dies as soon as it lives, so many times; for how many seconds it is held back each time.
    fn die(crashes: &mut CrashRecord, times: usize, now: &mut u64) -> Vec<u64> {
        let mut die_once = |now: &mut u64| {
            *now += 1_000;
            let delay = crashes.note(*now).map_or(0, |until| until - *now);
            *now += delay;
            delay / 1_000
        };
        (0..times).map(|_| die_once(now)).collect()
    }

    #[test]
    fn the_sixth_death_in_ten_minutes_holds_back_and_each_further_one_twice_as_long() {
        let mut now = 1_000_000;
        let delays = die(&mut CrashRecord::default(), 14, &mut now);
        assert_eq!(delays, [0, 0, 0, 0, 0, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
    }

    #[test]
    fn deaths_that_are_far_apart_hold_nothing_back() {
        let mut crashes = CrashRecord::default();
        let delays: Vec<_> = (1..20).filter_map(|index| crashes.note(index * 121_000)).collect();
        assert_eq!(delays, [0; 0]);
    }

    #[test]
    fn who_lives_for_ten_minutes_is_out_of_the_loop() {
        let mut crashes = CrashRecord::default();
        let mut now = 1_000_000;
        assert_eq!(die(&mut crashes, 7, &mut now).last(), Some(&20));
        now += WITHIN_MS - 1_001;
        assert_eq!(die(&mut crashes, 1, &mut now), [40], "just short of it");
        now += WITHIN_MS;
        assert_eq!(die(&mut crashes, 6, &mut now), [0, 0, 0, 0, 0, 10]);
    }
}
