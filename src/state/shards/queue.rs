//! The requests that wait for a shard id, in the order in which they came, and what each was
//! told about it.

use std::collections::{HashMap, VecDeque};

use crate::protocol::name::{Name, ShardId};
use crate::protocol::op::{ShardWait, WaitReason};

use super::Action;

/// A `SHARD_CONNECT`.
pub(super) struct Ask<R> {
    pub(super) service: Name,
    pub(super) request: R,
    /// The one id that it is for; `None`: any.
    pub(super) claim: Option<ShardId>,
}

struct Place<R> {
    ask: Ask<R>,
    reason: WaitReason,
    /// The last `SHARD_WAIT`.
    told: Option<ShardWait>,
}

pub(super) struct Queue<R> {
    places: VecDeque<Place<R>>,
    /// How many places each service has, if any.
    by_service: HashMap<Name, usize>,
    /// All places before this one know where they stand.
    untold: usize,
}

impl<R: Clone> Queue<R> {
    pub(super) fn new() -> Self {
        Self { places: VecDeque::new(), by_service: HashMap::new(), untold: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn places_of(&self, service: &Name) -> usize {
        self.by_service.get(service).copied().unwrap_or(0)
    }

    pub(super) fn join(&mut self, ask: Ask<R>, reason: WaitReason) {
        *self.by_service.entry(ask.service.clone()).or_default() += 1;
        self.places.push_back(Place { ask, reason, told: None });
    }

    /// Takes the service out.
    pub(super) fn leave(&mut self, service: &Name) {
        if self.places_of(service) > 0 {
            self.retain(|place| place.ask.service != *service);
        }
    }

    /// Offers each request in turn; those that are granted leave, the others wait for the reason
    /// that comes back.
    pub(super) fn serve(&mut self, mut grant: impl FnMut(&Ask<R>) -> Result<(), WaitReason>) {
        self.retain(|place| match grant(&place.ask) {
            Ok(()) => false,
            Err(reason) => {
                place.reason = reason;
                true
            }
        });
    }

    /// Tells every request that is no longer where it was told to be.
    pub(super) fn tell_changes(&mut self, actions: &mut Vec<Action<R>>) {
        for (position, place) in (1..).zip(&mut self.places).skip(self.untold) {
            let wait = ShardWait { reason: place.reason, position, retry_after_ms: None };
            if place.told.replace(wait) != Some(wait) {
                let Ask { service, request, .. } = &place.ask;
                actions.push(Action::Wait { service: service.clone(), request: request.clone(), wait });
            }
        }
        self.untold = self.places.len();
    }

    fn retain(&mut self, mut stays: impl FnMut(&mut Place<R>) -> bool) {
        self.untold = 0;
        self.places.retain_mut(|place| {
            let stays = stays(place);
            if !stays && let Some(count) = self.by_service.get_mut(&place.ask.service) {
                *count -= 1;
                if *count == 0 {
                    self.by_service.remove(&place.ask.service);
                }
            }
            stays
        });
    }

    #[cfg(test)]
    pub(super) fn asks(&self) -> impl Iterator<Item = &Ask<R>> {
        self.places.iter().map(|place| &place.ask)
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let mut by_service: HashMap<Name, usize> = HashMap::new();
        for ask in self.asks() {
            *by_service.entry(ask.service.clone()).or_default() += 1;
        }
        assert_eq!(by_service, self.by_service, "the count of each service's places");
        let positions = self.places.iter().map(|place| place.told.map(|told| told.position));
        assert!(positions.eq((1..=self.places.len() as u64).map(Some)), "each knows its position");
    }
}
