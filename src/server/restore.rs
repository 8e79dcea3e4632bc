//! The shard pool as the last gateway left it.

use std::io;
use std::time::Duration;

use crate::actors::shard_allocator::{Restored, Writer, now};
use crate::config::Config;
use crate::state::shards::{self, Settings, ShardPool, Snapshot};
use crate::store::{Store, StoreError};

/// The stored pool cannot be gone on with. The text is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("shards: {error} (the store is {path})")]
    Pool { error: shards::RestoreError, path: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("data_dir: the thread that writes there cannot be started: {0}")]
    Thread(io::Error),
}

/// What the last gateway left: the store, where there is to be one, and what is in it.
pub struct Found {
    store: Option<Store>,
    snapshot: Snapshot,
}

/// Opens the store, if there is to be one, and reads it.
pub fn find(config: &Config) -> Result<Found, StoreError> {
    let mut store = config.data_dir.as_deref().map(Store::open).transpose()?;
    let snapshot = store.as_mut().map_or_else(|| Ok(Snapshot::default()), Store::snapshot)?;
    Ok(Found { store, snapshot })
}

impl Found {
    /// Whether it says how many shards there are.
    pub fn has_pool(&self) -> bool {
        self.snapshot.pool.is_some()
    }

    /// The pool, as it goes on.
    pub(super) fn restore(self, config: &Config) -> Result<Restored, RestoreError> {
        let Self { mut store, snapshot } = self;
        let settings = Settings {
            shard_count: config.shards.fixed(),
            max_concurrency: config.max_concurrency,
            asks_discord: config.discord_token.is_some(),
            identify_interval: config.identify_interval,
            permit_ttl: config.permit_ttl,
            resume_window: config.resume_window,
            heartbeat: config.heartbeat,
        };
        let path = store.as_ref().map(|store| store.path().display().to_string()).unwrap_or_default();
        let now = now();
        let mut pool = ShardPool::restore(snapshot, settings, now)
            .map_err(|error| RestoreError::Pool { error, path: path.clone() })?;
        let changes = pool.catch_up(now);
        if let Some(store) = store.as_mut().filter(|_| !changes.is_empty()) {
            store.apply(&changes)?;
        }
        tell(&pool.holders(), &path, pool.patience());
        let writer = store.map(Writer::start).transpose().map_err(RestoreError::Thread)?;
        Ok(Restored { pool, writer })
    }
}

fn tell<T>(holders: &[Option<T>], path: &str, patience: Duration) {
    let leased = holders.iter().flatten().count();
    let count = holders.len();
    match leased {
        _ if path.is_empty() => log::info!("{count} shard ids, kept in memory only (data_dir is none)"),
        0 => log::info!("{count} shard ids, kept in {path}"),
        leased => log::info!(
            "{count} shard ids, kept in {path}: {leased} are leased, and go back to the pool unless their \
             holders return within {patience:?}"
        ),
    }
}
