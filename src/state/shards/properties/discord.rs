//! Discord, as far as it enforces rules on shards that IDENTIFY.

use std::collections::HashMap;

use super::{DAY, SECOND, SessionStartLimit};

/// By Discord's documentation.
const APART_MS: u64 = 5 * SECOND;

pub(super) struct Discord {
    max_concurrency: u32,
    recommended: u32,
    total: u64,
    remaining: u64,
    resets_ms: u64,
    /// The last IDENTIFY of each key.
    last: HashMap<u32, u64>,
}

impl Discord {
    pub(super) fn new(max_concurrency: u32, recommended: u32, total: u64, now: u64) -> Self {
        let last = HashMap::new();
        Self { max_concurrency, recommended, total, remaining: total, resets_ms: now + DAY, last }
    }

    pub(super) fn identify(&mut self, shard_id: u32, now: u64) {
        self.pass(now);
        let key = shard_id % self.max_concurrency;
        if let Some(last) = self.last.insert(key, now) {
            let apart = now - last;
            assert!(apart >= APART_MS, "shard {shard_id} IDENTIFIES {apart} ms after another of key {key}");
        }
        assert!(
            self.remaining > 0,
            "shard {shard_id} IDENTIFIES, and the {} of today are used up",
            self.total
        );
        self.remaining -= 1;
    }

    /// `GET /gateway/bot`
    pub(super) fn limit(&mut self, now: u64) -> SessionStartLimit {
        self.pass(now);
        SessionStartLimit {
            shards: self.recommended,
            max_concurrency: self.max_concurrency,
            total: self.total,
            remaining: self.remaining,
            reset_after_ms: self.resets_ms - now,
        }
    }

    fn pass(&mut self, now: u64) {
        while self.resets_ms <= now {
            self.resets_ms += DAY;
            self.remaining = self.total;
        }
    }
}
