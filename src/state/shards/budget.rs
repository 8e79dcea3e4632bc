//! Discord's daily limit of session starts (`session_start_limit` of `GET /gateway/bot`): never
//! overdrawn, over restarts too.
//!
//! Discord counts IDENTIFYs, the pool counts permits. A permit may be used after Discord gave its
//! numbers, or after they were reset, so each that was still good then is counted once more. When that
//! was is known only roughly: after Discord was asked, and before its answer came.

use super::action::Warning;
use super::records::{BudgetRecord, Change};

/// How long the limit holds where Discord has not been asked since the last reset.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Longer than an answer takes. Permits are remembered for so long after they ran out.
const LONGEST_ANSWER_MS: u64 = 30 * 1000;

/// No permit is good for longer (the most that `permit_ttl_ms` may be).
const LONGEST_PERMIT_MS: u64 = 60 * 60 * 1000;

/// Permits that run out within that time of each other are one entry: so the list stays short, however
/// fast they are given.
const GRAIN_MS: u64 = 100;

/// Warned of when no more than one part in so many is left.
const LOW: u64 = 5;

/// What Discord answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionStartLimit {
    /// The number of shards that Discord recommends.
    pub shards: u32,
    pub max_concurrency: u32,
    pub total: u64,
    pub remaining: u64,
    /// In ms from the moment at which Discord answered; 0: no reset is to come that Discord knows of.
    pub reset_after_ms: u64,
}

impl SessionStartLimit {
    /// Of what Discord demands a multiple, where that count is none.
    pub fn demands_instead_of(&self, shard_count: u32) -> Option<u32> {
        demanded(shard_count, self.max_concurrency, self.shards)
    }

    /// A 0 is told before the day's first session start, which begins the day. With fewer than all left it is
    /// an answer of a moment ago: what is left then stands until Discord tells of a reset, or for a day.
    fn reset_in_ms(&self) -> u64 {
        Some(self.reset_after_ms).filter(|ms| *ms > 0).map_or(DAY_MS, |ms| ms.min(DAY_MS))
    }
}

/// By Discord's documentation on sharding for large bots, their shard count must be a multiple of a
/// number that Discord fixed for the bot (else it closes with 4010). Large bots are those with a
/// `max_concurrency` above 1; the number itself is not told, but what Discord recommends is a multiple
/// of it, and it has been its `max_concurrency` so far. `None`: that count will do.
pub(super) fn demanded(shard_count: u32, max_concurrency: u32, recommended: u32) -> Option<u32> {
    let will_do = [max_concurrency, recommended.max(1)].iter().any(|of| shard_count.is_multiple_of(*of));
    (max_concurrency > 1 && !will_do).then_some(max_concurrency)
}

pub(super) struct Budget {
    /// `None`: Discord was never asked, so that no limit is known.
    record: Option<BudgetRecord>,
    ttl_ms: u64,
    /// Permits that may not have been used yet, or not when Discord last answered: when they run out,
    /// and how many. Part of the record, where there is one.
    recent: Vec<(u64, u64)>,
    /// How far the real clock is ahead of the pool's, which stands still while the disk does. Discord's
    /// reset does not wait for that; permits do.
    ahead_ms: u64,
    dirty: bool,
    /// Whether the stored record is to be deleted.
    is_forgotten: bool,
}

impl Budget {
    /// `granted`: when the last permit of each key was given, which is all that is known of permits
    /// where there is no record.
    pub(super) fn restore(
        record: Option<&BudgetRecord>,
        ttl_ms: u64,
        granted: impl Iterator<Item = u64>,
        now: u64,
    ) -> Self {
        let mut budget =
            Self { record: None, ttl_ms, recent: Vec::new(), ahead_ms: 0, dirty: false, is_forgotten: false };
        if let Some(mut stored) = record.cloned() {
            // However the clock was set meanwhile.
            stored.resets_ms = stored.resets_ms.min(now + DAY_MS);
            budget.recent = std::mem::take(&mut stored.recent);
            budget.recent.iter_mut().for_each(|(until, _)| *until = (*until).min(now + LONGEST_PERMIT_MS));
            budget.record = Some(stored);
        } else {
            granted.for_each(|at| budget.remember(at + ttl_ms));
        }
        budget.dirty = budget.record().as_ref() != record;
        budget
    }

    /// There is no limit any more, until Discord tells one. What was granted lately counts then.
    pub(super) fn forget(&mut self) {
        self.is_forgotten |= self.record.take().is_some();
    }

    pub(super) fn record(&self) -> Option<BudgetRecord> {
        self.record.clone().map(|record| BudgetRecord { recent: self.recent.clone(), ..record })
    }

    /// Discord's answer, brought up to date, less the permits.
    pub(super) fn known(&self) -> Option<&BudgetRecord> {
        self.record.as_ref()
    }

    pub(super) fn remaining(&self) -> Option<u64> {
        self.known().map(|record| record.remaining)
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.remaining() == Some(0)
    }

    /// When the limit is reset, by the pool's time.
    pub(super) fn resets_ms(&self) -> Option<u64> {
        self.known().map(|record| record.resets_ms.saturating_sub(self.ahead_ms))
    }

    /// A permit is given now. There is one left.
    pub(super) fn spend(&mut self, now: u64) -> Option<Warning> {
        // Before Discord told its numbers too: it may not have seen this one when it tells them.
        self.remember(now + self.ttl_ms);
        self.forget_used(now);
        let left = self.remaining()?;
        debug_assert!(left > 0, "the budget is overdrawn");
        self.set_remaining(left.saturating_sub(1), now)
    }

    /// Takes Discord's numbers over, which it was asked for then.
    pub(super) fn update(&mut self, limit: SessionStartLimit, asked: u64, now: u64) -> Option<Warning> {
        let before = self.remaining();
        let asked = asked.clamp(now.saturating_sub(LONGEST_ANSWER_MS), now);
        self.record = Some(BudgetRecord {
            recommended_shards: limit.shards,
            max_concurrency: limit.max_concurrency,
            total: limit.total,
            // So that what is low already is warned of, once.
            remaining: before.unwrap_or(limit.total),
            resets_ms: now + self.ahead_ms + limit.reset_in_ms(),
            uncertain_ms: now - asked,
            recent: Vec::new(),
        });
        let warning = self.set_remaining(self.less_unused(limit.remaining.min(limit.total), asked), now);
        self.forget_used(now);
        warning
    }

    /// Begins a new day, where it is time by the `real` clock; true: it did.
    pub(super) fn reset_if_due(&mut self, now: u64, real: u64) -> bool {
        self.ahead_ms = real.saturating_sub(now);
        let Some(record) = self.known().filter(|record| record.resets_ms <= real) else { return false };
        let last_reset = real - (real - record.resets_ms) % DAY_MS;
        // Discord's may have come so much earlier, and a permit from before a standstill was good for later
        // than this says.
        let since = last_reset.saturating_sub(self.ahead_ms).saturating_sub(record.uncertain_ms);
        let remaining = self.less_unused(record.total, since);
        if let Some(record) = &mut self.record {
            (record.remaining, record.resets_ms) = (remaining, last_reset + DAY_MS);
        }
        self.forget_used(now);
        self.dirty = true;
        true
    }

    /// It is to be stored anew.
    pub(super) fn touch(&mut self) {
        self.dirty = true;
    }

    pub(super) fn take_changes(&mut self, changes: &mut Vec<Change>) {
        if std::mem::take(&mut self.is_forgotten) {
            changes.push(Change::ForgetBudget);
        }
        if std::mem::take(&mut self.dirty)
            && let Some(record) = self.record()
        {
            changes.push(Change::Budget(record));
        }
    }

    /// Less the permits that may have been used after that time.
    fn less_unused(&self, remaining: u64, since: u64) -> u64 {
        let unused = self.recent.iter().filter(|(until, _)| *until >= since).map(|(_, count)| count);
        remaining.saturating_sub(unused.sum())
    }

    fn remember(&mut self, until: u64) {
        let until = until.next_multiple_of(GRAIN_MS);
        match self.recent.iter_mut().find(|(other, _)| *other == until) {
            Some((_, count)) => *count += 1,
            None => self.recent.push((until, 1)),
        }
    }

    fn forget_used(&mut self, now: u64) {
        let before = self.recent.len();
        self.recent.retain(|(until, _)| until + LONGEST_ANSWER_MS >= now);
        self.dirty |= self.recent.len() != before;
    }

    fn set_remaining(&mut self, remaining: u64, now: u64) -> Option<Warning> {
        let record = self.record.as_mut()?;
        let before = std::mem::replace(&mut record.remaining, remaining);
        self.dirty = true;
        let (total, resets_in_ms) = (record.total, record.resets_ms.saturating_sub(now + self.ahead_ms));
        if remaining == 0 && before > 0 {
            return Some(Warning::BudgetExhausted { total, resets_in_ms });
        }
        let low = |left: u64| left.saturating_mul(LOW) <= total;
        (low(remaining) && !low(before)).then_some(Warning::BudgetLow { remaining, total, resets_in_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 10_000_000;

    fn limit(remaining: u64) -> SessionStartLimit {
        SessionStartLimit { shards: 1, max_concurrency: 1, total: 10, remaining, reset_after_ms: 3_600_000 }
    }

    fn budget(remaining: u64) -> Budget {
        let mut budget = Budget::restore(None, 5_000, std::iter::empty(), START);
        budget.update(limit(remaining), START, START);
        budget
    }

    /// Where the pool never stood still.
    fn reset(budget: &mut Budget, now: u64) -> bool {
        budget.reset_if_due(now, now)
    }

    #[test]
    fn a_large_bot_has_a_multiple_of_what_discord_demands() {
        let large = SessionStartLimit { max_concurrency: 16, shards: 40, ..limit(1) };
        assert_eq!(
            [16, 40, 80, 41, 1].map(|count| large.demands_instead_of(count)),
            [None, None, None, Some(16), Some(16)]
        );
        assert_eq!(limit(1).demands_instead_of(7), None);
    }

    #[test]
    fn nothing_is_known_until_discord_is_asked() {
        let mut budget = Budget::restore(None, 5_000, std::iter::empty(), START);
        assert_eq!((budget.spend(START), budget.remaining(), budget.is_exhausted()), (None, None, false));
    }

    #[test]
    fn where_no_reset_is_told_what_is_left_is_left_for_a_day() {
        let mut budget = budget(8);
        budget.update(SessionStartLimit { reset_after_ms: 0, ..limit(0) }, START, START);
        assert!(!reset(&mut budget, START + DAY_MS - 1) && budget.is_exhausted());
        assert!(reset(&mut budget, START + DAY_MS) && !budget.is_exhausted());
    }

    #[test]
    fn permits_of_a_clock_that_was_set_back_are_taken_off_for_no_longer_than_one_lives() {
        let mut before = budget(8);
        before.spend(START);
        let (set_back, hour) = (START - 2 * LONGEST_PERMIT_MS, LONGEST_PERMIT_MS);
        let mut budget = Budget::restore(before.record().as_ref(), 5_000, std::iter::empty(), set_back);
        budget.update(limit(8), set_back, set_back);
        assert_eq!(budget.remaining(), Some(7));
        budget.update(limit(8), set_back + hour + 1, set_back + hour + 1);
        assert_eq!(budget.remaining(), Some(8));
    }

    #[test]
    fn a_fifth_left_is_warned_of_once_and_so_is_the_end() {
        let mut budget = budget(4);
        let resets_in_ms = 3_600_000;
        assert_eq!(budget.spend(START), None);
        let low = Warning::BudgetLow { remaining: 2, total: 10, resets_in_ms };
        assert_eq!(budget.spend(START), Some(low));
        assert_eq!(budget.spend(START), None);
        assert_eq!(budget.spend(START), Some(Warning::BudgetExhausted { total: 10, resets_in_ms }));
        assert!(budget.is_exhausted());
    }

    #[test]
    fn a_first_answer_that_is_low_already_is_warned_of() {
        let mut budget = Budget::restore(None, 5_000, std::iter::empty(), START);
        let warning = budget.update(limit(1), START, START);
        assert!(matches!(warning, Some(Warning::BudgetLow { remaining: 1, .. })), "{warning:?}");
        assert_eq!(budget.update(limit(1), START + 60_000, START + 60_000), None);
    }

    #[test]
    fn permits_that_may_still_be_used_are_taken_off_discords_numbers() {
        let mut budget = budget(8);
        budget.spend(START);
        budget.spend(START + 1_000);
        budget.update(limit(8), START + 5_500, START + 5_500);
        assert_eq!(budget.remaining(), Some(7), "the first one is used or void");
    }

    #[test]
    fn permits_that_were_good_when_discord_was_asked_are_taken_off_however_late_it_answers() {
        let mut budget = budget(8);
        budget.spend(START);
        budget.spend(START + 1_000);
        budget.spend(START + 14_000);
        budget.update(limit(8), START + 5_500, START + 15_000);
        assert_eq!(budget.remaining(), Some(6), "Discord may have counted before it was used");
    }

    #[test]
    fn permits_around_a_reset_whose_moment_is_known_roughly_count_for_the_new_day() {
        let mut budget = budget(8);
        budget.update(limit(8), START - 10_000, START);
        // The reset is between these: ten seconds before it is taken to be, or when.
        budget.spend(START + 3_600_000 - 15_100);
        budget.spend(START + 3_600_000 - 14_000);
        budget.spend(START + 3_600_000 - 1);
        assert!(reset(&mut budget, START + 3_600_000));
        assert_eq!(budget.remaining(), Some(8), "the first one was used or void before");
    }

    #[test]
    fn the_permits_of_a_moment_ago_are_known_after_a_restart_whatever_their_life_is_then() {
        let mut before = budget(8);
        before.spend(START);
        before.spend(START);
        before.spend(START + 1_000);
        let mut budget = Budget::restore(before.record().as_ref(), 1_000, std::iter::empty(), START + 2_000);
        budget.update(limit(8), START + 5_500, START + 5_500);
        assert_eq!(budget.remaining(), Some(7));
        budget.update(limit(8), START + 4_000, START + 6_000);
        assert_eq!(budget.remaining(), Some(5));
    }

    #[test]
    fn a_flood_of_permits_is_remembered_in_little_room_and_for_a_while() {
        let mut budget = budget(8);
        budget.update(SessionStartLimit { total: 90_000, remaining: 90_000, ..limit(8) }, START, START);
        (0..60_000).for_each(|ms| drop(budget.spend(START + ms)));
        assert!(budget.recent.len() <= 360, "{}", budget.recent.len());
        budget.update(limit(8), START + 120_000, START + 120_000);
        assert_eq!((budget.remaining(), budget.recent.len()), (Some(8), 0));
    }

    #[test]
    fn permits_given_before_the_first_answer_are_taken_off_it() {
        let mut budget = Budget::restore(None, 5_000, std::iter::empty(), START);
        budget.spend(START);
        budget.update(limit(1), START + 200, START + 200);
        assert!(budget.is_exhausted(), "the one that is left may be used by that permit");
    }

    #[test]
    fn the_limit_is_reset_when_its_day_is_over_less_what_may_still_be_used() {
        let mut budget = budget(1);
        budget.spend(START + 3_599_000);
        assert!(!reset(&mut budget, START + 3_599_999));
        assert!(reset(&mut budget, START + 3_600_000));
        assert_eq!(budget.remaining(), Some(9));
        assert_eq!(budget.resets_ms(), Some(START + 3_600_000 + DAY_MS));
        assert!(reset(&mut budget, START + 3_600_000 + 3 * DAY_MS));
        assert_eq!(budget.resets_ms(), Some(START + 3_600_000 + 4 * DAY_MS), "the days between are over");
    }

    #[test]
    fn the_reset_does_not_wait_while_the_pool_stands_still() {
        let mut budget = budget(1);
        budget.spend(START + 1_000);
        let (now, stood) = (START + 2_000, 3_000_000);
        assert!(!budget.reset_if_due(now, now + stood));
        assert_eq!(budget.resets_ms(), Some(START + 600_000), "so much less is left of the day");
        assert!(!budget.reset_if_due(now + 597_999, now + 597_999 + stood));
        assert!(budget.reset_if_due(now + 598_000, now + 598_000 + stood));
        assert_eq!(budget.remaining(), Some(10));
        let asked = now + 700_000;
        budget.reset_if_due(asked, asked + stood);
        budget.update(limit(10), asked, asked);
        assert_eq!(budget.known().unwrap().resets_ms, asked + stood + 3_600_000, "by the real clock");
    }

    #[test]
    fn a_permit_from_before_a_standstill_counts_for_the_day_in_which_it_may_be_used() {
        let mut budget = budget(1);
        budget.spend(START + 1_000);
        // It leaves after the disk stood still, and past the reset.
        let (now, stood) = (START + 2_000, 3_600_000);
        assert!(budget.reset_if_due(now, now + stood));
        assert_eq!(budget.remaining(), Some(9));
    }
}
