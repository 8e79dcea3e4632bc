//! What the two halves of a service's connection, reading and writing, tell each other.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::world::lock;
use crate::protocol::error::ErrorCode;

/// See the module. Of one connection; what outlives it is the service's.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// The delivery number that came last.
    delivered: AtomicU64,
    /// Mistakes that were made on purpose and are not answered yet, by the word of their ERROR.
    mistakes: Mutex<HashMap<&'static str, u64>>,
    shards: Mutex<Vec<u32>>,
}

impl Desk {
    pub(super) fn delivered(&self, number: u64) {
        self.delivered.store(number, Ordering::Release);
    }

    /// What can be acknowledged; 0 for nothing.
    pub(super) fn to_acknowledge(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    pub(super) fn mistake(&self, code: ErrorCode) {
        *lock(&self.mistakes).entry(code.as_str()).or_default() += 1;
    }

    /// An ERROR about no message came. False: nothing had deserved it.
    pub(super) fn answered(&self, code: &str) -> bool {
        let mut mistakes = lock(&self.mistakes);
        match mistakes.get_mut(code) {
            Some(due) if *due > 0 => {
                *due -= 1;
                true
            }
            _ => false,
        }
    }

    /// Mistakes that were not answered.
    pub(super) fn unanswered(&self) -> u64 {
        lock(&self.mistakes).values().sum()
    }

    pub(super) fn shards(&self) -> Vec<u32> {
        lock(&self.shards).clone()
    }

    pub(super) fn got_shard(&self, id: u32) {
        let mut shards = lock(&self.shards);
        if !shards.contains(&id) {
            shards.push(id);
        }
    }

    pub(super) fn gave_shard_back(&self, id: u32) {
        lock(&self.shards).retain(|held| *held != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_is_answered_once() {
        let desk = Desk::default();
        desk.mistake(ErrorCode::Malformed);
        assert!(!desk.answered("unknown_op"));
        assert_eq!(desk.unanswered(), 1);
        assert!(desk.answered("malformed") && !desk.answered("malformed"));
        assert_eq!(desk.unanswered(), 0);
    }
}
