//! What sessions ask for, and whether they may.

use std::collections::VecDeque;
use std::time::Duration;

use gateway::protocol::close::Close;
use gateway::protocol::op::GatewayOp;
use gateway::state::session::{Action, Input};

use super::super::service::MAX_PRESENCE;
use super::World;

/// How long a connection that was told to close may take.
const GRACE: Duration = Duration::from_secs(1);

/// Why a connection may be told to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Asked(Close),
    Presences,
    Time,
    Nothing,
}

impl World {
    /// Steps a session and does what it says.
    pub(super) fn step(&mut self, index: usize, input: Input) {
        let mut actions = VecDeque::new();
        self.services[index].session.step(input, self.now, &mut actions);
        for action in actions {
            self.act(index, action);
        }
        self.cause = Cause::Nothing;
    }

    fn act(&mut self, index: usize, action: Action) {
        let (now, cause) = (self.now, self.cause);
        let service = &mut self.services[index];
        match action {
            Action::Frames(frames) => {
                for frames in &frames {
                    service.hand_over(frames, &mut self.ledger);
                }
            }
            Action::Op(GatewayOp::Presence(presence)) => service.hand_over_presence(&presence),
            Action::Op(GatewayOp::ShardWait(wait)) => service.hand_over_shard_wait(wait.position, now),
            Action::Op(op) => {
                assert!(self.due_ops > 0 && service.connection.is_some(), "nothing asked for {op:?}");
                self.due_ops -= 1;
            }
            Action::Ping => assert_eq!(cause, Cause::Time, "a ping out of time"),
            Action::Close(close) => self.told_to_close(index, close),
            Action::CutOff(close) => {
                let connection = service.connection.as_mut().expect("a cut, and nobody is connected");
                let (at, told) = connection.closing.expect("it is told to close first");
                assert!(now >= at && close == told, "{close:?} instead of {told:?}");
                connection.closing = Some((now + GRACE, close));
            }
            Action::WindowElapsed(since) => {
                assert!(service.connection.is_none(), "its window elapsed, and it is connected");
                assert_eq!(since, service.before);
                assert_eq!(cause, Cause::Time);
                self.go_down(index);
            }
            Action::Continue => service.goes_on = true,
        }
    }

    /// The connection is to close: is there a cause for it?
    fn told_to_close(&mut self, index: usize, close: Close) {
        let (now, cause) = (self.now, self.cause);
        let service = &mut self.services[index];
        let connection = service.connection.as_mut().expect("a close, and nobody is connected");
        assert_eq!(connection.closing, None, "{close:?} of a connection that closes");
        let after = connection.close_after.filter(|(deadline, _)| now >= *deadline);
        let is_due = match cause {
            Cause::Asked(asked) => close == asked,
            Cause::Presences => close == Close::TooSlow && service.presences.len() > MAX_PRESENCE,
            Cause::Time if matches!(close, Close::TooSlow | Close::Silent) => connection.was_ill,
            Cause::Time => after.is_some_and(|(_, after)| close == after),
            Cause::Nothing => false,
        };
        assert!(is_due, "{close:?} for {cause:?}");
        connection.closing = Some((now + GRACE, close));
    }
}
