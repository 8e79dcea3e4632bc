//! Leases: one place where a grant is decided (`serve`), one where it is carried out (`grant`), and
//! one where a lease ends (`end`). Whatever is to hold back or follow a lease belongs there.

use std::time::{Duration, Instant};

use crate::protocol::name::{Epoch, Name};
use crate::protocol::op::{self, LeaseState};

use super::queue::{Ask, Ticket};
use super::records::{FrozenRecord, HoldReason, HoldRecord, LeaseRecord, Shard};
use super::{Action, Departure, ShardPool, Warning};

/// Discord's "do not reconnect": authentication failed, invalid shard, sharding required, invalid
/// API version, invalid intents, disallowed intents.
const FATAL_CLOSE_CODES: [u16; 6] = [4004, 4010, 4011, 4012, 4013, 4014];

/// How a lease ends.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// The holder gave it back.
    Death { close_code: Option<u16>, resume: Option<op::Resume> },
    /// The holder left for good.
    Left,
    /// The holder is gone, and may not have noticed before that time.
    Vanished { noticed_ms: u64 },
    /// The gateway took it, and the holder may not have noticed before that time.
    Taken { noticed_ms: u64 },
}

impl<R: Clone> ShardPool<R> {
    /// Whether that service holds that id.
    pub(super) fn holds(&self, service: &Name, shard: Shard) -> bool {
        let Some(generation) = self.generation(shard.shard_count) else { return false };
        shard.shard_id.0 < shard.shard_count
            && generation.lease(shard.shard_id).is_some_and(|lease| lease.holder == *service)
    }

    /// Looks anew at who waits for that id.
    pub(super) fn reconsider(&mut self, shard: Shard) {
        let next = self.next.as_ref().map(|next| &next.generation);
        let living = [Some(&self.current), next].into_iter().flatten();
        let generation = living.into_iter().find(|it| it.shard_count() == shard.shard_count);
        let may_have = |service: &Name| generation.is_some_and(|it| it.may_have(service, shard.shard_id));
        self.queue.reconsider(shard, &self.pacing, may_have);
        self.told.is_stale = true;
    }

    /// Grants whatever can be granted now, in the order of the queue.
    pub(super) fn serve(&mut self, now: u64, actions: &mut Vec<Action<R>>) {
        while let Some(ticket) = self.first_to_serve() {
            let Some(ask) = self.queue.remove(ticket, &self.pacing) else { return };
            let shard = ask.wants.shard().or_else(|| {
                let target = self.target();
                target.free_for(&ask.service, &self.pacing).map(|id| target.shard(id))
            });
            let Some(shard) = shard else { return };
            self.told.is_stale = true;
            self.grant(ask, shard, now, actions);
        }
    }

    pub(super) fn first_to_serve(&self) -> Option<Ticket> {
        if self.frozen.is_some() {
            return None;
        }
        if let Some(ticket) = self.queue.first_at_once() {
            return Some(ticket);
        }
        if self.budget.is_exhausted() {
            return None;
        }
        let any = self.queue.first_any().filter(|_| self.target().has_grantable());
        any.into_iter().chain(self.queue.first_eligible()).min()
    }

    /// Carries a grant out: a lease that stands is accepted anew, else one begins.
    pub(super) fn grant(&mut self, ask: Ask<R>, shard: Shard, now: u64, actions: &mut Vec<Action<R>>) {
        let Ask { service, request, permit, returns, .. } = ask;
        let id = shard.shard_id;
        let reports = self.reporting.contains(&service);
        let is_new = !self.holds(&service, shard);
        if is_new {
            self.begin(&service, shard, reports, now, actions);
        }
        let epoch = self.epochs_of(shard);
        if permit {
            self.counts.permits += 1;
            actions.extend(self.budget.spend(now).map(Action::Warn));
            if self.pacing.grant(shard, epoch, reports, now) {
                self.set_key(self.pacing.key(id), false);
            }
        }
        let real = self.timeline.real_of(now);
        let Some((generation, _)) = self.generation_mut(shard.shard_count) else { return };
        generation.change_lease(id, |lease| {
            lease.accepted_ms = now;
            lease.state = lease.state.filter(|_| !permit);
        });
        let left = if is_new || returns { generation.take_resume(id, real) } else { None };
        let (resume, resume_for) = left.map_or((None, Duration::ZERO), |(data, time)| (Some(data), time));
        self.assume_later(shard);
        self.reconsider(shard);
        let max_concurrency = self.pacing.max_concurrency();
        let accept =
            op::ShardAccept { shard_id: id, shard_count: shard.shard_count, epoch, max_concurrency, resume };
        actions.push(Action::Accept { service, request, accept, permit, resume_for });
    }

    fn begin(&mut self, service: &Name, shard: Shard, reports: bool, now: u64, actions: &mut Vec<Action<R>>) {
        let epoch = self.epochs.advance(shard.shard_id);
        let holder = service.clone();
        let lease = LeaseRecord { holder, epoch, since_ms: now, accepted_ms: now, state: None, reports };
        if let Some((generation, pacing)) = self.generation_mut(shard.shard_count) {
            generation.begin(shard.shard_id, lease, pacing);
        }
        actions.push(Action::Holder { shard, holder: Some(service.clone()) });
    }

    pub(super) fn death(
        &mut self,
        service: Name,
        request: R,
        death: op::ShardDeath,
        now: u64,
        actions: &mut Vec<Action<R>>,
    ) {
        match self.find_held(&service, death.shard_id, death.shard_count) {
            Err(error) => actions.push(Action::Refuse { service, request, error }),
            Ok(shard) => {
                self.freeze_if_fatal(death.close_code, shard, now, actions);
                self.end(
                    shard,
                    End::Death { close_code: death.close_code, resume: death.resume },
                    now,
                    actions,
                );
            }
        }
    }

    fn freeze_if_fatal(
        &mut self,
        close_code: Option<u16>,
        shard: Shard,
        now: u64,
        actions: &mut Vec<Action<R>>,
    ) {
        let Some(close_code) = close_code.filter(|code| FATAL_CLOSE_CODES.contains(code)) else { return };
        actions.push(Action::Warn(Warning::Frozen { shard, close_code }));
        if self.frozen.is_none() {
            self.frozen = Some(FrozenRecord { cause: Some((close_code, shard)), since_ms: now });
            (self.is_dirty, self.told.is_stale) = (true, true);
        }
    }

    pub(super) fn state(
        &mut self,
        service: Name,
        request: R,
        told: op::ShardState,
        now: u64,
        actions: &mut Vec<Action<R>>,
    ) {
        let shard = match self.find_held(&service, Some(told.shard_id), told.shard_count) {
            Ok(shard) => shard,
            Err(error) => return actions.push(Action::Refuse { service, request, error }),
        };
        self.reporting.insert(service);
        let epoch = self.epochs_of(shard);
        if told.state == LeaseState::Identifying && self.pacing.identifying(shard, epoch, now) {
            self.set_key(self.pacing.key(shard.shard_id), false);
        }
        let real = self.timeline.real_of(now);
        if let Some((generation, _)) = self.generation_mut(shard.shard_count) {
            generation.change_lease(shard.shard_id, |lease| {
                (lease.state, lease.reports) = (Some(told.state), true);
            });
            if told.state == LeaseState::Identifying {
                // Discord ends the session before.
                generation.clear_deposit(shard.shard_id);
            }
            generation.deposit(shard.shard_id, told.resume, real);
        }
    }

    /// Ends a lease.
    pub(super) fn end(&mut self, shard: Shard, end: End, now: u64, actions: &mut Vec<Action<R>>) {
        let id = shard.shard_id;
        let (looping, noticed) = match &end {
            End::Death { close_code, .. } => (self.note_death(*close_code, shard, now, now, actions), None),
            End::Vanished { noticed_ms } => {
                (self.note_death(None, shard, *noticed_ms, now, actions), Some(*noticed_ms))
            }
            End::Taken { noticed_ms } => (None, Some(*noticed_ms)),
            End::Left => (None, None),
        };
        let noticed_ms = noticed.unwrap_or(now);
        let hold = match looping.filter(|until| *until >= noticed_ms) {
            Some(until_ms) => HoldRecord { until_ms, reason: HoldReason::CrashLoop, noticed_ms },
            None => HoldRecord { until_ms: noticed_ms, reason: HoldReason::Vanished, noticed_ms },
        };
        let real = self.timeline.real_of(now);
        let Some((generation, pacing)) = self.generation_mut(shard.shard_count) else { return };
        if let End::Death { resume, .. } = end {
            generation.deposit(id, resume, real);
        }
        generation.end(id, Some(hold).filter(|hold| hold.until_ms > now), pacing);
        self.queue.disown(shard, &self.pacing);
        self.reconsider(shard);
        actions.push(Action::Holder { shard, holder: None });
    }

    /// Counts a death of an id that is not granted before `noticed_ms` anyway; until when it is held back
    /// for that, if it is.
    fn note_death(
        &mut self,
        close_code: Option<u16>,
        shard: Shard,
        noticed_ms: u64,
        now: u64,
        actions: &mut Vec<Action<R>>,
    ) -> Option<u64> {
        self.counts.note_death(close_code);
        let (generation, _) = self.generation_mut(shard.shard_count)?;
        let until = generation.note_death(shard.shard_id, now)?.max(noticed_ms);
        let deaths = generation.record(shard.shard_id).deaths;
        actions.push(Action::Warn(Warning::CrashLoop { shard, deaths, held_ms: until - now }));
        Some(until)
    }

    pub(super) fn resumed(&mut self, service: &Name, now: u64, actions: &mut Vec<Action<R>>) {
        self.leave_queue(service);
        self.away.remove(service);
        self.heard.remove(service);
        self.unseen.services.remove(service);
        self.current.unclaim(service);
        self.doubt(service, now);
        for shard in self.missed_revokes(service, now) {
            let Shard { shard_count, shard_id } = shard;
            let reason = "it was lost while this service was away".to_owned();
            let revoke = op::ShardRevoke { shard_id, shard_count, reason };
            actions.push(Action::Revoke { service: service.clone(), revoke });
        }
    }

    /// What the service may think that it holds still: an id that ACCEPT lists, since the service has
    /// it in one generation, but that it held in another too, and lost there while it was away.
    fn missed_revokes(&self, service: &Name, now: u64) -> Vec<Shard> {
        let listed = self.shards_of(service.as_str());
        let retired = self.retired.iter().filter(|(_, until)| **until > now);
        let lost = retired.flat_map(|(&shard_count, _)| {
            let held = self.lost.get(&shard_count).and_then(|holders| holders.get(service));
            held.into_iter().flatten().map(move |&shard_id| Shard { shard_count, shard_id })
        });
        let ended = self.generations().flat_map(|it| {
            let ids = listed.iter().filter(|id| {
                id.0 < it.shard_count() && it.lease(**id).is_none_or(|lease| lease.holder != *service)
            });
            ids.filter(|id| it.record(**id).last_holder.as_ref() == Some(service)).map(|id| it.shard(*id))
        });
        let mut missed: Vec<_> = lost.filter(|shard| listed.contains(&shard.shard_id)).chain(ended).collect();
        missed.sort_by_key(|shard| (shard.shard_id, shard.shard_count));
        missed
    }

    pub(super) fn gone(&mut self, service: Name, last_frame: Option<Instant>, now: u64) {
        self.leave_queue(&service);
        let last_frame = last_frame.map_or(now, |instant| self.timeline.ms(instant).min(now));
        // Whoever goes away had come back since the restart; that it resumed may not have been told.
        self.unseen.services.remove(&service);
        self.away.insert(service, last_frame);
    }

    /// The service goes on for another window with what it holds; and with what it has just lost, where it
    /// cannot know that: the same id is its own in another generation, or the word that it lost all crosses
    /// this one.
    pub(super) fn heard(&mut self, service: Name, now: u64) {
        let noticed_ms = self.noticed_ms(now);
        let has_leases = self.generations().any(|it| it.holds(&service));
        let held_back = |it: &super::Generation| it.held_back_from(&service);
        let lost: Vec<Shard> = if has_leases {
            self.missed_revokes(&service, now)
        } else {
            self.generations().flat_map(held_back).collect()
        };
        for shard in lost {
            self.hold_longer(shard, noticed_ms);
        }
        if has_leases {
            self.heard.insert(service, now);
        }
    }

    fn hold_longer(&mut self, shard: Shard, noticed_ms: u64) {
        self.told.is_stale = true;
        if let Some((generation, _)) = self.generation_mut(shard.shard_count) {
            generation.hold_longer(shard.shard_id, noticed_ms);
        } else if let Some(until) = self.retired.get_mut(&shard.shard_count) {
            *until = noticed_ms.max(*until);
            self.is_dirty = true;
        }
    }

    pub(super) fn down(
        &mut self,
        service: &Name,
        departure: Departure,
        now: u64,
        actions: &mut Vec<Action<R>>,
    ) {
        self.leave_queue(service);
        let away_since = self.away.remove(service);
        let heard = self.heard.remove(service).unwrap_or_default();
        self.reporting.remove(service);
        self.unseen.services.remove(service);
        let end = match departure {
            Departure::Left => End::Left,
            Departure::Vanished { last_frame } => {
                let told = last_frame.map(|instant| self.timeline.ms(instant).min(now));
                End::Vanished { noticed_ms: self.noticed_ms(told.or(away_since).unwrap_or(now).max(heard)) }
            }
        };
        self.end_all(service, &end, now, actions);
    }

    /// Ends all leases of that service, the lowest last, so that it is the one that the name gets
    /// back first; how many they were.
    pub(super) fn end_all(
        &mut self,
        service: &Name,
        end: &End,
        now: u64,
        actions: &mut Vec<Action<R>>,
    ) -> usize {
        let held = |it: &super::Generation| -> Vec<Shard> {
            it.held_by(service.as_str()).rev().map(|id| it.shard(id)).collect()
        };
        let held: Vec<Shard> = self.generations().flat_map(held).collect();
        for shard in &held {
            self.end(*shard, end.clone(), now, actions);
        }
        held.len()
    }

    fn leave_queue(&mut self, service: &Name) {
        if self.queue.leave(service, &self.pacing) {
            self.told.is_stale = true;
        }
    }

    fn epochs_of(&self, shard: Shard) -> Epoch {
        let lease = self.generation(shard.shard_count).and_then(|it| it.lease(shard.shard_id));
        lease.map_or_else(|| self.epochs.of(shard.shard_id), |lease| lease.epoch)
    }
}
