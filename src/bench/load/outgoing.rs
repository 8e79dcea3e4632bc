//! The messages that one service sends, and what becomes of them.

use crate::bench::checker::{Checker, Checks};
use crate::bench::pattern::{DIGITS, Pattern, increment};
use crate::bench::receipts::Receipts;

use super::frame::{self, TEXT};

/// Numbered messages from one service to another.
pub(super) struct Outgoing {
    /// The service that they are for, by its place.
    pub(super) target: usize,
    /// Of one message.
    pub(super) message_bytes: usize,
    /// The frame, masked, and its digits as masked bytes to be.
    frame: Vec<u8>,
    places: Vec<Place>,
    /// Of the next number.
    digits: [u8; DIGITS],
    pub(super) sent: u64,
    /// Of those: arrived, or refused.
    pub(super) settled: u64,
    pub(super) refused: u64,
    /// Due by the schedule, and not sent.
    pub(super) owed: u64,
    /// Whether it stands in the queue of those that can send.
    pub(super) is_queued: bool,
    pub(super) checker: Checker,
    /// Where they are asked for.
    receipts: Option<Receipts>,
}

/// Where digits stand in the frame, and what masks them there.
struct Place {
    at: usize,
    mask: [u8; DIGITS],
}

impl Outgoing {
    pub(super) fn new(
        target: usize,
        outgoing: &Pattern,
        incoming: Pattern,
        mask: [u8; 4],
        has_receipts: bool,
    ) -> Self {
        let mut frame = Vec::new();
        let start = frame::put(&mut frame, TEXT, mask, outgoing.text());
        let place =
            |at: &usize| Place { at: start + at, mask: std::array::from_fn(|digit| mask[(at + digit) % 4]) };
        Self {
            target,
            message_bytes: outgoing.text().len(),
            places: outgoing.places().iter().map(place).collect(),
            frame,
            digits: [b'0'; DIGITS],
            sent: 0,
            settled: 0,
            refused: 0,
            owed: 0,
            is_queued: false,
            checker: Checker::new(incoming),
            receipts: has_receipts.then(Receipts::default),
        }
    }

    /// Appends the next message.
    pub(super) fn encode(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        for Place { at, mask } in &self.places {
            let place = &mut out[start + at..start + at + DIGITS];
            for (byte, (digit, key)) in place.iter_mut().zip(self.digits.iter().zip(mask)) {
                *byte = digit ^ key;
            }
        }
        increment(&mut self.digits);
        self.sent += 1;
    }

    /// How many more may be under way.
    pub(super) fn room(&self, window: u64) -> u64 {
        window.saturating_sub(self.sent - self.settled)
    }

    /// A RECEIPT came. False: none was asked for.
    pub(super) fn receipted(&mut self, number: u64) -> bool {
        let sent = self.sent;
        self.receipts.as_mut().map(|receipts| receipts.take(number, sent)).is_some()
    }

    /// The connection is gone: of what was sent, the gateway may never have had what got no RECEIPT.
    pub(super) fn cut(&mut self) {
        if let Some(receipts) = &mut self.receipts {
            receipts.cut(self.sent);
        }
    }

    /// Whether all that was sent has arrived or was refused, and has its RECEIPT.
    pub(super) fn has_settled(&self) -> bool {
        let owed = self.receipts.as_ref().map_or(0, |receipts| receipts.owed(self.sent));
        self.settled >= self.sent && owed <= self.refused
    }

    pub(super) fn checks(&self) -> Checks {
        self.checker.finish(self.sent, self.refused, self.receipts.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::{ClientHeader, unmask_into};

    fn outgoing(has_receipts: bool) -> Outgoing {
        let pattern = Pattern::message("a", "x:y", &Pattern::data(300), true);
        Outgoing::new(1, &pattern, pattern.clone(), [5, 6, 7, 8], has_receipts)
    }

    #[test]
    fn a_receipt_is_for_a_message_that_was_sent() {
        let wrong = |number| {
            let mut outgoing = outgoing(true);
            outgoing.encode(&mut Vec::new());
            assert!(outgoing.receipted(number));
            outgoing.checks().wrong_receipts
        };
        assert_eq!([0, 1, u64::MAX].map(wrong), [0, 1, 1]);
        assert!(!outgoing(false).receipted(0));
    }

    #[test]
    fn what_got_no_receipt_is_in_doubt_as_far_as_the_cut_and_lost_after_it() {
        let (mut outgoing, mut out) = (outgoing(true), Vec::new());
        (0..3).for_each(|_| outgoing.encode(&mut out));
        outgoing.cut();
        (0..2).for_each(|_| outgoing.encode(&mut out));
        let expected = Checks { sent: 5, in_doubt: 3, lost: 2, without_receipt: 2, ..Checks::default() };
        assert_eq!(outgoing.checks(), expected);
    }

    #[test]
    fn a_message_settles_with_its_receipt_where_one_is_asked_for() {
        for has_receipts in [false, true] {
            let mut outgoing = outgoing(has_receipts);
            outgoing.encode(&mut Vec::new());
            assert!(!outgoing.has_settled());
            outgoing.settled += 1;
            assert_eq!(outgoing.has_settled(), !has_receipts);
            outgoing.receipted(0);
            assert!(outgoing.has_settled());
        }
    }

    #[test]
    fn the_frames_are_the_pattern_with_one_number_after_the_other() {
        let data = Pattern::data(300);
        let pattern = Pattern::message("a", "gateway-proxy:b:x:y", &data, true);
        let mut outgoing = Outgoing::new(1, &pattern, pattern.clone(), [5, 6, 7, 8], true);
        let mut out = Vec::new();
        for _ in 0..12 {
            outgoing.encode(&mut out);
        }
        let mut rest = &out[..];
        for number in 0..12 {
            let header = ClientHeader::parse(rest).unwrap().unwrap();
            let end = header.header_bytes + usize::try_from(header.payload_bytes).unwrap();
            let mut text = Vec::new();
            unmask_into(&mut text, &rest[header.header_bytes..end], header.mask, 0);
            assert_eq!(pattern.number_of(&text[1..]), Some(number));
            rest = &rest[end..];
        }
        assert_eq!((outgoing.sent, outgoing.room(20), outgoing.room(3)), (12, 8, 0));
    }
}
