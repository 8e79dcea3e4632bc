//! The services come: at the start, and after their connections were cut.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::engine::Engine;
use super::wire::Wire;
use crate::bench::{BenchError, wrong_option};
use crate::client::{Accepted, Event, Rejected};
use crate::protocol::op::Opcode;

/// So many of one thread's services connect at a time. More than the backlog of a listener would have to be
/// sent again, a second later.
const CONNECTING_AT_ONCE: usize = 128;

impl Engine {
    /// Lets the next ones connect.
    pub(super) fn connect_more(&mut self) -> Result<(), BenchError> {
        while self.connecting < CONNECTING_AT_ONCE {
            let Some(place) = self.absent.pop_front() else { return Ok(()) };
            let service = &mut self.services[place];
            let wire = Wire::start(&self.endpoint, self.first + place, service.mask);
            let wire = wire.map_err(|error| BenchError::NoSocket { name: service.name.clone(), error })?;
            self.poller.add(&wire, place, true).map_err(BenchError::Poll)?;
            service.wire = Some(wire);
            self.connecting += 1;
        }
        Ok(())
    }

    /// Whether the WebSocket stands, once `bytes` came. IDENTIFY is sent as soon as it does.
    pub(super) fn is_upgraded(&mut self, place: usize, bytes: &mut &[u8]) -> Result<bool, BenchError> {
        let service = &mut self.services[place];
        let Some(wire) = &mut service.wire else { return Ok(false) };
        if wire.is_open() {
            return Ok(true);
        }
        let name = || service.name.clone();
        let upgraded =
            wire.upgrade(bytes).map_err(|answer| BenchError::NoWebSocket { name: name(), answer })?;
        if upgraded {
            // Of those that hear only, nothing could have a RECEIPT.
            let receipts = self.plan.receipts && service.outgoing.is_some();
            service.identify(self.plan.token.as_deref(), receipts);
        }
        Ok(upgraded)
    }

    /// The gateway's answer to IDENTIFY.
    pub(super) fn answered(&mut self, place: usize, text: &[u8]) -> Result<(), BenchError> {
        let service = &mut self.services[place];
        let failed = |error| BenchError::Client { name: service.name.clone(), error };
        let op = match Event::parse(&String::from_utf8_lossy(text)).map_err(failed)? {
            Event::Op(op) => op,
            Event::Message(_) => return Err(self.misread(place)),
        };
        if op.is(Opcode::Reject) {
            let rejected: Rejected = op.read().map_err(failed)?;
            return Err(failed(crate::client::ClientError::Rejected(rejected)));
        }
        if !op.is(Opcode::Accept) {
            return Err(self.misread(place));
        }
        let accepted: Accepted = op.read().map_err(failed)?;
        self.fits(place, accepted.max_message_bytes)?;
        let service = &mut self.services[place];
        let is_resumed = accepted.resumed;
        service.accepted(accepted);
        self.connecting -= 1;
        self.came(is_resumed);
        self.can_send(place);
        Ok(())
    }

    /// A message that is too big would end its connection, mostly before the gateway's word for it is read.
    fn fits(&self, place: usize, most: u64) -> Result<(), BenchError> {
        let bytes = self.services[place].outgoing.as_ref().map_or(0, |outgoing| outgoing.message_bytes);
        if bytes as u64 <= most {
            return Ok(());
        }
        let expected = format!(
            "smaller: a whole message may have {most} bytes (the gateway's max_message_bytes) and has {bytes}"
        );
        Err(wrong_option("size", expected, self.plan.size))
    }

    fn came(&mut self, is_resumed: bool) {
        if self.cuts > 0 {
            self.found.back.saturating_record((self.now - self.cut_at).max(1));
            self.found.not_resumed += u64::from(!is_resumed);
        } else {
            self.found.gathered = Duration::from_nanos(self.now);
        }
        self.orders.open.fetch_add(1, Ordering::AcqRel);
    }

    /// Cuts all connections where that is wanted.
    pub(super) fn follow_cuts(&mut self) -> Result<(), BenchError> {
        let wanted = self.orders.cuts.load(Ordering::Acquire);
        if self.cuts == wanted {
            return Ok(());
        }
        (self.cuts, self.cut_at, self.connecting) = (wanted, self.now, 0);
        for service in &mut self.services {
            if let Some(wire) = service.wire.take() {
                wire.reset();
            }
            service.cut();
        }
        self.absent = (0..self.services.len()).collect();
        self.connect_more()
    }

    pub(super) fn broken(&self, place: usize, error: &io::Error) -> BenchError {
        let name = self.services[place].name.clone();
        let is_connected = self.services[place].wire.as_ref().is_some_and(Wire::is_open);
        match error.kind() {
            io::ErrorKind::UnexpectedEof if is_connected => BenchError::Ended { name },
            _ if is_connected => BenchError::Broke { name, reason: error.to_string() },
            _ => BenchError::Unreachable {
                authority: self.endpoint.address.to_string(),
                reason: error.to_string(),
            },
        }
    }

    pub(super) fn closed(&self, place: usize, payload: &[u8]) -> BenchError {
        let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
        let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
        let error = crate::client::ClientError::Closed { code, reason };
        BenchError::Client { name: self.services[place].name.clone(), error }
    }

    pub(super) fn misread(&self, place: usize) -> BenchError {
        let reason = "what came is no frame, or no message, that the gateway sends".to_owned();
        BenchError::Broke { name: self.services[place].name.clone(), reason }
    }
}
