//! The ends of connections and sessions.

use std::sync::Arc;
use std::time::Instant;

use actix::{Handler, Message};

use super::{Gateway, Handle};
use crate::actors::client_session::Order;
use crate::protocol::close::Close;
use crate::protocol::name::{ConnectionId, Name};
use crate::protocol::op::PresenceEvent;
use crate::state::registry::{Ended, Fate, Known};
use crate::state::route::Identity;
use crate::state::shards::{Departure, Input};

/// How a session ends whose service did not say that it leaves.
pub(super) const VANISHED: Departure = Departure::Vanished { last_frame: None };

/// A connection ended; told before its socket closes.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ConnectionEnded {
    pub connection: ConnectionId,
    pub how: Ended,
    /// For logs and PRESENCE.
    pub reason: String,
}

impl Handler<ConnectionEnded> for Gateway {
    type Result = ();

    fn handle(&mut self, message: ConnectionEnded, context: &mut Self::Context) {
        self.guarded(context, |gateway, _| gateway.connection_ended(&message));
    }
}

impl Gateway {
    pub(super) fn connection_ended(&mut self, message: &ConnectionEnded) {
        let ConnectionEnded { connection, how, ref reason } = *message;
        let Some((name, fate)) = self.registry.ended(connection, how, Instant::now()) else { return };
        if let Some(known) = self.registry.get_mut(&name) {
            known.handle.link = None;
        }
        match fate {
            Fate::Away(window) => {
                self.order(&name, Order::Detach { connection, window });
                self.tell_allocator(Input::Away { service: name.clone(), last_frame: None });
                let group = self.registry.get(&name).and_then(|known| known.group.clone());
                self.announce(&name, group, PresenceEvent::Away, reason);
            }
            Fate::Down { why, left: true } => self.end_session(&name, why, Departure::Left),
            Fate::Down { why, left: false } => self.end_session(&name, why, VANISHED),
        }
        if self.stopping.is_some() {
            self.end_session(&name, "the gateway is stopping", VANISHED);
        }
    }
}

/// Nobody came within a session's resume window after that connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct WindowElapsed {
    pub service: Name,
    pub since: ConnectionId,
}

impl Handler<WindowElapsed> for Gateway {
    type Result = ();

    fn handle(&mut self, message: WindowElapsed, context: &mut Self::Context) {
        self.guarded(context, |gateway, _| {
            if gateway.registry.is_away_since(&message.service, message.since) {
                gateway.end_session(
                    &message.service,
                    "it did not come back within resume_window_ms",
                    VANISHED,
                );
            }
        });
    }
}

/// A session has crashed too often.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct GiveUp {
    pub session: Arc<Identity>,
}

impl Handler<GiveUp> for Gateway {
    type Result = ();

    fn handle(&mut self, GiveUp { session }: GiveUp, context: &mut Self::Context) {
        self.guarded(context, |gateway, _| {
            let service = session.name().clone();
            // A later session may have the name by now.
            let is_it = |known: &&Known<Handle>| Arc::ptr_eq(known.handle.route.identity(), &session);
            let Some(known) = gateway.registry.get(&service).filter(is_it) else { return };
            // Not through the session, which may crash at that too.
            if let Some(link) = &known.handle.link {
                gateway.close_at_once(link, Close::Crashed);
            }
            gateway.end_session(&service, "it crashed too often", VANISHED);
        });
    }
}
