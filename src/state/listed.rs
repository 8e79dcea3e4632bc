//! Which shard ids ACCEPT told services that they still hold, until the pool said so too.
//!
//! ACCEPT is written at once, while the end of a lease is told only when it is stored. So a service may
//! be told of an id that the pool is just taking from it: it must hear of that end, or it would keep a
//! shard that somebody else gets next.

use std::collections::{HashMap, HashSet};

use super::shards::Shard;
use crate::protocol::name::{Name, ShardId};

/// By service: the ids of its last ACCEPT that are not settled.
#[derive(Debug, Default)]
pub struct Listed(HashMap<Name, HashSet<ShardId>>);

impl Listed {
    /// ACCEPT tells the service these.
    pub fn tell(&mut self, service: &Name, ids: &[ShardId]) {
        if ids.is_empty() {
            self.0.remove(service);
        } else {
            self.0.insert(service.clone(), ids.iter().copied().collect());
        }
    }

    /// The service has the id, by a SHARD_ACCEPT; or it gave it back, or all where none is named.
    pub fn settle(&mut self, service: &Name, id: Option<ShardId>) {
        if let Some(ids) = self.0.get_mut(service) {
            ids.retain(|listed| id.is_some_and(|id| *listed != id));
            if ids.is_empty() {
                self.0.remove(service);
            }
        }
    }

    /// A lease ended; whether its holder thinks that it has it still.
    pub fn is_lost(&mut self, holder: &Name, shard: Shard) -> bool {
        let is_listed = self.0.get(holder).is_some_and(|ids| ids.contains(&shard.shard_id));
        self.settle(holder, Some(shard.shard_id));
        is_listed
    }

    /// Its session is over.
    pub fn forget(&mut self, service: &Name) {
        self.0.remove(service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_lost_once_unless_it_was_settled_before() {
        let (a, b) = (Name::new("a").unwrap(), Name::new("b").unwrap());
        let shard = |id| Shard { shard_count: 4, shard_id: ShardId(id) };
        let mut listed = Listed::default();
        listed.tell(&a, &[ShardId(0), ShardId(1), ShardId(2)]);
        listed.settle(&a, Some(ShardId(1)));
        assert_eq!([0, 0, 1].map(|id| listed.is_lost(&a, shard(id))), [true, false, false]);
        assert!(!listed.is_lost(&b, shard(2)));
        listed.settle(&a, None);
        assert!(!listed.is_lost(&a, shard(2)), "it gave back all it had");
        listed.tell(&a, &[ShardId(3)]);
        listed.forget(&a);
        assert!(listed.0.is_empty());
    }
}
