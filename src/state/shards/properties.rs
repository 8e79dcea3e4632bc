//! Whatever a handful of services do, in whatever order: a witness that knows the rules, and
//! nothing of the pool but its inputs and actions, finds them kept after every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SERVICES: u8 = 5;

/// An input as dice: decoded by [`Witness::play`] against the state of play.
type Dice = (u8, u8, u8);

fn name(service: u8) -> Name {
    Name::new(&format!("s{}", service % SERVICES)).unwrap()
}

fn fits(claim: Option<u32>, id: ShardId) -> bool {
    claim.is_none_or(|claim| ShardId(claim) == id)
}

/// One pool, and what its actions say about it.
struct Witness {
    pool: ShardPool<u64>,
    shard_count: u32,
    requests: u64,
    away: BTreeSet<Name>,
    /// Requests without a final answer, with the id that each claims and the position it was told.
    open: BTreeMap<u64, (Name, Option<u32>, Option<u64>)>,
    holders: BTreeMap<ShardId, Name>,
    /// Of the last `SHARD_ACCEPT` of each id.
    epochs: BTreeMap<ShardId, Epoch>,
    now: Instant,
}

impl Witness {
    fn of(shard_count: u32) -> Self {
        Self {
            pool: ShardPool::new(shard_count, 1),
            shard_count,
            requests: 0,
            away: BTreeSet::new(),
            open: BTreeMap::new(),
            holders: BTreeMap::new(),
            epochs: BTreeMap::new(),
            now: Instant::now(),
        }
    }

    fn play(&mut self, (what, service, detail): Dice) {
        let service = name(service);
        let id = u32::from(detail) % (self.shard_count + 1);
        match what % 16 {
            0..=5 => self.connect(&service, None, None),
            6 | 7 => self.connect(&service, Some(id), None),
            8 => self.connect(&service, Some(id), Some(self.shard_count + u32::from(detail / 128))),
            9 | 10 => self.death(&service, Some(id)),
            11 => self.death(&service, None),
            12 | 13 => {
                self.close(&service);
                self.away.insert(service.clone());
                self.step(Input::Away { service });
            }
            14 => self.resume(&service),
            _ => {
                self.close(&service);
                self.away.remove(&service);
                self.step(Input::Down { service: service.clone() });
                assert_eq!(self.pool.shards_of(service.as_str()), []);
            }
        }
    }

    fn connect(&mut self, service: &Name, shard_id: Option<u32>, shard_count: Option<u32>) {
        self.requests += 1;
        let request = self.requests;
        if !self.away.contains(service) {
            self.open.insert(request, (service.clone(), shard_id, None));
        }
        let connect = op::ShardConnect { shard_id, shard_count, identify: None };
        let actions = self.step(Input::Connect { service: service.clone(), request, connect });
        let refused = actions.iter().any(|it| matches!(it, Action::Refuse { .. }));
        let stale = shard_count.is_some_and(|count| count != self.shard_count);
        let out_of_range = shard_id.is_some_and(|id| id >= self.shard_count);
        let waiting = self.open.values().filter(|(asker, ..)| asker == service).count();
        if self.away.contains(service) {
            assert_eq!(actions.len(), 0);
        } else if stale || out_of_range {
            assert!(refused);
        } else {
            assert!(!refused || waiting == self.shard_count as usize);
            assert!(waiting <= self.shard_count as usize);
        }
    }

    fn death(&mut self, service: &Name, shard_id: Option<u32>) {
        self.requests += 1;
        let death = op::ShardDeath { shard_id, close_code: None };
        let held = self.pool.shards_of(service.as_str());
        let input = Input::Death { service: service.clone(), request: self.requests, death };
        let actions = self.step(input);
        let dies = match shard_id {
            Some(id) => held.contains(&ShardId(id)),
            None => held.len() == 1,
        };
        let ended = actions.iter().filter(|it| matches!(it, Action::Holder { holder: None, .. })).count();
        let refused = actions.iter().filter(|it| matches!(it, Action::Refuse { .. })).count();
        assert_eq!((ended, refused), if dies { (1, 0) } else { (0, 1) });
    }

    fn resume(&mut self, service: &Name) {
        self.close(service);
        self.away.remove(service);
        self.step(Input::Resumed { service: service.clone() });
    }

    /// The service's connection is gone: nothing may be answered to its requests any more.
    fn close(&mut self, service: &Name) {
        self.open.retain(|_, (asker, ..)| asker != service);
    }

    fn step(&mut self, input: Input<u64>) -> Vec<Action<u64>> {
        let keeps = matches!(input, Input::Away { .. } | Input::Resumed { .. });
        let actions = self.pool.step(input, self.now);
        let mut begun = BTreeSet::new();
        let mut moved = BTreeSet::new();
        for action in &actions {
            match action {
                Action::Holder { shard_id, holder } => {
                    assert!(!keeps, "leases stand while their service is away and when it resumes");
                    self.note_holder(*shard_id, holder.as_ref());
                    if holder.is_some() {
                        begun.insert(*shard_id);
                    }
                }
                Action::Accept { service, request, accept } => {
                    self.note_accept(service, *request, *accept, begun.remove(&accept.shard_id));
                }
                Action::Wait { service, request, wait } => {
                    assert!(moved.insert(request), "told once");
                    let (asker, _, told) = self.open.get_mut(request).expect("an open request");
                    assert_eq!(asker, service);
                    assert_ne!(told.replace(wait.position), Some(wait.position), "told a change");
                }
                Action::Refuse { request, .. } => {
                    self.open.remove(request);
                }
            }
        }
        assert!(begun.is_empty(), "each new lease is told to its holder");
        self.check();
        actions
    }

    fn note_holder(&mut self, id: ShardId, holder: Option<&Name>) {
        let before = match holder {
            Some(holder) => self.holders.insert(id, holder.clone()),
            None => self.holders.remove(&id),
        };
        assert_eq!(before.is_none(), holder.is_some(), "a lease of {id} begins or ends, in turn");
    }

    fn note_accept(&mut self, service: &Name, request: u64, accept: op::ShardAccept, is_new: bool) {
        let id = accept.shard_id;
        let (asker, claim, _) = self.open.remove(&request).expect("an open request");
        assert_eq!((&asker, self.holders.get(&id)), (service, Some(service)));
        assert!(fits(claim, id), "a claim is granted its id");
        let last = self.epochs.insert(id, accept.epoch).unwrap_or_default();
        if is_new {
            assert!(accept.epoch > last, "the epoch of {id} grows from {last:?} to {:?}", accept.epoch);
            let overtaken = self.open.range(..request).find(|(_, (_, claim, _))| fits(*claim, id));
            assert_eq!(overtaken, None, "request {request} overtook one for {id}");
        } else {
            assert_eq!(accept.epoch, last, "a lease that stands keeps its epoch");
        }
    }

    fn check(&self) {
        self.pool.check_invariants();
        let views: Vec<_> = self.pool.shards().collect();
        assert_eq!(views.len(), self.shard_count as usize);
        for view in views {
            assert_eq!(view.holder, self.holders.get(&view.shard_id), "holder of {}", view.shard_id);
            assert_eq!(view.epoch, self.epochs.get(&view.shard_id).copied().unwrap_or_default());
            for (request, (_, claim, _)) in &self.open {
                let idle = view.holder.is_none() && fits(*claim, view.shard_id);
                assert!(!idle, "request {request} waits while {} is free", view.shard_id);
            }
        }
        for service in (0..SERVICES).map(name) {
            let held = self.holders.iter().filter(|(_, holder)| **holder == service).map(|(id, _)| *id);
            assert!(held.eq(self.pool.shards_of(service.as_str())), "the ids of {service}");
        }
        for (service, claim, _) in self.open.values() {
            let own = claim.and_then(|id| self.holders.get(&ShardId(id)));
            assert_ne!(own, Some(service), "nobody waits for its own id");
        }
        assert_eq!(self.pool.waiting(), self.open.len());
        let positions = self.open.values().map(|(_, _, told)| *told);
        assert!(
            positions.eq((1..=self.open.len() as u64).map(Some)),
            "positions are 1 to n: {:?}",
            self.open
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_rules_hold_whatever_happens(
        shard_count in 1_u32..=5,
        dice in vec(any::<Dice>(), 0..60),
    ) {
        let mut witness = Witness::of(shard_count);
        for dice in dice {
            witness.play(dice);
        }
    }

    #[test]
    fn a_service_that_knows_only_the_founding_ops_gets_its_ids_back_when_restarted(
        shard_count in 1_u32..=5,
        dice in vec(any::<Dice>(), 0..40),
        service in 0..SERVICES,
    ) {
        let mut witness = Witness::of(shard_count);
        for dice in dice {
            witness.play(dice);
        }
        let service = name(service);
        let before = witness.holders.clone();
        let own = witness.pool.shards_of(service.as_str());
        witness.resume(&service);
        for id in own {
            witness.connect(&service, None, None);
            prop_assert!(!witness.open.contains_key(&witness.requests), "asking for {} waits", id);
        }
        prop_assert_eq!(before, witness.holders);
    }
}
