//! Which of the numbers 0, 1, 2 … have come.

use std::collections::BTreeSet;

/// Takes no memory for what came in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Sequence {
    /// One more than the highest number that came.
    next: u64,
    /// Numbers below `next` that have not come.
    missing: BTreeSet<u64>,
}

/// How a number came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// After all that are lower and have come.
    InOrder,
    /// For the first time, but after a higher one.
    Late,
    Again,
}

impl Sequence {
    pub(super) fn take(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            Arrival::InOrder
        } else if self.missing.remove(&number) {
            Arrival::Late
        } else {
            Arrival::Again
        }
    }

    /// One more than the highest number that came.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// How many have come.
    pub(super) fn count(&self) -> u64 {
        self.next - self.missing.len() as u64
    }

    /// Those below `end` that have not come.
    pub(super) fn absent(&self, end: u64) -> impl Iterator<Item = u64> {
        self.missing.iter().copied().chain(self.next..end.max(self.next))
    }
}

#[cfg(test)]
mod tests {
    use super::Arrival::{Again, InOrder, Late};
    use super::*;

    #[test]
    fn each_number_comes_once_and_what_did_not_is_known() {
        let mut sequence = Sequence::default();
        let came = [0, 2, 1, 5, 2, 5].map(|number| sequence.take(number));
        assert_eq!(came, [InOrder, InOrder, Late, InOrder, Again, Again]);
        assert_eq!(sequence.absent(8).collect::<Vec<_>>(), [3, 4, 6, 7]);
        assert_eq!(sequence.count(), 4);
        assert_eq!(sequence.end(), 6);
    }
}
