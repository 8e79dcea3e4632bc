//! What those who wait are told: why, how many are before them, and when it is their turn at the
//! earliest.

use std::collections::HashMap;

use crate::protocol::op::{ShardWait, WaitReason};

use super::queue::{Place, Ticket, Wants};
use super::records::{HoldReason, HoldRecord, Shard};
use super::{Action, ShardPool};

/// Positions change with every grant. They are told at most this often …
const INTERVAL_MS: u64 = 1_000;

/// … and a long queue less often: that many ms for each who waits, so that no more than 1,000 of them
/// are told in a second.
const INTERVAL_MS_EACH: u64 = 1;

#[derive(Default)]
pub(super) struct Told {
    /// Whether what was told may have changed.
    pub(super) is_stale: bool,
    /// Before that it is not looked through again.
    not_before_ms: u64,
}

impl Told {
    /// When the next look is due.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.is_stale.then_some(self.not_before_ms)
    }

    fn is_due(&self, now: u64) -> bool {
        self.next_ms().is_some_and(|next| next <= now)
    }
}

/// Those before a place in the queue who need a permit, as far as they can be served.
#[derive(Default)]
struct Ahead {
    any: u64,
    eligible: HashMap<u32, u64>,
    eligible_sum: u64,
}

impl<R: Clone> ShardPool<R> {
    /// Tells the newcomer where it stands, and, now and then, everybody who does no longer stand
    /// where it was told.
    pub(super) fn tell(&mut self, joined: Option<Ticket>, now: u64, actions: &mut Vec<Action<R>>) {
        if let Some(ticket) = joined
            && let Some(place) = self.queue.get(ticket)
        {
            let ahead = self.ahead_of_last(ticket, place);
            let wait = self.wait_of(ticket, place, &ahead, self.queue.len() as u64, now);
            self.tell_one(ticket, wait, actions);
        }
        if self.told.is_due(now) {
            let pause = INTERVAL_MS.max(self.queue.len() as u64 * INTERVAL_MS_EACH);
            self.told = Told { is_stale: false, not_before_ms: now + pause };
            for (ticket, wait) in self.changed(now) {
                self.tell_one(ticket, wait, actions);
            }
        }
    }

    fn changed(&self, now: u64) -> Vec<(Ticket, ShardWait)> {
        let mut ahead = Ahead::default();
        let mut changed = Vec::new();
        for (position, (ticket, place)) in (1..).zip(self.queue.places()) {
            let wait = self.wait_of(ticket, place, &ahead, position, now);
            if place.told != Some((wait.reason, wait.position)) {
                changed.push((ticket, wait));
            }
            self.count(ticket, place, &mut ahead);
        }
        changed
    }

    fn tell_one(&mut self, ticket: Ticket, wait: ShardWait, actions: &mut Vec<Action<R>>) {
        let Some(Place { ask, .. }) = self.queue.get(ticket) else { return };
        actions.push(Action::Wait { service: ask.service.clone(), request: ask.request.clone(), wait });
        self.queue.note_told(ticket, (wait.reason, wait.position));
    }

    fn count(&self, ticket: Ticket, place: &Place<R>, ahead: &mut Ahead) {
        match place.ask.wants.shard() {
            None => ahead.any += 1,
            Some(shard) => {
                let key = self.pacing.key(shard.shard_id);
                if place.ask.permit && self.queue.is_eligible(ticket, key) {
                    *ahead.eligible.entry(key).or_default() += 1;
                    ahead.eligible_sum += 1;
                }
            }
        }
    }

    /// Everybody else is ahead of who came last.
    fn ahead_of_last(&self, ticket: Ticket, place: &Place<R>) -> Ahead {
        let eligible_sum = self.queue.eligible_len() as u64;
        let Some(shard) = place.ask.wants.shard() else {
            let any = self.queue.any_len() as u64 - 1;
            return Ahead { any, eligible: HashMap::new(), eligible_sum };
        };
        let key = self.pacing.key(shard.shard_id);
        let own = u64::from(place.ask.permit && self.queue.is_eligible(ticket, key));
        let eligible = HashMap::from([(key, self.queue.eligible_with(key) as u64 - own)]);
        Ahead { any: self.queue.any_len() as u64, eligible, eligible_sum: eligible_sum - own }
    }

    fn wait_of(&self, ticket: Ticket, place: &Place<R>, ahead: &Ahead, position: u64, now: u64) -> ShardWait {
        let (reason, at) = match place.ask.wants {
            _ if self.frozen.is_some() => (WaitReason::Frozen, None),
            Wants::Any => self.wait_for_any(ahead, now),
            Wants::Own(shard) | Wants::Claim(shard) => self.wait_for(ticket, shard, ahead, now),
        };
        ShardWait { reason, position, retry_after_ms: at.map(|at: u64| at.saturating_sub(now)) }
    }

    fn wait_for_any(&self, ahead: &Ahead, now: u64) -> (WaitReason, Option<u64>) {
        let target = self.target();
        if ahead.any >= target.free_count() as u64 {
            return wait_for_hold(target.first_held_back());
        }
        let width = self.pacing.max_concurrency().min(target.shard_count());
        let before = ahead.any + ahead.eligible_sum;
        let opens = self.pacing.next_opening().unwrap_or(now);
        self.wait_for_permit(before, opens + before / u64::from(width) * self.pacing.interval_ms())
    }

    fn wait_for(&self, ticket: Ticket, shard: Shard, ahead: &Ahead, now: u64) -> (WaitReason, Option<u64>) {
        let key = self.pacing.key(shard.shard_id);
        if !self.queue.is_eligible(ticket, key) {
            let generation = self.generation(shard.shard_count);
            return wait_for_hold(generation.and_then(|it| it.record(shard.shard_id).hold));
        }
        let before = ahead.eligible.get(&key).copied().unwrap_or_default();
        let opens = self.pacing.opens_at(key).unwrap_or(now);
        self.wait_for_permit(ahead.any + ahead.eligible_sum, opens + before * self.pacing.interval_ms())
    }

    /// `before`: how many permits are to be given before this one.
    fn wait_for_permit(&self, before: u64, at: u64) -> (WaitReason, Option<u64>) {
        if self.budget.remaining().is_some_and(|left| left <= before) {
            return (WaitReason::BudgetExhausted, self.budget.resets_ms());
        }
        (WaitReason::IdentifyRateLimit, Some(at))
    }
}

fn wait_for_hold(hold: Option<HoldRecord>) -> (WaitReason, Option<u64>) {
    let reason = match hold.map(|hold| hold.reason) {
        Some(HoldReason::CrashLoop) => WaitReason::CrashLoop,
        Some(HoldReason::Vanished) | None => WaitReason::NoFreeShard,
    };
    (reason, hold.map(|hold| hold.until_ms))
}
