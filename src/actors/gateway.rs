//! `Gateway`: the control plane. One actor, on an arbiter of its own.
//!
//! It alone writes the registry and the [routes](crate::routes): it decides IDENTIFY, starts,
//! finds and ends sessions, tells watchers, owns the [`ShardAllocator`] and answers operators. No
//! proxied message passes through it.

#[cfg(debug_assertions)]
mod audit;
mod claim;
mod credentials;
mod ends;
mod identify;
mod operate;
mod services;
mod stop;
mod tickets;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actix::{Actor, Addr, AsyncContext, Context, Supervised, Supervisor};
use actix_rt::ArbiterHandle;
use tokio::sync::watch;

pub use self::credentials::CredentialsChanged;
pub use self::ends::{ConnectionEnded, GiveUp, WindowElapsed};
pub use self::identify::{
    By, Confirm, FirstMessage, Identified, Identify, LOOKS, NEXT_LOOK, Refusal, unauthorized,
};
pub use self::operate::{
    ListServices, OperateShards, Ping, ReportShards, ServiceState, ServiceView, StopError, StopService,
    Stopped,
};
pub use self::services::{DiscordAnswered, ServiceRequest};
pub use self::stop::Drain;
pub use self::tickets::PostIdentify;
use super::client_session::{ClientSession, Order};
use super::link::Link;
use super::shard_allocator::{self, Restored, ShardAllocator, ShardInput};
use super::supervision::guard;
use crate::auth::Auth;
use crate::config::Config;
use crate::protocol::close::Close;
use crate::protocol::name::{ConnectionId, Name, ShardId};
use crate::protocol::op::{Presence, PresenceEvent, Watch};
use crate::routes::{Routes, ShardTable};
use crate::state::backlog::places::Places;
use crate::state::listed::Listed;
use crate::state::pulse::Limits;
use crate::state::registry::{Known, Registry, Settings};
use crate::state::route::Route;
use crate::state::session;
use crate::state::shards::{Departure, Input, ShardPool};
use crate::state::tally::Part;

/// How often what nobody asked for is forgotten.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(5);

/// The actor.
pub struct Gateway {
    config: Arc<Config>,
    auth: Arc<Auth>,
    routes: Arc<Routes>,
    registry: Registry<Handle>,
    allocator: Option<Addr<ShardAllocator>>,
    /// Of the ops that wait for it.
    places: Places,
    /// What the allocator begins with, and the thread that it runs on.
    restored: Option<(Restored, ArbiterHandle)>,
    /// Who holds which shard: what the routes publish.
    table: ShardTable,
    /// The same of the generation that is being filled, while one is.
    filling: Option<ShardTable>,
    /// What services were told that they hold.
    listed: Listed,
    watchers: HashMap<Name, Watch>,
    /// Tells every connection, identified or not, to close.
    close_all: watch::Sender<bool>,
    stopping: Option<stop::Progress>,
    #[cfg(debug_assertions)]
    audit: audit::Audit,
}

/// What the registry keeps of a session.
pub struct Handle {
    session: Addr<ClientSession>,
    route: Arc<Route>,
    /// The connection that it has. Let go as soon as that ends: it holds a descriptor.
    link: Option<Link>,
}

impl Gateway {
    pub fn new(
        config: Arc<Config>,
        auth: Arc<Auth>,
        routes: Arc<Routes>,
        close_all: watch::Sender<bool>,
        restored: Restored,
        allocator_arbiter: ArbiterHandle,
    ) -> Self {
        let settings = Settings {
            max_sessions: config.max_sessions,
            max_tickets: config.max_tickets,
            resume_window: config.resume_window,
            retry_after: config.heartbeat,
        };
        let (table, filling) = shard_tables(&restored.pool);
        Self {
            config,
            auth,
            routes,
            registry: Registry::new(settings),
            allocator: None,
            places: Places::default(),
            restored: Some((restored, allocator_arbiter)),
            table,
            filling,
            listed: Listed::default(),
            watchers: HashMap::new(),
            close_all,
            stopping: None,
            #[cfg(debug_assertions)]
            audit: audit::Audit::default(),
        }
    }

    fn session_settings(&self) -> session::Settings {
        let Config { heartbeat, stuck, min_drain_bytes, .. } = *self.config;
        session::Settings {
            pulse: Limits { heartbeat, stuck, min_drain_bytes },
            max_unacked: self.config.max_unacked,
            max_presence: self.config.max_sessions + 1024,
        }
    }

    /// The ids that are leased to a service, lowest first.
    fn shards_of(&self, service: &Name) -> Vec<ShardId> {
        let mut ids = self.table.shards_of(service);
        ids.extend(self.filling.iter().flat_map(|filling| filling.shards_of(service)));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Tells the allocator what became of a service.
    fn tell_allocator(&self, input: Input<ConnectionId>) {
        self.ask_allocator(ShardInput { input, pass: None });
    }

    fn ask_allocator(&self, message: ShardInput) {
        if let Some(allocator) = &self.allocator {
            allocator.do_send(message);
        }
    }

    /// Ends a session: nothing reaches it any more, and what it holds is returned.
    fn end_session(&mut self, service: &Name, reason: &'static str, departure: Departure) {
        let Some(known) = self.registry.remove(service) else { return };
        known.handle.route.gauge().close();
        self.routes.remove(service);
        known.handle.session.do_send(Order::GoDown { reason });
        // When the gateway itself stops, leases stand: it may be back in a moment. Who left before that
        // has left.
        let ends_leases = self.stopping.is_none() || departure == Departure::Left;
        if ends_leases {
            self.tell_allocator(Input::Down { service: service.clone(), departure });
        }
        self.watchers.remove(service);
        self.listed.forget(service);
        self.announce(service, known.group, PresenceEvent::Down, reason);
        if ends_leases {
            // No ACCEPT lists them while the allocator ends them.
            self.withhold_shards(service);
        }
    }

    /// Logs what became of a service, and tells those who watch it.
    fn announce(&self, service: &Name, group: Option<Name>, event: PresenceEvent, reason: &str) {
        log::info!("{service} is {event}: {reason}", event = word(event));
        if !self.watchers.values().any(|watch| watch.matches(service.as_str())) {
            return;
        }
        let presence = Presence {
            service: service.clone(),
            event,
            reason: Some(reason.to_owned()),
            group,
            shards: self.shards_of(service),
            at: unix_ms(),
        };
        for (watcher, watch) in &self.watchers {
            // One that is away is told all when it comes back.
            let is_up = self.registry.get(watcher).is_some_and(Known::is_up);
            if is_up && watch.matches(service.as_str()) {
                self.order(watcher, Order::Presence(presence.clone()));
            }
        }
    }

    /// Runs a handler so that a panic in it restarts this actor, with all it knows.
    /// Then there is no answer.
    fn guarded<R>(
        &mut self,
        context: &mut Context<Self>,
        handler: impl FnOnce(&mut Self, &mut Context<Self>) -> R,
    ) -> Option<R> {
        let routes = self.routes.clone();
        let panics = &routes.shared().panics;
        guard::<Self, R>("Gateway", Part::Gateway, panics, context, |context| handler(self, context))
    }

    fn order(&self, service: &Name, order: Order) {
        if let Some(known) = self.registry.get(service) {
            known.handle.session.do_send(order);
        }
    }

    fn keep_house(&mut self) {
        let now = Instant::now();
        self.registry.expire_holds(now);
        self.cut_off_who_never_comes(now);
    }

    /// Ends connections that were given a name and have not heard of it for as long as IDENTIFY may take: who takes
    /// nothing of what is written is not polled, and its session would wait for it without end.
    fn cut_off_who_never_comes(&self, now: Instant) {
        let is_late =
            |known: &&Known<Handle>| known.is_up() && now >= known.since + self.config.identify_timeout;
        let links = self.registry.iter().map(|(_, known)| known).filter(is_late);
        for link in links.filter_map(|known| known.handle.link.as_ref()) {
            if !link.life.is_accepted() {
                link.life.count_close(Close::TooSlow, &self.routes.shared().closes);
                link.life.cut_off();
            }
        }
    }
}

impl Actor for Gateway {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if let Some((restored, arbiter)) = self.restored.take() {
            let (gateway, shared) = (context.address(), self.routes.shared().clone());
            let allocator = move |_: &mut _| ShardAllocator::new(restored, gateway, shared);
            self.allocator = Some(Supervisor::start_in_arbiter(&arbiter, allocator));
        }
        context.run_interval(HOUSEKEEPING_INTERVAL, |gateway, context| {
            gateway.guarded(context, |gateway, _| gateway.keep_house());
        });
        self.watch_credentials(context);
        #[cfg(debug_assertions)]
        self.start_audits(context);
        // After a restart in the middle of a stop, that goes on.
        if self.stopping.is_some() {
            Self::look_how_it_stops(context);
        }
    }
}

impl Supervised for Gateway {}

/// Who holds what in the current generation, and in the one that is being filled.
fn shard_tables(pool: &ShardPool<ConnectionId>) -> (ShardTable, Option<ShardTable>) {
    let report = pool.report(shard_allocator::now());
    let filling = report.reshard.map(|(reshard, _)| {
        let mut filling = ShardTable::new(reshard.shard_count);
        let views = report.shards.into_iter().filter(|view| view.shard.shard_count == reshard.shard_count);
        views.for_each(|view| filling.set(view.shard.shard_id, view.holder));
        filling
    });
    (ShardTable::of(pool.holders()), filling)
}

fn word(event: PresenceEvent) -> &'static str {
    match event {
        PresenceEvent::Up => "up",
        PresenceEvent::Away => "away",
        PresenceEvent::Resumed => "resumed",
        PresenceEvent::Down => "down",
    }
}

/// Now, as Unix time in ms.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
