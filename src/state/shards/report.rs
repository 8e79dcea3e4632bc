//! The pool as operators see it.

use std::collections::BTreeMap;

use crate::protocol::name::{Epoch, Name};
use crate::protocol::op::{LeaseState, WaitReason};

use super::records::{FrozenRecord, HoldReason, ReshardRecord, Shard, ShardRecord};
use super::{Generation, Now, ShardPool};

/// Close codes of WebSockets; any other is counted as none.
const CLOSE_CODES: std::ops::Range<u16> = 1000..5000;

/// What is counted as long as the process runs.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) permits: u64,
    deaths: BTreeMap<Option<u16>, u64>,
}

impl Counts {
    pub(super) fn note_death(&mut self, close_code: Option<u16>) {
        *self.deaths.entry(close_code.filter(|code| CLOSE_CODES.contains(code))).or_default() += 1;
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Of the current generation.
    pub shard_count: u32,
    /// The generation that is being filled, and how many of its ids are ready.
    pub reshard: Option<(ReshardRecord, usize)>,
    pub max_concurrency: u32,
    pub frozen: Option<FrozenRecord>,
    /// Every id of the current generation, then of the one that is being filled.
    pub shards: Vec<ShardView>,
    /// How many requests wait, by what they were told.
    pub waiting: BTreeMap<WaitReason, u64>,
    /// Permits given since the start of the process.
    pub permits: u64,
    /// Deaths since the start of the process, by Discord's close code, where it was told.
    pub deaths: BTreeMap<Option<u16>, u64>,
    /// `None`: Discord was not asked.
    pub budget: Option<BudgetReport>,
}

/// Discord's limit of session starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetReport {
    pub recommended_shards: u32,
    pub total: u64,
    pub remaining: u64,
    pub resets_in_ms: u64,
}

/// One id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardView {
    pub shard: Shard,
    pub standing: Standing,
    pub holder: Option<Name>,
    /// That of the current lease, or else of the last one in any generation; 0: never leased.
    pub epoch: Epoch,
    /// When the current lease began, as Unix time in ms.
    pub since_ms: Option<u64>,
    pub deaths: u64,
    /// Without a lease: what has to come before it is granted.
    pub awaits: Option<Awaits>,
}

/// How an id stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    Free,
    HeldBack,
    /// Its holder has not told how far it is.
    Leased,
    Identifying,
    Ready,
    Resumed,
    /// Its holder is away, or has not come back since the gateway's restart.
    Away,
}

impl Standing {
    pub const ALL: [Self; 7] =
        [Self::Free, Self::HeldBack, Self::Leased, Self::Identifying, Self::Ready, Self::Resumed, Self::Away];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::HeldBack => "held_back",
            Self::Leased => "leased",
            Self::Identifying => "identifying",
            Self::Ready => "ready",
            Self::Resumed => "resumed",
            Self::Away => "away",
        }
    }
}

/// What an id without a holder waits for, and for how long, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    /// A service that asks for it.
    Request,
    /// The next permit of its key.
    Permit { in_ms: u64 },
    /// The reset of Discord's limit.
    Budget { in_ms: u64 },
    /// An operator.
    Thaw,
    /// Its last holder must have noticed that it lost it.
    Notice { in_ms: u64 },
    /// It died too often.
    CrashLoop { in_ms: u64 },
}

impl Awaits {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Permit { .. } => "identify_rate_limit",
            Self::Budget { .. } => "budget_exhausted",
            Self::Thaw => "frozen",
            Self::Notice { .. } => "holder_vanished",
            Self::CrashLoop { .. } => "crash_loop",
        }
    }

    pub fn in_ms(self) -> Option<u64> {
        match self {
            Self::Permit { in_ms }
            | Self::Budget { in_ms }
            | Self::Notice { in_ms }
            | Self::CrashLoop { in_ms } => Some(in_ms),
            Self::Request | Self::Thaw => None,
        }
    }
}

impl<R: Clone> ShardPool<R> {
    pub fn report(&self, now: Now) -> Report {
        let at = self.timeline.ms(now.instant);
        let shards = self.generations().flat_map(Generation::records);
        let mut waiting = BTreeMap::new();
        for (reason, _) in self.queue.places().filter_map(|(_, place)| place.told) {
            *waiting.entry(reason).or_default() += 1;
        }
        Report {
            shard_count: self.current.shard_count(),
            reshard: self.record().reshard.zip(self.next.as_ref().map(|next| next.generation.ready_count())),
            max_concurrency: self.pacing.max_concurrency(),
            frozen: self.frozen,
            shards: shards.map(|(shard, record)| self.view(shard, record, at)).collect(),
            waiting,
            permits: self.counts.permits,
            deaths: self.counts.deaths.clone(),
            budget: self.budget.known().map(|record| BudgetReport {
                recommended_shards: record.recommended_shards,
                total: record.total,
                remaining: record.remaining,
                resets_in_ms: self.budget.resets_ms().unwrap_or_default().saturating_sub(at),
            }),
        }
    }

    fn view(&self, shard: Shard, record: &ShardRecord, now: u64) -> ShardView {
        let lease = record.lease.as_ref();
        let is_gone = |name: &Name| self.away.contains_key(name) || self.unseen.services.contains(name);
        let standing = match (lease, record.hold) {
            (None, None) => Standing::Free,
            (None, Some(_)) => Standing::HeldBack,
            (Some(lease), _) if is_gone(&lease.holder) => Standing::Away,
            (Some(lease), _) => match lease.state {
                None => Standing::Leased,
                Some(LeaseState::Identifying) => Standing::Identifying,
                Some(LeaseState::Ready) => Standing::Ready,
                Some(LeaseState::Resumed) => Standing::Resumed,
            },
        };
        ShardView {
            shard,
            standing,
            holder: lease.map(|lease| lease.holder.clone()),
            epoch: lease.map_or_else(|| self.epochs.of(shard.shard_id), |lease| lease.epoch),
            since_ms: lease.map(|lease| lease.since_ms),
            deaths: record.deaths,
            awaits: lease.is_none().then(|| self.awaits(shard, record, now)),
        }
    }

    fn awaits(&self, shard: Shard, record: &ShardRecord, now: u64) -> Awaits {
        let left = |until: u64| until.saturating_sub(now);
        if self.frozen.is_some() {
            return Awaits::Thaw;
        }
        if let Some(hold) = record.hold {
            let in_ms = left(hold.until_ms);
            return match hold.reason {
                HoldReason::Vanished => Awaits::Notice { in_ms },
                HoldReason::CrashLoop => Awaits::CrashLoop { in_ms },
            };
        }
        let for_any = shard.shard_count == self.target().shard_count() && self.queue.any_len() > 0;
        if !for_any && !self.queue.wants(shard) {
            return Awaits::Request;
        }
        if let Some(resets) = self.budget.resets_ms().filter(|_| self.budget.is_exhausted()) {
            return Awaits::Budget { in_ms: left(resets) };
        }
        let opens = self.pacing.opens_at(self.pacing.key(shard.shard_id));
        opens.map_or(Awaits::Request, |opens| Awaits::Permit { in_ms: left(opens) })
    }
}
