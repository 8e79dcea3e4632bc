//! How the gateway itself stops: nobody new and nothing new, deliver what is there, return the
//! rest, close.

use std::time::{Duration, Instant};

use actix::{AsyncContext, Context, Handler, Message};
use tokio::sync::oneshot;

use super::Gateway;
use crate::actors::client_session::Order;
use crate::protocol::close::Close;
use crate::protocol::name::Name;
use crate::state::shards::Departure;

/// How often it is looked how far the stop has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long what could not be delivered may take to go back to its sources. It takes that long only
/// where full mailboxes go back to sources that read slowly.
const RETURN_GRACE: Duration = Duration::from_secs(8);

/// How long connections may take to close before they are cut off.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

const REASON: &str = "the gateway is stopping";

/// Stops; `done` is told when every service's connection has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Drain {
    pub done: oneshot::Sender<()>,
}

/// How far the stop has come.
#[derive(Debug)]
pub(super) struct Progress {
    phase: Phase,
    until: Instant,
    done: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Delivering,
    Returning,
    Closing,
    /// Every session is over; what they still held goes back, or is dead.
    Ending,
    Over,
}

impl Handler<Drain> for Gateway {
    type Result = ();

    fn handle(&mut self, Drain { done }: Drain, context: &mut Self::Context) {
        // What `started` goes on with, should a panic come between.
        self.stopping = Some(Progress {
            phase: Phase::Delivering,
            until: Instant::now() + self.config.stop,
            done: Some(done),
        });
        self.guarded(context, Gateway::begin_to_stop);
    }
}

impl Gateway {
    fn begin_to_stop(&mut self, context: &mut Context<Self>) {
        self.registry.drain();
        self.routes.drain();
        // Nobody can come back for these.
        let away = self.registry.iter().filter(|(_, known)| !known.is_up()).map(|(name, _)| name.clone());
        for name in away.collect::<Vec<_>>() {
            self.end_session(&name, REASON, Departure::Vanished { last_frame: None });
        }
        Self::look_how_it_stops(context);
    }

    pub(super) fn look_how_it_stops(context: &mut Context<Self>) {
        context.run_interval(LOOK_INTERVAL, |gateway, context| {
            gateway.guarded(context, |gateway, _| gateway.go_on_stopping(Instant::now()));
        });
    }

    fn go_on_stopping(&mut self, now: Instant) {
        let Some(progress) = &self.stopping else { return };
        let is_late = now >= progress.until;
        match progress.phase {
            Phase::Delivering if is_late || self.all_delivered() => {
                self.return_what_is_left();
                self.enter(Phase::Returning, now + RETURN_GRACE);
            }
            Phase::Returning if is_late || self.all_delivered() => {
                self.close_all();
                self.enter(Phase::Closing, now + CLOSE_GRACE);
            }
            Phase::Closing if is_late || self.routes.shared().connections.now() == 0 => {
                self.cut_all_off();
                self.end_all_sessions();
                self.enter(Phase::Ending, now + RETURN_GRACE);
            }
            Phase::Ending if is_late || self.all_delivered() => self.enter(Phase::Over, now),
            _ => {}
        }
    }

    fn enter(&mut self, phase: Phase, until: Instant) {
        let Some(progress) = &mut self.stopping else { return };
        (progress.phase, progress.until) = (phase, until);
        if phase == Phase::Over
            && let Some(done) = progress.done.take()
        {
            let _ = done.send(());
        }
    }

    /// Whether no mailbox holds anything, those of sessions that are down included.
    fn all_delivered(&self) -> bool {
        self.routes.shared().total.held() == 0
    }

    /// Closes the services that did not take everything; what they left goes back to its sources.
    fn return_what_is_left(&mut self) {
        let left = |known: &crate::state::registry::Known<super::Handle>| known.handle.route.gauge().held();
        let slow: Vec<(Name, u64)> = self
            .registry
            .iter()
            .map(|(name, known)| (name.clone(), left(known).messages))
            .filter(|(_, left)| *left > 0)
            .collect();
        for (name, left) in slow {
            log::warn!("{name} did not take {left} messages within stop_ms; they are returned");
            self.order(&name, Order::Close(Close::Restart));
            if let Some(link) = self.registry.get(&name).and_then(|known| known.handle.link.as_ref()) {
                link.life.cut_off_after(CLOSE_GRACE);
            }
            self.end_session(&name, REASON, Departure::Vanished { last_frame: None });
        }
    }

    fn end_all_sessions(&mut self) {
        let names: Vec<Name> = self.registry.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            self.end_session(&name, REASON, Departure::Vanished { last_frame: None });
        }
    }

    fn cut_all_off(&self) {
        let links = self.registry.iter().filter_map(|(_, known)| known.handle.link.as_ref());
        links.for_each(|link| link.life.cut_off());
    }

    fn close_all(&self) {
        self.close_all.send_replace(true);
        for (_, known) in self.registry.iter() {
            known.handle.session.do_send(Order::Close(Close::Restart));
        }
    }
}
