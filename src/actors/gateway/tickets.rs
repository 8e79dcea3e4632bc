//! IDENTIFY by HTTP: a name is held for whoever shows the ticket.

use std::sync::Arc;
use std::time::Instant;

use actix::{Handler, Message};

use super::Gateway;
use super::identify::{failed, random_secret, unauthorized};
use crate::protocol::name::Name;
use crate::protocol::op::{self, Accept, Hidden, Reject, Ticket};
use crate::state::grant::Grant;
use crate::state::peer::Peer;
use crate::state::registry::{Claim, Finds, TICKET_LIFE};
use crate::state::shards::Input;

/// IDENTIFY by HTTP: asks for a ticket.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Accept, Reject>")]
pub struct PostIdentify {
    pub name: Name,
    pub identify: op::Identify,
    pub grant: Arc<Grant>,
    pub address: Peer,
}

impl Handler<PostIdentify> for Gateway {
    type Result = Result<Accept, Reject>;

    fn handle(&mut self, message: PostIdentify, context: &mut Self::Context) -> Self::Result {
        self.guarded(context, |gateway, _| gateway.hold_name(message)).unwrap_or_else(|| Err(failed()))
    }
}

impl Gateway {
    fn hold_name(&mut self, message: PostIdentify) -> Result<Accept, Reject> {
        let now = Instant::now();
        let PostIdentify { name, identify, grant, address } = message;
        if !self.auth.stands(&grant) {
            return Err(unauthorized(None));
        }
        let session = identify.session.as_ref().map(Hidden::reveal);
        let claim = Claim { name: &name, session, address, grant: &grant };
        let finds = self.look(claim, now)?;
        self.registry.check_tickets(claim, now)?;
        let (ticket, session) = (random_secret()?, random_secret()?);
        let shown = Ticket {
            ticket: ticket.reveal().to_owned(),
            ticket_expires_ms: u64::try_from(TICKET_LIFE.as_millis()).unwrap_or(u64::MAX),
        };
        let accept = self.acceptance(&name, &session, finds != Finds::Nothing, Some(shown));
        // It goes by that for another window, whether it uses the ticket or not.
        if !accept.shards.is_empty() {
            self.tell_allocator(Input::Heard { service: name.clone() });
        }
        self.registry.hold_name(claim, identify.clone(), ticket, session, now);
        Ok(accept)
    }
}
