//! Connections that have not identified yet: so many, and for one more the oldest has to leave.
//!
//! A service identifies within milliseconds. So whoever has waited longest is the least likely to
//! be one, and a flood of connections that never identify displaces itself.

use std::collections::BTreeMap;

/// The room; `T` is what is needed to send somebody away.
#[derive(Debug)]
pub struct WaitingRoom<T> {
    places: usize,
    waiting: BTreeMap<u64, T>,
}

impl<T> WaitingRoom<T> {
    pub fn new(places: usize) -> Self {
        Self { places, waiting: BTreeMap::new() }
    }

    /// A connection comes; gives who has to leave for it. `id`s grow, so the lowest came first.
    pub fn enter(&mut self, id: u64, way_out: T) -> Option<T> {
        let displaced = if self.waiting.len() < self.places { None } else { self.waiting.pop_first() };
        self.waiting.insert(id, way_out);
        displaced.map(|(_, way_out)| way_out)
    }

    /// A connection identified, or ended.
    pub fn leave(&mut self, id: u64) {
        self.waiting.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_has_waited_longest_leaves_for_one_more() {
        let mut room = WaitingRoom::new(2);
        let mut enter = |id| room.enter(id, id);
        assert_eq!([enter(1), enter(2), enter(3)], [None, None, Some(1)]);
        room.leave(2);
        assert_eq!(room.enter(4, 4), None, "there is a place again");
        assert_eq!(room.enter(5, 5), Some(3));
    }
}
