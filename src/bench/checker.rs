//! What arrived: each message is compared whole, and counted by what is wrong with it.

use std::fmt::{self, Write};
use std::ops::AddAssign;

use serde::Serialize;

use super::pattern::Pattern;
use super::receipts::Receipts;
use super::sequence::{Arrival, Sequence};

/// What became of all messages. `sent` is the sum of `arrived`, `lost`, `refused` and `in_doubt`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Checks {
    pub(super) sent: u64,
    /// Each counted once.
    pub(super) arrived: u64,
    /// Never arrived, and not refused either.
    pub(super) lost: u64,
    /// Arrived again, without being a redelivery.
    pub(super) duplicated: u64,
    /// Arrived after one that was sent later.
    pub(super) reordered: u64,
    /// Not what any sent message should arrive as.
    pub(super) altered: u64,
    /// Has not the delivery number that it should have.
    pub(super) misnumbered: u64,
    /// Answered with ERROR.
    pub(super) refused: u64,
    /// Have no RECEIPT, though none could be lost with a connection; where RECEIPTs are asked for.
    pub(super) without_receipt: u64,
    /// RECEIPTs for a message that had one before, or was never sent.
    pub(super) wrong_receipts: u64,
    /// Arrived again after a resume, with the same delivery number: not acknowledged before.
    pub(super) redelivered: u64,
    /// Written to a connection that was then cut, behind the last message with a RECEIPT, and never arrived: the
    /// gateway may never have had it.
    pub(super) in_doubt: u64,
}

impl Checks {
    /// Whether nothing was wrong.
    pub(super) fn passed(&self) -> bool {
        let Self { lost, duplicated, reordered, altered, misnumbered, refused, .. } = *self;
        let receipts = self.without_receipt + self.wrong_receipts;
        lost + duplicated + reordered + altered + misnumbered + refused + receipts == 0
    }

    /// The counts; of what is rare, where there is such.
    pub(super) fn told(&self) -> String {
        let Self { sent, lost, duplicated, reordered, altered, refused, .. } = *self;
        let mut told = format!(
            "{sent} sent, {lost} lost, {duplicated} duplicated, {reordered} reordered, {altered} altered, \
             {refused} refused"
        );
        for (count, what) in [
            (self.misnumbered, "misnumbered"),
            (self.without_receipt, "without receipt"),
            (self.wrong_receipts, "wrong receipts"),
            (self.redelivered, "redelivered"),
            (self.in_doubt, "in doubt"),
        ] {
            if count > 0 {
                write!(told, ", {count} {what}").expect("a String takes all");
            }
        }
        told
    }
}

impl fmt::Display for Checks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", if self.passed() { "ok" } else { "FAILED" }, self.told())
    }
}

impl AddAssign for Checks {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.arrived += other.arrived;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.altered += other.altered;
        self.misnumbered += other.misnumbered;
        self.refused += other.refused;
        self.without_receipt += other.without_receipt;
        self.wrong_receipts += other.wrong_receipts;
        self.redelivered += other.redelivered;
        self.in_doubt += other.in_doubt;
    }
}

/// Judges what arrives from one sender.
#[derive(Debug)]
pub(super) struct Checker {
    expected: Pattern,
    sequence: Sequence,
    duplicated: u64,
    reordered: u64,
    altered: u64,
}

impl Checker {
    pub(super) fn new(expected: Pattern) -> Self {
        Self { expected, sequence: Sequence::default(), duplicated: 0, reordered: 0, altered: 0 }
    }

    /// The number of a message of which `sent` were sent; it comes without its first brace. `None`: it was
    /// altered, and is counted so.
    pub(super) fn number_of(&mut self, body: &[u8], sent: u64) -> Option<u64> {
        let number = self.expected.number_of(body).filter(|number| *number < sent);
        self.altered += u64::from(number.is_none());
        number
    }

    /// Counts it. True: it came for the first time.
    pub(super) fn take(&mut self, number: u64) -> bool {
        let arrival = self.sequence.take(number);
        self.reordered += u64::from(arrival == Arrival::Late);
        self.duplicated += u64::from(arrival == Arrival::Again);
        arrival != Arrival::Again
    }

    /// The verdict, given how many were sent and how many of those the gateway refused. Of what was
    /// sent before a cut, only what the gateway surely had can be lost.
    pub(super) fn finish(&self, sent: u64, refused: u64, receipts: Option<&Receipts>) -> Checks {
        let (mut lost, mut in_doubt) = (0_u64, 0_u64);
        for number in self.sequence.absent(sent) {
            let is_in_doubt = receipts.is_some_and(|receipts| receipts.doubts(number));
            *(if is_in_doubt { &mut in_doubt } else { &mut lost }) += 1;
        }
        // Which ones were refused is not told. Refusals fail anyway.
        let of_lost = refused.min(lost);
        lost -= of_lost;
        in_doubt = in_doubt.saturating_sub(refused - of_lost);
        Checks {
            sent,
            arrived: self.sequence.count(),
            lost,
            in_doubt,
            refused,
            // What was refused has an ERROR in its place.
            without_receipt: receipts.map_or(0, |it| it.owed(sent)).saturating_sub(refused),
            wrong_receipts: receipts.map_or(0, |it| it.wrong),
            duplicated: self.duplicated,
            reordered: self.reordered,
            altered: self.altered,
            ..Checks::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::pattern::DIGITS;

    fn pattern() -> Pattern {
        Pattern::message("a", "x:y", &Pattern::data(300), false)
    }

    /// The message with this number, less its first brace.
    fn body(number: u64) -> Vec<u8> {
        let mut text = pattern().text().to_vec();
        let at = pattern().places()[0];
        text[at..at + DIGITS].copy_from_slice(format!("{number:0DIGITS$}").as_bytes());
        text.split_off(1)
    }

    fn after(sent: u64, arrivals: &[u64]) -> Checker {
        let mut checker = Checker::new(pattern());
        for number in arrivals {
            assert_eq!(checker.number_of(&body(*number), sent), Some(*number));
            checker.take(*number);
        }
        checker
    }

    /// The faults found when `arrivals` of `sent` messages come.
    fn checks(sent: u64, arrivals: &[u64]) -> Checks {
        after(sent, arrivals).finish(sent, 0, None)
    }

    #[test]
    fn what_arrives_once_and_in_order_is_no_fault() {
        assert_eq!(checks(4, &[0, 1, 2, 3]), Checks { sent: 4, arrived: 4, ..Checks::default() });
        assert!(checks(4, &[0, 1, 2, 3]).passed());
    }

    #[test]
    fn a_lost_message_is_detected_in_the_middle_and_at_the_end() {
        let found = checks(6, &[0, 2, 3]);
        assert_eq!(found, Checks { sent: 6, arrived: 3, lost: 3, ..Checks::default() });
        assert!(!found.passed());
    }

    #[test]
    fn a_refused_message_is_not_lost() {
        let found = after(3, &[1]).finish(3, 1, None);
        assert_eq!(found, Checks { sent: 3, arrived: 1, lost: 1, refused: 1, ..Checks::default() });
    }

    #[test]
    fn only_what_was_accepted_can_be_lost_where_connections_were_cut() {
        let mut receipts = Receipts::default();
        (0..4).for_each(|number| receipts.take(number, 6));
        receipts.cut(6);
        let found = after(6, &[0, 2]).finish(6, 0, Some(&receipts));
        assert_eq!(found, Checks { sent: 6, arrived: 2, lost: 2, in_doubt: 2, ..Checks::default() });
    }

    #[test]
    fn receipts_are_checked_where_they_are_asked_for() {
        let mut receipts = Receipts::default();
        receipts.take(0, 3);
        receipts.take(0, 3);
        let found = after(3, &[0, 1, 2]).finish(3, 1, Some(&receipts));
        let (without_receipt, wrong_receipts) = (found.without_receipt, found.wrong_receipts);
        assert_eq!((without_receipt, wrong_receipts), (1, 1), "one of the three was refused");
        assert_eq!(after(3, &[0, 1, 2]).finish(3, 0, None).without_receipt, 0);
    }

    #[test]
    fn a_duplicated_message_is_detected() {
        let found = checks(3, &[0, 1, 1, 2, 0]);
        assert_eq!(found, Checks { sent: 3, arrived: 3, duplicated: 2, ..Checks::default() });
    }

    #[test]
    fn a_reordered_message_is_detected_and_not_lost() {
        let found = checks(4, &[0, 2, 1, 3]);
        assert_eq!(found, Checks { sent: 4, arrived: 4, reordered: 1, ..Checks::default() });
    }

    #[test]
    fn a_message_altered_anywhere_is_detected() {
        for at in 0..body(0).len() {
            let mut altered = body(0);
            altered[at] ^= 1;
            let mut checker = Checker::new(pattern());
            // A digit may have become another one: then a number that was not sent came.
            assert_eq!(checker.number_of(&altered, 1), None, "byte {at}");
            assert_eq!(checker.finish(0, 0, None), Checks { altered: 1, ..Checks::default() });
        }
    }

    #[test]
    fn every_kind_of_fault_fails() {
        let faults: [fn(&mut Checks); 8] = [
            |checks| checks.lost = 1,
            |checks| checks.duplicated = 1,
            |checks| checks.reordered = 1,
            |checks| checks.altered = 1,
            |checks| checks.misnumbered = 1,
            |checks| checks.refused = 1,
            |checks| checks.without_receipt = 1,
            |checks| checks.wrong_receipts = 1,
        ];
        for fault in faults {
            let mut checks = Checks { redelivered: 1, in_doubt: 1, ..Checks::default() };
            assert!(checks.passed());
            fault(&mut checks);
            assert!(!checks.passed(), "{checks}");
            assert!(checks.to_string().starts_with("FAILED"), "{checks}");
        }
    }
}
