//! What was under way comes, and the services leave.

use std::time::Duration;

use super::engine::Engine;
use super::frame;
use super::outcome::Outcome;
use super::outgoing::Outgoing;
use crate::protocol::close::LEAVES_FOR_GOOD;

/// How long after the last arrival a message that did not come counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same, where connections were cut: what was written to one may never come.
const PATIENCE_AFTER_CUT: Duration = Duration::from_secs(2);
/// How long it is listened on after everything came: something may come twice.
const LINGER: Duration = Duration::from_millis(100);
/// How long the gateway may take to end the connections.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

impl Engine {
    /// Whether nothing more is to come.
    pub(super) fn has_settled(&mut self) -> bool {
        let mut outgoing = self.services.iter().filter_map(|service| service.outgoing.as_ref());
        let all_came = outgoing.all(Outgoing::has_settled);
        let patience = match (all_came, self.cuts) {
            (true, _) if self.senders.is_empty() => Duration::ZERO,
            (true, _) => LINGER,
            (false, 0) => PATIENCE,
            (false, _) => PATIENCE_AFTER_CUT,
        };
        Duration::from_nanos(self.now - self.last_arrival) >= patience
    }

    /// All leave for good, so that the gateway keeps nothing for them.
    pub(super) fn leave(mut self) -> Outcome {
        for service in &self.services {
            if let Some(checks) = service.outgoing.as_ref().map(Outgoing::checks) {
                self.found.checks += checks;
            }
        }
        for service in &mut self.services {
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
        let start = self.now;
        let mut open = self.services.iter().filter(|service| service.wire.is_some()).count();
        while open > 0 && Duration::from_nanos(self.now - start) < LEAVE_PATIENCE {
            let Ok(count) = self.poller.wait(Duration::MAX) else { break };
            for at in 0..count {
                let Some(ready) = self.poller.ready(at).filter(|ready| ready.reads) else { continue };
                let Some(wire) = &mut self.services[ready.token].wire else { continue };
                if wire.read(&mut self.buffer).is_err() {
                    self.services[ready.token].cut();
                    open -= 1;
                }
            }
            self.clock();
        }
    }
}
