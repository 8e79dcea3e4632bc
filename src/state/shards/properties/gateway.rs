//! The driver of a pool, its store, and the witness: whatever the pool says is checked here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::protocol::name::{Epoch, Name, ShardId};
use crate::protocol::op;

use super::super::time::millis;
use super::super::*;
use super::Dice;

const START_MS: u64 = 1_700_000_000_000;

/// A request that has not had its last answer.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) service: Name,
    pub(super) claim: Option<Shard>,
    pub(super) permit: bool,
    /// Whether its service held nothing when it asked.
    held_nothing: bool,
    told: Option<(op::WaitReason, u64)>,
}

pub(super) struct Gateway {
    pub(super) pool: ShardPool<u64>,
    pub(super) settings: Settings,
    stored: Snapshot,
    start: Instant,
    now: u64,
    /// How far the wall clock has been set forward, or back, by now.
    pub(super) wall: i64,
    next_request: u64,
    pub(super) open: BTreeMap<u64, Open>,
    pub(super) holders: BTreeMap<Shard, Name>,
    epochs: BTreeMap<ShardId, Epoch>,
    leases: BTreeMap<Shard, Epoch>,
    last_sweep: Option<u64>,
    steps: u64,
    /// In how many steps it crashes once; 0: never.
    pub(super) crashes_one_in: u64,
    pub(super) is_up: bool,
    /// Counts its processes.
    pub(super) runs: u64,
    /// What happened, and how often.
    pub(super) seen: BTreeMap<&'static str, u64>,
}

impl Gateway {
    pub(super) fn new(settings: Settings) -> Self {
        let start = Instant::now();
        let pool = ShardPool::restore(
            Snapshot::default(),
            settings,
            Now { instant: start, unix_ms: START_MS, stood_still: Duration::ZERO },
        );
        Self {
            pool: pool.unwrap(),
            // A restart follows the store.
            settings: Settings { shard_count: None, ..settings },
            stored: Snapshot::default(),
            start,
            now: START_MS,
            wall: 0,
            next_request: 0,
            open: BTreeMap::new(),
            holders: BTreeMap::new(),
            epochs: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_sweep: None,
            steps: 0,
            crashes_one_in: 0,
            is_up: true,
            runs: 1,
            seen: BTreeMap::new(),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now
    }

    pub(super) fn instant(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms - START_MS)
    }

    pub(super) fn now(&self) -> Now {
        Now {
            instant: self.instant(self.now),
            unix_ms: self.now.saturating_add_signed(self.wall),
            stood_still: Duration::ZERO,
        }
    }

    pub(super) fn window_ms(&self) -> u64 {
        millis(self.settings.resume_window)
    }

    /// Silence for so long is noticed.
    pub(super) fn silence_ms(&self) -> u64 {
        3 * millis(self.settings.heartbeat)
    }

    pub(super) fn ttl_ms(&self) -> u64 {
        millis(self.settings.permit_ttl)
    }

    /// The next process begins with other settings.
    pub(super) fn change_settings(&mut self, dice: &mut Dice) {
        let mut one_of = |choices: [u64; 3]| {
            let choice = usize::try_from(dice.below(3)).unwrap();
            Duration::from_millis(choices[choice])
        };
        self.settings.resume_window = one_of([30_000, 4_000, 60_000]);
        self.settings.heartbeat = one_of([5_000, 1_000, 8_000]);
        self.settings.identify_interval = one_of([5_500, 5_500, 9_000]);
        self.settings.permit_ttl = one_of([5_000, 1_000, 20_000]);
        self.note("other settings");
    }

    pub(super) fn pass_to(&mut self, ms: u64) {
        assert!(ms >= self.now, "time goes on");
        self.now = ms;
    }

    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        let wake = self.pool.next_wake().filter(|_| self.is_up)?;
        Some(START_MS + u64::try_from(wake.duration_since(self.start).as_millis()).unwrap())
    }

    pub(super) fn leased(&self) -> usize {
        self.holders.len()
    }

    /// The count from which requests for any id are served.
    pub(super) fn target(&self) -> u32 {
        self.pool.target().shard_count()
    }

    pub(super) fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// Asks for an id; the actions that get out.
    pub(super) fn connect(
        &mut self,
        service: &Name,
        claim: Option<Shard>,
        permit: bool,
        dice: &mut Dice,
    ) -> Vec<Action<u64>> {
        self.next_request += 1;
        let request = self.next_request;
        let connect = op::ShardConnect {
            shard_id: claim.map(|shard| shard.shard_id.0),
            shard_count: claim.map(|shard| shard.shard_count),
            identify: (!permit).then_some(false),
        };
        let held_nothing = self.pool.shards_of(service.as_str()).is_empty();
        let open = Open { service: service.clone(), claim, permit, held_nothing, told: None };
        self.open.insert(request, open);
        self.step(Input::Connect { service: service.clone(), request, connect }, dice)
    }

    pub(super) fn step(&mut self, input: Input<u64>, dice: &mut Dice) -> Vec<Action<u64>> {
        match &input {
            Input::Away { service, .. } | Input::Resumed { service } | Input::Down { service, .. } => {
                self.open.retain(|_, open| open.service != *service);
            }
            _ => {}
        }
        let stands = matches!(input, Input::Away { .. } | Input::Resumed { .. });
        let now = self.now();
        let actions = self.pool.step(input, now);
        if stands {
            let ended = actions.iter().any(|it| matches!(it, Action::Holder { holder: None, .. }));
            let is_due = self.pool.next_wake().is_some_and(|wake| wake <= now.instant);
            assert!(!ended || !is_due, "leases stand while their service is away and when it resumes");
        }
        self.carry_out(actions, dice)
    }

    pub(super) fn operate(
        &mut self,
        command: Command,
        dice: &mut Dice,
    ) -> (Result<Done, CommandError>, Vec<Action<u64>>) {
        let (answer, actions) = self.pool.operate(command, self.now());
        (answer, self.carry_out(actions, dice))
    }

    /// Does what the pool says, unless the gateway is killed meanwhile.
    fn carry_out(&mut self, mut actions: Vec<Action<u64>>, dice: &mut Dice) -> Vec<Action<u64>> {
        self.steps += 1;
        let later = actions.iter().skip(1).any(|action| matches!(action, Action::Persist(_)));
        assert!(!later, "what is stored comes first and once: {actions:?}");
        let is_killed = self.crashes_one_in > 0 && dice.one_in(self.crashes_one_in);
        if is_killed {
            let done = dice.below(actions.len() as u64 + 1);
            let writes = matches!(actions.first(), Some(Action::Persist(_)));
            self.note(match done {
                0 if writes => "crash before the write",
                1 if writes => "crash after the write",
                _ => "crash among the actions",
            });
            actions.truncate(usize::try_from(done).unwrap());
            self.is_up = false;
        }
        self.witness(&actions);
        if !is_killed {
            self.check();
        }
        actions
    }

    /// A new process goes on with what was stored.
    pub(super) fn start_again(&mut self) {
        self.pool = ShardPool::restore(self.stored.clone(), self.settings, self.now()).unwrap();
        for change in &self.pool.catch_up(self.now()) {
            self.stored.apply(change);
        }
        assert_same(&self.pool.snapshot(), &self.stored_by_now());
        (self.is_up, self.last_sweep) = (true, None);
        self.runs += 1;
        self.open.clear();
        let leased =
            self.stored.shards.iter().filter_map(|(shard, record)| Some((*shard, record.lease.clone()?)));
        self.holders = leased.clone().map(|(shard, lease)| (shard, lease.holder)).collect();
        self.leases = leased.map(|(shard, lease)| (shard, lease.epoch)).collect();
        self.check_all();
    }

    /// By the pool's time. It never stands still here.
    fn stored_by_now(&self) -> Snapshot {
        let drift = -self.pool.timeline.drift_ms(self.now());
        self.stored.shifted(drift, drift)
    }

    fn witness(&mut self, actions: &[Action<u64>]) {
        let mut begun = Vec::new();
        let mut swept = false;
        for action in actions {
            match action {
                Action::Persist(changes) => changes.iter().for_each(|change| self.stored.apply(change)),
                Action::Holder { shard, holder } => self.note_holder(*shard, holder.as_ref(), &mut begun),
                Action::Switch { shard_count, holders } => self.note_switch(*shard_count, holders),
                Action::Accept { service, request, accept, .. } => {
                    self.note_accept(service, *request, accept, &begun);
                }
                Action::Wait { service, request, wait } => {
                    let open = self.open.get_mut(request).expect("an open request");
                    assert_eq!(open.service, *service);
                    swept |= open.told.replace((wait.reason, wait.position)).is_some();
                    let reason = wait.reason;
                    if reason == op::WaitReason::BudgetExhausted {
                        self.note("budget exhausted");
                    }
                }
                Action::Refuse { request, .. } => drop(self.open.remove(request)),
                Action::Warn(Warning::Frozen { .. }) => self.note("frozen by a close code"),
                Action::Warn(Warning::CrashLoop { .. }) => self.note("crash loop"),
                Action::Warn(Warning::Unclaimed { .. }) => self.note("restart with a lease lost"),
                _ => {}
            }
        }
        if swept {
            let apart = self.last_sweep.replace(self.now).map_or(u64::MAX, |last| self.now - last);
            assert!(apart >= 1_000, "those who wait are told again after {apart} ms");
        }
    }

    fn note_holder(&mut self, shard: Shard, holder: Option<&Name>, begun: &mut Vec<Shard>) {
        let before = match holder {
            Some(holder) => self.holders.insert(shard, holder.clone()),
            None => self.holders.remove(&shard),
        };
        assert_eq!(before.is_none(), holder.is_some(), "a lease of {shard} begins or ends, in turn");
        if holder.is_some() {
            begun.push(shard);
        } else if self
            .pool
            .generation(shard.shard_count)
            .is_some_and(|it| it.record(shard.shard_id).hold.is_some())
        {
            self.note("vanished holder held back");
        }
    }

    fn note_switch(&mut self, shard_count: u32, holders: &[Option<Name>]) {
        self.holders.retain(|shard, _| shard.shard_count == shard_count);
        let told = (0..).zip(holders).filter_map(|(id, holder)| Some((ShardId(id), holder.clone()?)));
        let known = self.holders.iter().map(|(shard, holder)| (shard.shard_id, holder.clone()));
        assert!(known.eq(told), "a switch tells who holds what");
        self.note("switch");
    }

    fn note_accept(&mut self, service: &Name, request: u64, accept: &op::ShardAccept, begun: &[Shard]) {
        let shard = Shard { shard_count: accept.shard_count, shard_id: accept.shard_id };
        let open = self.open.remove(&request).expect("an open request");
        assert_eq!((&open.service, self.holders.get(&shard)), (service, Some(service)));
        assert!(open.claim.is_none_or(|claim| claim == shard), "a claim is granted its id");
        if begun.contains(&shard) {
            let last = self.epochs.insert(accept.shard_id, accept.epoch).unwrap_or_default();
            assert!(accept.epoch > last, "the epoch of {shard} grows from {last:?} to {:?}", accept.epoch);
            self.leases.insert(shard, accept.epoch);
            self.check_order(request, &open);
        } else {
            assert_eq!(self.leases.get(&shard), Some(&accept.epoch), "a lease that stands keeps its epoch");
            self.note("own lease again");
        }
        if accept.resume.is_some() {
            self.note("resume handed on");
        }
        if !open.permit {
            self.note("lease without a permit");
        }
    }

    /// First come, first served, among those who ask for any id and have none.
    fn check_order(&self, request: u64, served: &Open) {
        if served.claim.is_none() && self.steps.is_multiple_of(self.thoroughly()) {
            let mut before = self.open.range(..request).filter(|(_, open)| open.claim.is_none());
            let overtaken = before.find(|(_, open)| open.held_nothing && open.told.is_some());
            assert!(overtaken.is_none(), "request {request} overtook {overtaken:?}");
        }
    }

    /// In how many steps a large pool is looked through once.
    fn thoroughly(&self) -> u64 {
        let shards = u64::from(self.pool.shard_counts().sum::<u32>());
        if shards <= 24 { 1 } else { shards * 4 }
    }

    fn check(&self) {
        if self.steps.is_multiple_of(self.thoroughly()) {
            self.check_all();
        }
    }

    pub(super) fn check_all(&self) {
        self.pool.check_invariants();
        assert_same(&self.pool.snapshot(), &self.stored_by_now());
        let report = self.pool.report(self.now());
        let told = report.shards.iter().filter_map(|it| Some((it.shard, it.holder.clone()?)));
        assert!(told.collect::<BTreeMap<_, _>>() == self.holders, "who holds what");
        if !self.pool.told.is_stale {
            let positions = self.open.values().map(|open| open.told.map(|(_, position)| position));
            assert!(positions.eq((1..=self.open.len() as u64).map(Some)), "positions are 1 to n");
        }
    }
}

/// What is in memory is what is stored.
fn assert_same(memory: &Snapshot, stored: &Snapshot) {
    let parts = |it: &Snapshot| (it.pool.clone(), it.budget.clone(), it.epochs.clone(), it.permits.clone());
    assert_eq!(parts(memory), parts(stored), "memory and store");
    for (shard, record) in memory.shards.iter().chain(&stored.shards) {
        let both = (memory.shards.get(shard), stored.shards.get(shard));
        assert_eq!(both, (Some(record), Some(record)), "{shard} in memory and store");
    }
}
