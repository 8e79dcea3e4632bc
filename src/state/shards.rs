//! The pool of Discord shard ids: who holds which id, who waits for one, and what each is told.
//!
//! A plain state machine: [`ShardPool::step`] takes an [`Input`] and the time and returns
//! [`Action`]s; [`ShardPool::operate`] does the same for an operator's [`Command`], and answers it.
//! `PROTOCOL.md` section 7 has the rules.
//!
//! # What a driver has to do
//!
//! - **In**: hand in each service's inputs in the order in which they happened. [`Input::Resumed`]
//!   for *every* accepted IDENTIFY, the first one of a name included, before any of its ops;
//!   [`Input::Away`] when its connection ends; [`Input::Heard`] where it is told its ids, by ACCEPT
//!   before `Resumed` or without a connection; [`Input::Down`] when its session ends, with the
//!   [`Departure`] that says whether its ids are free at once. Each name ever told ends with `Down`,
//!   except where it is the gateway that stops: then leases stand, and nobody is told `Down`.
//!   Discord's answers come in as [`Input::SessionStartLimit`].
//! - **Time**: call `step(Input::Wake, now)` at [`ShardPool::next_wake`], which is to be asked after
//!   every step. Late is allowed, early has no effect. And wherever [`ShardPool::is_clock_off`], which
//!   is to be asked several times a second.
//! - **Out**: carry out the actions in order. [`Action::Persist`] is always the first, is one
//!   transaction, and must be durable before any action after it is done; with none after it, it
//!   may be written later, but in order. Where it fails, nothing after it may be done, and the pool
//!   must not go on: what it says would no longer be what a restart finds.
//! - **Start**: [`ShardPool::restore`] from what was stored ([`Snapshot::read`]; empty at first), store
//!   what [`ShardPool::catch_up`] gives, and publish [`ShardPool::holders`] as the first route table. In memory only: drop `Persist`.
//! - **Connections**: the pool knows none. An action for a service that is away is dropped, except
//!   where [`Action`] says otherwise.
//!
//! # How it is built
//!
//! Times inside are ms on one [timeline](time). What survives a restart stands in [records]; every
//! other field is derived from them, or belongs to connections. A step first lets time pass, then
//! takes the input in, then serves the queue, then tells those who wait.
//!
//! Waiting is first come, first served in one [queue]. A request fits every id, a claim only its
//! own; an id whose [key](pacing) is open goes to the first in the queue that it fits. So a claim
//! never overtakes an earlier request, and a request never takes the id of an earlier claim. (A claim
//! that needs no permit does not wait for a key: its shard is connected already.)

mod action;
mod asking;
mod budget;
mod crash_loop;
mod generation;
mod keyed;
mod last_held;
mod leases;
mod notice;
mod operate;
mod pacing;
#[cfg(test)]
mod properties;
mod queue;
mod records;
mod report;
mod reshard;
mod restore;
#[cfg(test)]
mod tests;
mod time;
mod waits;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::protocol::name::{Epoch, Name, ShardId};

pub use self::action::{Action, Departure, Input, Warning};
pub use self::budget::SessionStartLimit;
pub use self::crash_loop::CrashRecord;
pub use self::notice::NoticeRecord;
pub use self::operate::{Command, CommandError, Done};
pub use self::records::{
    BudgetRecord, Change, DamagedEntry, Entry, FrozenRecord, HoldReason, HoldRecord, Holders, LeaseRecord,
    PermitRecord, PoolRecord, ReshardRecord, ResumeRecord, Shard, ShardRecord, Snapshot,
};
pub use self::report::{Awaits, BudgetReport, Report, ShardView, Standing};
pub use self::reshard::{Mode, Plan};
pub use self::restore::RestoreError;
pub use self::time::Now;

use self::budget::Budget;
use self::generation::Generation;
use self::notice::Notice;
use self::pacing::Pacing;
use self::queue::{Queue, Ticket};
use self::time::Timeline;

/// What an operator or Discord sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `shards`, where it is set. Without it a new pool has 1 id, and a stored one what it had.
    pub shard_count: Option<u32>,
    /// Counts until Discord told its own.
    pub max_concurrency: u32,
    /// Whether Discord tells its limits. Where not, those that it told an earlier run hold no more.
    pub asks_discord: bool,
    pub identify_interval: Duration,
    pub permit_ttl: Duration,
    pub resume_window: Duration,
    pub heartbeat: Duration,
}

/// The pool's whole state. See the [module](self).
pub struct ShardPool<R> {
    settings: Settings,
    timeline: Timeline,
    current: Generation,
    /// The generation that is being filled.
    next: Option<Next>,
    epochs: Epochs,
    pacing: Pacing,
    budget: Budget,
    /// As Discord recommended last in this run.
    recommended: Option<u32>,
    notice: Notice,
    frozen: Option<FrozenRecord>,
    retired: BTreeMap<u32, u64>,
    /// Who held what of those when they ended.
    lost: BTreeMap<u32, Holders>,
    queue: Queue<R>,
    /// Services without a connection, and when their last frame came.
    away: HashMap<Name, u64>,
    /// When services without a connection heard last that their leases stand.
    heard: HashMap<Name, u64>,
    /// Services that have sent SHARD_STATE.
    reporting: HashSet<Name>,
    /// Holders that have not identified since the restart, and until when they are waited for.
    unseen: restore::Unseen,
    /// Whether the pool's own record is not stored yet.
    is_new: bool,
    /// Whether the pool's own record is not as stored.
    is_dirty: bool,
    forgotten: Vec<u32>,
    told: waits::Told,
    counts: report::Counts,
}

/// A generation that is being filled.
struct Next {
    generation: Generation,
    since_ms: u64,
    /// Ids whose holder never sends SHARD_STATE, by when they are taken for ready.
    assumed: BTreeSet<(u64, ShardId)>,
}

/// That of each id's last lease, in whichever generation.
#[derive(Default)]
struct Epochs {
    by_id: BTreeMap<ShardId, Epoch>,
    dirty: BTreeSet<ShardId>,
}

impl Epochs {
    fn of(&self, id: ShardId) -> Epoch {
        self.by_id.get(&id).copied().unwrap_or_default()
    }

    fn advance(&mut self, id: ShardId) -> Epoch {
        let epoch = self.by_id.entry(id).or_default();
        epoch.0 += 1;
        self.dirty.insert(id);
        *epoch
    }
}

impl<R: Clone> ShardPool<R> {
    /// Takes one input in. The actions are to be carried out in order.
    pub fn step(&mut self, input: Input<R>, now: Now) -> Vec<Action<R>> {
        let mut actions = Vec::new();
        let at = self.timeline.pass(now);
        self.pass_time(at);
        let joined = self.take(input, at, &mut actions);
        self.settle(joined, now, actions)
    }

    /// When [`Input::Wake`] is due.
    pub fn next_wake(&self) -> Option<Instant> {
        let waiting = self.queue.len() > 0;
        let generations = self.generations().filter_map(|it| it.first_held_back().map(|hold| hold.until_ms));
        let for_those_who_wait = generations
            .chain(self.pacing.next_opening())
            .chain(self.budget.resets_ms())
            .chain(self.told.next_ms())
            .filter(|_| waiting);
        let unseen = (!self.unseen.services.is_empty()).then_some(self.unseen.until_ms);
        let assumed = self.next.as_ref().and_then(|next| next.assumed.first().map(|&(at, _)| at));
        for_those_who_wait.chain(unseen).chain(assumed).min().map(|ms| self.timeline.instant(ms))
    }

    /// Whether the wall clock was set, so that a restart would misread what is stored: the next step
    /// stores it anew.
    pub fn is_clock_off(&self, now: Now) -> bool {
        self.timeline.is_off(now)
    }

    /// The ids leased to that service, in rising order: those that ACCEPT lists.
    pub fn shards_of(&self, service: &str) -> Vec<ShardId> {
        let ids: BTreeSet<_> = self.generations().flat_map(|it| it.held_by(service)).collect();
        ids.into_iter().collect()
    }

    /// Who holds what in the current generation, by id.
    pub fn holders(&self) -> Vec<Option<Name>> {
        self.current.records().map(|(_, record)| record.lease.as_ref().map(|it| it.holder.clone())).collect()
    }

    /// Of the current generation.
    pub fn shard_count(&self) -> u32 {
        self.current.shard_count()
    }

    fn take(&mut self, input: Input<R>, now: u64, actions: &mut Vec<Action<R>>) -> Option<Ticket> {
        match input {
            Input::Connect { service, request, connect } => {
                return self.connect(service, request, connect, now, actions);
            }
            Input::Death { service, request, death } => self.death(service, request, death, now, actions),
            Input::State { service, request, state } => self.state(service, request, state, now, actions),
            Input::Resumed { service } => self.resumed(&service, now, actions),
            Input::Away { service, last_frame } => self.gone(service, last_frame, now),
            Input::Heard { service } => self.heard(service, now),
            Input::Down { service, departure } => self.down(&service, departure, now, actions),
            Input::SessionStartLimit { limit, asked_at } => self.limit(limit, asked_at, now, actions),
            // In its turn: that somebody is back may have come in time and wait for its own.
            Input::Wake => self.forget_unseen(now, actions),
        }
        None
    }

    /// What is to be done after every input and command.
    fn settle(&mut self, joined: Option<Ticket>, now: Now, mut actions: Vec<Action<R>>) -> Vec<Action<R>> {
        let at = self.timeline.ms(now.instant);
        self.serve(at, &mut actions);
        self.switch_if_ready(at, &mut actions);
        self.tell(joined, at, &mut actions);
        let changes = self.take_changes(now);
        if !changes.is_empty() {
            actions.insert(0, Action::Persist(changes));
        }
        actions
    }

    /// Brings everything that has a time to the present one.
    fn pass_time(&mut self, now: u64) {
        while let Some(key) = self.pacing.due(now) {
            self.set_key(key, true);
        }
        for shard_count in self.shard_counts() {
            while let Some(id) =
                self.generation_mut(shard_count).and_then(|(it, pacing)| it.free_due(now, pacing))
            {
                self.reconsider(Shard { shard_count, shard_id: id });
            }
        }
        if self.budget.reset_if_due(now, self.timeline.real_of(now)) {
            self.told.is_stale = true;
        }
        self.is_dirty |= self.notice.pass(now);
        self.assume_ready(now);
    }

    fn limit(&mut self, limit: SessionStartLimit, asked_at: Instant, now: u64, actions: &mut Vec<Action<R>>) {
        let asked = self.timeline.real_ms(asked_at);
        actions.extend(self.budget.update(limit, asked, now).map(Action::Warn));
        self.told.is_stale = true;
        let shard_count = self.target().shard_count();
        if self.recommended.replace(limit.shards) != Some(limit.shards) && limit.shards > shard_count {
            actions.push(Action::Warn(Warning::MoreShardsRecommended {
                recommended: limit.shards,
                shard_count,
            }));
        }
        self.rekey(limit.max_concurrency, now);
    }

    fn rekey(&mut self, max_concurrency: u32, now: u64) {
        let before = Pacing::new(self.pacing.max_concurrency(), 0, 0);
        if self.pacing.set_max_concurrency(max_concurrency, now) {
            self.queue.rekey(&before, &self.pacing);
            self.current.rekey(&self.pacing);
            if let Some(next) = &mut self.next {
                next.generation.rekey(&self.pacing);
            }
        }
    }

    /// A key of pacing is open now, or closed.
    fn set_key(&mut self, key: u32, open: bool) {
        let next = self.next.as_mut().map(|next| next.generation.free());
        for free in [Some(self.current.free()), next].into_iter().flatten() {
            if open { free.open(key) } else { free.close(key) }
        }
        let eligible = self.queue.eligible();
        if open { eligible.open(key) } else { eligible.close(key) }
    }

    /// Those that live: the current one, then the one that is being filled.
    fn generations(&self) -> impl Iterator<Item = &Generation> {
        [Some(&self.current), self.next.as_ref().map(|next| &next.generation)].into_iter().flatten()
    }

    fn shard_counts(&self) -> impl Iterator<Item = u32> + use<R> {
        let next = self.next.as_ref().map(|next| next.generation.shard_count());
        [Some(self.current.shard_count()), next].into_iter().flatten()
    }

    fn generation(&self, shard_count: u32) -> Option<&Generation> {
        self.generations().find(|it| it.shard_count() == shard_count)
    }

    fn generation_mut(&mut self, shard_count: u32) -> Option<(&mut Generation, &Pacing)> {
        let next = self.next.as_mut().map(|next| &mut next.generation);
        let living = [Some(&mut self.current), next].into_iter().flatten();
        living.into_iter().find(|it| it.shard_count() == shard_count).map(|it| (it, &self.pacing))
    }

    /// The generation from which a request for any id is served.
    fn target(&self) -> &Generation {
        self.next.as_ref().map_or(&self.current, |next| &next.generation)
    }

    /// Until when a holder that heard last of the gateway at that time may not have closed its
    /// Discord connection.
    fn noticed_ms(&self, last_frame: u64) -> u64 {
        self.notice.noticed_ms(last_frame)
    }

    fn take_changes(&mut self, now: Now) -> Vec<Change> {
        if self.timeline.adjust(now) {
            self.touch();
        }
        let mut changes: Vec<_> = std::mem::take(&mut self.forgotten)
            .into_iter()
            .map(|shard_count| Change::ForgetGeneration { shard_count })
            .collect();
        if self.is_dirty && !self.may_be_set() {
            (self.is_dirty, self.is_new) = (false, false);
            changes.push(Change::Pool(self.record()));
        }
        self.budget.take_changes(&mut changes);
        for shard_id in std::mem::take(&mut self.epochs.dirty) {
            changes.push(Change::Epoch { shard_id, epoch: self.epochs.of(shard_id) });
        }
        self.pacing.take_changes(&mut changes);
        self.current.take_changes(&mut changes);
        if let Some(next) = &mut self.next {
            next.generation.take_changes(&mut changes);
        }
        let (drift, real_drift) = (self.timeline.drift_ms(now), self.timeline.real_drift_ms(now));
        for change in &mut changes {
            change.shift(drift);
            change.shift_real(real_drift);
        }
        changes
    }

    /// All that has a time is to be stored anew.
    fn touch(&mut self) {
        self.is_dirty = true;
        self.budget.touch();
        self.pacing.touch();
        self.current.touch();
        if let Some(next) = &mut self.next {
            next.generation.touch();
        }
    }

    fn record(&self) -> PoolRecord {
        let reshard = self.next.as_ref().map(|next| ReshardRecord {
            shard_count: next.generation.shard_count(),
            since_ms: next.since_ms,
        });
        PoolRecord {
            shard_count: self.current.shard_count(),
            reshard,
            frozen: self.frozen,
            retired: self.retired.clone(),
            lost: self.lost.clone(),
            notice: self.notice.in_force(),
        }
    }

    /// Panics where the parts contradict each other.
    #[cfg(test)]
    fn check_invariants(&self) {
        self.generations().for_each(|it| it.check_invariants(&self.pacing));
        let may_have = |service: &Name, shard: Shard| {
            self.generation(shard.shard_count).is_some_and(|it| it.may_have(service, shard.shard_id))
        };
        self.queue.check_invariants(&self.pacing, may_have);
        assert_eq!(self.first_to_serve(), None, "somebody waits for what it could have");
        for (_, place) in self.queue.places() {
            assert!(!self.away.contains_key(&place.ask.service), "{} waits while away", place.ask.service);
        }
    }
}
