//! PRESENCE events that wait for a watcher: the last one of each service, oldest first.

use std::collections::{HashMap, VecDeque};

use crate::protocol::name::Name;
use crate::protocol::op::Presence;

#[derive(Debug, Default)]
pub(super) struct PresenceQueue {
    order: VecDeque<Name>,
    latest: HashMap<Name, Presence>,
}

impl PresenceQueue {
    pub(super) fn push(&mut self, presence: Presence) {
        let service = presence.service.clone();
        if self.latest.insert(service.clone(), presence).is_none() {
            self.order.push_back(service);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Presence> {
        self.latest.remove(&self.order.pop_front()?)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}
