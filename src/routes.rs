//! The map from names to sessions that senders look into: what the hot path reads.
//!
//! Only the `Gateway` actor writes it. A sender keeps a small cache of what it found; a route
//! whose gauge is closed, or a changed [version](Routes::version), tells it to look again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::protocol::name::{Name, ShardId};
use crate::state::route::{Route, Shared};

/// Who holds which shard, in the current generation.
#[derive(Debug, Clone)]
pub struct ShardTable {
    holders: Vec<Option<Name>>,
}

impl ShardTable {
    pub fn new(shard_count: u32) -> Self {
        Self { holders: vec![None; shard_count as usize] }
    }

    /// Of all ids, by id.
    pub fn of(holders: Vec<Option<Name>>) -> Self {
        Self { holders }
    }

    pub fn shard_count(&self) -> u32 {
        u32::try_from(self.holders.len()).unwrap_or(u32::MAX)
    }

    pub fn holder(&self, shard_id: ShardId) -> Option<&Name> {
        self.holders.get(shard_id.0 as usize)?.as_ref()
    }

    /// The ids that a service holds, lowest first.
    pub fn shards_of(&self, service: &Name) -> Vec<ShardId> {
        (0..)
            .map(ShardId)
            .zip(&self.holders)
            .filter(|(_, holder)| holder.as_ref() == Some(service))
            .map(|(id, _)| id)
            .collect()
    }

    /// Who holds which id, lowest first.
    pub fn leases(&self) -> impl Iterator<Item = (&Name, ShardId)> {
        (0..).map(ShardId).zip(&self.holders).filter_map(|(id, holder)| Some((holder.as_ref()?, id)))
    }

    /// Nothing, where there is no such id.
    pub fn set(&mut self, shard_id: ShardId, holder: Option<Name>) {
        if let Some(place) = self.holders.get_mut(shard_id.0 as usize) {
            *place = holder;
        }
    }
}

/// The routes, the shard table, and whether the gateway still takes messages.
#[derive(Debug)]
pub struct Routes {
    by_name: RwLock<HashMap<Name, Arc<Route>, foldhash::fast::RandomState>>,
    shards: RwLock<Arc<ShardTable>>,
    version: AtomicU64,
    draining: AtomicBool,
    shared: Arc<Shared>,
}

impl Routes {
    pub fn new(shards: ShardTable, shared: Arc<Shared>) -> Self {
        Self {
            by_name: RwLock::default(),
            shards: RwLock::new(Arc::new(shards)),
            version: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            shared,
        }
    }

    /// What all routes share: the accounts and the bound of all mailboxes.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Grows with every change after which something found before may be wrong.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn find(&self, name: &str) -> Option<Arc<Route>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub fn shards(&self) -> Arc<ShardTable> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Publishes a session.
    pub fn insert(&self, route: Arc<Route>) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(route.name().clone(), route);
    }

    /// Takes a session back. Its gauge is to be closed before.
    pub fn remove(&self, name: &Name) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    pub fn set_shards(&self, shards: ShardTable) {
        *self.shards.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(shards);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// From now on no proxied message is accepted.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}
