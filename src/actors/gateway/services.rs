//! What services ask for: shards, and to watch each other.

use actix::{Handler, Message};

use super::{Gateway, unix_ms};
use crate::actors::client_session::Order;
use crate::actors::link::OpPermit;
#[cfg(feature = "fault-injection")]
use crate::actors::shard_allocator::Crash;
use crate::actors::shard_allocator::{ShardActions, ShardInput};
use crate::protocol::error::ErrorCode;
use crate::protocol::name::{ConnectionId, Name};
use crate::protocol::op::{self, GatewayOp, Presence, PresenceEvent, ServiceOp, Watch};
#[cfg(feature = "fault-injection")]
use crate::state::account::Amount;
use crate::state::shards::{Action, Input};

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
        if !self.registry.get(&service).is_some_and(|known| known.is_up() && known.connection() == connection)
        {
            return;
        }
        let input = match op {
            ServiceOp::ShardConnect(connect) => Input::Connect { service, request: connection, connect },
            ServiceOp::ShardDeath(death) => Input::Death { service, request: connection, death },
            ServiceOp::Watch(watch) => return self.watch(&service, watch),
            // Its session keeps it for itself.
            ServiceOp::Ack(_) => return,
            #[cfg(feature = "fault-injection")]
            ServiceOp::Fault(op::Fault { panic: op::FaultIn::Allocator }) => {
                return self.allocator.iter().for_each(|allocator| allocator.do_send(Crash));
            }
            #[cfg(feature = "fault-injection")]
            ServiceOp::Fault(op::Fault { panic: op::FaultIn::Account }) => {
                let entry = self.routes.shared().accounts.entry(&service, None);
                return entry.accept(Amount::message(1));
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
        self.ask_allocator(ShardInput { input, permit: Some(permit) });
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
                shards: self.table.shards_of(service),
                at: unix_ms(),
            };
            self.order(watcher, Order::Presence(presence));
        }
    }
}

impl Handler<ShardActions> for Gateway {
    type Result = ();

    fn handle(&mut self, message: ShardActions, context: &mut Self::Context) {
        let ShardActions { actions, mut permit } = message;
        self.guarded(context, |gateway, _| {
            gateway.publish_holders(&actions);
            for action in actions {
                gateway.answer(action, &mut permit);
            }
        });
    }
}

impl Gateway {
    /// Routes follow a lease before its holder hears of it.
    fn publish_holders(&mut self, actions: &[Action<ConnectionId>]) {
        let mut changed = false;
        for action in actions {
            if let Action::Holder { shard_id, holder } = action {
                match holder {
                    Some(holder) => log::info!("shard {shard_id} is leased to {holder}"),
                    None => log::info!("shard {shard_id} is free"),
                }
                self.table.set(*shard_id, holder.clone());
                changed = true;
            }
        }
        if changed {
            self.routes.set_shards(self.table.clone());
        }
    }

    fn answer(&self, action: Action<ConnectionId>, permit: &mut Option<OpPermit>) {
        match action {
            Action::Accept { service, request, accept } => {
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
            Action::Holder { .. } => {}
        }
    }
}
