//! How many ops wait for the shard pool: so many of one service, whichever connections brought them, and so
//! many of all.
//!
//! A connection lets only so many of its ops be unanswered, but a service can leave them behind and come back
//! with another one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::name::Name;

/// How many ops of all services wait at most.
const MAX_OF_ALL: usize = 65_536;

/// How many of one service do: what its connection may have unanswered, and the one before it.
const MAX_OF_ONE: usize = 2 * 1024;

/// The places, and who has how many of them.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    by_service: HashMap<Name, usize>,
    all: usize,
}

/// One op's, until this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    service: Name,
}

/// No more of them may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("{MAX_OF_ONE} ops of this service about shard ids wait already; send it again later")]
    OfOne,
    #[error("{MAX_OF_ALL} ops about shard ids wait already; send it again later")]
    OfAll,
}

impl Places {
    pub fn take(&self, service: &Name) -> Result<Place, Full> {
        let mut taken = self.taken();
        if taken.all >= MAX_OF_ALL {
            return Err(Full::OfAll);
        }
        let of_one = taken.by_service.entry(service.clone()).or_default();
        if *of_one >= MAX_OF_ONE {
            return Err(Full::OfOne);
        }
        *of_one += 1;
        taken.all += 1;
        Ok(Place { places: self.clone(), service: service.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Entry::Occupied(mut of_one) = taken.by_service.entry(self.service.clone()) {
            *of_one.get_mut() -= 1;
            if *of_one.get() == 0 {
                of_one.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(index: usize) -> Name {
        Name::new(&format!("s{index}")).unwrap()
    }

    #[test]
    fn one_service_leaves_places_to_the_others() {
        let places = Places::default();
        let mut taken: Vec<Place> = (0..MAX_OF_ONE).map(|_| places.take(&name(0)).unwrap()).collect();
        assert_eq!(places.take(&name(0)).unwrap_err(), Full::OfOne);
        drop(places.take(&name(1)).unwrap());
        taken.pop();
        drop(places.take(&name(0)).unwrap());
    }

    #[test]
    fn all_services_together_have_so_many_places_and_nothing_is_kept_of_one_that_has_none() {
        let places = Places::default();
        let taken: Vec<Place> = (0..MAX_OF_ALL).map(|index| places.take(&name(index)).unwrap()).collect();
        assert_eq!(places.take(&name(MAX_OF_ALL)).unwrap_err(), Full::OfAll);
        drop(taken);
        assert!(places.taken().by_service.is_empty() && places.taken().all == 0);
    }
}
