//! What a service asks for, or tells something of: which id it means, and whether it may.

use crate::protocol::error::ErrorCode;
use crate::protocol::name::{Name, ShardId};
use crate::protocol::op;

use super::queue::{Ask, Ticket, Wants};
use super::records::Shard;
use super::reshard::MAX_SHARDS;
use super::{Action, ShardPool};

/// How many requests of all services may wait; each service may always have one. That many ids are the
/// most that there can be.
const MAX_WAITING: usize = MAX_SHARDS as usize;

impl<R: Clone> ShardPool<R> {
    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether anything is known of that service: what becomes of any other changes nothing.
    pub fn knows(&self, service: &Name) -> bool {
        self.generations().any(|it| it.holds(service))
            || self.queue.places_of(service) > 0
            || self.away.contains_key(service)
            || self.heard.contains_key(service)
            || self.reporting.contains(service)
            || self.unseen.services.contains(service)
    }

    pub(super) fn connect(
        &mut self,
        service: Name,
        request: R,
        connect: op::ShardConnect,
        now: u64,
        actions: &mut Vec<Action<R>>,
    ) -> Option<Ticket> {
        if self.away.contains_key(&service) {
            return None;
        }
        let wants = self.claim(&service, connect).and_then(|wants| self.room_for(&service).map(|()| wants));
        let wants = match wants {
            Ok(wants) => wants,
            Err(error) => {
                actions.push(Action::Refuse { service, request, error });
                return None;
            }
        };
        let ask = self.ask(service, request, wants, connect.needs_permit());
        match ask.wants.shard() {
            // It stands as it is: nothing is granted, so that nothing can hold it back.
            Some(shard) if !ask.permit && self.holds(&ask.service, shard) => {
                self.grant(ask, shard, now, actions);
                None
            }
            shard => {
                let ticket = self.queue.join(ask);
                if let Some(shard) = shard {
                    self.reconsider(shard);
                }
                Some(ticket)
            }
        }
    }

    fn ask(&mut self, service: Name, request: R, wants: Wants, needs_permit: bool) -> Ask<R> {
        let own = || self.generations().find_map(|it| it.unclaimed(&service).map(|id| it.shard(id)));
        let wants = match wants {
            Wants::Any => own().map_or(Wants::Any, Wants::Own),
            wants => wants,
        };
        let returns = wants.shard().is_some_and(|shard| {
            let generation = self.generation_mut(shard.shard_count);
            generation.is_some_and(|(it, _)| it.claim(&service, shard.shard_id))
        });
        Ask { service, request, wants, permit: needs_permit || wants == Wants::Any, returns }
    }

    /// The id that a `SHARD_CONNECT` claims, if it claims one.
    fn claim(&self, service: &Name, connect: op::ShardConnect) -> Result<Wants, op::Error> {
        // First: an id out of range here may be in range where its count belongs.
        if let Some(claimed) = connect.shard_count.filter(|count| self.generation(*count).is_none()) {
            let counts: Vec<_> = self.shard_counts().map(|count| count.to_string()).collect();
            let message = format!("`d.shard_count` must be {}, not {claimed}", counts.join(" or "));
            return Err(op::Error::new(ErrorCode::StaleShard, message));
        }
        let Some(id) = connect.shard_id else { return Ok(Wants::Any) };
        let shard_id = ShardId(id);
        let own =
            || self.generations().map(|it| it.shard(shard_id)).find(|shard| self.holds(service, *shard));
        let shard_count = connect
            .shard_count
            .or_else(|| own().map(|shard| shard.shard_count))
            .unwrap_or_else(|| self.target().shard_count());
        if id >= shard_count {
            let last = shard_count - 1;
            let message = format!("`d.shard_id` must be in 0 to {last} (of {shard_count} shards), not {id}");
            return Err(op::Error::new(ErrorCode::Malformed, message));
        }
        Ok(Wants::Claim(Shard { shard_count, shard_id }))
    }

    /// Whether one more request of that service may wait: no more of them than there are ids, and of all
    /// services together no more than [`MAX_WAITING`], besides the first of each.
    fn room_for(&self, service: &Name) -> Result<(), op::Error> {
        let waiting = self.queue.places_of(service);
        let shard_count = self.shard_counts().max().unwrap_or_default();
        if waiting > 0 && self.queue.len() >= MAX_WAITING {
            let message = format!(
                "{} requests for shard ids wait already, {waiting} of this service: more than {MAX_WAITING} \
                 in all may not, besides the first of each service; wait for their SHARD_ACCEPT",
                self.queue.len()
            );
            return Err(op::Error::new(ErrorCode::AtCapacity, message));
        }
        if waiting < shard_count as usize {
            return Ok(());
        }
        let message = format!(
            "{waiting} requests of this service wait already, and there are {shard_count} shards; wait for \
             their SHARD_ACCEPT"
        );
        Err(op::Error::new(ErrorCode::Malformed, message))
    }

    /// The id that an op of its holder is about.
    pub(super) fn find_held(
        &self,
        service: &Name,
        shard_id: Option<u32>,
        shard_count: Option<u32>,
    ) -> Result<Shard, op::Error> {
        let living =
            self.generations().filter(|it| shard_count.is_none_or(|count| it.shard_count() == count));
        let held: Vec<Shard> = match shard_id {
            Some(id) => {
                living.map(|it| it.shard(ShardId(id))).filter(|shard| self.holds(service, *shard)).collect()
            }
            None => living.flat_map(|it| it.held_by(service.as_str()).map(|id| it.shard(id))).collect(),
        };
        let (code, message) = match (held[..].first(), held.len(), shard_id) {
            (Some(only), 1, _) => return Ok(*only),
            (None, _, None) => (ErrorCode::NotShardHolder, "this service holds no shard id".to_owned()),
            (None, _, Some(id)) => {
                (ErrorCode::NotShardHolder, format!("this service does not hold the shard id {id}"))
            }
            (_, count, None) => {
                let message = format!("`d.shard_id` is needed: this service holds {count} shard ids");
                (ErrorCode::Malformed, message)
            }
            (_, _, Some(id)) => {
                let message =
                    format!("`d.shard_count` is needed: this service holds {id} in two generations");
                (ErrorCode::Malformed, message)
            }
        };
        Err(op::Error::new(code, message))
    }
}
