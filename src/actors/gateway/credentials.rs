//! When credentials end: those who identified with them have to go.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};

use super::Gateway;
use crate::actors::client_session::Order;
use crate::protocol::close::Close;
use crate::protocol::name::Name;

/// How often it is looked whose credential has expired.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The file of credentials was read anew.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct CredentialsChanged;

impl Handler<CredentialsChanged> for Gateway {
    type Result = ();

    fn handle(&mut self, _: CredentialsChanged, context: &mut Self::Context) {
        self.guarded(context, |gateway, _| gateway.close_revoked());
    }
}

impl Gateway {
    pub(super) fn watch_credentials(&self, context: &mut Context<Self>) {
        if self.auth.is_in_use() {
            context.run_interval(LOOK_INTERVAL, |gateway, context| {
                gateway.guarded(context, |gateway, _| gateway.close_revoked());
            });
        }
    }

    /// Closes the connections whose credential does not stand any more. Their sessions are away: who
    /// has a valid one by then comes back to all that waited.
    fn close_revoked(&mut self) {
        let auth = self.auth.clone();
        self.registry.void_holds(|grant| auth.stands(grant));
        let ended = self.registry.iter().filter(|(_, known)| known.is_up() && !auth.stands(&known.grant));
        let ended: Vec<Name> = ended.map(|(name, _)| name.clone()).collect();
        for name in ended {
            log::info!("the credential of {name} does not stand any more");
            self.order(&name, Order::Close(Close::Revoked));
        }
    }
}
