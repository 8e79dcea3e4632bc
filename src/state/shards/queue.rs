//! The requests that wait for a shard id, in the order in which they came.
//!
//! A request for any id is served by the first id that is free and has an open key. One that is for
//! a given id is *eligible* while it could have that id: then it waits for the id's key alone, or,
//! where it needs no permit, for nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::protocol::name::Name;
use crate::protocol::op::WaitReason;

use super::keyed::Keyed;
use super::pacing::Pacing;
use super::records::Shard;

/// The number of a request: the order in which they came.
pub(super) type Ticket = u64;

/// A `SHARD_CONNECT`.
pub(super) struct Ask<R> {
    pub(super) service: Name,
    pub(super) request: R,
    pub(super) wants: Wants,
    /// Whether it needs a permit to IDENTIFY.
    pub(super) permit: bool,
    /// Whether the id was the asker's own and not asked for since it identified.
    pub(super) returns: bool,
}

/// Which id a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    Any,
    /// It asked for any, and has this one already.
    Own(Shard),
    Claim(Shard),
}

impl Wants {
    pub(super) fn shard(self) -> Option<Shard> {
        match self {
            Self::Any => None,
            Self::Own(shard) | Self::Claim(shard) => Some(shard),
        }
    }
}

pub(super) struct Place<R> {
    pub(super) ask: Ask<R>,
    /// What its service was told last.
    pub(super) told: Option<(WaitReason, u64)>,
}

pub(super) struct Queue<R> {
    places: BTreeMap<Ticket, Place<R>>,
    next_ticket: Ticket,
    by_service: HashMap<Name, BTreeSet<Ticket>>,
    any: BTreeSet<Ticket>,
    by_shard: HashMap<Shard, BTreeSet<Ticket>>,
    /// By the key of their id.
    eligible: Keyed<Ticket>,
    /// Those of the eligible that need no permit.
    at_once: BTreeSet<Ticket>,
}

impl<R: Clone> Queue<R> {
    pub(super) fn new(pacing: &Pacing) -> Self {
        Self {
            places: BTreeMap::new(),
            next_ticket: 0,
            by_service: HashMap::new(),
            any: BTreeSet::new(),
            by_shard: HashMap::new(),
            eligible: Keyed::new(pacing.closed_keys()),
            at_once: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn any_len(&self) -> usize {
        self.any.len()
    }

    pub(super) fn places_of(&self, service: &Name) -> usize {
        self.by_service.get(service).map_or(0, BTreeSet::len)
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&Place<R>> {
        self.places.get(&ticket)
    }

    /// In the order in which they came.
    pub(super) fn places(&self) -> impl Iterator<Item = (Ticket, &Place<R>)> {
        self.places.iter().map(|(ticket, place)| (*ticket, place))
    }

    pub(super) fn note_told(&mut self, ticket: Ticket, told: (WaitReason, u64)) {
        if let Some(place) = self.places.get_mut(&ticket) {
            place.told = Some(told);
        }
    }

    /// The eligible, by key.
    pub(super) fn eligible(&mut self) -> &mut Keyed<Ticket> {
        &mut self.eligible
    }

    pub(super) fn is_eligible(&self, ticket: Ticket, key: u32) -> bool {
        self.eligible.contains(key, ticket) || self.at_once.contains(&ticket)
    }

    /// Whether somebody waits for that very id.
    pub(super) fn wants(&self, shard: Shard) -> bool {
        self.by_shard.contains_key(&shard)
    }

    /// Whether that service waits for that very id.
    pub(super) fn waits_for(&self, service: &Name, shard: Shard) -> bool {
        let tickets = self.by_shard.get(&shard);
        tickets.is_some_and(|it| it.iter().any(|ticket| self.places[ticket].ask.service == *service))
    }

    pub(super) fn eligible_len(&self) -> usize {
        self.eligible.len()
    }

    pub(super) fn eligible_with(&self, key: u32) -> usize {
        self.eligible.len_of(key)
    }

    pub(super) fn first_any(&self) -> Option<Ticket> {
        self.any.first().copied()
    }

    pub(super) fn first_eligible(&self) -> Option<Ticket> {
        self.eligible.first_open()
    }

    pub(super) fn first_at_once(&self) -> Option<Ticket> {
        self.at_once.first().copied()
    }

    /// Its id is to be [reconsidered](Self::reconsider) then, if it is for one.
    pub(super) fn join(&mut self, ask: Ask<R>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.by_service.entry(ask.service.clone()).or_default().insert(ticket);
        match ask.wants.shard() {
            None => drop(self.any.insert(ticket)),
            Some(shard) => drop(self.by_shard.entry(shard).or_default().insert(ticket)),
        }
        self.places.insert(ticket, Place { ask, told: None });
        ticket
    }

    pub(super) fn remove(&mut self, ticket: Ticket, pacing: &Pacing) -> Option<Ask<R>> {
        let Place { ask, .. } = self.places.remove(&ticket)?;
        remove_from(&mut self.by_service, &ask.service, ticket);
        self.any.remove(&ticket);
        self.at_once.remove(&ticket);
        if let Some(shard) = ask.wants.shard() {
            remove_from(&mut self.by_shard, &shard, ticket);
            self.eligible.remove(pacing.key(shard.shard_id), ticket);
        }
        Some(ask)
    }

    /// Takes the service out; true: it was in.
    pub(super) fn leave(&mut self, service: &Name, pacing: &Pacing) -> bool {
        let tickets = self.by_service.remove(service).unwrap_or_default();
        let was_in = !tickets.is_empty();
        for ticket in tickets {
            self.remove(ticket, pacing);
        }
        was_in
    }

    /// Takes out who claims an id of that generation.
    pub(super) fn take_claims(&mut self, shard_count: u32, pacing: &Pacing) -> Vec<Ask<R>> {
        let claims = |ask: &Ask<R>| matches!(ask.wants, Wants::Claim(it) if it.shard_count == shard_count);
        let tickets: Vec<_> =
            self.places.iter().filter(|(_, place)| claims(&place.ask)).map(|(ticket, _)| *ticket).collect();
        tickets.into_iter().filter_map(|ticket| self.remove(ticket, pacing)).collect()
    }

    /// The lease of the id is over: who asked for any, and waits for this one as its own, waits for
    /// any again.
    pub(super) fn disown(&mut self, shard: Shard, pacing: &Pacing) {
        let Some(tickets) = self.by_shard.get(&shard).cloned() else { return };
        for ticket in tickets {
            let Some(place) = self.places.get_mut(&ticket) else { continue };
            if place.ask.wants == Wants::Own(shard) {
                (place.ask.wants, place.ask.returns) = (Wants::Any, false);
                place.ask.permit = true;
                remove_from(&mut self.by_shard, &shard, ticket);
                self.eligible.remove(pacing.key(shard.shard_id), ticket);
                self.at_once.remove(&ticket);
                self.any.insert(ticket);
            }
        }
    }

    /// Looks anew at who is eligible for that id.
    pub(super) fn reconsider(&mut self, shard: Shard, pacing: &Pacing, may_have: impl Fn(&Name) -> bool) {
        let Some(tickets) = self.by_shard.get(&shard) else { return };
        let key = pacing.key(shard.shard_id);
        for &ticket in tickets {
            let ask = &self.places[&ticket].ask;
            match (may_have(&ask.service), ask.permit) {
                (true, true) => self.eligible.insert(key, ticket),
                (true, false) => drop(self.at_once.insert(ticket)),
                (false, true) => self.eligible.remove(key, ticket),
                (false, false) => drop(self.at_once.remove(&ticket)),
            }
        }
    }

    /// Sorts the eligible anew, under other keys.
    pub(super) fn rekey(&mut self, before: &Pacing, pacing: &Pacing) {
        let mut eligible = Keyed::new(pacing.closed_keys());
        for (shard, tickets) in &self.by_shard {
            let (old, new) = (before.key(shard.shard_id), pacing.key(shard.shard_id));
            for ticket in tickets.iter().filter(|ticket| self.eligible.contains(old, **ticket)) {
                eligible.insert(new, *ticket);
            }
        }
        self.eligible = eligible;
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self, pacing: &Pacing, may_have: impl Fn(&Name, Shard) -> bool) {
        self.eligible.check_invariants();
        let mut by_service: HashMap<Name, BTreeSet<Ticket>> = HashMap::new();
        for (&ticket, place) in &self.places {
            let ask = &place.ask;
            by_service.entry(ask.service.clone()).or_default().insert(ticket);
            let shard = ask.wants.shard();
            assert_eq!(self.any.contains(&ticket), shard.is_none());
            let eligible = shard.is_some_and(|shard| may_have(&ask.service, shard));
            let keyed = shard.is_some_and(|it| self.eligible.contains(pacing.key(it.shard_id), ticket));
            assert_eq!(keyed, eligible && ask.permit, "{} is eligible", ask.service);
            assert_eq!(self.at_once.contains(&ticket), eligible && !ask.permit, "{} at once", ask.service);
        }
        assert_eq!(by_service, self.by_service, "each service's places");
        let by_shard: usize = self.by_shard.values().map(BTreeSet::len).sum();
        assert_eq!(self.any.len() + by_shard, self.places.len(), "each is for any id or for one");
    }
}

fn remove_from<K: std::hash::Hash + Eq>(sets: &mut HashMap<K, BTreeSet<Ticket>>, key: &K, ticket: Ticket) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(&ticket);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
