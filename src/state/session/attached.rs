//! The connection that a session is up with: what it holds of ours, and its deadlines.

use std::time::{Duration, Instant};

use crate::protocol::close::Close;
use crate::protocol::name::ConnectionId;
use crate::state::pulse::{Limits, Observation, Pulse};

/// PRESENCE events that a connection may hold before it has written them.
pub(super) const MAX_PRESENCE_IN_FLIGHT: usize = 256;

/// How long a connection that was told to close may take to end by itself.
pub(super) const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// The connection.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) id: ConnectionId,
    /// Whether its service acknowledges.
    pub(super) acks: bool,
    /// It is about to end, and is handed nothing more.
    is_released: bool,
    in_flight_bytes: usize,
    in_flight_presences: usize,
    limits: Limits,
    pulse: Pulse,
    next_check: Instant,
    next_ping: Instant,
    /// It was told to close so: when to cut it off.
    closing: Option<(Instant, Close)>,
    /// The deadline of SHUTDOWN or REBOOT.
    close_after: Option<(Instant, Close)>,
}

/// What is due with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Ping,
    Close(Close),
    CutOff(Close),
}

impl Attached {
    pub(super) fn new(
        id: ConnectionId,
        acks: bool,
        close_after: Option<(Instant, Close)>,
        limits: Limits,
        now: Instant,
    ) -> Self {
        let pulse = Pulse::new(limits, now);
        Self {
            id,
            acks,
            is_released: false,
            in_flight_bytes: 0,
            in_flight_presences: 0,
            limits,
            next_check: pulse.next_check(now),
            pulse,
            next_ping: now + limits.heartbeat,
            closing: None,
            close_after,
        }
    }

    /// Whether it may be handed messages. One that was told to close writes them before its close frame, until
    /// it is released; unless it closes because it takes or says nothing: then they would be lost.
    pub(super) fn takes_messages(&self) -> bool {
        let is_ill = self.closing.is_some_and(|(_, close)| matches!(close, Close::TooSlow | Close::Silent));
        !self.is_released && !is_ill
    }

    /// How many bytes it was handed and has not written.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    pub(super) fn takes_presence(&self) -> bool {
        self.in_flight_presences < MAX_PRESENCE_IN_FLIGHT
    }

    pub(super) fn handed(&mut self, bytes: usize) {
        self.in_flight_bytes += bytes;
    }

    pub(super) fn handed_presence(&mut self) {
        self.in_flight_presences += 1;
    }

    pub(super) fn written(&mut self, bytes: usize, presences: usize) {
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        self.in_flight_presences = self.in_flight_presences.saturating_sub(presences);
    }

    pub(super) fn release(&mut self) {
        self.is_released = true;
    }

    pub(super) fn close_after(&mut self, deadline: Instant, close: Close) {
        self.close_after = Some((deadline, close));
    }

    /// The deadline of SHUTDOWN: a connection that takes this one's place is bound by it too.
    pub(super) fn shut_down_after(&self) -> Option<(Instant, Close)> {
        self.close_after.filter(|(_, close)| *close == Close::ShutDown)
    }

    /// Begins to close. False: it does already.
    pub(super) fn close(&mut self, close: Close, now: Instant) -> bool {
        let is_first = self.closing.is_none();
        if is_first {
            self.closing = Some((now + CLOSE_GRACE, close));
        }
        is_first
    }

    /// When something is due next.
    pub(super) fn next_wake(&self) -> Instant {
        // Nothing else matters for a connection that was told to close.
        if let Some((cut_off, _)) = self.closing {
            return cut_off;
        }
        let next = self.next_check.min(self.next_ping);
        self.close_after.map_or(next, |(deadline, _)| next.min(deadline))
    }

    /// What is due now, in order; `seen` is how it looks at the socket.
    pub(super) fn due(&mut self, seen: Option<Observation>, now: Instant) -> [Option<Due>; 2] {
        if let Some((cut_off, close)) = self.closing {
            return [(now >= cut_off).then(|| self.cut_off_again(close, now)), None];
        }
        let ping = (now >= self.next_ping).then(|| {
            self.next_ping = now + self.limits.heartbeat;
            Due::Ping
        });
        let late = self.close_after.filter(|(deadline, _)| now >= *deadline).map(|(_, close)| close);
        let close = self.check(seen, now);
        [ping, late.or(close).map(Due::Close)]
    }

    fn cut_off_again(&mut self, close: Close, now: Instant) -> Due {
        self.closing = Some((now + CLOSE_GRACE, close));
        Due::CutOff(close)
    }

    /// Whether it is silent or stuck, when it is time to look.
    fn check(&mut self, seen: Option<Observation>, now: Instant) -> Option<Close> {
        if now < self.next_check {
            return None;
        }
        let verdict = seen.and_then(|seen| self.pulse.check(seen, now));
        self.next_check = self.pulse.next_check(now);
        verdict
    }
}
