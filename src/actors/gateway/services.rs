//! What services ask for: shards, and to watch each other.

#[cfg(feature = "fault-injection")]
use std::time::Duration;
use std::time::Instant;

use actix::{Handler, Message};

use super::operate::log_command;
use super::{Gateway, StopService, unix_ms};
use crate::actors::client_session::Order;
use crate::actors::link::OpPermit;
#[cfg(feature = "fault-injection")]
use crate::actors::shard_allocator::Crash;
use crate::actors::shard_allocator::{Answer, Pass, ShardActions, ShardInput};
use crate::protocol::error::ErrorCode;
use crate::protocol::name::{ConnectionId, Name, ShardId};
use crate::protocol::op::{self, GatewayOp, Presence, PresenceEvent, ServiceOp, Watch};
use crate::routes::ShardTable;
#[cfg(feature = "fault-injection")]
use crate::state::account::Amount;
use crate::state::registry::Stopping;
use crate::state::shards::{Action, Input, SessionStartLimit, Shard};
use crate::state::tally::Warned;

/// An op of a service, from its session.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ServiceRequest {
    pub service: Name,
    pub connection: ConnectionId,
    pub op: ServiceOp,
    pub permit: OpPermit,
}

impl Handler<ServiceRequest> for Gateway {
    type Result = ();

    fn handle(&mut self, request: ServiceRequest, context: &mut Self::Context) {
        self.guarded(context, |gateway, _| gateway.serve(request));
    }
}

impl Gateway {
    fn serve(&mut self, request: ServiceRequest) {
        let ServiceRequest { service, connection, op, permit } = request;
        let asker = service.clone();
        if !self.registry.get(&service).is_some_and(|known| known.is_up() && known.connection() == connection)
        {
            return;
        }
        let input = match op {
            ServiceOp::ShardConnect(connect) => Input::Connect { service, request: connection, connect },
            ServiceOp::ShardDeath(death) => Input::Death { service, request: connection, death },
            ServiceOp::ShardState(state) => Input::State { service, request: connection, state },
            ServiceOp::Watch(watch) => return self.watch(&service, watch),
            // Its session hears of it from the connection.
            ServiceOp::Ack(_) => return,
            #[cfg(feature = "fault-injection")]
            ServiceOp::Fault(op::Fault { panic: op::FaultIn::Allocator }) => {
                return self.allocator.iter().for_each(|allocator| allocator.do_send(Crash::Now));
            }
            #[cfg(feature = "fault-injection")]
            ServiceOp::Fault(op::Fault { panic: op::FaultIn::Store }) => {
                return self.allocator.iter().for_each(|allocator| allocator.do_send(Crash::AtTheNextWrite));
            }
            #[cfg(feature = "fault-injection")]
            ServiceOp::Fault(op::Fault {
                panic: slow @ (op::FaultIn::BusyDisk | op::FaultIn::SlowDisk | op::FaultIn::HungDisk),
            }) => {
                let by = match slow {
                    op::FaultIn::BusyDisk => Duration::from_millis(50),
                    op::FaultIn::SlowDisk => Duration::from_secs(1),
                    _ => Duration::from_mins(1),
                };
                return self.allocator.iter().for_each(|allocator| allocator.do_send(Crash::SlowDown(by)));
            }
            #[cfg(feature = "fault-injection")]
            ServiceOp::Fault(op::Fault { panic: op::FaultIn::Account }) => {
                let entry = self.routes.shared().accounts.entry(&service, None);
                return entry.accept(Amount::message(1));
            }
            #[cfg(feature = "fault-injection")]
            ServiceOp::Fault(op::Fault { panic: op::FaultIn::Budget }) => {
                let (shards, max_concurrency, total, remaining) = (1, 1, 10, 3);
                let reset_after_ms = 3_600_000;
                let limit = SessionStartLimit { shards, max_concurrency, total, remaining, reset_after_ms };
                Input::SessionStartLimit { limit, asked_at: Instant::now() }
            }
            #[cfg(feature = "fault-injection")]
            ServiceOp::Fault(_) => panic!("as asked"),
            ServiceOp::Identify(_) => {
                let error = op::Error::new(ErrorCode::Malformed, "this connection has identified already");
                let op = GatewayOp::Error(error);
                return self
                    .order(&service, Order::Op { op, answers: Some(connection), permit: Some(permit) });
            }
        };
        self.ask_pool(&asker, connection, input, permit);
    }

    /// Has the pool take an op in, unless too many wait for that already.
    fn ask_pool(
        &mut self,
        asker: &Name,
        connection: ConnectionId,
        input: Input<ConnectionId>,
        permit: OpPermit,
    ) {
        let place = match self.places.take(asker) {
            Ok(place) => place,
            Err(full) => {
                let op = GatewayOp::Error(op::Error::new(ErrorCode::AtCapacity, full.to_string()));
                return self.order(asker, Order::Op { op, answers: Some(connection), permit: Some(permit) });
            }
        };
        if let Input::Death { death, .. } = &input {
            self.listed.settle(asker, death.shard_id.map(ShardId));
        }
        self.ask_allocator(ShardInput { input, pass: Some(Pass { permit, place }) });
    }

    fn watch(&mut self, service: &Name, watch: Watch) {
        self.watchers.insert(service.clone(), watch);
        self.tell_all_presences(service);
    }

    /// One event for each service that the watcher watches.
    pub(super) fn tell_all_presences(&self, watcher: &Name) {
        let Some(watch) = self.watchers.get(watcher) else { return };
        for (service, known) in self.registry.iter().filter(|(service, _)| watch.matches(service.as_str())) {
            let presence = Presence {
                service: service.clone(),
                event: if known.is_up() { PresenceEvent::Up } else { PresenceEvent::Away },
                reason: None,
                group: known.group.clone(),
                shards: self.shards_of(service),
                at: unix_ms(),
            };
            self.order(watcher, Order::Presence(presence));
        }
    }
}

/// Discord told what it allows.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct DiscordAnswered {
    pub limit: SessionStartLimit,
    /// When it was asked.
    pub asked_at: Instant,
}

impl Handler<DiscordAnswered> for Gateway {
    type Result = ();

    fn handle(&mut self, message: DiscordAnswered, context: &mut Self::Context) {
        let DiscordAnswered { limit, asked_at } = message;
        self.guarded(context, |gateway, _| {
            gateway.tell_allocator(Input::SessionStartLimit { limit, asked_at });
        });
    }
}

impl Handler<ShardActions> for Gateway {
    type Result = ();

    fn handle(&mut self, message: ShardActions, context: &mut Self::Context) {
        let ShardActions { actions, mut permit, answer } = message;
        self.guarded(context, |gateway, _| {
            gateway.publish_holders(&actions);
            for action in actions {
                gateway.answer(action, &mut permit);
            }
            if let Some((command, outcome)) = answer.and_then(Answer::give) {
                log_command(command, &outcome);
            }
        });
    }
}

/// Whether those actions revoke that very shard: the same id of another count is another.
fn is_told(holder: &Name, shard: Shard, actions: &[Action<ConnectionId>]) -> bool {
    let Shard { shard_count, shard_id } = shard;
    actions.iter().any(|action| {
        matches!(action, Action::Revoke { service, revoke }
            if service == holder && (revoke.shard_count, revoke.shard_id) == (shard_count, shard_id))
    })
}

impl Gateway {
    /// Routes follow a lease before its holder hears of it. Whoever took a name over without a right to its
    /// shards gets nothing for them: that it is over is on its way to the pool.
    fn publish_holders(&mut self, actions: &[Action<ConnectionId>]) {
        let mut changed = false;
        for action in actions {
            match action {
                Action::Holder { shard, holder } => {
                    if let Some(holder) = holder {
                        log::info!("shard {shard} is leased to {holder}");
                    } else {
                        log::info!("shard {shard} is free");
                        self.revoke_listed(*shard, actions);
                    }
                    let holder = self.entitled(holder.as_ref());
                    self.table_of(shard.shard_count).set(shard.shard_id, holder);
                    changed = true;
                }
                Action::Switch { shard_count, holders } => {
                    log::info!("there are {shard_count} shards now");
                    let holders = holders.iter().map(|holder| self.entitled(holder.as_ref())).collect();
                    (self.table, self.filling) = (ShardTable::of(holders), None);
                    changed = true;
                }
                _ => {}
            }
        }
        if changed {
            self.routes.set_shards(self.table.clone());
        }
    }

    /// That holder, unless whoever has its name now may not have shards.
    fn entitled(&self, holder: Option<&Name>) -> Option<Name> {
        holder.filter(|name| self.registry.get(name).is_none_or(|known| known.grant.ops.shards)).cloned()
    }

    /// What is sent to the shards that a service holds does not reach it any more, however long the allocator
    /// takes to end its leases.
    pub(super) fn withhold_shards(&mut self, name: &Name) {
        let mut held_any = false;
        for table in std::iter::once(&mut self.table).chain(&mut self.filling) {
            let held = table.shards_of(name);
            held_any |= !held.is_empty();
            for shard_id in held {
                table.set(shard_id, None);
            }
        }
        if held_any {
            self.routes.set_shards(self.table.clone());
        }
    }

    /// Tells the holder of a lease that ended, if its ACCEPT said that it has it and nothing else tells
    /// it of the end.
    fn revoke_listed(&mut self, shard: Shard, actions: &[Action<ConnectionId>]) {
        let Some(holder) = self.table_of(shard.shard_count).holder(shard.shard_id).cloned() else { return };
        if self.listed.is_lost(&holder, shard) && !is_told(&holder, shard, actions) {
            let Shard { shard_count, shard_id } = shard;
            let reason = "its lease had ended before this service came back".to_owned();
            self.tell(&holder, GatewayOp::ShardRevoke(op::ShardRevoke { shard_id, shard_count, reason }));
        }
    }

    /// That of the current generation, or else of the one that is being filled.
    fn table_of(&mut self, shard_count: u32) -> &mut ShardTable {
        if self.table.shard_count() == shard_count {
            return &mut self.table;
        }
        let filling = self.filling.take_if(|filling| filling.shard_count() == shard_count);
        self.filling.insert(filling.unwrap_or_else(|| ShardTable::new(shard_count)))
    }

    fn answer(&mut self, action: Action<ConnectionId>, permit: &mut Option<OpPermit>) {
        match action {
            Action::Accept { service, request, accept, .. } => {
                // One that it sent before it came back is not told to it: what ACCEPT listed is not settled by that.
                if self.registry.get(&service).is_some_and(|known| known.connection() == request) {
                    self.listed.settle(&service, Some(accept.shard_id));
                }
                let op = GatewayOp::ShardAccept(accept);
                self.order(&service, Order::Op { op, answers: Some(request), permit: permit.take() });
            }
            Action::Refuse { service, request, error } => {
                let op = GatewayOp::Error(error);
                self.order(&service, Order::Op { op, answers: Some(request), permit: permit.take() });
            }
            Action::Wait { service, request, wait } => {
                self.order(&service, Order::ShardWait { wait, answers: request });
            }
            Action::Live { service, live } => self.tell(&service, GatewayOp::ShardLive(live)),
            Action::Revoke { service, revoke } => self.tell(&service, GatewayOp::ShardRevoke(revoke)),
            Action::Shutdown { service, reason } => self.stop(service, Stopping::Shutdown, reason),
            Action::Reboot { service, reason } => self.stop(service, Stopping::Reboot, reason),
            Action::Warn(warning) => {
                log::warn!("{warning}");
                self.routes.shared().warned.add(Warned::of(&warning));
            }
            // Done before.
            Action::Persist(_) | Action::Holder { .. } | Action::Switch { .. } => {}
        }
    }

    /// For a service that lost its ids to a reshard. One that is not there needs not be told.
    fn stop(&mut self, name: Name, stopping: Stopping, reason: String) {
        let deadline = self.config.deadline;
        let _ =
            self.stop_service(StopService { name, stopping, reason, deadline, keep_discord_session: false });
    }

    fn tell(&self, service: &Name, op: GatewayOp) {
        self.order(service, Order::Op { op, answers: None, permit: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_told_to_be_over_by_the_revoke_of_its_own_count_alone() {
        let (service, shard_id) = (Name::new("a").unwrap(), ShardId(1));
        let revoke = op::ShardRevoke { shard_id, shard_count: 3, reason: String::new() };
        let actions = [Action::Revoke { service: service.clone(), revoke }];
        let told = [2, 3].map(|shard_count| is_told(&service, Shard { shard_count, shard_id }, &actions));
        assert_eq!(told, [false, true]);
    }
}
