//! What became of every message, held against the gateway's account.

use std::collections::BTreeMap;

use super::actor::Actor;

/// Delivered, returned and dead messages of one target, as the gateway counted them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) delivered: u64,
    pub(super) returned: u64,
    pub(super) dead: u64,
}

/// The same as the services saw it.
#[derive(Debug, Default)]
struct Seen {
    delivered: u64,
    returned: u64,
    /// Accepted messages that neither came nor came back.
    missing: u64,
}

/// By message: its source and target.
pub(super) type Sent = BTreeMap<u64, (usize, usize)>;

/// Every message has exactly one end. `counted` by target.
pub(super) fn check(sent: &Sent, actors: &[Actor], counted: &[Counted]) {
    let mut seen: Vec<Seen> = actors.iter().map(|_| Seen::default()).collect();
    for (number, (from, to)) in sent {
        check_message(*number, &actors[*from], &actors[*to], &mut seen[*to]);
        for other in actors.iter().filter(|other| other.index != *to) {
            assert!(!other.delivered.contains_key(number), "{number} went to {}", other.name());
        }
    }
    for ((target, counted), seen) in actors.iter().zip(counted).zip(&seen) {
        check_target(target, *counted, seen);
    }
}

fn check_message(number: u64, source: &Actor, target: &Actor, seen: &mut Seen) {
    let came = target.delivered.get(&number).copied().unwrap_or(0);
    let is_accepted = source.receipts.contains(&number);
    let error = source.errors.get(&number).map(String::as_str);
    let is_returned = error == Some("expired");
    if is_returned {
        assert!(target.was_down, "{number} was returned though its service was never down");
    } else {
        assert!(!(is_accepted && error.is_some()), "{number} was accepted and refused: {error:?}");
        assert!(!(came > 0 && error.is_some()), "{number} was delivered and refused: {error:?}");
    }
    if !target.acknowledges() {
        assert!(came <= 1, "{number} was delivered {came} times");
        assert!(!(came > 0 && is_returned), "{number} was delivered and returned");
    }
    seen.delivered += u64::from(came > 0 && !is_returned);
    seen.returned += u64::from(is_returned);
    seen.missing += u64::from(is_accepted && came == 0 && error.is_none());
}

/// What is missing is dead, or was handed to a connection that was then lost: it, or its ERROR.
fn check_target(target: &Actor, counted: Counted, seen: &Seen) {
    let name = target.name();
    assert!(seen.returned <= counted.returned, "{name}: {counted:?}, {seen:?}");
    // Of a service that is never down, only refused messages are dead: they had no receipt.
    let mut lost = if target.was_down { counted.dead + counted.returned - seen.returned } else { 0 };
    if !target.acknowledges() {
        assert!(seen.delivered <= counted.delivered, "{name}: {counted:?}, {seen:?}");
        let unseen = counted.delivered - seen.delivered;
        assert!(target.has_lost || unseen == 0, "{name} lost no connection: {counted:?}, {seen:?}");
        lost += unseen;
    }
    assert!(seen.missing <= lost, "{name}: messages were lost: {counted:?}, {seen:?}");
    assert!(target.was_down || counted.returned == 0, "{name}: {counted:?}");
}
