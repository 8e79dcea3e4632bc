//! Discord's daily limit of session starts (`session_start_limit` of `GET /gateway/bot`): never
//! overdrawn, over restarts too.
//!
//! Discord counts IDENTIFYs, the pool counts permits. A permit that is still good may be used after
//! Discord gave its numbers, or after they were reset, so each of those is counted once more then.

use std::collections::VecDeque;

use super::action::Warning;
use super::records::{BudgetRecord, Change};

/// How long the limit holds where Discord has not been asked since the last reset.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Warned of when no more than one part in so many is left.
const LOW: u64 = 5;

/// What Discord answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStartLimit {
    /// The number of shards that Discord recommends.
    pub shards: u32,
    pub max_concurrency: u32,
    pub total: u64,
    pub remaining: u64,
    /// In ms from now.
    pub reset_after_ms: u64,
}

pub(super) struct Budget {
    /// `None`: Discord was never asked, so that no limit is known.
    record: Option<BudgetRecord>,
    ttl_ms: u64,
    /// When those permits were given that may not have been used yet.
    unused: VecDeque<u64>,
    dirty: bool,
}

impl Budget {
    /// `granted`: when the last permit of each key was given.
    pub(super) fn restore(
        record: Option<BudgetRecord>,
        ttl_ms: u64,
        granted: impl Iterator<Item = u64>,
        now: u64,
    ) -> Self {
        let clamped = record.map(|it| BudgetRecord { resets_ms: it.resets_ms.min(now + DAY_MS), ..it });
        let mut unused: Vec<u64> = granted.collect();
        unused.sort_unstable();
        Self { record: clamped, ttl_ms, unused: unused.into(), dirty: clamped != record }
    }

    pub(super) fn record(&self) -> Option<&BudgetRecord> {
        self.record.as_ref()
    }

    pub(super) fn remaining(&self) -> Option<u64> {
        self.record.map(|record| record.remaining)
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.remaining() == Some(0)
    }

    /// When the limit is reset.
    pub(super) fn resets_ms(&self) -> Option<u64> {
        self.record.map(|record| record.resets_ms)
    }

    /// A permit is given now. There is one left.
    pub(super) fn spend(&mut self, now: u64) -> Option<Warning> {
        // Before Discord told its numbers too: it may not have seen this one when it tells them.
        self.unused.push_back(now);
        self.forget_used(now);
        let left = self.remaining()?;
        debug_assert!(left > 0, "the budget is overdrawn");
        self.set_remaining(left.saturating_sub(1), now)
    }

    /// Takes Discord's numbers over.
    pub(super) fn update(&mut self, limit: SessionStartLimit, now: u64) -> Option<Warning> {
        let before = self.record;
        self.forget_used(now);
        self.record = Some(BudgetRecord {
            recommended_shards: limit.shards,
            max_concurrency: limit.max_concurrency,
            total: limit.total,
            // So that what is low already is warned of, once.
            remaining: before.map_or(limit.total, |before| before.remaining),
            resets_ms: now + limit.reset_after_ms.min(DAY_MS),
        });
        self.set_remaining(self.less_unused(limit.remaining.min(limit.total)), now)
    }

    /// Begins a new day, where it is time; true: it did.
    pub(super) fn reset_if_due(&mut self, now: u64) -> bool {
        let Some(record) = self.record.filter(|record| record.resets_ms <= now) else { return false };
        self.forget_used(now);
        let days = (now - record.resets_ms) / DAY_MS + 1;
        let remaining = self.less_unused(record.total);
        self.record = Some(BudgetRecord { remaining, resets_ms: record.resets_ms + days * DAY_MS, ..record });
        self.dirty = true;
        true
    }

    pub(super) fn take_changes(&mut self, changes: &mut Vec<Change>) {
        if std::mem::take(&mut self.dirty)
            && let Some(record) = self.record
        {
            changes.push(Change::Budget(record));
        }
    }

    fn less_unused(&self, remaining: u64) -> u64 {
        remaining.saturating_sub(self.unused.len() as u64)
    }

    fn forget_used(&mut self, now: u64) {
        while self.unused.pop_front_if(|granted| *granted + self.ttl_ms < now).is_some() {}
    }

    fn set_remaining(&mut self, remaining: u64, now: u64) -> Option<Warning> {
        let record = self.record.as_mut()?;
        let before = std::mem::replace(&mut record.remaining, remaining);
        self.dirty = true;
        let (total, resets_in_ms) = (record.total, record.resets_ms.saturating_sub(now));
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
        budget.update(limit(remaining), START);
        budget
    }

    #[test]
    fn nothing_is_known_until_discord_is_asked() {
        let mut budget = Budget::restore(None, 5_000, std::iter::empty(), START);
        assert_eq!((budget.spend(START), budget.remaining(), budget.is_exhausted()), (None, None, false));
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
        let warning = budget.update(limit(1), START);
        assert!(matches!(warning, Some(Warning::BudgetLow { remaining: 1, .. })), "{warning:?}");
        assert_eq!(budget.update(limit(1), START + 60_000), None);
    }

    #[test]
    fn permits_that_may_still_be_used_are_taken_off_discords_numbers() {
        let mut budget = budget(8);
        budget.spend(START);
        budget.spend(START + 1_000);
        budget.update(limit(8), START + 5_500);
        assert_eq!(budget.remaining(), Some(7), "the first one is used or void");
    }

    #[test]
    fn permits_given_before_the_first_answer_are_taken_off_it() {
        let mut budget = Budget::restore(None, 5_000, std::iter::empty(), START);
        budget.spend(START);
        budget.update(limit(1), START + 200);
        assert!(budget.is_exhausted(), "the one that is left may be used by that permit");
    }

    #[test]
    fn the_limit_is_reset_when_its_day_is_over_less_what_may_still_be_used() {
        let mut budget = budget(1);
        budget.spend(START + 3_599_000);
        assert!(!budget.reset_if_due(START + 3_599_999));
        assert!(budget.reset_if_due(START + 3_600_000));
        assert_eq!(budget.remaining(), Some(9));
        assert_eq!(budget.resets_ms(), Some(START + 3_600_000 + DAY_MS));
        assert!(budget.reset_if_due(START + 3_600_000 + 3 * DAY_MS));
        assert_eq!(budget.resets_ms(), Some(START + 3_600_000 + 4 * DAY_MS), "the days between are over");
    }
}
