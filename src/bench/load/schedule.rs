//! A fixed rate: when each message is due, and whose turn it is. Times are in ns.

/// When each message is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// In ns, since the start of the crew.
    start: u64,
    /// Between two messages of this thread, in ns.
    step: f64,
    senders: u64,
    /// The next message that is due.
    next: u64,
}

impl Schedule {
    pub(super) fn new(start: u64, rate: f64, senders: usize) -> Self {
        Self { start, step: 1e9 / rate, senders: senders as u64, next: 0 }
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation)]
    fn due_at(&self, message: u64) -> u64 {
        self.start.saturating_add((message as f64 * self.step) as u64)
    }

    /// When a sender's message with this number is due.
    pub(super) fn due(&self, sender: usize, number: u64) -> u64 {
        self.due_at(number * self.senders + sender as u64)
    }

    /// When the next message is due that was not popped.
    pub(super) fn next_due(&self) -> u64 {
        self.due_at(self.next)
    }

    /// The sender of the next message that is due by now, and when it was.
    pub(super) fn pop(&mut self, now: u64) -> Option<(usize, u64)> {
        let due = self.next_due();
        if due > now {
            return None;
        }
        let sender = usize::try_from(self.next % self.senders).ok()?;
        self.next += 1;
        Some((sender, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_one_after_another_and_go_to_the_senders_in_turn() {
        let mut schedule = Schedule::new(100, 1e8, 3);
        assert_eq!(schedule.pop(99), None);
        let popped: Vec<_> = std::iter::from_fn(|| schedule.pop(130)).collect();
        assert_eq!(popped, [(0, 100), (1, 110), (2, 120), (0, 130)]);
        assert_eq!((schedule.due(0, 1), schedule.due(2, 0)), (130, 120));
    }

    #[test]
    fn what_is_due_beyond_all_time_is_never_due() {
        let schedule = Schedule::new(100, 1e-11, 1);
        assert_eq!((schedule.due_at(0), schedule.due_at(1)), (100, u64::MAX));
    }

    #[test]
    fn a_rate_does_not_drift() {
        let schedule = Schedule::new(0, 3.0, 1);
        assert_eq!(schedule.due_at(3_000_000), 1_000_000_000_000_000);
    }
}
