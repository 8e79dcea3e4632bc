//! The ops about shard ids; `PROTOCOL.md` section 7 says what they do.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{OpError, fields};
use crate::protocol::name::{Epoch, ShardId};

/// The most bytes that the JSON of `d.resume` may have: Discord's three fields need about 200.
pub(super) const MAX_RESUME_BYTES: usize = 4_096;

/// `d` of SHARD_CONNECT. With `shard_id` it claims that id, else it asks for any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct ShardConnect {
    pub shard_id: Option<u32>,
    pub shard_count: Option<u32>,
    /// `false`: already connected to Discord, or able to resume there: needs no permit. Counts for an
    /// id that is claimed, or the asker's own.
    pub identify: Option<bool>,
}

impl ShardConnect {
    pub(super) fn parse(data: &str) -> Result<Self, OpError> {
        let connect: Self = fields(data)?;
        if connect.shard_id.is_none() && connect.shard_count.is_some() {
            return Err(OpError::malformed("`d.shard_count` goes with `d.shard_id`"));
        }
        Ok(connect)
    }

    /// Whether the asker is to IDENTIFY to Discord, so that it needs a permit.
    pub fn needs_permit(&self) -> bool {
        self.identify != Some(false)
    }
}

/// `d` of SHARD_DEATH. `shard_id` may be left out by the holder of exactly one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ShardDeath {
    pub shard_id: Option<u32>,
    /// Needed only by who holds the id in two generations at once.
    pub shard_count: Option<u32>,
    /// The code with which Discord closed.
    pub close_code: Option<u16>,
    pub resume: Option<Resume>,
}

impl ShardDeath {
    pub(super) fn parse(data: &str) -> Result<Self, OpError> {
        let death: Self = fields(data)?;
        if death.shard_id.is_none() && death.shard_count.is_some() {
            return Err(OpError::malformed("`d.shard_count` goes with `d.shard_id`"));
        }
        Ok(death)
    }
}

/// `d` of SHARD_STATE: how far the holder of an id has come with Discord.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ShardState {
    pub shard_id: u32,
    /// Needed only by who holds the id in two generations at once.
    pub shard_count: Option<u32>,
    pub state: LeaseState,
    pub resume: Option<Resume>,
}

/// What SHARD_STATE can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// IDENTIFY has just been sent.
    Identifying,
    /// Discord sent READY.
    Ready,
    /// Discord sent RESUMED.
    Resumed,
}

/// What a shard needs to resume at Discord (`{"session_id","seq","resume_gateway_url"}`): JSON that
/// the gateway hands on as it came, and does not look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume(Arc<str>);

impl Resume {
    /// `None` where the text is not JSON, or has more than [`MAX_RESUME_BYTES`].
    pub fn new(json: &str) -> Option<Self> {
        let raw: &RawValue = serde_json::from_str(json).ok()?;
        (raw.get().len() <= MAX_RESUME_BYTES).then(|| Self(raw.get().into()))
    }

    /// The JSON, as it came.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl Serialize for Resume {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Resume {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let bytes = raw.get().len();
        Self::new(raw.get()).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "expected at most {MAX_RESUME_BYTES} bytes of JSON, got {bytes}"
            ))
        })
    }
}

/// `d` of SHARD_ACCEPT: a lease, and the permit to IDENTIFY to Discord now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardAccept {
    pub shard_id: ShardId,
    pub shard_count: u32,
    pub epoch: Epoch,
    pub max_concurrency: u32,
    /// What the id's last holder left to resume with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// `d` of SHARD_WAIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ShardWait {
    pub reason: WaitReason,
    /// How many requests are before this one, plus one.
    pub position: u64,
    /// When it is served at the earliest, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// Why a service must wait for a shard id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// Every id that would do has a holder, or had one that vanished a moment ago.
    NoFreeShard,
    /// The next permit to IDENTIFY is not due yet.
    IdentifyRateLimit,
    /// Discord's limit of session starts is used up.
    BudgetExhausted,
    /// The pool is frozen until an operator thaws it.
    Frozen,
    /// The id has died too often, and is held back.
    CrashLoop,
}

impl WaitReason {
    pub const ALL: [Self; 5] =
        [Self::NoFreeShard, Self::IdentifyRateLimit, Self::BudgetExhausted, Self::Frozen, Self::CrashLoop];

    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoFreeShard => "no_free_shard",
            Self::IdentifyRateLimit => "identify_rate_limit",
            Self::BudgetExhausted => "budget_exhausted",
            Self::Frozen => "frozen",
            Self::CrashLoop => "crash_loop",
        }
    }
}

/// `d` of SHARD_LIVE: a reshard is done; the holder starts to forward that id's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ShardLive {
    pub shard_id: ShardId,
    pub shard_count: u32,
}

/// `d` of SHARD_REVOKE: the lease is over; the holder must close its Discord session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardRevoke {
    pub shard_id: ShardId,
    pub shard_count: u32,
    pub reason: String,
}
