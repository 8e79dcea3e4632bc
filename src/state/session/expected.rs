//! What comes between the acceptance of a connection and its arrival here.
//!
//! The registry gives a connection the name at once, and from then on what it orders is meant for that
//! one. The connection itself comes later, by way of its own thread.

use std::time::Duration;

use super::Input;
use crate::protocol::close::Close;
use crate::protocol::name::ConnectionId;
use crate::protocol::op::GatewayOp;

/// As many ops as may be on their way to a service (PROTOCOL, "Ops").
const MAX_OPS: usize = 1024;

/// A connection that was accepted and has not come yet.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) connection: ConnectionId,
    /// In the order in which they came.
    ops: Vec<GatewayOp>,
    close_after: Option<(Duration, Close)>,
    /// The first one stands.
    close: Option<Close>,
}

impl Expected {
    /// It displaces the one that was expected before. What that one was to be told is for this one as well, but
    /// not what was meant for a connection and not for its service: REBOOT, a credential that is not valid
    /// any more.
    pub(super) fn new(connection: ConnectionId, before: Option<Self>) -> Self {
        let mut expected =
            before.unwrap_or(Self { connection, ops: Vec::new(), close_after: None, close: None });
        expected.connection = connection;
        expected.ops.retain(|op| !matches!(op, GatewayOp::Reboot { .. }));
        expected.close_after.take_if(|(_, close)| *close != Close::ShutDown);
        expected.close.take_if(|close| *close != Close::Restart);
        expected
    }

    /// Keeps an input that is for the connection alone.
    pub(super) fn keep(&mut self, input: Input) {
        match input {
            Input::Op(op) if self.ops.len() < MAX_OPS => self.ops.push(op),
            Input::Op(_) => self.close = self.close.or(Some(Close::TooSlow)),
            Input::CloseAfter { deadline, close } => self.close_after = Some((deadline, close)),
            Input::Close(close) => self.close = self.close.or(Some(close)),
            other => debug_assert!(false, "{other:?} is for the session"),
        }
    }

    pub(super) fn into_inputs(self) -> impl Iterator<Item = Input> {
        let close_after = self.close_after.map(|(deadline, close)| Input::CloseAfter { deadline, close });
        self.ops.into_iter().map(Input::Op).chain(close_after).chain(self.close.map(Input::Close))
    }
}
