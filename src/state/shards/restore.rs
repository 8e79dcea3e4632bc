//! Going on where an earlier run stopped, however it stopped.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::protocol::name::{Name, ShardId};

use super::budget::Budget;
use super::generation::{Generation, RESUME_LIFE_MS};
use super::leases::End;
use super::notice::{Notice, NoticeRecord};
use super::pacing::Pacing;
use super::queue::Queue;
use super::records::{Change, HoldReason, PoolRecord, Shard, ShardRecord, Snapshot};
use super::reshard::MAX_SHARDS;
use super::time::{Timeline, millis};
use super::{Action, Epochs, Next, Now, Settings, ShardPool, Warning, report, waits};

/// The longest that anything but a permit holds an id back.
const MAX_CRASH_HOLD_MS: u64 = 10 * 60 * 1000;

/// The stored state cannot be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error(
        "`shards` is {configured}, and the stored pool has {stored} shards{}: expected the same; to change \
         their number start with {stored} (or without the setting) and POST /api/v1/shards/reshard \
         {{\"shard_count\": {configured}}}",
        .next.map(|next| format!(" and is being resharded to {next}")).unwrap_or_default()
    )]
    ShardCountDiffers { stored: u32, next: Option<u32>, configured: u32 },
    #[error("the stored shard pool is damaged: {0}")]
    Damaged(String),
}

/// Whom nobody has seen since the restart.
pub(super) struct Unseen {
    /// Holders that have not identified.
    pub(super) services: BTreeSet<Name>,
    /// Until when they are waited for.
    pub(super) until_ms: u64,
    /// Whether the pool was woken past that.
    is_due: bool,
}

impl<R: Clone> ShardPool<R> {
    /// Goes on with what was stored; one without a word of ids begins a new pool. All leases are unclaimed.
    pub fn restore(snapshot: Snapshot, settings: Settings, now: Now) -> Result<Self, RestoreError> {
        // A budget alone says nothing of how many ids there are.
        let Snapshot { pool, budget: _, epochs, permits, shards } = &snapshot;
        let is_new = pool.is_none() && epochs.is_empty() && permits.is_empty() && shards.is_empty();
        let mut stored = snapshot.clone();
        let Snapshot { pool, budget, epochs, permits, shards } = snapshot;
        let record = match pool {
            Some(record) => record,
            None if is_new => new_record(settings),
            None => {
                return Err(RestoreError::Damaged("it does not say how many shards there are".to_owned()));
            }
        };
        check_counts(&record, settings)?;
        let at = now.unix_ms;
        let (interval_ms, ttl_ms) = (millis(settings.identify_interval), millis(settings.permit_ttl));
        let told = budget.as_ref().filter(|_| settings.asks_discord);
        let max_concurrency = told.map_or(settings.max_concurrency, |told| told.max_concurrency);
        let mut pacing = Pacing::new(max_concurrency, interval_ms, ttl_ms);
        pacing.restore(&permits, at);
        let granted = pacing.permits().values().map(|permit| permit.granted_ms);
        let mut budget = Budget::restore(budget.as_ref(), ttl_ms, granted, at);
        if !settings.asks_discord {
            budget.forget();
            stored.budget = None;
        }
        let notice = Notice::restore(record.notice, settings, at);
        let in_force = notice.in_force();
        let mut shelves = Shelves::new(shards, in_force.notice_ms, at);
        let current = shelves.generation(record.shard_count, &pacing);
        let next = record.reshard.map(|reshard| Next {
            generation: shelves.generation(reshard.shard_count, &pacing),
            since_ms: reshard.since_ms.min(at),
            assumed: BTreeSet::new(),
        });
        shelves.check_empty()?;
        let queue = Queue::new(&pacing);
        let mut pool = Self {
            settings,
            timeline: Timeline::new(now),
            current,
            next,
            epochs: Epochs { by_id: epochs, dirty: BTreeSet::new() },
            pacing,
            budget,
            recommended: None,
            notice,
            frozen: record.frozen,
            retired: record.retired,
            lost: record.lost,
            queue,
            away: HashMap::new(),
            heard: HashMap::new(),
            reporting: HashSet::new(),
            unseen: Unseen { services: BTreeSet::new(), until_ms: at + in_force.window_ms, is_due: false },
            is_new,
            is_dirty: is_new || in_force != record.notice,
            forgotten: Vec::new(),
            told: waits::Told::default(),
            counts: report::Counts::default(),
        };
        pool.recall();
        if !is_new && pool.snapshot() != stored {
            // Times that cannot be are put right in the store too.
            pool.touch();
        }
        Ok(pool)
    }

    /// What a restart changed of what is stored, or how many ids a new pool was given: to be durable before
    /// anybody is let in.
    pub fn catch_up(&mut self, now: Now) -> Vec<Change> {
        self.take_changes(now)
    }

    /// Whether the next start may set how many ids there are: nobody has, and nothing was done with them yet.
    /// So long the pool's own record is not stored.
    pub(super) fn may_be_set(&self) -> bool {
        self.is_new
            && self.settings.shard_count.is_none()
            && self.epochs.by_id.is_empty()
            && self.frozen.is_none()
            && self.next.is_none()
            && self.retired.is_empty()
    }

    /// For how long after a restart holders are waited for.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.notice.in_force().window_ms)
    }

    /// What follows from the leases.
    fn recall(&mut self) {
        let noticed_ms = self.noticed_ms(self.timeline.start_ms());
        self.retired.values_mut().for_each(|until| *until = (*until).min(noticed_ms));
        self.unseen.services = self.generations().flat_map(Generation::holders).cloned().collect();
        let leases = self.generations().flat_map(Generation::records).filter_map(|(_, it)| it.lease.as_ref());
        self.reporting = leases.filter(|lease| lease.reports).map(|lease| lease.holder.clone()).collect();
        let filling: Vec<Shard> =
            self.next.iter().flat_map(|next| next.generation.records()).map(|(shard, _)| shard).collect();
        for shard in filling {
            self.assume_later(shard);
        }
    }

    /// Takes the ids back of holders that nobody has seen since the restart.
    pub(super) fn forget_unseen(&mut self, now: u64, actions: &mut Vec<Action<R>>) {
        if self.unseen.services.is_empty() || now < self.unseen.until_ms {
            return;
        }
        // Only by a wake that was sent past the deadline: what came before it was taken in then.
        if !std::mem::replace(&mut self.unseen.is_due, true) {
            return;
        }
        for service in std::mem::take(&mut self.unseen.services) {
            // Else their last frames came before the restart, which is all that is known.
            let heard = self.heard.remove(&service).unwrap_or_default();
            let end = End::Taken { noticed_ms: self.noticed_ms(self.timeline.start_ms().max(heard)) };
            let shards = self.end_all(&service, &end, now, actions);
            self.reporting.remove(&service);
            actions.push(Action::Warn(Warning::Unclaimed { service, shards }));
        }
    }

    /// What is stored, where every [`Action::Persist`] was.
    pub fn snapshot(&self) -> Snapshot {
        let records = self.generations().flat_map(Generation::records);
        Snapshot {
            pool: (!self.may_be_set()).then(|| self.record()),
            budget: self.budget.record(),
            epochs: self.epochs.by_id.clone(),
            permits: self.pacing.permits().clone(),
            shards: records
                .filter(|(_, record)| **record != ShardRecord::default())
                .map(|(shard, record)| (shard, record.clone()))
                .collect(),
        }
    }
}

fn new_record(settings: Settings) -> PoolRecord {
    let shard_count = settings.shard_count.unwrap_or(1);
    let notice = NoticeRecord::default();
    PoolRecord {
        shard_count,
        reshard: None,
        frozen: None,
        retired: BTreeMap::new(),
        lost: BTreeMap::new(),
        notice,
    }
}

fn check_counts(record: &PoolRecord, settings: Settings) -> Result<(), RestoreError> {
    let next = record.reshard.map(|reshard| reshard.shard_count);
    for count in [Some(record.shard_count), next].into_iter().flatten() {
        if !(1..=MAX_SHARDS).contains(&count) {
            return Err(RestoreError::Damaged(format!("{count} shards are not between 1 and {MAX_SHARDS}")));
        }
    }
    if next == Some(record.shard_count) {
        return Err(RestoreError::Damaged("it is being resharded to the count that it has".to_owned()));
    }
    let stored = record.shard_count;
    match settings.shard_count.filter(|count| *count != stored && Some(*count) != next) {
        Some(configured) => Err(RestoreError::ShardCountDiffers { stored, next, configured }),
        None => Ok(()),
    }
}

/// The stored records, to be sorted into generations.
struct Shelves {
    records: HashMap<Shard, ShardRecord>,
    now: u64,
    /// No hold of a holder that vanished, put on now, would end later.
    latest_notice: u64,
}

impl Shelves {
    fn new(records: std::collections::BTreeMap<Shard, ShardRecord>, notice_ms: u64, now: u64) -> Self {
        Self { records: records.into_iter().collect(), now, latest_notice: now + notice_ms }
    }

    fn generation(&mut self, shard_count: u32, pacing: &Pacing) -> Generation {
        let mut record = |id| {
            let record = self.records.remove(&Shard { shard_count, shard_id: ShardId(id) });
            let mut record = record.unwrap_or_default();
            self.clamp(&mut record);
            record
        };
        let records = (0..shard_count).map(&mut record).collect();
        Generation::restore(shard_count, records, pacing)
    }

    /// However the clock was set meanwhile, nothing waits longer than it would from now on.
    fn clamp(&self, record: &mut ShardRecord) {
        if let Some(hold) = &mut record.hold {
            let latest_hold = match hold.reason {
                HoldReason::Vanished => self.latest_notice,
                HoldReason::CrashLoop => self.latest_notice.max(self.now + MAX_CRASH_HOLD_MS),
            };
            hold.until_ms = hold.until_ms.min(latest_hold);
            hold.noticed_ms = hold.noticed_ms.min(self.latest_notice);
        }
        if let Some(lease) = &mut record.lease {
            lease.since_ms = lease.since_ms.min(self.now);
            lease.accepted_ms = lease.accepted_ms.min(self.now);
        }
        record.crashes.clamp(self.now);
        let latest_resume = self.now + RESUME_LIFE_MS;
        // Nobody knows how old it is.
        record.resume.take_if(|left| left.until_ms > latest_resume);
    }

    fn check_empty(&self) -> Result<(), RestoreError> {
        match self.records.keys().min() {
            Some(shard) => Err(RestoreError::Damaged(format!("there is no place for its shard {shard}"))),
            None => Ok(()),
        }
    }
}
