//! What operators are told of their commands.

use tokio::sync::oneshot;

use crate::state::shards::{Command, CommandError, Done};

/// How an operator's command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done(Done),
    Refused(CommandError),
    /// It had no effect, since the store takes no writes: why.
    StoreFailing(String),
    /// It is decided, and done as soon as the store takes it.
    Decided,
}

/// What came of an operator's command, and who waits for it.
#[derive(Debug)]
pub struct Answer {
    command: Command,
    result: Result<Done, CommandError>,
    /// `None`: was told that it is [decided](Outcome::Decided).
    to: Option<oneshot::Sender<Outcome>>,
}

impl Answer {
    pub(super) fn new(
        command: Command,
        result: Result<Done, CommandError>,
        to: oneshot::Sender<Outcome>,
    ) -> Self {
        Self { command, result, to: Some(to) }
    }

    /// To be called when it is done. What came of it, where its operator was told before that it would.
    pub fn give(self) -> Option<(Command, Outcome)> {
        let outcome = self.result.map_or_else(Outcome::Refused, Outcome::Done);
        let Some(to) = self.to else { return Some((self.command, outcome)) };
        // An operator who went away gets none.
        let _ = to.send(outcome);
        None
    }

    /// It is not stored for now. What changes nothing is told, and of the rest that it is decided.
    pub(super) fn put_off(&mut self) {
        let outcome = match &self.result {
            Ok(plan @ Done::Planned(_)) => Outcome::Done(plan.clone()),
            Err(refused) => Outcome::Refused(*refused),
            Ok(_) => Outcome::Decided,
        };
        if let Some(to) = self.to.take() {
            let _ = to.send(outcome);
        }
    }
}
