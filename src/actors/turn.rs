//! Turns of the actors that share a thread.
//!
//! An actor handles whatever there is for it before another on its thread is asked: one whose service
//! sends without end would keep the thread for itself. So it counts how long it has worked, and lets
//! the others go first after a while.

use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, fut};
use tokio::task::yield_now;

/// How long an actor may keep the thread from others, in one message or in many.
///
/// A turn that is over amid a burst cuts its parcels in two: with 100 µs a forwarded message of 256 bytes costs
/// about 8 % more CPU than with this, and without turns 6 % less. With 250 µs a flood of what is refused makes
/// others wait more than three times as long as in quiet (`tests/attacks`).
const TURN: Duration = Duration::from_micros(150);

/// How long an actor has worked since others had their turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    worked: Duration,
}

impl Turn {
    pub(crate) fn worked(&mut self, time: Duration) {
        self.worked += time;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over_after(Duration::ZERO)
    }

    /// As [`is_over`](Self::is_over), once that is worked too.
    pub(crate) fn is_over_after(&self, time: Duration) -> bool {
        self.worked + time > TURN
    }

    /// Others had theirs.
    pub(crate) fn begin(&mut self) {
        self.worked = Duration::ZERO;
    }
}

/// Lets the actor handle nothing before others had their turn, if its own is over.
pub(crate) fn give_way<A>(actor: &mut A, context: &mut A::Context, turn: fn(&mut A) -> &mut Turn)
where
    A: Actor,
    A::Context: AsyncContext<A>,
{
    if turn(actor).is_over() {
        context.wait(fut::wrap_future(others_turn()).map(move |(), actor: &mut A, _| turn(actor).begin()));
    }
}

/// Resolves after the thread has looked at all its sockets and tasks. In a task of its own: what yields
/// in the actor's is done as soon as that is polled again, be it for a message that came or an answer
/// that was written.
pub(crate) async fn others_turn() {
    let _ = actix_rt::spawn(yield_now()).await;
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::{Context, Poll};

    use super::*;

    #[test]
    fn a_turn_is_over_after_a_little_work_or_much_of_it_in_parts() {
        let mut turn = Turn::default();
        turn.worked(TURN);
        assert!(!turn.is_over());
        assert!(turn.is_over_after(Duration::from_nanos(1)));
        turn.worked(Duration::from_nanos(1));
        assert!(turn.is_over());
        turn.begin();
        assert!(!turn.is_over());
    }

    #[test]
    fn others_have_their_turn_however_often_the_actor_is_polled() {
        actix_rt::System::new().block_on(async {
            let mut turn = pin!(others_turn());
            let mut is_pending = |context: &mut Context<'_>| turn.as_mut().poll(context).is_pending();
            let polls = poll_fn(|context| Poll::Ready([(); 10].map(|()| is_pending(context))));
            assert_eq!(polls.await, [true; 10]);
            turn.await;
        });
    }
}
