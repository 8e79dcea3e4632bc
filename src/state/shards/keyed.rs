//! Things in an order, each under one of Discord's rate-limit keys, of which some are closed: the
//! first thing whose key is open is found without a look at the others.

use std::collections::{BTreeSet, HashMap, HashSet};

/// See the [module](self). `T`'s order is the order of service.
#[derive(Debug)]
pub(super) struct Keyed<T> {
    by_key: HashMap<u32, BTreeSet<T>>,
    /// The first of each key that is open.
    heads: BTreeSet<(T, u32)>,
    closed: HashSet<u32>,
    len: usize,
}

impl<T: Ord + Copy + std::fmt::Debug> Keyed<T> {
    pub(super) fn new(closed: impl IntoIterator<Item = u32>) -> Self {
        Self { by_key: HashMap::new(), heads: BTreeSet::new(), closed: closed.into_iter().collect(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many are under that key.
    pub(super) fn len_of(&self, key: u32) -> usize {
        self.by_key.get(&key).map_or(0, BTreeSet::len)
    }

    pub(super) fn contains(&self, key: u32, item: T) -> bool {
        self.by_key.get(&key).is_some_and(|items| items.contains(&item))
    }

    pub(super) fn is_open(&self, key: u32) -> bool {
        !self.closed.contains(&key)
    }

    /// The first whose key is open.
    pub(super) fn first_open(&self) -> Option<T> {
        self.heads.first().map(|&(item, _)| item)
    }

    pub(super) fn insert(&mut self, key: u32, item: T) {
        self.change(key, |items| isize::from(items.insert(item)));
    }

    pub(super) fn remove(&mut self, key: u32, item: T) {
        self.change(key, |items| -isize::from(items.remove(&item)));
    }

    pub(super) fn close(&mut self, key: u32) {
        if self.closed.insert(key)
            && let Some(first) = self.by_key.get(&key).and_then(BTreeSet::first)
        {
            self.heads.remove(&(*first, key));
        }
    }

    pub(super) fn open(&mut self, key: u32) {
        if self.closed.remove(&key)
            && let Some(first) = self.by_key.get(&key).and_then(BTreeSet::first)
        {
            self.heads.insert((*first, key));
        }
    }

    fn change(&mut self, key: u32, change: impl FnOnce(&mut BTreeSet<T>) -> isize) {
        let items = self.by_key.entry(key).or_default();
        let before = items.first().copied();
        self.len = self.len.saturating_add_signed(change(items));
        let after = items.first().copied();
        if after.is_none() {
            self.by_key.remove(&key);
        }
        if before != after && !self.closed.contains(&key) {
            if let Some(item) = before {
                self.heads.remove(&(item, key));
            }
            self.heads.extend(after.map(|item| (item, key)));
        }
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let heads: BTreeSet<_> = self
            .by_key
            .iter()
            .filter(|(key, _)| self.is_open(**key))
            .map(|(key, items)| (*items.first().expect("an empty key is not kept"), *key))
            .collect();
        assert_eq!(heads, self.heads, "the first of each open key");
        assert_eq!(self.len, self.by_key.values().map(BTreeSet::len).sum::<usize>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_open_keys_is_found() {
        let mut keyed = Keyed::new([2]);
        for item in [7_u32, 5, 6, 2, 9] {
            keyed.insert(item % 4, item);
            keyed.check_invariants();
        }
        assert_eq!(keyed.first_open(), Some(5), "2 and 6 are closed");
        keyed.open(2);
        assert_eq!(keyed.first_open(), Some(2));
        keyed.remove(2, 2);
        keyed.close(1);
        keyed.check_invariants();
        assert_eq!(keyed.first_open(), Some(6));
        assert_eq!((keyed.len(), keyed.len_of(1), keyed.len_of(0)), (4, 2, 0));
        assert!(keyed.contains(1, 9) && !keyed.contains(1, 2));
    }
}
