//! What a shard service says and hears of its shard ids; the README's "Shard ids" tells when.

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Client, ClientError, Sender};
use crate::protocol::op::{LeaseState, Opcode};

/// `d` of SHARD_ACCEPT.
#[derive(Debug, Clone, Deserialize)]
pub struct Lease {
    pub shard_id: u32,
    pub shard_count: u32,
    /// Grows with each lease of the id: of two that say they hold it, the lower one is wrong.
    pub epoch: u64,
    pub max_concurrency: u32,
    /// What the id's last holder deposited.
    pub resume: Option<Box<RawValue>>,
}

/// `d` of SHARD_WAIT.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Wait {
    /// A word of [`WaitReason`](crate::protocol::op::WaitReason).
    pub reason: String,
    /// How many requests are before this one, plus one.
    pub position: u64,
    pub retry_after_ms: Option<u64>,
}

/// `d` of SHARD_LIVE: forward that shard's events from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Live {
    pub shard_id: u32,
    pub shard_count: u32,
}

/// `d` of SHARD_REVOKE: close that shard, its id is lost.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Revoke {
    pub shard_id: u32,
    pub shard_count: u32,
    pub reason: String,
}

/// `d` of SHARD_DEATH.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Death {
    /// `None` will do for a service that holds exactly one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard_id: Option<u32>,
    /// Needed only by who holds the id in two generations at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard_count: Option<u32>,
    /// Discord's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_code: Option<u16>,
    /// For the id's next holder: `session_id`, `seq` and `resume_gateway_url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<Box<RawValue>>,
}

impl Sender {
    /// Asks for any shard id. The answer is SHARD_ACCEPT, see [`Lease`], after any number of
    /// SHARD_WAIT, see [`Wait`].
    pub async fn shard_connect(&mut self) -> Result<(), ClientError> {
        self.op(Opcode::ShardConnect, &json!({})).await
    }

    /// Asks for a given shard id. With `identify` false the shard is connected to Discord already, or
    /// can resume there, and needs no permit to IDENTIFY.
    pub async fn shard_claim(
        &mut self,
        shard_id: u32,
        shard_count: u32,
        identify: bool,
    ) -> Result<(), ClientError> {
        let fields = json!({ "shard_id": shard_id, "shard_count": shard_count, "identify": identify });
        self.op(Opcode::ShardConnect, &fields).await
    }

    /// Says how far a shard has come with Discord.
    pub async fn shard_state(&mut self, lease: &Lease, state: LeaseState) -> Result<(), ClientError> {
        self.tell_state(lease, state, None).await
    }

    /// As [`shard_state`](Self::shard_state), and leaves what the id's next holder can resume with,
    /// should this one vanish.
    pub async fn shard_state_with_resume(
        &mut self,
        lease: &Lease,
        state: LeaseState,
        resume: &RawValue,
    ) -> Result<(), ClientError> {
        self.tell_state(lease, state, Some(resume)).await
    }

    /// Gives a shard id back; see [`Death`].
    pub async fn shard_death(&mut self, death: &Death) -> Result<(), ClientError> {
        self.op(Opcode::ShardDeath, death).await
    }

    async fn tell_state(
        &mut self,
        lease: &Lease,
        state: LeaseState,
        resume: Option<&RawValue>,
    ) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Told<'a> {
            shard_id: u32,
            shard_count: u32,
            state: LeaseState,
            #[serde(skip_serializing_if = "Option::is_none")]
            resume: Option<&'a RawValue>,
        }
        let Lease { shard_id, shard_count, .. } = *lease;
        self.op(Opcode::ShardState, &Told { shard_id, shard_count, state, resume }).await
    }
}

impl Client {
    /// See [`Sender::shard_connect`].
    pub async fn shard_connect(&mut self) -> Result<(), ClientError> {
        self.sender.shard_connect().await
    }

    /// See [`Sender::shard_claim`].
    pub async fn shard_claim(
        &mut self,
        shard_id: u32,
        shard_count: u32,
        identify: bool,
    ) -> Result<(), ClientError> {
        self.sender.shard_claim(shard_id, shard_count, identify).await
    }

    /// See [`Sender::shard_state`].
    pub async fn shard_state(&mut self, lease: &Lease, state: LeaseState) -> Result<(), ClientError> {
        self.sender.shard_state(lease, state).await
    }

    /// See [`Sender::shard_state_with_resume`].
    pub async fn shard_state_with_resume(
        &mut self,
        lease: &Lease,
        state: LeaseState,
        resume: &RawValue,
    ) -> Result<(), ClientError> {
        self.sender.shard_state_with_resume(lease, state, resume).await
    }

    /// See [`Sender::shard_death`].
    pub async fn shard_death(&mut self, death: &Death) -> Result<(), ClientError> {
        self.sender.shard_death(death).await
    }
}
