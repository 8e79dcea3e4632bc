//! `ShardAllocator`: hands out the shard ids. Owned by the `Gateway`, which alone talks to it.
//!
//! The rules are in [`state::shards`](crate::state::shards).

use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Addr, Context, Handler, Message, Supervised};

use super::gateway::Gateway;
use super::link::OpPermit;
use super::supervision::guard;
use crate::protocol::name::{ConnectionId, Epoch, Name, ShardId};
use crate::state::route::Shared;
use crate::state::shards::{Action, Input, ShardPool};
use crate::state::tally::Part;

/// The actor. A request is known by the connection that made it.
pub struct ShardAllocator {
    pool: ShardPool<ConnectionId>,
    gateway: Addr<Gateway>,
    shared: Arc<Shared>,
}

impl ShardAllocator {
    pub fn new(pool: ShardPool<ConnectionId>, gateway: Addr<Gateway>, shared: Arc<Shared>) -> Self {
        Self { pool, gateway, shared }
    }
}

impl Actor for ShardAllocator {
    type Context = Context<Self>;
}

impl Supervised for ShardAllocator {}

/// A service asks for a shard or gives one up, or something became of it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ShardInput {
    pub input: Input<ConnectionId>,
    /// Goes with the answer, if there is one.
    pub permit: Option<OpPermit>,
}

/// What the allocator decided, in this order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ShardActions {
    pub actions: Vec<Action<ConnectionId>>,
    pub permit: Option<OpPermit>,
}

impl Handler<ShardInput> for ShardAllocator {
    type Result = ();

    fn handle(&mut self, message: ShardInput, context: &mut Self::Context) {
        let ShardInput { input, permit } = message;
        let shared = self.shared.clone();
        guard::<Self, ()>("ShardAllocator", Part::Allocator, &shared.panics, context, |_| {
            let actions = self.pool.step(input, Instant::now());
            if !actions.is_empty() {
                self.gateway.do_send(ShardActions { actions, permit });
            }
        });
    }
}

/// What each shard id is doing, for operators.
#[derive(Debug, Message)]
#[rtype(result = "ShardReport")]
pub struct ReportShards;

/// Every id of the pool, and how many requests wait.
#[derive(Debug, Clone, actix::MessageResponse)]
pub struct ShardReport {
    pub shards: Vec<ShardLine>,
    pub waiting: usize,
}

/// One id of the pool.
#[derive(Debug, Clone)]
pub struct ShardLine {
    pub shard_id: ShardId,
    pub holder: Option<Name>,
    pub epoch: Epoch,
}

impl Handler<ReportShards> for ShardAllocator {
    type Result = ShardReport;

    fn handle(&mut self, _: ReportShards, _: &mut Self::Context) -> ShardReport {
        let line = |view: crate::state::shards::ShardView<'_>| ShardLine {
            shard_id: view.shard_id,
            holder: view.holder.cloned(),
            epoch: view.epoch,
        };
        ShardReport { shards: self.pool.shards().map(line).collect(), waiting: self.pool.waiting() }
    }
}

/// Panic, for tests.
#[cfg(feature = "fault-injection")]
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Crash;

#[cfg(feature = "fault-injection")]
impl Handler<Crash> for ShardAllocator {
    type Result = ();

    fn handle(&mut self, _: Crash, context: &mut Self::Context) {
        let panics = &self.shared.panics;
        guard::<Self, ()>("ShardAllocator", Part::Allocator, panics, context, |_| panic!("as asked"));
    }
}
