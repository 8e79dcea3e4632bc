//! What survives a restart: records, the changes to them, and all of them together.
//!
//! Times are Unix time in ms. Each record stands for itself: a [`Change`] puts one whole, or forgets
//! some, so that a store needs to know nothing about what is in them ([`Change::entry`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::protocol::name::{Epoch, Name, ShardId};
use crate::protocol::op::{LeaseState, Resume};

use super::crash_loop::CrashRecord;
use super::notice::NoticeRecord;

/// A shard id, and the generation that it belongs to: no two that live have the same count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shard {
    pub shard_count: u32,
    pub shard_id: ShardId,
}

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.shard_id, self.shard_count)
    }
}

/// The generations, and whether anything is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Of the current generation: what `shard/` and `guild/` targets follow.
    pub shard_count: u32,
    pub reshard: Option<ReshardRecord>,
    pub frozen: Option<FrozenRecord>,
    /// Generations that ended, by `shard_count`, and until when a holder may not have heard of it.
    pub retired: BTreeMap<u32, u64>,
    /// Who held what of those when they ended; none in stores of older gateways.
    #[serde(default)]
    pub lost: BTreeMap<u32, Holders>,
    /// What holders go by; 0 in stores of older gateways.
    #[serde(default)]
    pub notice: NoticeRecord,
}

/// Services, and the ids that each of them holds.
pub type Holders = BTreeMap<Name, BTreeSet<ShardId>>;

/// A second generation is being filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReshardRecord {
    pub shard_count: u32,
    pub since_ms: u64,
}

/// Why nothing is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenRecord {
    /// What Discord closed with, and for which id; `None`: an operator did it.
    pub cause: Option<(u16, Shard)>,
    pub since_ms: u64,
}

/// Discord's answer, brought up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetRecord {
    pub recommended_shards: u32,
    pub max_concurrency: u32,
    pub total: u64,
    pub remaining: u64,
    /// By the real clock: Discord does not wait for our disk.
    pub resets_ms: u64,
    /// So much earlier Discord may reset it: how long it took to answer.
    #[serde(default)]
    pub uncertain_ms: u64,
    /// Permits that may have been used after it answered, or after the reset: until when each is good,
    /// and how many.
    #[serde(default)]
    pub recent: Vec<(u64, u64)>,
}

/// The last permit of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitRecord {
    pub shard: Shard,
    /// Of the lease that it was given with.
    pub epoch: Epoch,
    pub granted_ms: u64,
    /// Before that the key gets no other.
    pub next_ms: u64,
    /// Whether its holder told that it IDENTIFIED.
    pub used: bool,
}

/// One id of one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    pub lease: Option<LeaseRecord>,
    /// Without a lease: why and until when it is not granted.
    pub hold: Option<HoldRecord>,
    /// What the next holder can resume with.
    pub resume: Option<ResumeRecord>,
    pub crashes: CrashRecord,
    /// How often it died.
    pub deaths: u64,
    pub last_holder: Option<Name>,
}

/// An id's time with one holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    pub holder: Name,
    pub epoch: Epoch,
    pub since_ms: u64,
    /// When the last SHARD_ACCEPT for it was sent.
    pub accepted_ms: u64,
    /// The last SHARD_STATE since then.
    pub state: Option<LeaseState>,
    /// Whether the holder is known to send SHARD_STATE.
    pub reports: bool,
}

/// Why an id without a holder is not granted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRecord {
    pub until_ms: u64,
    pub reason: HoldReason,
    /// Before that nothing frees it: its last holder may not have noticed that it lost it.
    pub noticed_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// Its holder may not have noticed yet that it lost it.
    Vanished,
    /// It died too often.
    CrashLoop,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeRecord {
    pub resume: Resume,
    /// From then on it is stale, by the real clock: Discord does not wait for our disk.
    pub until_ms: u64,
}

/// One change of what is stored. Those of one step are one transaction, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Pool(PoolRecord),
    Budget(BudgetRecord),
    ForgetBudget,
    /// That of the id's last lease, in whichever generation.
    Epoch {
        shard_id: ShardId,
        epoch: Epoch,
    },
    Permit {
        key: u32,
        record: PermitRecord,
    },
    ForgetPermits,
    Shard {
        shard: Shard,
        record: ShardRecord,
    },
    /// Forgets every [`Shard`](Self::Shard) of that `shard_count`.
    ForgetGeneration {
        shard_count: u32,
    },
}

/// A change, as a store of texts by key carries it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Put {
        key: String,
        /// JSON.
        value: String,
    },
    /// Deletes every key that begins so.
    DeleteAll { prefix: String },
}

/// An entry of the store cannot be what was put there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored entry `{key}` is damaged: {why}")]
pub struct DamagedEntry {
    pub key: String,
    pub why: String,
}

impl Change {
    /// The keys are `pool`, `budget`, `epoch/<id>`, `permit/<key>` and `shard/<count>/<id>`.
    pub fn entry(&self) -> Entry {
        fn put(key: String, value: &impl Serialize) -> Entry {
            let value = serde_json::to_string(value).expect("a record has string keys and no failing field");
            Entry::Put { key, value }
        }
        match self {
            Self::Pool(record) => put("pool".to_owned(), record),
            Self::Budget(record) => put("budget".to_owned(), record),
            Self::Epoch { shard_id, epoch } => put(format!("epoch/{shard_id}"), epoch),
            Self::Permit { key, record } => put(format!("permit/{key}"), record),
            Self::Shard { shard, record } => {
                put(format!("shard/{}/{}", shard.shard_count, shard.shard_id), record)
            }
            Self::ForgetBudget => Entry::DeleteAll { prefix: "budget".to_owned() },
            Self::ForgetPermits => Entry::DeleteAll { prefix: "permit/".to_owned() },
            Self::ForgetGeneration { shard_count } => {
                Entry::DeleteAll { prefix: format!("shard/{shard_count}/") }
            }
        }
    }

    /// Moves its times by so many ms, but those by the real clock.
    pub fn shift(&mut self, by: i64) {
        let shift = |ms: &mut u64| *ms = ms.saturating_add_signed(by);
        match self {
            Self::Pool(record) => {
                record.reshard.iter_mut().for_each(|it| shift(&mut it.since_ms));
                record.frozen.iter_mut().for_each(|it| shift(&mut it.since_ms));
                record.retired.values_mut().for_each(shift);
            }
            Self::Budget(record) => {
                record.recent.iter_mut().for_each(|(until, _)| shift(until));
            }
            Self::Permit { record, .. } => {
                [&mut record.granted_ms, &mut record.next_ms].into_iter().for_each(shift);
            }
            Self::Shard { record, .. } => {
                if let Some(lease) = &mut record.lease {
                    [&mut lease.since_ms, &mut lease.accepted_ms].into_iter().for_each(shift);
                }
                if let Some(hold) = &mut record.hold {
                    [&mut hold.until_ms, &mut hold.noticed_ms].into_iter().for_each(shift);
                }
                record.crashes.times_mut().for_each(shift);
            }
            Self::Epoch { .. } | Self::ForgetBudget | Self::ForgetPermits | Self::ForgetGeneration { .. } => {
            }
        }
    }

    /// Moves by so many ms what goes by the real clock, and does not wait while the pool stands still.
    pub fn shift_real(&mut self, by: i64) {
        let real = match self {
            Self::Shard { record: ShardRecord { resume: Some(left), .. }, .. } => &mut left.until_ms,
            Self::Budget(record) => &mut record.resets_ms,
            _ => return,
        };
        *real = real.saturating_add_signed(by);
    }
}

/// All records. Empty: the pool has never been started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub pool: Option<PoolRecord>,
    pub budget: Option<BudgetRecord>,
    pub epochs: BTreeMap<ShardId, Epoch>,
    pub permits: BTreeMap<u32, PermitRecord>,
    pub shards: BTreeMap<Shard, ShardRecord>,
}

impl Snapshot {
    pub fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Pool(record) => self.pool = Some(record),
            Change::Budget(record) => self.budget = Some(record),
            Change::Epoch { shard_id, epoch } => drop(self.epochs.insert(shard_id, epoch)),
            Change::Permit { key, record } => drop(self.permits.insert(key, record)),
            Change::ForgetBudget => self.budget = None,
            Change::ForgetPermits => self.permits.clear(),
            Change::Shard { shard, record } => drop(self.shards.insert(shard, record)),
            Change::ForgetGeneration { shard_count } => {
                self.shards.retain(|shard, _| shard.shard_count != shard_count);
            }
        }
    }

    /// With all times moved by so many ms, those by the real clock by so many.
    #[cfg(test)]
    pub(super) fn shifted(&self, by: i64, real: i64) -> Self {
        let epochs = self.epochs.iter().map(|(&shard_id, &epoch)| Change::Epoch { shard_id, epoch });
        let permits = self.permits.iter().map(|(&key, &record)| Change::Permit { key, record });
        let shards =
            self.shards.iter().map(|(&shard, record)| Change::Shard { shard, record: record.clone() });
        let changes = self.pool.clone().map(Change::Pool).into_iter();
        let changes = changes.chain(self.budget.clone().map(Change::Budget));
        let mut shifted = Self::default();
        for mut change in changes.chain(epochs).chain(permits).chain(shards) {
            change.shift(by);
            change.shift_real(real);
            shifted.apply(&change);
        }
        shifted
    }

    /// Reads back what [`Change::entry`] put, in any order.
    pub fn read<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, DamagedEntry> {
        let mut snapshot = Self::default();
        for (key, value) in entries {
            let damaged = |why| DamagedEntry { key: key.to_owned(), why };
            snapshot.apply(&read(key, value).map_err(damaged)?);
        }
        Ok(snapshot)
    }
}

fn read(key: &str, value: &str) -> Result<Change, String> {
    fn json<T: DeserializeOwned>(value: &str) -> Result<T, String> {
        serde_json::from_str(value).map_err(|error| error.to_string())
    }
    let number =
        |digits: &str| digits.parse::<u32>().map_err(|error| format!("`{digits}` in its key: {error}"));
    let mut parts = key.split('/');
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some("pool"), None, ..] => json(value).map(Change::Pool),
        [Some("budget"), None, ..] => json(value).map(Change::Budget),
        [Some("epoch"), Some(id), None, _] => {
            Ok(Change::Epoch { shard_id: ShardId(number(id)?), epoch: json(value)? })
        }
        [Some("permit"), Some(key), None, _] => {
            Ok(Change::Permit { key: number(key)?, record: json(value)? })
        }
        [Some("shard"), Some(count), Some(id), None] => {
            let shard = Shard { shard_count: number(count)?, shard_id: ShardId(number(id)?) };
            Ok(Change::Shard { shard, record: json(value)? })
        }
        _ => Err("no record has such a key".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Vec<Change> {
        let shard = Shard { shard_count: 8, shard_id: ShardId(3) };
        let lease = LeaseRecord {
            holder: Name::new("a").unwrap(),
            epoch: Epoch(9),
            since_ms: 1,
            accepted_ms: 2,
            state: Some(LeaseState::Ready),
            reports: true,
        };
        let resume = Resume::new(r#"{"seq":1.0}"#).unwrap();
        vec![
            Change::Pool(PoolRecord {
                shard_count: 4,
                reshard: Some(ReshardRecord { shard_count: 8, since_ms: 3 }),
                frozen: Some(FrozenRecord { cause: Some((4004, shard)), since_ms: 4 }),
                retired: BTreeMap::from([(2, 5)]),
                lost: BTreeMap::from([(2, Holders::from([(Name::new("b").unwrap(), [ShardId(1)].into())]))]),
                notice: NoticeRecord { window_ms: 30, notice_ms: 45 },
            }),
            Change::Budget(BudgetRecord {
                recommended_shards: 4,
                max_concurrency: 1,
                total: 1000,
                remaining: 7,
                resets_ms: 6,
                uncertain_ms: 2,
                recent: vec![(5, 3)],
            }),
            Change::Epoch { shard_id: ShardId(3), epoch: Epoch(9) },
            Change::Permit {
                key: 0,
                record: PermitRecord { shard, epoch: Epoch(9), granted_ms: 7, next_ms: 8, used: false },
            },
            Change::Shard {
                shard,
                record: ShardRecord {
                    lease: Some(lease),
                    hold: Some(HoldRecord { until_ms: 9, reason: HoldReason::CrashLoop, noticed_ms: 8 }),
                    resume: Some(ResumeRecord { resume, until_ms: 10 }),
                    ..ShardRecord::default()
                },
            },
        ]
    }

    fn put(change: &Change) -> (String, String) {
        match change.entry() {
            Entry::Put { key, value } => (key, value),
            Entry::DeleteAll { prefix } => panic!("deletes {prefix}"),
        }
    }

    #[test]
    fn what_is_put_is_read_back() {
        let mut expected = Snapshot::default();
        for change in &changes() {
            expected.apply(change);
        }
        let entries: Vec<_> = changes().iter().map(put).collect();
        let read = Snapshot::read(entries.iter().rev().map(|(key, value)| (key.as_str(), value.as_str())));
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn a_generation_is_forgotten_by_its_prefix_alone() {
        let forget = Change::ForgetGeneration { shard_count: 8 };
        assert_eq!(forget.entry(), Entry::DeleteAll { prefix: "shard/8/".to_owned() });
        let mut snapshot = Snapshot::default();
        let other = Shard { shard_count: 80, shard_id: ShardId(3) };
        for change in &changes() {
            snapshot.apply(change);
        }
        snapshot.apply(&Change::Shard { shard: other, record: ShardRecord::default() });
        snapshot.apply(&forget);
        assert!(snapshot.shards.keys().eq([&other]));
    }

    #[test]
    fn a_budget_is_forgotten_alone() {
        let forget = Change::ForgetBudget;
        assert_eq!(forget.entry(), Entry::DeleteAll { prefix: "budget".to_owned() });
        let mut snapshot = Snapshot::default();
        for change in &changes() {
            snapshot.apply(change);
        }
        let expected = Snapshot { budget: None, ..snapshot.clone() };
        snapshot.apply(&forget);
        assert_eq!(snapshot, expected);
    }

    #[test]
    fn an_entry_that_is_damaged_is_named() {
        let (key, value) = put(&changes()[4]);
        let cases = [
            (key.as_str(), &value[..value.len() - 1], "EOF"),
            ("shard/8/x", value.as_str(), "`x` in its key"),
            ("shard/8", value.as_str(), "no record"),
            ("pool", r#"{"shard_count":-1}"#, "invalid"),
            ("shard/8/3", r#"{"lease":{"holder":"a b"}}"#, "name"),
        ];
        for (key, value, why) in cases {
            let error = Snapshot::read([(key, value)]).expect_err(key);
            assert!(error.key == key && error.why.contains(why), "{key}: {error}");
        }
    }

    #[test]
    fn every_time_of_a_change_is_moved_with_the_clock() {
        let numbers = |change: &Change| -> Vec<u64> {
            let (_, json) = put(change);
            json.split(|letter: char| !letter.is_ascii_digit()).filter_map(|it| it.parse().ok()).collect()
        };
        for (change, times) in changes().into_iter().zip([3, 2, 0, 2, 5]) {
            let mut moved = change.clone();
            moved.shift(1000);
            moved.shift_real(1000);
            let (before, after) = (numbers(&change), numbers(&moved));
            let changed: Vec<_> =
                before.iter().zip(&after).filter(|(before, after)| before != after).collect();
            assert!(changed.iter().all(|(before, after)| **before + 1000 == **after), "{moved:?}");
            assert_eq!(changed.len(), times, "{moved:?}");
        }
    }
}
