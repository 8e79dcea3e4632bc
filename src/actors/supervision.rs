//! What happens when a handler panics.
//!
//! A panic would end an actix actor for good, without its supervisor being told. So handlers that
//! touch what a service sent run under [`guard`]: it logs the panic and stops the actor, and the
//! supervisor then restarts it with the same address, state and mailbox. Its timers are gone, and
//! are set again in `started`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use actix::{Actor, ActorContext};

use crate::state::tally::{Part, Tally};

/// Runs `handler`; a panic in it is counted and stops the actor, which its supervisor restarts. Then
/// there is no answer.
pub(crate) fn guard<A: Actor, R>(
    what: &str,
    part: Part,
    panics: &Tally<Part>,
    context: &mut A::Context,
    handler: impl FnOnce(&mut A::Context) -> R,
) -> Option<R> {
    // The state that a panic leaves half-changed is the actor's own, and the rules in `state`
    // change theirs in an order that leaves every message in one place.
    catch_unwind(AssertUnwindSafe(|| handler(context)))
        .inspect_err(|panic| {
            panics.add(part);
            log::error!("{what} panicked and is restarted: {}", text_of(panic.as_ref()));
            context.stop();
        })
        .ok()
}

/// The message of a panic.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}
