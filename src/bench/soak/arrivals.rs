//! What one service got from one source for one target: in order, and nothing twice.
//!
//! Numbers may be missing (refused, returned, or lost with a connection); that nothing is missing
//! without a reason is [`Outstanding`](super::outstanding)'s matter.

use std::collections::{BTreeMap, BTreeSet};

use super::faults::Fault;

/// How many missing numbers are kept; a number below them that comes after all counts as
/// duplicated.
const MAX_MISSING: usize = 4096;
/// Of how many of the source's connections the last number is kept.
const MAX_CONNECTIONS: usize = 4;

/// The messages of one stream that have come.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// One more than the highest number that came.
    next: u64,
    /// Numbers below `next` that have not come.
    missing: BTreeSet<u64>,
    /// The highest number by connection of the source. Order holds within each.
    last: BTreeMap<u64, u64>,
}

impl Arrivals {
    /// A message came that the source had sent on its so many-th connection.
    pub(super) fn take(&mut self, connection: u64, number: u64) -> Result<(), Fault> {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            while self.missing.len() > MAX_MISSING {
                self.missing.pop_first();
            }
        } else if !self.missing.remove(&number) {
            return Err(Fault::Duplicated);
        }
        let before = self.last.insert(connection, number);
        if self.last.len() > MAX_CONNECTIONS {
            self.last.pop_first();
        }
        if before.is_some_and(|before| before > number) { Err(Fault::Reordered) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(arrivals: &[(u64, u64)]) -> Vec<Result<(), Fault>> {
        let mut stream = Arrivals::default();
        arrivals.iter().map(|(connection, number)| stream.take(*connection, *number)).collect()
    }

    #[test]
    fn order_with_gaps_is_no_fault() {
        assert_eq!(judged(&[(1, 0), (1, 1), (1, 5), (2, 6)]), [Ok(()); 4]);
    }

    #[test]
    fn a_message_that_comes_again_is_duplicated() {
        assert_eq!(judged(&[(1, 0), (1, 3), (1, 3)])[2], Err(Fault::Duplicated));
        assert_eq!(judged(&[(1, 0), (1, 3), (1, 0)])[2], Err(Fault::Duplicated));
        assert_eq!(judged(&[(1, 0), (2, 3), (1, 0)])[2], Err(Fault::Duplicated));
    }

    #[test]
    fn a_message_overtaken_on_its_own_connection_is_reordered() {
        assert_eq!(judged(&[(1, 0), (1, 2), (1, 1)])[2], Err(Fault::Reordered));
        // Once only: what comes after it is judged by it again.
        assert_eq!(judged(&[(1, 0), (1, 2), (1, 1), (1, 3)])[3], Ok(()));
    }

    #[test]
    fn order_is_not_promised_across_connections_of_the_source() {
        assert_eq!(judged(&[(1, 0), (2, 2), (1, 1)]), [Ok(()); 3]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut stream = Arrivals::default();
        for number in (0..100_000).step_by(2) {
            stream.take(number, number).unwrap();
        }
        assert_eq!((stream.missing.len(), stream.last.len()), (MAX_MISSING, MAX_CONNECTIONS));
    }
}
