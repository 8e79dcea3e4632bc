//! What comes between the acceptance of a connection and its arrival here.
//!
//! The registry gives a connection the name at once, and from then on what it orders is meant for that
//! one. The connection itself comes later, by way of its own thread.

use super::Input;
use crate::protocol::name::ConnectionId;

/// A connection that was accepted and has not come yet.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) connection: ConnectionId,
    /// In the order in which it came. As long as the connection is not here nothing of its service is read, so
    /// there is little of it.
    early: Vec<Input>,
}

impl Expected {
    /// What was kept for one that was expected before is for this one as well.
    pub(super) fn new(connection: ConnectionId, before: Option<Self>) -> Self {
        Self { connection, early: before.map(|before| before.early).unwrap_or_default() }
    }

    /// Keeps an input that is for the connection alone; any other is given back.
    pub(super) fn keep(&mut self, input: Input) -> Option<Input> {
        match input {
            Input::Op(_) | Input::CloseAfter { .. } | Input::Close(_) => {
                self.early.push(input);
                None
            }
            input => Some(input),
        }
    }

    pub(super) fn into_early(self) -> Vec<Input> {
        self.early
    }
}
