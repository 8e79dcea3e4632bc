//! Connections that have not identified yet: so many, and beyond that the oldest have to leave.
//!
//! A service identifies within milliseconds. So whoever has waited longest is the least likely to
//! be one, and a flood of connections that never identify displaces itself. When all services come
//! at once, as after a restart of the gateway, nobody has waited for long: then nobody has to leave.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Nobody has to leave before. A service's handshake and IDENTIFY take less, in a storm of thousands
/// too.
const GRACE: Duration = Duration::from_secs(2);

/// The room; `T` is what is needed to send somebody away.
#[derive(Debug)]
pub struct WaitingRoom<T> {
    places: usize,
    waiting: BTreeMap<u64, (Instant, T)>,
}

impl<T> WaitingRoom<T> {
    pub fn new(places: usize) -> Self {
        Self { places, waiting: BTreeMap::new() }
    }

    /// A connection comes. `id`s grow, so the lowest came first.
    pub fn enter(&mut self, id: u64, way_out: T, now: Instant) {
        self.waiting.insert(id, (now, way_out));
    }

    /// A connection identifies, or ended.
    pub fn leave(&mut self, id: u64) {
        self.waiting.remove(&id);
    }

    /// Who has to leave, since there are too many.
    pub fn displaced(&mut self, now: Instant) -> Vec<T> {
        let mut displaced = Vec::new();
        while self.waiting.len() > self.places
            && let Some(oldest) = self.waiting.first_entry()
            && now.saturating_duration_since(oldest.get().0) >= GRACE
        {
            displaced.push(oldest.remove().1);
        }
        displaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_have_waited_longest_leave_once_there_are_too_many() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut room = WaitingRoom::new(2);
        for id in 1..=5 {
            room.enter(id, id, at(id));
        }
        room.leave(2);
        assert_eq!(room.displaced(at(5)), [1, 3], "4 and 5 may stay");
        assert_eq!(room.displaced(at(60)), [0; 0]);
    }

    #[test]
    fn a_storm_of_newcomers_displaces_nobody_who_has_just_come() {
        let start = Instant::now();
        let mut room = WaitingRoom::new(2);
        for id in 1..=100 {
            room.enter(id, id, start);
            assert_eq!(room.displaced(start), [0; 0]);
        }
        assert_eq!(room.displaced(start + GRACE).len(), 98, "those who do not identify leave then");
    }
}
