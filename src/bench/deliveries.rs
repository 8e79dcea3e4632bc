//! The delivery numbers that an acknowledging service gets: 1, 2, 3 … over a session's life, and
//! after a resume again from what is not acknowledged. So nothing is lost here without being seen.

use std::collections::VecDeque;

/// How many acknowledged deliveries are remembered: an ACK may be lost with its connection.
const REMEMBERED: usize = 4096;

/// One session's deliveries. `M` is what tells messages apart.
#[derive(Debug)]
pub(super) struct Deliveries<M> {
    highest: u64,
    /// The next number on this connection, once one came.
    next: Option<u64>,
    /// The last ones, in order up to `highest`.
    seen: VecDeque<M>,
}

/// A delivery number that is not the next one, or stands on another message than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misnumbered;

impl<M: PartialEq> Deliveries<M> {
    pub(super) fn new() -> Self {
        Self { highest: 0, next: None, seen: VecDeque::new() }
    }

    /// A connection began; of a new session where it did not resume one.
    pub(super) fn connected(&mut self, resumed: bool) {
        if resumed {
            self.next = None;
        } else {
            *self = Self::new();
        }
    }

    /// The highest number that came; 0: none yet.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// A message came with this number. True: for the first time.
    pub(super) fn take(&mut self, number: u64, message: M) -> Result<bool, Misnumbered> {
        let is_next = self.next.is_none_or(|next| next == number);
        if number == 0 || number > self.highest + 1 || !is_next {
            return Err(Misnumbered);
        }
        self.next = Some(number + 1);
        if number <= self.highest {
            let before = usize::try_from(self.highest - number).ok();
            let at = before.and_then(|before| self.seen.len().checked_sub(before + 1));
            let is_same = at.is_some_and(|at| self.seen[at] == message);
            return if is_same { Ok(false) } else { Err(Misnumbered) };
        }
        self.highest = number;
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back(message);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(numbers: &[u64]) -> Deliveries<u64> {
        let mut deliveries = Deliveries::new();
        for number in numbers {
            assert_eq!(deliveries.take(*number, number * 10), Ok(true));
        }
        deliveries
    }

    #[test]
    fn numbers_follow_each_other_from_one() {
        after(&[1, 2, 3]);
        assert_eq!(after(&[]).take(2, 20), Err(Misnumbered));
        assert_eq!(after(&[]).take(0, 0), Err(Misnumbered));
    }

    #[test]
    fn a_gap_is_a_loss_and_is_seen() {
        assert_eq!(after(&[1]).take(3, 30), Err(Misnumbered));
        let mut deliveries = after(&[1]);
        deliveries.connected(true);
        assert_eq!(deliveries.take(3, 30), Err(Misnumbered));
    }

    #[test]
    fn nothing_comes_again_on_the_same_connection() {
        assert_eq!(after(&[1, 2]).take(2, 20), Err(Misnumbered));
    }

    #[test]
    fn what_is_not_acknowledged_comes_again_after_a_resume() {
        let mut deliveries = after(&[1, 2, 3]);
        deliveries.connected(true);
        assert_eq!(deliveries.take(2, 20), Ok(false));
        assert_eq!(deliveries.take(3, 30), Ok(false));
        assert_eq!(deliveries.take(4, 40), Ok(true));
    }

    #[test]
    fn the_last_ones_are_remembered() {
        let mut deliveries = after(&(1..=5000).collect::<Vec<_>>());
        deliveries.connected(true);
        assert_eq!(deliveries.take(905, 9050), Ok(false));
        deliveries.connected(true);
        assert_eq!(deliveries.take(904, 9040), Err(Misnumbered), "it was acknowledged long ago");
    }

    #[test]
    fn a_number_keeps_its_message() {
        let mut deliveries = after(&[1, 2]);
        deliveries.connected(true);
        assert_eq!(deliveries.take(2, 99), Err(Misnumbered));
    }

    #[test]
    fn a_new_session_counts_anew() {
        let mut deliveries = after(&[1, 2]);
        deliveries.connected(false);
        assert_eq!(deliveries.take(1, 70), Ok(true));
    }
}
