//! The RECEIPTs of one sender: what they say of its messages, and which of them are owed.
//!
//! The gateway handles one sender's messages in order, and its RECEIPTs come in that order too, each once; those
//! that were handed to a connection which was then cut are lost with it. So behind the last one of that
//! connection some may be missing, as far as the first one of the next; nowhere else.

use super::sequence::{Arrival, Sequence};

/// What the gateway said to have.
#[derive(Debug, Clone, Default)]
pub(super) struct Receipts {
    came: Sequence,
    /// For a message that had one before, or was never sent.
    pub(super) wrong: u64,
    /// `None`: the connection was never cut.
    cut: Option<Cut>,
}

/// A cut of the connection. There is one at most.
#[derive(Debug, Clone)]
struct Cut {
    /// How many messages were sent before it.
    sent: u64,
    /// RECEIPTs came for numbers below, on the connection that was cut.
    came_below: u64,
    /// The number of the first one on the connection after it.
    resumed_at: Option<u64>,
    /// The gateway had the numbers below, of what was sent before: one of them has a RECEIPT, or a
    /// higher one.
    had_below: u64,
}

impl Receipts {
    /// One came for this number, of a message of which `sent` were sent.
    pub(super) fn take(&mut self, number: u64, sent: u64) {
        if number >= sent || self.came.take(number) == Arrival::Again {
            self.wrong += 1;
            return;
        }
        if let Some(cut) = &mut self.cut {
            cut.resumed_at.get_or_insert(number);
            if number < cut.sent {
                cut.had_below = cut.had_below.max(number + 1);
            }
        }
    }

    /// The connection is gone, after so many messages were sent: the gateway may never have had those behind the
    /// last RECEIPT.
    pub(super) fn cut(&mut self, sent: u64) {
        let came_below = self.came.end();
        self.cut = Some(Cut { sent, came_below, resumed_at: None, had_below: came_below });
    }

    /// Whether a message that did not arrive may never have reached the gateway.
    pub(super) fn doubts(&self, number: u64) -> bool {
        self.cut.as_ref().is_some_and(|cut| (cut.had_below..cut.sent).contains(&number))
    }

    /// How many of the messages that were sent have none, and must have one or an ERROR.
    pub(super) fn owed(&self, sent: u64) -> u64 {
        self.came.absent(sent).filter(|number| self.is_owed(*number)).count() as u64
    }

    fn is_owed(&self, number: u64) -> bool {
        self.cut.as_ref().is_none_or(|cut| {
            let is_behind_the_first = cut.resumed_at.is_some_and(|first| number > first);
            number < cut.came_below || number >= cut.sent || (is_behind_the_first && number < cut.had_below)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that came before a cut after ten messages, and those that came after it.
    fn receipts(before: &[u64], after: &[u64]) -> Receipts {
        let mut receipts = Receipts::default();
        for number in before {
            receipts.take(*number, 10);
        }
        receipts.cut(10);
        for number in after {
            receipts.take(*number, 20);
        }
        receipts
    }

    fn doubted(receipts: &Receipts) -> Vec<u64> {
        (0..20).filter(|number| receipts.doubts(*number)).collect()
    }

    #[test]
    fn only_what_is_behind_the_last_receipt_and_before_the_cut_is_in_doubt() {
        assert_eq!(doubted(&receipts(&[0, 1, 5], &[])), [6, 7, 8, 9]);
        assert_eq!(doubted(&receipts(&[0, 1, 5], &[7, 10, 11])), [8, 9], "it came for one sent before");
        assert_eq!(doubted(&receipts(&[], &[12])).len(), 10, "it says nothing of another connection");
        assert!(doubted(&Receipts::default()).is_empty());
    }

    #[test]
    fn without_a_cut_each_message_is_owed_one() {
        let mut receipts = Receipts::default();
        for number in [0, 2] {
            receipts.take(number, 4);
        }
        assert_eq!(receipts.owed(4), 2);
    }

    #[test]
    fn what_may_be_lost_with_a_connection_is_not_owed_and_all_else_is() {
        let after: Vec<u64> = (10..20).collect();
        for (before, after, owed) in [
            (&[0, 1, 2, 3][..], &after[..], 0),
            (&[0, 1, 3], &after, 1),
            // 4 and 5 went down with the connection, 7 did not: 6 came before it on the new one.
            (&[0, 1, 2, 3], &[&[6, 8], &after[..]].concat(), 1),
            (&[0, 1, 2, 3], &after[2..], 2),
            (&[], &[], 10),
        ] {
            assert_eq!(receipts(before, after).owed(20), owed, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_receipt_that_comes_twice_or_for_nothing_is_wrong() {
        assert_eq!(receipts(&[0, 1, 1, 10], &[1, 2]).wrong, 3);
        assert_eq!(receipts(&[0, 1], &[2]).wrong, 0);
    }
}
