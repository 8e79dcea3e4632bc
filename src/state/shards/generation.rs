//! One generation of shard ids, `0 … shard_count-1`: its leases, and which ids are free.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::protocol::name::{Epoch, Name, ShardId};

use super::ShardView;
use super::last_held::LastHeld;

/// An id's time with one holder.
struct Lease {
    holder: Name,
    since: Instant,
}

/// An id, leased or free.
#[derive(Default)]
struct Slot {
    /// That of the current lease, or else of the last one.
    epoch: Epoch,
    lease: Option<Lease>,
}

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
    slots: Vec<Slot>,
    free: BTreeSet<ShardId>,
    held: HashMap<Name, Holdings>,
    last_held: LastHeld,
}

impl Generation {
    pub(super) fn new(shard_count: u32) -> Self {
        Self {
            shard_count,
            slots: (0..shard_count).map(|_| Slot::default()).collect(),
            free: (0..shard_count).map(ShardId).collect(),
            held: HashMap::new(),
            last_held: LastHeld::new(4 * shard_count as usize + 1024),
        }
    }

    pub(super) fn shard_count(&self) -> u32 {
        self.shard_count
    }

    pub(super) fn epoch(&self, id: ShardId) -> Epoch {
        self.slot(id).epoch
    }

    /// The ids leased to that service, in rising order.
    pub(super) fn held_by(&self, service: &str) -> impl DoubleEndedIterator<Item = ShardId> {
        self.held.get(service).into_iter().flat_map(|held| &held.ids).copied()
    }

    /// Whether that id is free or that service's own.
    pub(super) fn may_have(&self, service: &Name, id: ShardId) -> bool {
        self.slot(id).lease.as_ref().is_none_or(|lease| lease.holder == *service)
    }

    /// The lowest of the service's ids that it has not asked for since it identified.
    pub(super) fn unclaimed(&self, service: &Name) -> Option<ShardId> {
        self.held.get(service)?.unclaimed.first().copied()
    }

    /// The free id that fits that service best: 0, then the one it held last, then the lowest.
    pub(super) fn free_for(&self, service: &Name) -> Option<ShardId> {
        let lowest = *self.free.first()?;
        if lowest == ShardId(0) {
            return Some(lowest);
        }
        let last = self.last_held.get(service).filter(|id| self.free.contains(id));
        Some(last.unwrap_or(lowest))
    }

    /// Leases a free id.
    pub(super) fn begin(&mut self, id: ShardId, holder: Name, now: Instant) {
        let was_free = self.free.remove(&id);
        debug_assert!(was_free, "the shard id {id} is leased already");
        self.held.entry(holder.clone()).or_default().ids.insert(id);
        let slot = self.slot_mut(id);
        slot.epoch.0 += 1;
        slot.lease = Some(Lease { holder, since: now });
    }

    /// Marks the id's lease as claimed. `false`: it has none.
    pub(super) fn reclaim(&mut self, id: ShardId) -> bool {
        let Some(lease) = &self.slots[id.0 as usize].lease else { return false };
        if let Some(held) = self.held.get_mut(&lease.holder) {
            held.unclaimed.remove(&id);
        }
        true
    }

    /// Marks all leases of that service as unclaimed.
    pub(super) fn unclaim(&mut self, service: &Name) {
        if let Some(held) = self.held.get_mut(service) {
            held.unclaimed.clone_from(&held.ids);
        }
    }

    /// Ends the id's lease.
    pub(super) fn end(&mut self, id: ShardId) {
        let Some(lease) = self.slot_mut(id).lease.take() else { return };
        self.free.insert(id);
        if let Some(held) = self.held.get_mut(&lease.holder) {
            held.ids.remove(&id);
            held.unclaimed.remove(&id);
            if held.ids.is_empty() {
                self.held.remove(&lease.holder);
            }
        }
        self.last_held.remember(lease.holder, id);
    }

    pub(super) fn views(&self) -> impl Iterator<Item = ShardView<'_>> {
        (0..).map(ShardId).zip(&self.slots).map(|(shard_id, slot)| ShardView {
            shard_id,
            holder: slot.lease.as_ref().map(|lease| &lease.holder),
            epoch: slot.epoch,
            since: slot.lease.as_ref().map(|lease| lease.since),
        })
    }

    fn slot(&self, id: ShardId) -> &Slot {
        &self.slots[id.0 as usize]
    }

    fn slot_mut(&mut self, id: ShardId) -> &mut Slot {
        &mut self.slots[id.0 as usize]
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        for (id, slot) in (0..).map(ShardId).zip(&self.slots) {
            assert_eq!(self.free.contains(&id), slot.lease.is_none(), "{id} is free xor leased");
            if let Some(lease) = &slot.lease {
                assert!(self.held[&lease.holder].ids.contains(&id), "{id} is among its holder's");
            }
        }
        let held: usize = self.held.values().map(|held| held.ids.len()).sum();
        assert_eq!(self.free.len() + held, self.slots.len(), "each id is in one place");
        assert!(self.held.values().all(|held| !held.ids.is_empty()), "who holds nothing is not kept");
        assert!(self.held.values().all(|held| held.unclaimed.is_subset(&held.ids)), "unclaimed is held");
    }
}
