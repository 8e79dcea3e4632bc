//! Turns of the actors that share a thread.
//!
//! An actor handles whatever there is for it before another on its thread is asked: one whose service
//! sends without end would keep the thread for itself. So it counts how long it has worked, and lets
//! the others go first after a while.

use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, fut};
use tokio::task::yield_now;

/// How long an actor may keep the thread from others, in one message or in many.
///
/// About as short as one full write to a socket, which others wait for too: a shorter one would hardly let
/// them in sooner. What a burst brings for one target stays together, so a forwarded message costs the same CPU
/// with turns of 25, 50 and 100 µs, within what the measurements waver by; and up to 8 pairs as much as without
/// any, at 64 pairs a tenth more.
const TURN: Duration = Duration::from_micros(50);

/// How long an actor has worked since others had their turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    worked: Duration,
    state: State,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Fresh,
    WorkingSince(Instant),
    RestingSince(Instant),
}

impl Turn {
    /// Work begins. After a rest as long as a turn, whoever wanted the thread has had it, but for what the
    /// actor's own socket took: the bounds of that are in `networker::upgraded`.
    pub(crate) fn start(&mut self, now: Instant) {
        if let State::RestingSince(since) = self.state
            && now.duration_since(since) >= TURN
        {
            self.worked = Duration::ZERO;
        }
        self.state = State::WorkingSince(now);
    }

    /// The work is done, or as much of it as was possible.
    pub(crate) fn stop(&mut self, now: Instant) {
        if let State::WorkingSince(since) = self.state {
            self.worked += now.duration_since(since);
        }
        self.state = State::RestingSince(now);
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        match self.state {
            State::Fresh => false,
            State::WorkingSince(since) => self.worked + now.duration_since(since) > TURN,
            State::RestingSince(since) => self.worked > TURN && now.duration_since(since) < TURN,
        }
    }

    /// Others had theirs.
    pub(crate) fn begin(&mut self) {
        self.worked = Duration::ZERO;
    }
}

/// Ends the work, and lets the actor handle nothing before others had their turn, if its own is over.
pub(crate) fn stop<A>(actor: &mut A, context: &mut A::Context, turn: fn(&mut A) -> &mut Turn)
where
    A: Actor,
    A::Context: AsyncContext<A>,
{
    let now = Instant::now();
    turn(actor).stop(now);
    if turn(actor).is_over(now) {
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

    const NANO: Duration = Duration::from_nanos(1);

    #[test]
    fn a_turn_is_over_after_a_little_work_or_much_of_it_in_parts() {
        let (mut turn, start) = (Turn::default(), Instant::now());
        assert!(!turn.is_over(start));
        turn.start(start);
        assert_eq!([TURN, TURN + NANO].map(|time| turn.is_over(start + time)), [false, true]);
        turn.stop(start + TURN / 2);
        turn.start(start + TURN);
        assert_eq!([TURN, TURN + NANO].map(|time| turn.is_over(start + TURN / 2 + time)), [false, true]);
        turn.begin();
        assert!(!turn.is_over(start + TURN * 2));
    }

    #[test]
    fn who_rests_as_long_as_a_turn_begins_another() {
        let (mut turn, start) = (Turn::default(), Instant::now());
        turn.start(start);
        let stop = start + TURN * 2;
        turn.stop(stop);
        assert_eq!([stop + TURN / 2, stop + TURN].map(|now| turn.is_over(now)), [true, false]);
        turn.start(stop + TURN);
        assert!(!turn.is_over(stop + TURN * 2), "all that it worked before is forgotten");
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
