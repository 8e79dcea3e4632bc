//! Sending and hearing.
//!
//! Without a rate a sender keeps its window full, and sends again once a quarter of it is free: a fast
//! gateway must not be fed in smaller pieces than a slow one.
//!
//! With a rate, message k of all senders is due at k / rate, and goes to them in turn; so a message's number
//! tells when it was due. Its latency counts from then, whenever it was really written: a gateway that
//! stops for a while is not spared the messages that had to wait meanwhile (this is what is called
//! correction for coordinated omission). How late it was written is counted too, apart from those that were held
//! back by a full window, a full socket or a connection that was away: that is the generator's own share.

use std::time::Duration;

use super::engine::Engine;
use super::schedule::Schedule;
use crate::bench::pattern::decimal;
use crate::bench::{BenchError, hints};
use crate::client::{Event, Refused};
use crate::protocol::op::Opcode;

/// How much one sender writes before the others have their turn.
const BATCH_BYTES: usize = 128 << 10;

impl Engine {
    /// Begins to send, once.
    pub(super) fn begin(&mut self) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        self.last_arrival = self.now;
        if let Some(rate) = self.own_rate() {
            self.schedule = Some(Schedule::new(self.now, rate, self.senders.len()));
        }
        for at in 0..self.senders.len() {
            self.can_send(self.senders[at]);
        }
    }

    /// This thread's share of the rate.
    #[expect(clippy::cast_precision_loss)]
    fn own_rate(&self) -> Option<f64> {
        let super::plan::Pace::Rate(rate) = self.plan.pace else { return None };
        let (own, all) = (self.senders.len(), self.plan.shape.senders());
        (own > 0).then(|| rate * own as f64 / all as f64)
    }

    /// Lets a sender have its turn, if it sends.
    pub(super) fn can_send(&mut self, place: usize) {
        if let Some(outgoing) = &mut self.services[place].outgoing
            && !outgoing.is_queued
        {
            outgoing.is_queued = true;
            self.ready.push_back(place);
        }
    }

    /// Sends what is due, or what there is room for. Returns how long there is nothing to send.
    pub(super) fn send(&mut self) -> Result<Duration, BenchError> {
        self.release_due();
        for _ in 0..self.ready.len() {
            let Some(place) = self.ready.pop_front() else { break };
            self.fill(place)?;
        }
        if !self.ready.is_empty() {
            return Ok(Duration::ZERO);
        }
        let Some(schedule) = self.schedule else { return Ok(Duration::MAX) };
        self.clock();
        Ok(Duration::from_nanos(schedule.next_due().saturating_sub(self.now)))
    }

    fn release_due(&mut self) {
        let (now, window) = (self.now, self.plan.window);
        let Some(mut schedule) = self.schedule else { return };
        while let Some((sender, due)) = schedule.pop(now) {
            let place = self.senders[sender];
            let service = &mut self.services[place];
            let is_free = service.is_accepted && service.unwritten() == 0;
            let Some(outgoing) = &mut service.outgoing else { continue };
            if self.measured.contains(&due) {
                // Those that became due in the same moment leave together.
                if is_free && outgoing.room(window) > outgoing.owed {
                    self.found.lateness.saturating_record((now - due).max(1));
                } else {
                    self.found.held += 1;
                }
            }
            outgoing.owed += 1;
            self.can_send(place);
        }
        self.schedule = Some(schedule);
    }

    /// Ends the measured time, once. What was due and is not written never will be: it counts with the time
    /// that it has waited, so that a gateway which stops at the end is not spared it.
    pub(super) fn stop_sending(&mut self) {
        if self.measured.end != u64::MAX {
            return;
        }
        self.measured.end = self.now;
        let Some(schedule) = &self.schedule else { return };
        for (sender, place) in self.senders.iter().enumerate() {
            let Some(outgoing) = &mut self.services[*place].outgoing else { continue };
            let unsent = outgoing.sent..outgoing.sent + std::mem::take(&mut outgoing.owed);
            let dues = unsent.map(|number| schedule.due(sender, number));
            for due in dues.filter(|due| self.measured.contains(due)) {
                self.found.latency.saturating_record((self.now - due).max(1));
                self.found.unsent += 1;
            }
        }
    }

    /// Writes one batch of what this sender may send.
    fn fill(&mut self, place: usize) -> Result<(), BenchError> {
        let (window, is_paced) = (self.plan.window, self.schedule.is_some());
        let service = &mut self.services[place];
        let is_free = service.is_accepted && service.unwritten() == 0;
        let Some(outgoing) = &mut service.outgoing else { return Ok(()) };
        outgoing.is_queued = false;
        // One that is away has its turn once it is accepted again.
        let Some(wire) = service.wire.as_mut().filter(|_| is_free) else { return Ok(()) };
        let mut room = outgoing.room(window);
        if is_paced {
            room = room.min(outgoing.owed);
        }
        while room > 0 && wire.out().len() < BATCH_BYTES {
            outgoing.encode(wire.out());
            outgoing.owed = outgoing.owed.saturating_sub(1);
            room -= 1;
        }
        self.write(place)?;
        if room > 0 && self.services[place].unwritten() == 0 {
            self.can_send(place);
        }
        Ok(())
    }

    /// A message, or an op of the gateway.
    pub(super) fn text(&mut self, place: usize, text: &[u8]) -> Result<(), BenchError> {
        let Some(body) = text.strip_prefix(b"{") else {
            self.found.checks.altered += 1;
            return Ok(());
        };
        let (number, body) = delivery(body);
        match self.source(body) {
            Some(source) => self.message(place, source, number, body),
            None => return self.op(place, text),
        }
        Ok(())
    }

    fn message(&mut self, place: usize, source: usize, delivery: Option<u64>, body: &[u8]) {
        let numbered = self.services[place].deliveries.is_some();
        let outgoing = self.services[source].outgoing.as_mut().filter(|it| it.target == place);
        let Some(outgoing) = outgoing else {
            self.found.checks.altered += 1;
            return;
        };
        let Some(number) = outgoing.checker.number_of(body, outgoing.sent) else { return };
        if delivery.is_some() != numbered {
            self.found.checks.misnumbered += 1;
        } else if let Some(delivery) = delivery
            && !self.is_new(place, delivery, (source, number))
        {
            return;
        }
        self.take(source, number);
    }

    /// Checks a delivery number. False: the message has come before.
    fn is_new(&mut self, place: usize, delivery: u64, message: (usize, u64)) -> bool {
        let service = &mut self.services[place];
        service.has_news = true;
        let taken = service.deliveries.as_mut().map(|deliveries| deliveries.take(delivery, message));
        if let Some(Ok(is_new)) = taken {
            self.found.checks.redelivered += u64::from(!is_new);
            return is_new;
        }
        self.found.checks.misnumbered += 1;
        true
    }

    fn take(&mut self, source: usize, number: u64) {
        let window = self.plan.window;
        let Some(outgoing) = &mut self.services[source].outgoing else { return };
        if !outgoing.checker.take(number) {
            return;
        }
        outgoing.settled += 1;
        let has_room = outgoing.owed > 0 || outgoing.room(window) >= window.div_ceil(4);
        if let Some(schedule) = &self.schedule {
            let sender = self.senders.partition_point(|place| *place < source);
            let due = schedule.due(sender, number);
            if self.measured.contains(&due) {
                self.found.latency.saturating_record(self.now.saturating_sub(due).max(1));
            }
            if has_room && outgoing.owed > 0 {
                self.can_send(source);
            }
        } else if has_room {
            self.can_send(source);
        }
        self.arrived(1);
    }

    fn op(&mut self, place: usize, text: &[u8]) -> Result<(), BenchError> {
        #[derive(serde::Deserialize)]
        struct Receipt<'a> {
            n: &'a str,
        }
        let Ok(Event::Op(op)) = Event::parse(&String::from_utf8_lossy(text)) else {
            self.found.checks.altered += 1;
            return Ok(());
        };
        let failed = |error| BenchError::Client { name: self.services[place].name.clone(), error };
        if op.is(Opcode::Receipt) {
            let Receipt { n } = op.read().map_err(failed)?;
            let number = decimal(n.as_bytes());
            let outgoing = self.services[place].outgoing.as_mut();
            let is_asked_for =
                outgoing.zip(number).is_some_and(|(outgoing, number)| outgoing.receipted(number));
            self.found.checks.wrong_receipts += u64::from(!is_asked_for);
            self.last_arrival = self.now;
        } else if op.is(Opcode::Error) {
            let refused: Refused = op.read().map_err(failed)?;
            self.refused(place, &refused);
        }
        Ok(())
    }

    fn refused(&mut self, place: usize, refused: &Refused) {
        self.last_arrival = self.now;
        let Refused { code, message, .. } = refused;
        let hint = hints::for_refusal(code, self.plan.window != u64::MAX);
        self.found.refusal.get_or_insert_with(|| hints::with(format_args!("{message} ({code})"), hint));
        if let Some(outgoing) = &mut self.services[place].outgoing {
            outgoing.refused += 1;
            outgoing.settled += 1;
            self.can_send(place);
        }
    }
}

/// A delivery number, and what comes behind it.
fn delivery(body: &[u8]) -> (Option<u64>, &[u8]) {
    let number = body.strip_prefix(br#""i":"#).and_then(|rest| {
        let end = rest.iter().position(|byte| *byte == b',')?;
        Some((decimal(&rest[..end])?, &rest[end + 1..]))
    });
    number.map_or((None, body), |(number, rest)| (Some(number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_number_is_taken_off() {
        assert_eq!(delivery(br#""i":12,"s":"a""#), (Some(12), &br#""s":"a""#[..]));
        assert_eq!(delivery(br#""s":"a""#), (None, &br#""s":"a""#[..]));
        assert_eq!(delivery(br#""i":x,"s":"a""#), (None, &br#""i":x,"s":"a""#[..]));
    }
}
