//! The pool of Discord shard ids: who holds which id, who waits for one, and what each is told.
//!
//! Services ask ([`Input`]), the pool answers ([`Action`]); `PROTOCOL.md` section 7 has the rules.
//! There is one place where a grant is decided (`decide`), one where it is carried
//! out, and one where a lease ends; whatever is to hold back or follow a lease belongs there.
//!
//! Waiting is first come, first served in one queue. A request fits every id, a claim only its
//! own; a freed id goes to the first in the queue that it fits. So a claim never overtakes an
//! earlier request, and a request never takes the id of an earlier claim.
//!
//! The pool does not know connections. Whoever drives it sees to it that each service's inputs
//! come in the order in which they happened, and that each name it ever hears of ends with
//! [`Input::Down`].

mod generation;
mod last_held;
#[cfg(test)]
mod properties;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Instant;

use crate::protocol::error::ErrorCode;
use crate::protocol::name::{Epoch, Name, ShardId};
use crate::protocol::op;

use self::generation::Generation;
use self::queue::{Ask, Queue};

/// What happened. `R` is what the driver needs to find the asker again; the pool hands it back.
#[derive(Debug, Clone)]
pub enum Input<R> {
    /// A `SHARD_CONNECT` came. From a service that is away it is dropped: nobody is there to be
    /// answered, and a permit would be stale when used.
    Connect { service: Name, request: R, connect: op::ShardConnect },
    /// A `SHARD_DEATH` came. It counts while its service is away too.
    Death { service: Name, request: R, death: op::ShardDeath },
    /// The service's connection ended: it keeps its leases and loses its places in the queue.
    Away { service: Name },
    /// It identified again, whether it was away or its connection was taken over: its leases are
    /// unclaimed until it asks, and the old connection's places in the queue are gone.
    Resumed { service: Name },
    /// Its session ended: its leases go back.
    Down { service: Name },
}

/// What is to be done about it, in this order.
#[derive(Debug, Clone)]
pub enum Action<R> {
    /// The request is done: here is its lease, new or its own still.
    Accept { service: Name, request: R, accept: op::ShardAccept },
    /// The request waits. Told at first and at every change, so not more than once in a step.
    Wait { service: Name, request: R, wait: op::ShardWait },
    /// The request is done: it had no effect.
    Refuse { service: Name, request: R, error: op::Error },
    /// The lease of an id began (`Some`) or ended (`None`). Comes before the `Accept` that belongs
    /// to it; an id that changes hands ends first.
    Holder { shard_id: ShardId, holder: Option<Name> },
}

/// One id, as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardView<'a> {
    pub shard_id: ShardId,
    pub holder: Option<&'a Name>,
    /// That of the current lease, or else of the last one; 0: never leased.
    pub epoch: Epoch,
    /// When the current lease began.
    pub since: Option<Instant>,
}

/// The pool's whole state. See the [module](self).
pub struct ShardPool<R> {
    generation: Generation,
    queue: Queue<R>,
    away: HashSet<Name>,
    max_concurrency: u32,
}

impl<R: Clone> ShardPool<R> {
    /// A pool of the ids `0 … shard_count-1`, all free. `shard_count` is at least 1.
    pub fn new(shard_count: u32, max_concurrency: u32) -> Self {
        assert!(shard_count > 0, "a pool needs a shard id");
        Self {
            generation: Generation::new(shard_count),
            queue: Queue::new(),
            away: HashSet::new(),
            max_concurrency,
        }
    }

    /// Takes one input in; `now` is when a lease that begins began. The actions are to be carried
    /// out in order.
    pub fn step(&mut self, input: Input<R>, now: Instant) -> Vec<Action<R>> {
        let mut actions = Vec::new();
        match input {
            Input::Connect { service, request, connect } => {
                self.connect(service, request, connect, now, &mut actions);
            }
            Input::Death { service, request, death } => match self.dying(&service, death) {
                Ok(shard_id) => self.end(&[shard_id], now, &mut actions),
                Err(error) => actions.push(Action::Refuse { service, request, error }),
            },
            Input::Away { service } => {
                self.queue.leave(&service);
                self.away.insert(service);
            }
            Input::Resumed { service } => {
                self.queue.leave(&service);
                self.away.remove(&service);
                self.generation.unclaim(&service);
            }
            Input::Down { service } => {
                self.queue.leave(&service);
                self.away.remove(&service);
                // The lowest id ends last, so that it is the one that the name gets back first.
                let held: Vec<_> = self.generation.held_by(service.as_str()).rev().collect();
                self.end(&held, now, &mut actions);
            }
        }
        self.queue.tell_changes(&mut actions);
        actions
    }

    /// The ids leased to that service, in rising order.
    pub fn shards_of(&self, service: &str) -> Vec<ShardId> {
        self.generation.held_by(service).collect()
    }

    /// All ids, in rising order.
    pub fn shards(&self) -> impl Iterator<Item = ShardView<'_>> {
        self.generation.views()
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub fn shard_count(&self) -> u32 {
        self.generation.shard_count()
    }

    fn connect(
        &mut self,
        service: Name,
        request: R,
        connect: op::ShardConnect,
        now: Instant,
        actions: &mut Vec<Action<R>>,
    ) {
        if self.away.contains(&service) {
            return;
        }
        let claim = match self.claim(connect) {
            Ok(claim) => claim,
            Err(error) => return actions.push(Action::Refuse { service, request, error }),
        };
        let ask = Ask { service, request, claim };
        // Whoever waits fits no free id, so that a newcomer served at once overtakes nobody.
        match self.decide(&ask) {
            Ok(shard_id) => self.grant(&ask, shard_id, now, actions),
            Err(reason) => match self.room_for(&ask.service) {
                Ok(()) => self.queue.join(ask, reason),
                Err(error) => {
                    let Ask { service, request, .. } = ask;
                    actions.push(Action::Refuse { service, request, error });
                }
            },
        }
    }

    /// The id that a `SHARD_CONNECT` claims, if it claims one.
    fn claim(&self, connect: op::ShardConnect) -> Result<Option<ShardId>, op::Error> {
        let shard_count = self.shard_count();
        // First: an id out of range here may be in range where its count belongs.
        if let Some(claimed) = connect.shard_count.filter(|&claimed| claimed != shard_count) {
            let message = format!("`d.shard_count` must be {shard_count} (`shards`), not {claimed}");
            return Err(op::Error::new(ErrorCode::StaleShard, message));
        }
        match connect.shard_id {
            Some(id) if id >= shard_count => {
                let last = shard_count - 1;
                let message =
                    format!("`d.shard_id` must be in 0 to {last} (`shards` is {shard_count}), not {id}");
                Err(op::Error::new(ErrorCode::Malformed, message))
            }
            claim => Ok(claim.map(ShardId)),
        }
    }

    /// Whether one more request of that service may wait: no more of them than there are ids.
    fn room_for(&self, service: &Name) -> Result<(), op::Error> {
        let (waiting, shard_count) = (self.queue.places_of(service), self.shard_count());
        if waiting < shard_count as usize {
            return Ok(());
        }
        let message = format!(
            "{waiting} requests of this service wait already, and `shards` is {shard_count}; \
             wait for their SHARD_ACCEPT"
        );
        Err(op::Error::new(ErrorCode::Malformed, message))
    }

    /// The id that is to be granted to this request now, or why it must wait. The id is free, or
    /// the asker's own.
    fn decide(&self, ask: &Ask<R>) -> Result<ShardId, op::WaitReason> {
        let id = match ask.claim {
            Some(id) => self.generation.may_have(&ask.service, id).then_some(id),
            None => {
                self.generation.unclaimed(&ask.service).or_else(|| self.generation.free_for(&ask.service))
            }
        };
        id.ok_or(op::WaitReason::NoFreeShard)
    }

    /// Carries out what `decide` decided: a lease that stands is claimed, else one begins.
    fn grant(&mut self, ask: &Ask<R>, shard_id: ShardId, now: Instant, actions: &mut Vec<Action<R>>) {
        let Ask { service, request, .. } = ask;
        if !self.generation.reclaim(shard_id) {
            self.generation.begin(shard_id, service.clone(), now);
            actions.push(Action::Holder { shard_id, holder: Some(service.clone()) });
        }
        let accept = op::ShardAccept {
            shard_id,
            shard_count: self.shard_count(),
            epoch: self.generation.epoch(shard_id),
            max_concurrency: self.max_concurrency,
        };
        actions.push(Action::Accept { service: service.clone(), request: request.clone(), accept });
    }

    /// The id that a `SHARD_DEATH` returns.
    fn dying(&self, service: &Name, death: op::ShardDeath) -> Result<ShardId, op::Error> {
        let mut held = self.generation.held_by(service.as_str());
        if let Some(id) = death.shard_id {
            return held.find(|&held| held == ShardId(id)).ok_or_else(|| {
                let message = format!("this service does not hold the shard id {id}");
                op::Error::new(ErrorCode::NotShardHolder, message)
            });
        }
        match (held.next(), held.count()) {
            (Some(only), 0) => Ok(only),
            (Some(_), more) => {
                let message = format!("`d.shard_id` is needed: this service holds {} shard ids", more + 1);
                Err(op::Error::new(ErrorCode::Malformed, message))
            }
            (None, _) => Err(op::Error::new(ErrorCode::NotShardHolder, "this service holds no shard id")),
        }
    }

    /// Ends these leases, then serves whom the freed ids fit.
    fn end(&mut self, shard_ids: &[ShardId], now: Instant, actions: &mut Vec<Action<R>>) {
        for &shard_id in shard_ids {
            self.generation.end(shard_id);
            actions.push(Action::Holder { shard_id, holder: None });
        }
        if !shard_ids.is_empty() {
            self.serve_queue(now, actions);
        }
    }

    /// Goes through the whole queue: who was granted an id may have claims for it further back.
    fn serve_queue(&mut self, now: Instant, actions: &mut Vec<Action<R>>) {
        let mut queue = std::mem::replace(&mut self.queue, Queue::new());
        queue.serve(|ask| {
            let shard_id = self.decide(ask)?;
            self.grant(ask, shard_id, now, actions);
            Ok(())
        });
        self.queue = queue;
    }

    /// Panics where the parts contradict each other.
    #[cfg(test)]
    fn check_invariants(&self) {
        self.generation.check_invariants();
        self.queue.check_invariants();
        for ask in self.queue.asks() {
            assert!(!self.away.contains(&ask.service), "{} waits while away", ask.service);
            assert!(self.decide(ask).is_err(), "{} waits for what it could have", ask.service);
        }
    }
}
