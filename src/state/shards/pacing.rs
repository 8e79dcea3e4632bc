//! Permits to IDENTIFY to Discord: who of one rate-limit key comes when.
//!
//! By Discord's documentation on sharding, shards with the same `shard_id % max_concurrency` are to
//! IDENTIFY at least 5 s apart. A permit is given now and used a little later, so the next one of
//! its key waits from the moment of use, where that is told, and else from the last moment at which
//! it can have been used.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::name::{Epoch, ShardId};

use super::records::{Change, PermitRecord, Shard};

pub(super) struct Pacing {
    max_concurrency: u32,
    /// 0: no pacing.
    interval_ms: u64,
    ttl_ms: u64,
    /// The last permit of each key.
    permits: BTreeMap<u32, PermitRecord>,
    /// Keys whose next permit is not due yet, by when it is.
    closed: BTreeSet<(u64, u32)>,
    dirty: BTreeSet<u32>,
    /// What was stored of permits is by other keys.
    rekeyed: bool,
}

impl Pacing {
    pub(super) fn new(max_concurrency: u32, interval_ms: u64, ttl_ms: u64) -> Self {
        Self {
            max_concurrency: max_concurrency.max(1),
            interval_ms,
            ttl_ms,
            permits: BTreeMap::new(),
            closed: BTreeSet::new(),
            dirty: BTreeSet::new(),
            rekeyed: false,
        }
    }

    /// Goes on with the permits of an earlier run, whose holders go by the settings of that. None is
    /// further away than if it had been given now, however the clock was set meanwhile.
    pub(super) fn restore(&mut self, permits: &BTreeMap<u32, PermitRecord>, now: u64) {
        let interval_ms = self.interval_ms;
        for permit in permits.values().filter(|_| interval_ms > 0) {
            let granted_ms = permit.granted_ms.min(now);
            let latest = now + permit.next_ms.saturating_sub(permit.granted_ms);
            let next_ms = permit.next_ms.min(latest).max(granted_ms + interval_ms);
            self.keep(PermitRecord { granted_ms, next_ms, ..*permit }, now);
        }
        self.rekeyed = !permits.iter().eq(&self.permits);
        if self.rekeyed {
            self.dirty.extend(self.permits.keys());
        }
    }

    pub(super) fn max_concurrency(&self) -> u32 {
        self.max_concurrency
    }

    pub(super) fn interval_ms(&self) -> u64 {
        self.interval_ms
    }

    pub(super) fn key(&self, id: ShardId) -> u32 {
        id.0 % self.max_concurrency
    }

    /// Notes a permit given now; true: its key is closed by it. `reports`: the holder tells by
    /// SHARD_STATE when it uses permits.
    pub(super) fn grant(&mut self, shard: Shard, epoch: Epoch, reports: bool, now: u64) -> bool {
        if self.interval_ms == 0 {
            return false;
        }
        let unused = if reports { self.ttl_ms } else { 0 };
        let next_ms = now + unused + self.interval_ms;
        self.set(PermitRecord { shard, epoch, granted_ms: now, next_ms, used: false });
        true
    }

    /// The holder IDENTIFIES now; true: its key is closed by it. It counts once for each permit, so
    /// that nobody holds a key shut.
    pub(super) fn identifying(&mut self, shard: Shard, epoch: Epoch, now: u64) -> bool {
        let Some(permit) = self.permits.get(&self.key(shard.shard_id)).copied() else { return false };
        if permit.used || (permit.shard, permit.epoch) != (shard, epoch) {
            return false;
        }
        self.set(PermitRecord { next_ms: now + self.interval_ms, used: true, ..permit });
        true
    }

    /// One of the keys whose next permit is due now.
    pub(super) fn due(&mut self, now: u64) -> Option<u32> {
        let &(next, key) = self.closed.first()?;
        (next <= now).then(|| {
            self.closed.pop_first();
            key
        })
    }

    /// When the next of the closed keys opens.
    pub(super) fn next_opening(&self) -> Option<u64> {
        self.closed.first().map(|&(next, _)| next)
    }

    /// When that key opens, if it is closed.
    pub(super) fn opens_at(&self, key: u32) -> Option<u64> {
        self.permits.get(&key).map(|permit| permit.next_ms).filter(|_| self.is_closed(key))
    }

    pub(super) fn closed_keys(&self) -> impl Iterator<Item = u32> {
        self.closed.iter().map(|&(_, key)| key)
    }

    /// Puts the permits under the keys of another `max_concurrency`; false: it is the same.
    pub(super) fn set_max_concurrency(&mut self, max_concurrency: u32, now: u64) -> bool {
        if max_concurrency.max(1) == self.max_concurrency {
            return false;
        }
        self.max_concurrency = max_concurrency.max(1);
        self.closed.clear();
        for permit in std::mem::take(&mut self.permits).into_values() {
            self.keep(permit, now);
        }
        self.rekeyed = true;
        self.dirty = self.permits.keys().copied().collect();
        true
    }

    pub(super) fn permits(&self) -> &BTreeMap<u32, PermitRecord> {
        &self.permits
    }

    /// All is to be stored anew.
    pub(super) fn touch(&mut self) {
        self.dirty.extend(self.permits.keys());
    }

    pub(super) fn take_changes(&mut self, changes: &mut Vec<Change>) {
        if std::mem::take(&mut self.rekeyed) {
            changes.push(Change::ForgetPermits);
        }
        for key in std::mem::take(&mut self.dirty) {
            changes.push(Change::Permit { key, record: self.permits[&key] });
        }
    }

    fn is_closed(&self, key: u32) -> bool {
        self.permits.get(&key).is_some_and(|permit| self.closed.contains(&(permit.next_ms, key)))
    }

    fn set(&mut self, permit: PermitRecord) {
        let key = self.key(permit.shard.shard_id);
        if let Some(before) = self.permits.insert(key, permit) {
            self.closed.remove(&(before.next_ms, key));
        }
        self.closed.insert((permit.next_ms, key));
        self.dirty.insert(key);
    }

    /// Of several permits that come under one key, the one that holds longest counts.
    fn keep(&mut self, permit: PermitRecord, now: u64) {
        let key = self.key(permit.shard.shard_id);
        if self.permits.get(&key).is_some_and(|other| other.next_ms >= permit.next_ms) {
            return;
        }
        if let Some(before) = self.permits.insert(key, permit) {
            self.closed.remove(&(before.next_ms, key));
        }
        if permit.next_ms > now {
            self.closed.insert((permit.next_ms, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 10_000_000;

    fn shard(id: u32) -> Shard {
        Shard { shard_count: 64, shard_id: ShardId(id) }
    }

    fn paced(max_concurrency: u32) -> Pacing {
        Pacing::new(max_concurrency, 5_500, 5_000)
    }

    /// When key 0 opens, in ms after the start.
    fn opens(pacing: &Pacing) -> Option<u64> {
        pacing.opens_at(0).map(|at| at - START)
    }

    #[test]
    fn who_never_reports_opens_its_key_an_interval_after_its_accept() {
        let mut pacing = paced(1);
        pacing.grant(shard(0), Epoch(1), false, START);
        assert_eq!(opens(&pacing), Some(5_500));
        assert_eq!(pacing.due(START + 5_499), None);
        assert_eq!(pacing.due(START + 5_500), Some(0));
        assert_eq!(opens(&pacing), None);
    }

    #[test]
    fn who_reports_opens_its_key_an_interval_after_it_identifies() {
        let mut pacing = paced(1);
        pacing.grant(shard(0), Epoch(1), true, START);
        pacing.identifying(shard(0), Epoch(1), START + 700);
        assert_eq!(opens(&pacing), Some(6_200));
        pacing.identifying(shard(0), Epoch(1), START + 3_000);
        assert_eq!(opens(&pacing), Some(6_200), "once for each permit");
    }

    #[test]
    fn who_reports_but_not_for_this_permit_opens_its_key_an_interval_after_it_ran_out() {
        let mut pacing = paced(1);
        pacing.grant(shard(0), Epoch(1), true, START);
        pacing.identifying(shard(0), Epoch(7), START + 700);
        pacing.identifying(shard(1), Epoch(1), START + 700);
        assert_eq!(opens(&pacing), Some(10_500), "another lease's word does not count");
    }

    #[test]
    fn who_reports_for_the_first_time_moves_its_key_too() {
        let mut pacing = paced(1);
        pacing.grant(shard(0), Epoch(1), false, START);
        pacing.identifying(shard(0), Epoch(1), START + 4_000);
        assert_eq!(opens(&pacing), Some(9_500));
    }

    #[test]
    fn keys_do_not_hold_each_other_back() {
        let mut pacing = paced(16);
        pacing.grant(shard(0), Epoch(1), false, START);
        pacing.grant(shard(17), Epoch(1), false, START + 1);
        assert_eq!(pacing.closed_keys().collect::<Vec<_>>(), [0, 1]);
        assert_eq!((pacing.key(ShardId(33)), pacing.opens_at(2)), (1, None));
    }

    #[test]
    fn another_max_concurrency_keeps_what_stands_between_two_shards_of_one_key() {
        let mut pacing = paced(16);
        pacing.grant(shard(0), Epoch(1), false, START);
        pacing.grant(shard(1), Epoch(1), false, START + 300);
        assert!(pacing.set_max_concurrency(1, START + 400));
        assert_eq!(opens(&pacing), Some(5_800), "the later of the two");
        assert!(!pacing.set_max_concurrency(1, START + 400));
    }

    #[test]
    fn an_interval_of_0_turns_pacing_off() {
        let mut pacing = Pacing::new(1, 0, 5_000);
        assert!(!pacing.grant(shard(0), Epoch(1), true, START));
        assert_eq!(opens(&pacing), None);
    }

    #[test]
    fn settings_that_are_changed_over_a_restart_bring_no_permit_forward() {
        let mut before = Pacing::new(1, 5_500, 60_000);
        before.grant(shard(0), Epoch(1), true, START);
        let mut lower = Pacing::new(1, 5_000, 1_000);
        lower.restore(before.permits(), START + 1_000);
        assert_eq!(opens(&lower), Some(65_500), "its holder may use it that long");
        let mut higher = Pacing::new(1, 90_000, 1_000);
        higher.restore(before.permits(), START + 1_000);
        assert_eq!(opens(&higher), Some(90_000));
        let mut off = Pacing::new(1, 0, 1_000);
        off.restore(before.permits(), START + 1_000);
        assert_eq!(opens(&off), None);
    }

    #[test]
    fn the_last_permits_survive_a_restart_and_a_clock_that_was_set_back() {
        let mut before = paced(16);
        before.grant(shard(0), Epoch(1), true, START);
        let mut after = paced(16);
        after.restore(before.permits(), START + 2_000);
        assert_eq!(opens(&after), Some(10_500));
        let mut set_back = paced(16);
        set_back.restore(before.permits(), START - 3_600_000);
        assert_eq!(set_back.opens_at(0), Some(START - 3_600_000 + 10_500), "not for an hour");
    }
}
