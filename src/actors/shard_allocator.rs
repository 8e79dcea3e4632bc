//! `ShardAllocator`: hands out the shard ids. Owned by the `Gateway`, which alone talks to it.
//!
//! The rules are in [`state::shards`](crate::state::shards).

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult, SpawnHandle, Supervised};

use super::gateway::Gateway;
use super::link::OpPermit;
use super::supervision::guard;
use crate::protocol::name::ConnectionId;
use crate::state::route::Shared;
use crate::state::shards::{Action, Input, Now, Report, ShardPool};
use crate::state::tally::Part;

/// The actor. A request is known by the connection that made it.
pub struct ShardAllocator {
    pool: ShardPool<ConnectionId>,
    gateway: Addr<Gateway>,
    shared: Arc<Shared>,
    /// Of the pool's next deadline.
    alarm: Option<SpawnHandle>,
}

impl ShardAllocator {
    pub fn new(pool: ShardPool<ConnectionId>, gateway: Addr<Gateway>, shared: Arc<Shared>) -> Self {
        Self { pool, gateway, shared, alarm: None }
    }
}

impl Actor for ShardAllocator {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // A restart drops what was scheduled.
        self.alarm = None;
        self.set_alarm(context);
    }
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
        guard::<Self, ()>("ShardAllocator", Part::Allocator, &shared.panics, context, |context| {
            let actions = self.pool.step(input, now());
            self.pass_on(actions, permit);
            self.set_alarm(context);
        });
    }
}

impl ShardAllocator {
    /// Everything is in memory: nothing is stored.
    fn pass_on(&self, mut actions: Vec<Action<ConnectionId>>, permit: Option<OpPermit>) {
        actions.retain(|action| !matches!(action, Action::Persist(_)));
        if !actions.is_empty() {
            self.gateway.do_send(ShardActions { actions, permit });
        }
    }

    fn set_alarm(&mut self, context: &mut Context<Self>) {
        self.alarm.take().map(|alarm| context.cancel_future(alarm));
        self.alarm = self.pool.next_wake().map(|at| {
            let delay = at.saturating_duration_since(Instant::now());
            context.notify_later(ShardInput { input: Input::Wake, permit: None }, delay)
        });
    }
}

/// By both clocks.
pub fn now() -> Now {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
}

/// What each shard id is doing, for operators.
#[derive(Debug, Message)]
#[rtype(result = "Report")]
pub struct ReportShards;

impl Handler<ReportShards> for ShardAllocator {
    type Result = MessageResult<ReportShards>;

    fn handle(&mut self, _: ReportShards, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.pool.report(now()))
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
