//! Who holds which shard id, as the services were told: never two at once, and no epoch twice.

use std::collections::HashMap;
use std::time::Instant;

use super::faults::Fault;

/// The latest lease of each id. Services are told apart by their index.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_id: HashMap<u32, Lease>,
}

#[derive(Debug)]
struct Lease {
    holder: usize,
    epoch: u64,
    /// From when on another may hold the id.
    free_from: Option<Instant>,
}

impl Leases {
    /// A service was granted an id.
    pub(super) fn granted(&mut self, id: u32, epoch: u64, holder: usize, now: Instant) -> Result<(), Fault> {
        let lease = Lease { holder, epoch, free_from: None };
        let Some(before) = self.by_id.insert(id, lease) else { return Ok(()) };
        let is_free = before.free_from.is_some_and(|from| from <= now);
        // A holder that asks again gets a fresh permit for the same lease.
        let is_its_own = before.holder == holder && before.epoch == epoch;
        let is_new = epoch > before.epoch && (is_free || before.holder == holder);
        if is_its_own || is_new { Ok(()) } else { Err(Fault::TwoHolders) }
    }

    /// A service gives an id back, or loses it at that time unless it comes back before.
    pub(super) fn leaves(&mut self, id: u32, holder: usize, free_from: Instant) {
        if let Some(lease) = self.by_id.get_mut(&id).filter(|lease| lease.holder == holder) {
            lease.free_from = Some(free_from);
        }
    }

    /// A service came back and was told that the id is its own. Of a lease that was granted just
    /// before its connection ended it had not heard.
    pub(super) fn kept(&mut self, id: u32, holder: usize, now: Instant) -> Result<(), Fault> {
        let Some(lease) = self.by_id.get_mut(&id) else { return Ok(()) };
        if lease.holder != holder && lease.free_from.is_none_or(|from| from > now) {
            return Err(Fault::TwoHolders);
        }
        lease.holder = holder;
        lease.free_from = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_id_that_was_given_back_may_go_to_another() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.granted(3, 1, 0, now).unwrap();
        assert_eq!(leases.granted(3, 1, 0, now), Ok(()));
        leases.leaves(3, 0, now);
        assert_eq!(leases.granted(3, 2, 1, now), Ok(()));
    }

    #[test]
    fn an_id_that_is_held_may_not() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.granted(3, 1, 0, now).unwrap();
        assert_eq!(leases.granted(3, 2, 1, now), Err(Fault::TwoHolders));
        assert_eq!(leases.kept(3, 0, now), Err(Fault::TwoHolders));
    }

    #[test]
    fn an_id_of_one_that_is_away_waits_for_it() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let end = now + Duration::from_secs(3);
        leases.granted(3, 1, 0, now).unwrap();
        leases.leaves(3, 0, end);
        leases.kept(3, 0, now).unwrap();
        assert_eq!(leases.granted(3, 2, 1, end), Err(Fault::TwoHolders));
        let mut leases = Leases::default();
        leases.granted(3, 1, 0, now).unwrap();
        leases.leaves(3, 0, end);
        assert_eq!(leases.granted(3, 2, 1, now), Err(Fault::TwoHolders));
    }

    #[test]
    fn a_lease_that_was_lost_on_the_way_is_learned_of_later() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.granted(3, 1, 0, now).unwrap();
        leases.leaves(3, 0, now);
        leases.kept(3, 1, now).unwrap();
        assert_eq!(leases.granted(3, 3, 2, now), Err(Fault::TwoHolders));
    }

    #[test]
    fn an_epoch_is_given_once() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.granted(3, 5, 0, now).unwrap();
        leases.leaves(3, 0, now);
        assert_eq!(leases.granted(3, 5, 1, now), Err(Fault::TwoHolders));
    }
}
