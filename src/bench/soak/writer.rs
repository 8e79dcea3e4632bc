//! What a service sends: its share of the messages, acknowledgements, ops, and mistakes.

use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::cast::Kind;
use super::desk::Desk;
use super::message::{Data, Target};
use super::world::{Stage, World, count, lock};
use crate::client::{ClientError, Death, Sender};
use crate::protocol::error::ErrorCode;
use crate::protocol::op::Opcode;

/// How often a service sends.
const TICK: Duration = Duration::from_millis(50);
/// Of how many names that nobody has.
const NOBODIES: usize = 4;
/// Which shard ids are sent to; some of them may not exist.
const SHARDS: usize = 8;
/// How many messages a flood has: more than the mailbox of a gateway holds that was started for it.
const FLOOD: usize = 1_200;
/// How often, in ticks, a flooder floods, a service makes a mistake, a shard gives its id back.
const FLOOD_TICKS: u32 = 400;
const MISTAKE_TICKS: u32 = 200;
const SHARD_TICKS: u32 = 60;
/// Deeper than any gateway lets JSON nest.
const TOO_DEEP: usize = 2_000;

/// The writing half of one connection.
pub(super) struct Writer<'a> {
    pub(super) world: &'a World,
    pub(super) index: usize,
    /// Which of the service's connections it is.
    pub(super) connection: u64,
    pub(super) desk: &'a Desk,
    pub(super) random: &'a mut Rng,
}

impl Writer<'_> {
    /// Writes until the connection ends, and says how it did.
    pub(super) async fn run(&mut self, sender: &mut Sender) -> String {
        match self.write(sender).await {
            Ok(never) => match never {},
            Err(error) => error.to_string(),
        }
    }

    async fn write(&mut self, sender: &mut Sender) -> Result<std::convert::Infallible, ClientError> {
        let kind = self.world.role(self.index).kind;
        if kind == Kind::Watcher {
            sender.op(Opcode::Watch, &json!({ "services": self.world.pattern() })).await?;
        }
        if kind == Kind::Shard && self.desk.shards().is_empty() {
            sender.shard_connect().await?;
        }
        let (mut ticks, mut acknowledged, mut due) = (interval(TICK), 0, 0.0);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let number = self.desk.to_acknowledge();
            if number != acknowledged {
                sender.op(Opcode::Ack, &json!({ "i": number })).await?;
                acknowledged = number;
            }
            if self.world.stage() == Stage::Running {
                // Not evenly, as events do not come evenly.
                due += self.world.rate * TICK.as_secs_f64() * 2.0 * self.random.f64();
                while due >= 1.0 {
                    due -= 1.0;
                    self.feed(sender).await?;
                }
                self.do_seldom(sender, kind).await?;
            }
            sender.flush().await?;
        }
    }

    /// One message to somebody.
    async fn feed(&mut self, sender: &mut Sender) -> Result<(), ClientError> {
        let choice = self.random.u32(0..100);
        let circle = &self.world.cast.circles[self.index];
        let target = if choice < 2 {
            Target::Nobody(self.random.usize(0..NOBODIES))
        } else if choice < 10 && self.world.role(self.index).kind == Kind::Backend {
            Target::Shard(self.random.usize(0..SHARDS))
        } else {
            Target::Service(circle[self.random.usize(0..circle.len())])
        };
        let fill = self.fill(target);
        self.feed_one(sender, target, fill).await
    }

    async fn feed_one(
        &mut self,
        sender: &mut Sender,
        target: Target,
        fill: usize,
    ) -> Result<(), ClientError> {
        let number = self.world.send(self.index, target);
        let data = Data { to: self.world.written(target), connection: self.connection, number, fill };
        sender.feed_raw(data.message(&self.world.name(self.index), target)).await
    }

    /// How big a message is: most are small, some are not.
    fn fill(&mut self, target: Target) -> usize {
        let is_slow = matches!(target, Target::Service(to) if self.world.role(to).kind == Kind::Slow);
        match self.random.u32(0..100) {
            0 => self.random.usize(10_000..100_000),
            1..10 => self.random.usize(1_000..4_000),
            10..35 if is_slow => self.random.usize(20_000..60_000),
            _ => self.random.usize(20..250),
        }
    }

    async fn do_seldom(&mut self, sender: &mut Sender, kind: Kind) -> Result<(), ClientError> {
        if self.random.u32(0..MISTAKE_TICKS) == 0 {
            let (text, code) = self.mistake();
            self.desk.mistake(code);
            count(&self.world.counts.mistakes);
            sender.feed_raw(text).await?;
        }
        match kind {
            Kind::Flooder if self.random.u32(0..FLOOD_TICKS) == 0 => self.flood(sender).await,
            Kind::Shard if self.random.u32(0..SHARD_TICKS) == 0 => self.change_shard(sender).await,
            _ => Ok(()),
        }
    }

    /// Fills the mailbox of one that is away, if there is one.
    async fn flood(&mut self, sender: &mut Sender) -> Result<(), ClientError> {
        let circle = &self.world.cast.circles[self.index];
        let Some(target) = circle.iter().copied().find(|target| !self.world.is_connected(*target)) else {
            return Ok(());
        };
        for _ in 0..FLOOD {
            self.feed_one(sender, Target::Service(target), 20).await?;
        }
        Ok(())
    }

    /// Gives a shard id back and asks for one anew.
    async fn change_shard(&mut self, sender: &mut Sender) -> Result<(), ClientError> {
        let Some(id) = self.desk.shards().first().copied() else { return Ok(()) };
        lock(&self.world.leases).leaves(id, self.index, Instant::now());
        self.desk.gave_shard_back(id);
        sender.shard_death(&Death { shard_id: Some(id), ..Death::default() }).await?;
        sender.shard_connect().await
    }

    /// A message with a mistake in it, and the ERROR that it deserves.
    fn mistake(&mut self) -> (String, ErrorCode) {
        let own = self.world.name(self.index);
        let op = |opcode: u8| format!(r#"{{"s":"{own}","t":"gateway:opcode","d":{{"opcode":{opcode}}}}}"#);
        let proxied = |data: &str| format!(r#"{{"s":"{own}","t":"gateway-proxy:{own}:x","d":{data}"#);
        match self.random.u32(0..8) {
            0 => (proxied("{}"), ErrorCode::Malformed),
            1 => (proxied(r#"{"a":[1,]}}"#), ErrorCode::Malformed),
            2 => (proxied(r#"1,"t":"twice"}"#), ErrorCode::Malformed),
            3 => (proxied(&"[".repeat(TOO_DEEP)), ErrorCode::Malformed),
            4 => (format!(r#"{{"s":"{own}2","t":"heartbeat:{own}2"}}"#), ErrorCode::SourceMismatch),
            5 => (format!(r#"{{"s":"{own}","t":"to:nowhere"}}"#), ErrorCode::UnroutableTopic),
            6 => (op(1), ErrorCode::GatewayOnlyOp),
            _ => (op(99), ErrorCode::UnknownOp),
        }
    }
}
