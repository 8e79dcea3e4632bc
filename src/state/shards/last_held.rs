//! Which shard id each name held last, for as many names as there is room for.

use std::collections::{BTreeMap, HashMap};

use crate::protocol::name::{Name, ShardId};

pub(super) struct LastHeld {
    max_names: usize,
    by_name: HashMap<Name, (ShardId, u64)>,
    /// The same names, oldest first.
    by_age: BTreeMap<u64, Name>,
    /// Counts what was remembered: the age of the next.
    next_age: u64,
}

impl LastHeld {
    pub(super) fn new(max_names: usize) -> Self {
        Self { max_names, by_name: HashMap::new(), by_age: BTreeMap::new(), next_age: 0 }
    }

    pub(super) fn get(&self, name: &Name) -> Option<ShardId> {
        self.by_name.get(name).map(|&(id, _)| id)
    }

    /// A lease ended. Where there is no room, the name whose lease ended longest ago is forgotten.
    pub(super) fn remember(&mut self, name: Name, id: ShardId) {
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, name.clone());
        if let Some((_, old_age)) = self.by_name.insert(name, (id, age)) {
            self.by_age.remove(&old_age);
        }
        if self.by_name.len() > self.max_names
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.by_name.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_name_is_forgotten_first() {
        let name = |text| Name::new(text).unwrap();
        let mut last_held = LastHeld::new(2);
        last_held.remember(name("a"), ShardId(1));
        last_held.remember(name("b"), ShardId(2));
        last_held.remember(name("a"), ShardId(3));
        last_held.remember(name("c"), ShardId(4));
        assert_eq!(last_held.get(&name("a")), Some(ShardId(3)));
        assert_eq!(last_held.get(&name("b")), None);
        assert_eq!(last_held.get(&name("c")), Some(ShardId(4)));
        assert_eq!((last_held.by_name.len(), last_held.by_age.len()), (2, 2));
    }
}
