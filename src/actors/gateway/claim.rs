//! What somebody finds who wants a name: the rules are the [registry](crate::state::registry)'s; here is what
//! may be done before they are asked a second time.

use std::time::Instant;

use super::ends::{ConnectionEnded, VANISHED};
use super::identify::NEXT_LOOK;
use super::{Gateway, Handle};
use crate::protocol::error::RejectCode;
use crate::protocol::name::Name;
use crate::protocol::op::Reject;
use crate::state::registry::{Claim, Finds, Known};

/// Of `max_sessions`, the part that is forgotten at once where places are needed.
const IDLE_SHARE: usize = 64;

impl Gateway {
    /// What the claim would find, after what may be done for it: an end that is on its way is heard, and
    /// places are made.
    pub(super) fn look(&mut self, claim: Claim<'_>, now: Instant) -> Result<Finds, Reject> {
        let checked = self.registry.check(claim, has_hung_up, now);
        if let Ok(finds) = checked
            && self.has_last_words(claim.name, finds, now)
        {
            return Err(still_ending());
        }
        let is_over_capacity = checked.as_ref().is_err_and(|reject| reject.code == RejectCode::AtCapacity);
        let is_done = (matches!(checked, Ok(Finds::HungUp)) && self.hear_of_end(claim.name))
            || (is_over_capacity && self.forget_idle_sessions());
        if is_done { self.registry.check(claim, has_hung_up, now) } else { checked }
    }

    /// Ends sessions that have been away for longest, of those that hold neither messages nor shards:
    /// nothing is lost with them, and somebody else needs a place. Some at a time, since each look goes
    /// over all of them.
    fn forget_idle_sessions(&mut self) -> bool {
        let at_once = self.config.max_sessions / IDLE_SHARE + 1;
        let holders = self.shards_by_holder();
        let is_idle = |(name, known): &(&Name, &Known<Handle>)| {
            !known.is_up() && known.handle.route.gauge().held().is_zero() && !holders.contains_key(*name)
        };
        let mut idle: Vec<(Instant, Name)> =
            self.registry.iter().filter(is_idle).map(|(name, known)| (known.since, name.clone())).collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate(at_once);
        for (_, name) in &idle {
            self.end_session(name, "it held nothing, and there were max_sessions sessions", VANISHED);
        }
        !idle.is_empty()
    }

    /// Whether the connection that has the name has ended, and what its service said last may be on its way
    /// here, ahead of that: a SHARD_DEATH counts even then. Not for longer than a look.
    fn has_last_words(&self, name: &Name, finds: Finds, now: Instant) -> bool {
        let link = self.registry.get(name).and_then(|known| known.handle.link.as_ref());
        link.is_some_and(|link| {
            let has_ended = finds == Finds::HungUp || (finds == Finds::Live && link.life.ended().is_some());
            has_ended && link.life.is_worth_waiting_for(NEXT_LOOK, now)
        })
    }

    /// The connection that has the name has ended: how, is on its way here. True: it was told how.
    fn hear_of_end(&mut self, name: &Name) -> bool {
        let Some(link) = self.registry.get(name).and_then(|known| known.handle.link.as_ref()) else {
            return false;
        };
        let (connection, ended) = (link.id, link.life.ended());
        if let Some(how) = ended {
            self.connection_ended(&ConnectionEnded { connection, how, reason: "it closed".to_owned() });
        }
        ended.is_some()
    }
}

/// Whether the connection of a session that is up has ended unnoticed.
fn has_hung_up(handle: &Handle) -> bool {
    handle.link.as_ref().is_none_or(|link| link.life.has_hung_up())
}

/// The answer that nobody is told who asks as often as he may.
fn still_ending() -> Reject {
    let message = "the last connection of this name is just ending".to_owned();
    let retry_after_ms = Some(u64::try_from(NEXT_LOOK.as_millis()).unwrap_or(u64::MAX));
    Reject { code: RejectCode::AlreadyConnected, message, retry_after_ms }
}
