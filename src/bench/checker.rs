//! What arrived: each message is compared whole, and counted by what is wrong with it.

use std::collections::BTreeSet;
use std::ops::AddAssign;

use super::pattern::Pattern;
use crate::client::Event;

/// Messages that did not end as they should.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Never arrived, and not refused either.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after one that was sent later.
    pub reordered: u64,
    /// Not what any sent message should arrive as.
    pub altered: u64,
    /// Answered with ERROR.
    pub refused: u64,
}

/// Judges what arrives at one consumer.
#[derive(Debug)]
pub(super) struct Checker {
    expected: Pattern,
    window: u64,
    /// One more than the highest number that came.
    next: u64,
    /// Numbers below `next` that have not come.
    missing: BTreeSet<u64>,
    faults: Faults,
}

impl Checker {
    pub(super) fn new(expected: Pattern, window: u64) -> Self {
        Self { expected, window, next: 0, missing: BTreeSet::new(), faults: Faults::default() }
    }

    /// Judges one text. `false`: it was an op, not a proxied message.
    pub(super) fn check(&mut self, text: &str) -> bool {
        match self.expected.number_of(text) {
            Some(sequence) => self.arrived(sequence),
            None if matches!(Event::parse(text), Ok(Event::Op(_))) => return false,
            None => self.faults.altered += 1,
        }
        true
    }

    fn arrived(&mut self, sequence: u64) {
        if sequence == self.next {
            self.next += 1;
        } else if self.missing.remove(&sequence) {
            self.faults.reordered += 1;
        } else if sequence < self.next {
            self.faults.duplicated += 1;
        } else if sequence < self.next + self.window {
            self.missing.extend(self.next..sequence);
            self.next = sequence + 1;
        } else {
            // No such message can be under way: its digits were altered.
            self.faults.altered += 1;
        }
    }

    /// The verdict, given how many were sent and how many of those the gateway refused.
    pub(super) fn finish(self, sent: u64, refused: u64) -> Faults {
        let absent = self.missing.len() as u64 + sent.saturating_sub(self.next);
        Faults { lost: absent.saturating_sub(refused), refused, ..self.faults }
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.altered += other.altered;
        self.refused += other.refused;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::pattern::FILLER;

    const WINDOW: u64 = 8;

    fn pattern() -> Pattern {
        Pattern::message("a", "x:y", &Pattern::data(FILLER, 300))
    }

    /// The faults found when `arrivals` of `sent` messages come.
    fn faults(sent: u64, arrivals: &[u64]) -> Faults {
        let mut checker = Checker::new(pattern(), WINDOW);
        for sequence in arrivals {
            assert!(checker.check(&pattern().number(*sequence)));
        }
        checker.finish(sent, 0)
    }

    #[test]
    fn what_arrives_once_and_in_order_is_no_fault() {
        assert_eq!(faults(4, &[0, 1, 2, 3]), Faults::default());
    }

    #[test]
    fn a_lost_message_is_detected_in_the_middle_and_at_the_end() {
        assert_eq!(faults(6, &[0, 2, 3]), Faults { lost: 3, ..Faults::default() });
    }

    #[test]
    fn a_refused_message_is_not_lost() {
        let mut checker = Checker::new(pattern(), WINDOW);
        checker.check(&pattern().number(1));
        assert_eq!(checker.finish(3, 1), Faults { lost: 1, refused: 1, ..Faults::default() });
    }

    #[test]
    fn a_duplicated_message_is_detected() {
        assert_eq!(faults(3, &[0, 1, 1, 2, 0]), Faults { duplicated: 2, ..Faults::default() });
    }

    #[test]
    fn a_reordered_message_is_detected_and_not_lost() {
        assert_eq!(faults(4, &[0, 2, 1, 3]), Faults { reordered: 1, ..Faults::default() });
    }

    #[test]
    fn a_message_altered_anywhere_is_detected() {
        let original = pattern().number(0);
        for at in 0..original.len() {
            let mut bytes = original.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(altered) = String::from_utf8(bytes) else { continue };
            let mut checker = Checker::new(pattern(), WINDOW);
            checker.check(&altered);
            assert_ne!(checker.finish(1, 0), Faults::default(), "byte {at}: {altered}");
        }
        let mut checker = Checker::new(pattern(), WINDOW);
        checker.check(&original[..original.len() - 1]);
        checker.check(&pattern().number(WINDOW));
        checker.check(&original);
        assert_eq!(checker.finish(1, 0), Faults { altered: 2, ..Faults::default() });
    }

    #[test]
    fn an_op_is_not_taken_for_a_message() {
        let mut checker = Checker::new(pattern(), WINDOW);
        assert!(!checker.check(r#"{"s":"gateway","t":"gateway:opcode","d":{"opcode":3}}"#));
        assert_eq!(checker.finish(0, 0), Faults::default());
    }
}
