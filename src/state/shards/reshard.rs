//! Changing the number of shards: a second generation of ids is filled while the first one runs, and
//! takes its place in one step.

use std::collections::BTreeSet;

use crate::protocol::error::ErrorCode;
use crate::protocol::name::{Name, ShardId};
use crate::protocol::op;

use super::budget::demanded;
use super::generation::Generation;
use super::records::{Holders, Shard};
use super::time::millis;
use super::{Action, CommandError, Next, ShardPool};

/// The most shards that a pool can have.
pub(super) const MAX_SHARDS: u32 = 65_536;

/// How the old generation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It keeps running until every id of the new one is ready.
    #[default]
    Rolling,
    /// At once: all leases are void, and their holders are sent REBOOT.
    Immediate,
}

/// What a reshard needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub shard_count: u32,
    pub identifies: u64,
    /// The least time from the first IDENTIFY to the last, if enough services ask.
    pub duration_ms: u64,
    /// Session starts that are left; `None`: Discord was not asked.
    pub remaining: Option<u64>,
    pub resets_in_ms: Option<u64>,
}

impl Plan {
    pub fn is_covered(&self) -> bool {
        self.remaining.is_none_or(|left| self.identifies <= left)
    }
}

impl<R: Clone> ShardPool<R> {
    /// What a reshard to that count needs, or why there can be none. Whether the budget covers it is
    /// not looked at.
    pub(super) fn plan(&self, shard_count: u32, now: u64) -> Result<Plan, CommandError> {
        if !(1..=MAX_SHARDS).contains(&shard_count) {
            return Err(CommandError::OutOfRange { shard_count });
        }
        if let Some(next) = &self.next {
            return Err(CommandError::ReshardUnderWay { shard_count: next.generation.shard_count() });
        }
        if shard_count == self.current.shard_count() {
            return Err(CommandError::SameCount { shard_count });
        }
        self.check_multiple(shard_count)?;
        if let Some(until) = self.retired.get(&shard_count).filter(|until| **until > now) {
            return Err(CommandError::RecentlyEnded { shard_count, retry_after_ms: until - now });
        }
        let rounds = u64::from(shard_count.div_ceil(self.pacing.max_concurrency()));
        Ok(Plan {
            shard_count,
            identifies: u64::from(shard_count),
            duration_ms: (rounds - 1) * self.pacing.interval_ms(),
            remaining: self.budget.remaining(),
            resets_in_ms: self.budget.resets_ms().map(|at| at.saturating_sub(now)),
        })
    }

    fn check_multiple(&self, shard_count: u32) -> Result<(), CommandError> {
        let discord = self.budget.known();
        let of = discord.and_then(|it| demanded(shard_count, it.max_concurrency, it.recommended_shards));
        of.map_or(Ok(()), |of| Err(CommandError::NotAMultiple { shard_count, of }))
    }

    /// `plan` is what [`plan`](Self::plan) says of it now.
    pub(super) fn reshard(
        &mut self,
        plan: Plan,
        mode: Mode,
        now: u64,
        actions: &mut Vec<Action<R>>,
    ) -> Result<(), CommandError> {
        if !plan.is_covered() {
            return Err(CommandError::BudgetTooSmall {
                needed: plan.identifies,
                remaining: plan.remaining.unwrap_or_default(),
                resets_in_ms: plan.resets_in_ms.unwrap_or_default(),
            });
        }
        let generation = Generation::new(plan.shard_count, &self.pacing);
        (self.is_dirty, self.told.is_stale) = (true, true);
        match mode {
            Mode::Rolling => self.next = Some(Next { generation, since_ms: now, assumed: BTreeSet::new() }),
            Mode::Immediate => {
                let old = self.replace(generation, now, actions);
                for holder in sorted(&old) {
                    let reason = format!("there are {} shards now: ask for an id again", plan.shard_count);
                    actions.push(Action::Reboot { service: holder.clone(), reason });
                }
            }
        }
        Ok(())
    }

    /// Gives the generation up that is being filled.
    pub(super) fn abort_reshard(
        &mut self,
        now: u64,
        actions: &mut Vec<Action<R>>,
    ) -> Result<(), CommandError> {
        let Some(Next { generation, .. }) = self.next.take() else {
            return Err(CommandError::NoReshard);
        };
        for (shard, _) in generation.records().filter(|(_, record)| record.lease.is_some()) {
            actions.push(Action::Holder { shard, holder: None });
        }
        self.retire(&generation, "the reshard was aborted", now, actions);
        Ok(())
    }

    /// Switches over when every new id has a holder that is ready and connected.
    pub(super) fn switch_if_ready(&mut self, now: u64, actions: &mut Vec<Action<R>>) {
        let Some(next) = self.next.take_if(|next| next.generation.is_ready()) else { return };
        if self.away.keys().chain(&self.unseen.services).any(|service| next.generation.holds(service)) {
            self.next = Some(next);
            return;
        }
        let old = self.replace(next.generation, now, actions);
        let reason = format!("its shards are {} now, and others hold them", self.current.shard_count());
        for holder in sorted(&old).into_iter().filter(|holder| !self.current.holds(holder)) {
            actions.push(Action::Shutdown { service: holder.clone(), reason: reason.clone() });
        }
        self.serve(now, actions);
    }

    /// Makes that generation the current one, and ends the one before.
    fn replace(&mut self, generation: Generation, now: u64, actions: &mut Vec<Action<R>>) -> Generation {
        let old = std::mem::replace(&mut self.current, generation);
        let shard_count = self.current.shard_count();
        actions.push(Action::Switch { shard_count, holders: self.holders() });
        for (shard, record) in self.current.records() {
            if let Some(lease) = &record.lease {
                let live = op::ShardLive { shard_id: shard.shard_id, shard_count };
                actions.push(Action::Live { service: lease.holder.clone(), live });
            }
        }
        self.retire(&old, &format!("there are {shard_count} shards now"), now, actions);
        old
    }

    /// Ends a generation that is no longer among those that live.
    fn retire(&mut self, old: &Generation, reason: &str, now: u64, actions: &mut Vec<Action<R>>) {
        let shard_count = old.shard_count();
        let mut lost = Holders::new();
        for (shard, record) in old.records() {
            if let Some(lease) = &record.lease {
                let revoke =
                    op::ShardRevoke { shard_id: shard.shard_id, shard_count, reason: reason.to_owned() };
                actions.push(Action::Revoke { service: lease.holder.clone(), revoke });
                self.queue.disown(shard, &self.pacing);
                lost.entry(lease.holder.clone()).or_default().insert(shard.shard_id);
            }
        }
        for ask in self.queue.take_claims(shard_count, &self.pacing) {
            let message = format!("the shards of `d.shard_count` {shard_count} are gone: {reason}");
            let error = op::Error::new(ErrorCode::StaleShard, message);
            actions.push(Action::Refuse { service: ask.service, request: ask.request, error });
        }
        self.retired.retain(|_, until| *until > now);
        self.retired.insert(shard_count, self.noticed_ms(now));
        self.lost.insert(shard_count, lost);
        self.lost.retain(|shard_count, _| self.retired.contains_key(shard_count));
        self.forgotten.push(shard_count);
        (self.is_dirty, self.told.is_stale) = (true, true);
    }

    /// A holder in the new generation that never sends SHARD_STATE is taken for ready when its permit
    /// has run out: nothing else will ever be heard of it.
    pub(super) fn assume_later(&mut self, shard: Shard) {
        let ttl_ms = millis(self.settings.permit_ttl);
        let Some(next) = &mut self.next else { return };
        if next.generation.shard_count() == shard.shard_count
            && let Some(lease) = next.generation.lease(shard.shard_id)
            && !lease.reports
            && lease.state.is_none()
        {
            next.assumed.insert((lease.accepted_ms + ttl_ms, shard.shard_id));
        }
    }

    /// The service came back, and its process may be another, with nothing connected to Discord: what it
    /// holds of the generation that is being filled is not ready until it says so again.
    pub(super) fn doubt(&mut self, service: &Name, now: u64) {
        let Some(next) = &mut self.next else { return };
        next.generation.unclaim(service);
        let ids: Vec<ShardId> = next.generation.held_by(service.as_str()).collect();
        for id in ids {
            let mut reports = false;
            next.generation.change_lease(id, |lease| {
                (lease.state, reports) = (None, lease.reports);
            });
            next.assumed.retain(|(_, other)| *other != id);
            if !reports {
                next.assumed.insert((now + millis(self.settings.permit_ttl), id));
            }
        }
    }

    pub(super) fn assume_ready(&mut self, now: u64) {
        let ttl_ms = millis(self.settings.permit_ttl);
        let Some(next) = &mut self.next else { return };
        while let Some(&due) = next.assumed.first().filter(|(at, _)| *at <= now) {
            next.assumed.remove(&due);
            let id = due.1;
            let Some(lease) = next.generation.lease(id) else { continue };
            // Then its permit is still to come. What another waits for says nothing of this holder.
            if self.queue.waits_for(&lease.holder, next.generation.shard(id)) {
                continue;
            }
            next.generation.change_lease(id, |lease| {
                if !lease.reports && lease.state.is_none() && lease.accepted_ms + ttl_ms <= now {
                    lease.state = Some(op::LeaseState::Ready);
                }
            });
        }
    }
}

/// The holders, so that the same steps always lead to the same actions.
fn sorted(generation: &Generation) -> BTreeSet<&Name> {
    generation.holders().collect()
}
