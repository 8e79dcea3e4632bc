//! One service's session: its mailbox, what its connection may be handed, and every deadline.
//!
//! A session outlives its connections. It is *up* with one, *away* without one until its resume
//! window ends, and then *down* for good. Which connection is its own, and when it is down, the
//! registry decides; this struct obeys and asks.
//!
//! | part | what it holds |
//! |---|---|
//! | [`exchange`] | what goes into it, and what comes of that |
//! | [`expected`] | what comes for a connection that was accepted and is not here yet |
//! | [`attached`] | the connection that it is up with: credit, pulse, deadlines |
//! | [`mailbox`] | what waits for the service, and what waits to be acknowledged |
//! | [`presences`] | PRESENCE events that wait for a watcher |

mod attached;
mod exchange;
mod expected;
mod mailbox;
mod presences;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::attached::{Attached, Due};
pub use self::exchange::{Action, Input, Settings};
use self::expected::Expected;
pub use self::mailbox::CREDIT_BYTES;
use self::mailbox::{Mailbox, expire};
use self::presences::PresenceQueue;
use super::parcel::Parcel;
use super::pulse::Observation;
use crate::protocol::close::Close;
use crate::protocol::error::ErrorCode;
use crate::protocol::name::ConnectionId;
use crate::protocol::op::{self, GatewayOp, Presence, ShardWait};

/// SHARD_WAIT comes at most this often.
const SHARD_WAIT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Phase {
    Up(Box<Attached>),
    /// `None`: a new session that waits for its first connection.
    Away {
        window: Option<Window>,
    },
    Down {
        reason: &'static str,
    },
}

/// After which connection a session is away, and until when.
#[derive(Debug, Clone, Copy)]
struct Window {
    since: ConnectionId,
    until: Instant,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    phase: Phase,
    /// The connection that it had before: its end may be told late.
    previous: Option<ConnectionId>,
    expected: Option<Expected>,
    mailbox: Mailbox,
    presences: PresenceQueue,
    shard_wait: Option<ShardWait>,
    shard_wait_after: Option<Instant>,
}

impl Session {
    /// A session that waits for its first connection.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            phase: Phase::Away { window: None },
            previous: None,
            expected: None,
            mailbox: Mailbox::new(settings.max_unacked),
            presences: PresenceQueue::default(),
            shard_wait: None,
            shard_wait_after: None,
        }
    }

    /// Takes one input and appends what is to be done to `actions`.
    pub fn step(&mut self, input: Input, now: Instant, actions: &mut VecDeque<Action>) {
        match input {
            Input::Op(_) | Input::CloseAfter { .. } | Input::Close(_) if self.expected.is_some() => {
                self.keep(input);
            }
            Input::Deliver(parcel) => self.deliver(parcel, actions),
            Input::Written { connection, bytes, presences } => {
                self.written(connection, bytes, presences, actions);
            }
            Input::Expect { connection } => self.expect(connection),
            Input::Attach { connection, acks } => self.attach(connection, acks, now, actions),
            Input::Ack { i } => self.acknowledge(i, actions),
            Input::Release { connection } => self.release(connection),
            Input::Detach { connection, window } => self.detach(connection, now + window),
            Input::Op(op) => self.op(op, actions),
            Input::Presence(presence) => self.presence(presence, now, actions),
            Input::ShardWait(wait) => self.shard_wait(wait, now, actions),
            Input::CloseAfter { deadline, close } => self.close_after(now + deadline, close),
            Input::Close(close) => self.close(close, now, actions),
            Input::GoDown { reason } => self.go_down(reason, actions),
            Input::Wake(seen) => self.wake(seen, now, actions),
        }
    }

    /// What was scheduled is forgotten: a session that is down goes on returning its mailbox.
    pub fn restart(&self, actions: &mut VecDeque<Action>) {
        if matches!(self.phase, Phase::Down { .. }) && self.mailbox().next().is_some() {
            actions.push_back(Action::Continue);
        }
    }

    /// When to step with [`Input::Wake`], if nothing else comes before.
    pub fn next_wake(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Up(up) => {
                let next = up.next_wake();
                let shard_wait = self.shard_wait.and(self.shard_wait_after);
                Some(shard_wait.map_or(next, |after| next.min(after)))
            }
            Phase::Away { window } => window.map(|window| window.until),
            Phase::Down { .. } => None,
        }
    }

    /// The connection that the session is up with.
    pub fn connection(&self) -> Option<ConnectionId> {
        match &self.phase {
            Phase::Up(up) => Some(up.id),
            _ => None,
        }
    }

    /// The connection that has the service's name, as far as is known here: it may be on its way.
    pub fn latest_connection(&self) -> Option<ConnectionId> {
        self.expected.as_ref().map(|expected| expected.connection).or(self.connection())
    }

    /// The number that a delivery was given last; 0: none yet.
    pub fn last_number(&self) -> u64 {
        self.mailbox.last_number()
    }

    /// Whether something waits for the connection to take it. What waits for an acknowledgement
    /// does not.
    pub fn has_waiting(&self) -> bool {
        let Phase::Up(up) = &self.phase else { return false };
        up.in_flight_bytes() > 0 || !self.presences.is_empty() || self.mailbox.has_next(up.acks)
    }

    /// The parcels in the mailbox, in order, those that are not acknowledged among them.
    pub fn mailbox(&self) -> impl Iterator<Item = &Parcel> {
        self.mailbox.parcels()
    }

    fn deliver(&mut self, parcel: Parcel, actions: &mut VecDeque<Action>) {
        if let Phase::Down { reason } = self.phase {
            return expire(parcel, reason);
        }
        self.mailbox.push(parcel);
        self.hand_over(actions);
    }

    /// Hands over what the connection has credit for.
    fn hand_over(&mut self, actions: &mut VecDeque<Action>) {
        let Phase::Up(up) = &mut self.phase else { return };
        // To a connection that has lost the name it would be lost.
        if self.expected.is_some() || !up.takes_messages() {
            return;
        }
        let mut frames = Vec::new();
        while let Some(next) = self.mailbox.next(up.acks, up.in_flight_bytes()) {
            up.handed(next.len());
            frames.push(next);
        }
        if !frames.is_empty() {
            actions.push_back(Action::Frames(frames));
        }
    }

    fn hand_over_presences(&mut self, actions: &mut VecDeque<Action>) {
        let Phase::Up(up) = &mut self.phase else { return };
        if self.expected.is_some() {
            return;
        }
        while up.takes_presence() {
            let Some(presence) = self.presences.pop() else { return };
            up.handed_presence();
            actions.push_back(Action::Op(GatewayOp::Presence(presence)));
        }
    }

    fn release(&mut self, connection: ConnectionId) {
        if let Some(up) = self.up_with(connection) {
            up.release();
        }
    }

    /// The connection, if it is the session's own.
    fn up_with(&mut self, connection: ConnectionId) -> Option<&mut Attached> {
        match &mut self.phase {
            Phase::Up(up) if up.id == connection => Some(up),
            _ => None,
        }
    }

    fn acknowledge(&mut self, i: u64, actions: &mut VecDeque<Action>) {
        match self.mailbox.acknowledge(i) {
            Ok(()) => self.hand_over(actions),
            Err(never_sent) => {
                let error = op::Error::new(ErrorCode::Malformed, never_sent.to_string());
                self.op(GatewayOp::Error(error), actions);
            }
        }
    }

    fn written(
        &mut self,
        connection: ConnectionId,
        bytes: usize,
        presences: usize,
        actions: &mut VecDeque<Action>,
    ) {
        if let Some(up) = self.up_with(connection) {
            up.written(bytes, presences);
            self.hand_over(actions);
            self.hand_over_presences(actions);
        }
    }

    /// Keeps what is for a connection alone until that is here.
    fn keep(&mut self, input: Input) {
        if let Some(expected) = &mut self.expected {
            expected.keep(input);
        }
    }

    fn expect(&mut self, connection: ConnectionId) {
        if !matches!(self.phase, Phase::Down { .. }) {
            self.expected = Some(Expected::new(connection, self.expected.take()));
        }
    }

    fn attach(&mut self, connection: ConnectionId, acks: bool, now: Instant, actions: &mut VecDeque<Action>) {
        let close_after = match &self.phase {
            Phase::Down { .. } => return,
            Phase::Up(before) => {
                self.previous = Some(before.id);
                before.shut_down_after()
            }
            Phase::Away { .. } => None,
        };
        self.mailbox.rewind(acks);
        let up = Attached::new(connection, acks, close_after, self.settings.pulse, now);
        self.phase = Phase::Up(Box::new(up));
        let expected = self.expected.take_if(|expected| expected.connection == connection);
        for input in expected.into_iter().flat_map(Expected::into_inputs) {
            self.step(input, now, actions);
        }
        self.hand_over(actions);
        self.hand_over_presences(actions);
    }

    fn detach(&mut self, connection: ConnectionId, until: Instant) {
        self.expected.take_if(|expected| expected.connection == connection);
        match &self.phase {
            // A later connection is there already. One that is neither has ended before it came here.
            Phase::Up(up) if up.id != connection && self.previous == Some(connection) => {}
            Phase::Down { .. } => {}
            Phase::Up(_) | Phase::Away { .. } => {
                self.previous = Some(connection);
                self.phase = Phase::Away { window: Some(Window { since: connection, until }) };
                self.presences = PresenceQueue::default();
                self.shard_wait = None;
            }
        }
    }

    fn op(&mut self, op: GatewayOp, actions: &mut VecDeque<Action>) {
        if !matches!(self.phase, Phase::Up(_)) {
            return;
        }
        if matches!(op, GatewayOp::ShardAccept(_)) {
            self.shard_wait = None;
        }
        actions.push_back(Action::Op(op));
    }

    fn presence(&mut self, presence: Presence, now: Instant, actions: &mut VecDeque<Action>) {
        if matches!(self.phase, Phase::Down { .. }) {
            return;
        }
        // Without a connection it waits for the one that has just been accepted.
        self.presences.push(presence);
        self.hand_over_presences(actions);
        if self.presences.len() > self.settings.max_presence {
            self.close(Close::TooSlow, now, actions);
        }
    }

    fn shard_wait(&mut self, wait: ShardWait, now: Instant, actions: &mut VecDeque<Action>) {
        if matches!(self.phase, Phase::Up(_)) {
            self.shard_wait = Some(wait);
            self.flush_shard_wait(now, actions);
        }
    }

    fn flush_shard_wait(&mut self, now: Instant, actions: &mut VecDeque<Action>) {
        if self.shard_wait_after.is_some_and(|after| now < after) {
            return;
        }
        if let Some(wait) = self.shard_wait.take() {
            self.shard_wait_after = Some(now + SHARD_WAIT_INTERVAL);
            actions.push_back(Action::Op(GatewayOp::ShardWait(wait)));
        }
    }

    fn close_after(&mut self, deadline: Instant, close: Close) {
        if let Phase::Up(up) = &mut self.phase {
            up.close_after(deadline, close);
        }
    }

    fn close(&mut self, close: Close, now: Instant, actions: &mut VecDeque<Action>) {
        if let Phase::Up(up) = &mut self.phase
            && up.close(close, now)
        {
            actions.push_back(Action::Close(close));
        }
    }

    fn go_down(&mut self, reason: &'static str, actions: &mut VecDeque<Action>) {
        self.phase = Phase::Down { reason };
        self.expected = None;
        self.presences = PresenceQueue::default();
        self.shard_wait = None;
        self.return_some(reason, actions);
    }

    fn return_some(&mut self, reason: &'static str, actions: &mut VecDeque<Action>) {
        if !self.mailbox.give_back_some(reason) {
            actions.push_back(Action::Continue);
        }
    }

    fn wake(&mut self, seen: Option<Observation>, now: Instant, actions: &mut VecDeque<Action>) {
        match &mut self.phase {
            &mut Phase::Down { reason } => self.return_some(reason, actions),
            Phase::Away { window } => {
                if let Some(window) = window.take_if(|window| now >= window.until) {
                    actions.push_back(Action::WindowElapsed(window.since));
                }
            }
            Phase::Up(_) => self.wake_up(seen, now, actions),
        }
    }

    fn wake_up(&mut self, seen: Option<Observation>, now: Instant, actions: &mut VecDeque<Action>) {
        self.flush_shard_wait(now, actions);
        let Phase::Up(up) = &mut self.phase else { return };
        for due in up.due(seen, now).into_iter().flatten() {
            match due {
                Due::Ping => actions.push_back(Action::Ping),
                Due::CutOff(close) => actions.push_back(Action::CutOff(close)),
                Due::Close(close) => self.close(close, now, actions),
            }
        }
    }
}
