//! Every secret that passed between the tests and their gateways: none may stand in a log, or in an
//! answer that is not for its owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Shorter ones could stand somewhere by chance.
const SHORTEST: usize = 12;

/// By the gateway's port.
static KNOWN: Mutex<BTreeMap<u16, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

/// Remembers the secrets in something that was sent to the gateway, or that it sent to their owner.
pub(crate) fn learn(port: u16, text: &str) {
    let keys = [r#""session":""#, r#""ticket":""#, r#""token":""#, "Bearer ", "ticket="];
    let found: Vec<&str> = keys
        .iter()
        .flat_map(|key| text.split(key).skip(1))
        .filter_map(|rest| rest.split(['"', '\r', ' ', '&']).next())
        .filter(|secret| secret.len() >= SHORTEST)
        .collect();
    if !found.is_empty() {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(port).or_default().extend(found.into_iter().map(str::to_owned));
    }
}

/// A secret of that gateway which stands in the text.
pub(crate) fn leaked(port: u16, text: &str) -> Option<String> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.get(&port)?.iter().find(|secret| text.contains(secret.as_str())).cloned()
}
