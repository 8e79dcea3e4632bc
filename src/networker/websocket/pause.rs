//! When a connection stops reading for a while, and how it goes on.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{ActorFutureExt, AsyncContext, fut};
use tokio::time::timeout;

use super::{Connection, Ctx, Hold};
use crate::actors::turn::others_turn;
use crate::networker::bursts::Paused;
use crate::state::route::Route;
use crate::state::tally::Held;

/// How often a held sender looks for room by itself: what all mailboxes together may hold is
/// freed without a word.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

impl Connection {
    pub(super) fn pause(&mut self) {
        self.gate.pause();
        self.life.set_paused(true);
    }

    /// Goes on where it was paused, unless it is the others' turn first.
    pub(super) fn go_on(&mut self, context: &mut Ctx) {
        if self.turn.is_over(Instant::now()) {
            return self.give_way(context);
        }
        self.life.set_paused(false);
        self.gate.resume();
        if let Some((burst, at)) = self.paused.take().map(Paused::into_parts) {
            self.work(burst, at, context);
        }
    }

    /// Waits until others had their turn.
    pub(super) fn give_way(&mut self, context: &mut Ctx) {
        self.wait_for(others_turn(), context, |connection, ()| connection.turn.begin());
    }

    pub(super) fn note_held(&self, why: Held) {
        self.entrance.routes.shared().held.add(why);
    }

    /// Holds the sender until the mailbox has room, or its budget is spent, which it is not yet.
    pub(super) fn hold(&mut self, route: Arc<Route>, context: &mut Ctx) {
        // It looks again and again while one message waits.
        if std::mem::replace(&mut self.hold, Hold::Waiting) == Hold::No {
            self.note_held(Held::MailboxFull);
        }
        let start = Instant::now();
        let left = self.budget.left(start);
        let waited = async move { timeout(left, room(&route)).await.is_ok() };
        self.wait_for(waited, context, move |connection, has_room| {
            connection.budget.spend(start, Instant::now());
            if !has_room {
                connection.hold = Hold::Spent;
            }
        });
    }

    /// Reads nothing until the future is done.
    pub(super) fn wait_for<F: Future + 'static>(
        &mut self,
        future: F,
        context: &mut Ctx,
        then: impl FnOnce(&mut Self, F::Output) + 'static,
    ) {
        self.pause();
        context.spawn(fut::wrap_future(future).map(|output, connection: &mut Self, context: &mut Ctx| {
            then(connection, output);
            connection.go_on(context);
        }));
    }
}

/// Resolves when something was freed, or might have been.
async fn room(route: &Route) {
    let waiter = route.gauge().waiter();
    let _ = timeout(LOOK_INTERVAL, waiter.freed()).await;
}
