//! What was under way comes, and the services leave.

use std::time::Duration;

use super::engine::Engine;
use super::frame;
use super::outcome::Outcome;
use super::outgoing::Outgoing;
use crate::bench::BenchError;
use crate::protocol::close::LEAVES_FOR_GOOD;

/// How long after the last arrival a message that did not come counts as lost, and an answer as none.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same, where connections were cut: what was written to one may never come.
const PATIENCE_AFTER_CUT: Duration = Duration::from_secs(2);
/// How long it is listened on after everything came: something may come twice.
const LINGER: Duration = Duration::from_millis(100);
/// What a ping holds, and so must its answer.
const PING: &[u8] = b"bench";
/// How long the gateway may take to end one more connection.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

impl Engine {
    /// Whether nothing more is to come.
    pub(super) fn has_settled(&mut self) -> Result<bool, BenchError> {
        if self.senders.is_empty() {
            return self.are_all_answered();
        }
        let mut outgoing = self.services.iter().filter_map(|service| service.outgoing.as_ref());
        let all_came = outgoing.all(Outgoing::has_settled);
        let patience = match (all_came, self.cuts) {
            (true, _) => LINGER,
            (false, 0) => PATIENCE,
            (false, _) => PATIENCE_AFTER_CUT,
        };
        Ok(Duration::from_nanos(self.now - self.last_arrival) >= patience)
    }

    /// Pings services that do nothing, once, and tells whether all have answered or will not: a connection may
    /// stand for minutes though nobody is behind it. RFC 6455 asks everybody to answer.
    fn are_all_answered(&mut self) -> Result<bool, BenchError> {
        if self.asked.is_none() {
            self.asked = Some(self.services.len());
            self.last_arrival = self.now;
            for place in 0..self.services.len() {
                self.services[place].is_asked = true;
                if let Some(wire) = &mut self.services[place].wire {
                    wire.put(frame::PING, PING);
                }
                self.write(place)?;
            }
        }
        Ok(self.asked == Some(0) || Duration::from_nanos(self.now - self.last_arrival) >= PATIENCE)
    }

    /// A pong came.
    pub(super) fn answered_ping(&mut self, place: usize, payload: &[u8]) {
        let is_answer = payload == PING && std::mem::take(&mut self.services[place].is_asked);
        if let Some(asked) = self.asked.as_mut().filter(|_| is_answer) {
            *asked -= 1;
            self.last_arrival = self.now;
        }
    }

    /// All leave for good, so that the gateway keeps nothing for them.
    pub(super) fn leave(mut self) -> Outcome {
        for service in &self.services {
            if let Some(checks) = service.outgoing.as_ref().map(Outgoing::checks) {
                self.found.checks += checks;
            }
        }
        for service in &mut self.services {
            if service.is_asked {
                self.found.unanswered += 1;
                // Nothing more is to be waited for.
                service.cut();
            }
            let Some(wire) = &mut service.wire else { continue };
            wire.put(frame::CLOSE, &LEAVES_FOR_GOOD.to_be_bytes());
            // What does not get through will be noticed by the gateway at its end.
            let _ = wire.flush();
        }
        self.wait_for_ends();
        self.found
    }

    /// Reads until the gateway has ended each connection: what is closed with bytes unread is reset, and
    /// the close frame could be lost with it.
    fn wait_for_ends(&mut self) {
        self.clock();
        let mut last_end = self.now;
        let mut open = self.services.iter().filter(|service| service.wire.is_some()).count();
        while open > 0 && Duration::from_nanos(self.now - last_end) < LEAVE_PATIENCE {
            let count = match self.poller.wait(Duration::MAX) {
                Err(nix::Error::EINTR) => 0,
                Err(_) => break,
                Ok(count) => count,
            };
            for at in 0..count {
                let Some(ready) = self.poller.ready(at).filter(|ready| ready.reads) else { continue };
                let Some(wire) = &mut self.services[ready.token].wire else { continue };
                if wire.read(&mut self.buffer).is_err() {
                    self.services[ready.token].cut();
                    open -= 1;
                    last_end = self.now;
                }
            }
            self.clock();
        }
        self.found.not_ended = open as u64;
    }
}
