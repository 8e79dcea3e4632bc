//! One generation of shard ids, `0 … shard_count-1`: its leases, and which ids are free.
//!
//! An id has a lease, or is held back for a while, or is free.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::protocol::name::{Name, ShardId};
use crate::protocol::op::{LeaseState, Resume};

use super::crash_loop::CrashRecord;
use super::keyed::Keyed;
use super::last_held::LastHeld;
use super::pacing::Pacing;
use super::records::{Change, HoldReason, HoldRecord, LeaseRecord, ResumeRecord, Shard, ShardRecord};

/// How long resume data is worth something at Discord.
pub(super) const RESUME_LIFE_MS: u64 = 3 * 60 * 1000;

/// What one service holds: at least one id.
#[derive(Default)]
struct Holdings {
    ids: BTreeSet<ShardId>,
    /// Those of them that it has not asked for since it last identified.
    unclaimed: BTreeSet<ShardId>,
}

pub(super) struct Generation {
    shard_count: u32,
    /// By id.
    slots: Vec<ShardRecord>,
    free: Keyed<ShardId>,
    /// The ids that are held back, by until when.
    held_back: BTreeSet<(u64, ShardId)>,
    held: HashMap<Name, Holdings>,
    last_held: LastHeld,
    /// How many leases are ready.
    ready: usize,
    dirty: BTreeSet<ShardId>,
}

/// How far Discord has come with a shard.
fn is_ready(lease: &LeaseRecord) -> bool {
    matches!(lease.state, Some(LeaseState::Ready | LeaseState::Resumed))
}

impl Generation {
    pub(super) fn new(shard_count: u32, pacing: &Pacing) -> Self {
        Self::restore(shard_count, vec![ShardRecord::default(); shard_count as usize], pacing)
    }

    /// Goes on with these records. All leases are unclaimed.
    pub(super) fn restore(shard_count: u32, slots: Vec<ShardRecord>, pacing: &Pacing) -> Self {
        let mut generation = Self {
            shard_count,
            slots,
            free: Keyed::new(pacing.closed_keys()),
            held_back: BTreeSet::new(),
            held: HashMap::new(),
            last_held: LastHeld::new(4 * shard_count as usize + 1024),
            ready: 0,
            dirty: BTreeSet::new(),
        };
        // The lowest id is remembered last, so that its name gets that one back first.
        for id in (0..shard_count).rev().map(ShardId) {
            generation.place(id, pacing);
        }
        generation
    }

    fn place(&mut self, id: ShardId, pacing: &Pacing) {
        let ShardRecord { lease, hold, last_holder, .. } = &self.slots[id.0 as usize];
        if let Some(lease) = lease {
            let held = self.held.entry(lease.holder.clone()).or_default();
            held.ids.insert(id);
            held.unclaimed.insert(id);
            self.ready += usize::from(is_ready(lease));
            return;
        }
        if let Some(last) = last_holder {
            self.last_held.remember(last.clone(), id);
        }
        match hold {
            Some(hold) => drop(self.held_back.insert((hold.until_ms, id))),
            None => self.free.insert(pacing.key(id), id),
        }
    }

    /// Sorts the free ids anew, under other keys.
    pub(super) fn rekey(&mut self, pacing: &Pacing) {
        self.free = Keyed::new(pacing.closed_keys());
        for (id, slot) in (0..).map(ShardId).zip(&self.slots) {
            if slot.lease.is_none() && slot.hold.is_none() {
                self.free.insert(pacing.key(id), id);
            }
        }
    }

    pub(super) fn shard_count(&self) -> u32 {
        self.shard_count
    }

    /// The id, as one of this generation.
    pub(super) fn shard(&self, shard_id: ShardId) -> Shard {
        Shard { shard_count: self.shard_count, shard_id }
    }

    pub(super) fn record(&self, id: ShardId) -> &ShardRecord {
        &self.slots[id.0 as usize]
    }

    pub(super) fn lease(&self, id: ShardId) -> Option<&LeaseRecord> {
        self.record(id).lease.as_ref()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = (Shard, &ShardRecord)> {
        (0..).map(ShardId).zip(&self.slots).map(|(id, record)| (self.shard(id), record))
    }

    /// The free ids, by key.
    pub(super) fn free(&mut self) -> &mut Keyed<ShardId> {
        &mut self.free
    }

    pub(super) fn free_count(&self) -> usize {
        self.free.len()
    }

    pub(super) fn has_grantable(&self) -> bool {
        self.free.first_open().is_some()
    }

    /// The ids leased to that service, in rising order.
    pub(super) fn held_by(&self, service: &str) -> impl DoubleEndedIterator<Item = ShardId> {
        self.held.get(service).into_iter().flat_map(|held| &held.ids).copied()
    }

    pub(super) fn holds(&self, service: &Name) -> bool {
        self.held.contains_key(service)
    }

    pub(super) fn holders(&self) -> impl Iterator<Item = &Name> {
        self.held.keys()
    }

    /// Whether that id is free or that service's own.
    pub(super) fn may_have(&self, service: &Name, id: ShardId) -> bool {
        let slot = self.record(id);
        slot.lease.as_ref().map_or(slot.hold.is_none(), |lease| lease.holder == *service)
    }

    /// The lowest of the service's ids that it has not asked for since it identified.
    pub(super) fn unclaimed(&self, service: &Name) -> Option<ShardId> {
        self.held.get(service)?.unclaimed.first().copied()
    }

    /// The free id with an open key that fits that service best: 0, then the one it held last, then
    /// the lowest.
    pub(super) fn free_for(&self, service: &Name, pacing: &Pacing) -> Option<ShardId> {
        let lowest = self.free.first_open()?;
        if lowest == ShardId(0) {
            return Some(lowest);
        }
        let is_grantable = |id: &ShardId| {
            let key = pacing.key(*id);
            self.free.is_open(key) && self.free.contains(key, *id)
        };
        Some(self.last_held.get(service).filter(is_grantable).unwrap_or(lowest))
    }

    /// Leases a free id.
    pub(super) fn begin(&mut self, id: ShardId, lease: LeaseRecord, pacing: &Pacing) {
        debug_assert!(self.free.contains(pacing.key(id), id), "the shard id {id} is not free");
        self.free.remove(pacing.key(id), id);
        self.held.entry(lease.holder.clone()).or_default().ids.insert(id);
        self.ready += usize::from(is_ready(&lease));
        self.slot_mut(id).lease = Some(lease);
    }

    /// Marks the id's lease as claimed; true: it was not.
    pub(super) fn claim(&mut self, service: &Name, id: ShardId) -> bool {
        self.held.get_mut(service).is_some_and(|held| held.unclaimed.remove(&id))
    }

    /// Marks all leases of that service as unclaimed.
    pub(super) fn unclaim(&mut self, service: &Name) {
        if let Some(held) = self.held.get_mut(service) {
            held.unclaimed.clone_from(&held.ids);
        }
    }

    /// Changes the id's lease, if it has one.
    pub(super) fn change_lease(&mut self, id: ShardId, change: impl FnOnce(&mut LeaseRecord)) {
        let Some(lease) = &mut self.slots[id.0 as usize].lease else { return };
        let before = lease.clone();
        change(lease);
        let (was_ready, now_ready) = (is_ready(&before), is_ready(lease));
        self.ready = self.ready + usize::from(now_ready) - usize::from(was_ready);
        if before != *lease {
            self.dirty.insert(id);
        }
    }

    /// Ends the id's lease.
    pub(super) fn end(&mut self, id: ShardId, hold: Option<HoldRecord>, pacing: &Pacing) {
        let Some(lease) = self.slot_mut(id).lease.take() else { return };
        self.ready -= usize::from(is_ready(&lease));
        if let Some(held) = self.held.get_mut(&lease.holder) {
            held.ids.remove(&id);
            held.unclaimed.remove(&id);
            if held.ids.is_empty() {
                self.held.remove(&lease.holder);
            }
        }
        self.last_held.remember(lease.holder.clone(), id);
        let slot = self.slot_mut(id);
        (slot.last_holder, slot.hold) = (Some(lease.holder), hold);
        match hold {
            Some(hold) => drop(self.held_back.insert((hold.until_ms, id))),
            None => self.free.insert(pacing.key(id), id),
        }
    }

    /// Frees one of the ids that are held back no longer.
    pub(super) fn free_due(&mut self, now: u64, pacing: &Pacing) -> Option<ShardId> {
        let &(until, id) = self.held_back.first()?;
        (until <= now).then(|| {
            self.free_held_back(id, now, pacing);
            id
        })
    }

    /// Frees an id that is held back, as soon as its last holder must have noticed; when that is.
    /// `None`: it is not held back.
    pub(super) fn free_held_back(&mut self, id: ShardId, now: u64, pacing: &Pacing) -> Option<u64> {
        let hold = self.record(id).hold?;
        self.held_back.remove(&(hold.until_ms, id));
        let until_ms = hold.noticed_ms;
        if until_ms > now {
            self.slot_mut(id).hold = Some(HoldRecord { until_ms, reason: HoldReason::Vanished, ..hold });
            self.held_back.insert((until_ms, id));
        } else {
            self.slot_mut(id).hold = None;
            self.free.insert(pacing.key(id), id);
        }
        Some(until_ms.max(now))
    }

    /// Its deaths so far make no crash loop any more.
    pub(super) fn forget_crashes(&mut self, id: ShardId) {
        self.slot_mut(id).crashes = CrashRecord::default();
    }

    /// The ids that are held back and that this service had last.
    pub(super) fn held_back_from(&self, service: &Name) -> Vec<Shard> {
        let had_last = |id: &ShardId| self.record(*id).last_holder.as_ref() == Some(service);
        self.held_back.iter().map(|(_, id)| *id).filter(had_last).map(|id| self.shard(id)).collect()
    }

    /// An id that is held back is so at least until its last holder must have noticed.
    pub(super) fn hold_longer(&mut self, id: ShardId, noticed_ms: u64) {
        let Some(hold) = self.record(id).hold.filter(|hold| hold.noticed_ms < noticed_ms) else { return };
        let reason = if hold.until_ms < noticed_ms { HoldReason::Vanished } else { hold.reason };
        let until_ms = hold.until_ms.max(noticed_ms);
        self.held_back.remove(&(hold.until_ms, id));
        self.held_back.insert((until_ms, id));
        self.slot_mut(id).hold = Some(HoldRecord { until_ms, reason, noticed_ms });
    }

    /// The first of the ids that are held back to become free.
    pub(super) fn first_held_back(&self) -> Option<HoldRecord> {
        self.held_back.first().and_then(|&(_, id)| self.record(id).hold)
    }

    pub(super) fn deposit(&mut self, id: ShardId, resume: Option<Resume>, now: u64) {
        if let Some(resume) = resume {
            self.slot_mut(id).resume = Some(ResumeRecord { resume, until_ms: now + RESUME_LIFE_MS });
        }
    }

    pub(super) fn clear_deposit(&mut self, id: ShardId) {
        if self.record(id).resume.is_some() {
            self.slot_mut(id).resume = None;
        }
    }

    /// What the id's last holder left to resume with, and for how long that is good: once, and not when
    /// it is stale.
    pub(super) fn take_resume(&mut self, id: ShardId, now: u64) -> Option<(Resume, Duration)> {
        self.record(id).resume.as_ref()?;
        let ResumeRecord { resume, until_ms } = self.slot_mut(id).resume.take()?;
        (now < until_ms).then(|| (resume, Duration::from_millis(until_ms - now)))
    }

    /// Counts a death of the id; until when it is held back for that, if it is.
    pub(super) fn note_death(&mut self, id: ShardId, now: u64) -> Option<u64> {
        let slot = self.slot_mut(id);
        slot.deaths += 1;
        slot.crashes.note(now)
    }

    /// Whether every id has a holder that is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.ready == self.slots.len()
    }

    pub(super) fn ready_count(&self) -> usize {
        self.ready
    }

    /// All is to be stored anew.
    pub(super) fn touch(&mut self) {
        let records = (0..).map(ShardId).zip(&self.slots);
        self.dirty.extend(records.filter(|(_, it)| **it != ShardRecord::default()).map(|(id, _)| id));
    }

    pub(super) fn take_changes(&mut self, changes: &mut Vec<Change>) {
        for id in std::mem::take(&mut self.dirty) {
            changes.push(Change::Shard { shard: self.shard(id), record: self.record(id).clone() });
        }
    }

    fn slot_mut(&mut self, id: ShardId) -> &mut ShardRecord {
        self.dirty.insert(id);
        &mut self.slots[id.0 as usize]
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self, pacing: &Pacing) {
        self.free.check_invariants();
        for (id, slot) in (0..).map(ShardId).zip(&self.slots) {
            let is_free = slot.lease.is_none() && slot.hold.is_none();
            assert_eq!(self.free.contains(pacing.key(id), id), is_free, "{id} is free");
            assert!(slot.lease.is_none() || slot.hold.is_none(), "{id} is leased or held back");
            let held_back = slot.hold.is_some_and(|hold| self.held_back.contains(&(hold.until_ms, id)));
            assert_eq!(held_back, slot.hold.is_some(), "{id} is held back");
            if let Some(lease) = &slot.lease {
                assert!(self.held[&lease.holder].ids.contains(&id), "{id} is among its holder's");
            }
        }
        let held: usize = self.held.values().map(|held| held.ids.len()).sum();
        assert_eq!(
            self.free.len() + self.held_back.len() + held,
            self.slots.len(),
            "each id is in one place"
        );
        assert!(self.held.values().all(|held| !held.ids.is_empty()), "who holds nothing is not kept");
        assert!(self.held.values().all(|held| held.unclaimed.is_subset(&held.ids)), "unclaimed is held");
        let ready =
            self.slots.iter().filter_map(|slot| slot.lease.as_ref()).filter(|it| is_ready(it)).count();
        assert_eq!(ready, self.ready, "how many are ready");
    }
}
