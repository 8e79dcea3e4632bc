//! Walking over the mailbox, for the debug build's audit.

use actix::{Handler, Message};

use super::ClientSession;
use crate::state::audit::Walk;

/// Asks what the mailbox holds.
#[derive(Debug, Message)]
#[rtype(result = "Found")]
pub struct WalkMailbox;

/// What it holds.
#[derive(Debug, actix::MessageResponse)]
pub struct Found(pub Walk);

impl Handler<WalkMailbox> for ClientSession {
    type Result = Found;

    fn handle(&mut self, _: WalkMailbox, _: &mut Self::Context) -> Found {
        Found(Walk::over(self.session.mailbox()))
    }
}
