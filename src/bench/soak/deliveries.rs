//! The delivery numbers that an acknowledging service gets: 1, 2, 3 … over a session's life, and
//! after a resume again from what is not acknowledged. So nothing is lost here without being seen.

use std::collections::BTreeMap;

use super::faults::Fault;

/// How many acknowledged deliveries are remembered: an ACK may be lost with its connection.
const REMEMBERED: u64 = 4096;

/// One session's deliveries. `M` is what tells messages apart.
#[derive(Debug)]
pub(super) struct Deliveries<M> {
    highest: u64,
    /// The next number on this connection, once one came.
    next: Option<u64>,
    seen: BTreeMap<u64, M>,
}

impl<M: PartialEq> Deliveries<M> {
    pub(super) fn new() -> Self {
        Self { highest: 0, next: None, seen: BTreeMap::new() }
    }

    /// A connection began; of a new session where it did not resume one.
    pub(super) fn connected(&mut self, resumed: bool) {
        if resumed {
            self.next = None;
        } else {
            *self = Self::new();
        }
    }

    /// A message came with this number. True: for the first time.
    pub(super) fn take(&mut self, number: u64, message: M) -> Result<bool, Fault> {
        let is_next = self.next.is_none_or(|next| next == number);
        if number == 0 || number > self.highest + 1 || !is_next {
            return Err(Fault::Misnumbered);
        }
        self.next = Some(number + 1);
        if number <= self.highest {
            let is_same = self.seen.get(&number) == Some(&message);
            return if is_same { Ok(false) } else { Err(Fault::Misnumbered) };
        }
        self.highest = number;
        self.seen.insert(number, message);
        self.seen.remove(&number.saturating_sub(REMEMBERED));
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
        assert_eq!(after(&[]).take(2, 20), Err(Fault::Misnumbered));
        assert_eq!(after(&[]).take(0, 0), Err(Fault::Misnumbered));
    }

    #[test]
    fn a_gap_is_a_loss_and_is_seen() {
        assert_eq!(after(&[1]).take(3, 30), Err(Fault::Misnumbered));
        let mut deliveries = after(&[1]);
        deliveries.connected(true);
        assert_eq!(deliveries.take(3, 30), Err(Fault::Misnumbered));
    }

    #[test]
    fn nothing_comes_again_on_the_same_connection() {
        assert_eq!(after(&[1, 2]).take(2, 20), Err(Fault::Misnumbered));
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
    fn a_number_keeps_its_message() {
        let mut deliveries = after(&[1, 2]);
        deliveries.connected(true);
        assert_eq!(deliveries.take(2, 99), Err(Fault::Misnumbered));
    }

    #[test]
    fn a_new_session_counts_anew() {
        let mut deliveries = after(&[1, 2]);
        deliveries.connected(false);
        assert_eq!(deliveries.take(1, 70), Ok(true));
    }
}
