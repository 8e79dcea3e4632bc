//! What every connection needs of the gateway, and where it waits until it has identified.
//!
//! A connection arrives when its socket is accepted, before a byte of it was read. From then until
//! it is a service it has a place in one [waiting room](crate::state::waiting_room), whatever it
//! does: says nothing, sends its request byte by byte, keeps an idle HTTP connection open, opens
//! WebSockets and never identifies. So all of these are bounded together, by `max_unidentified`.

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix::Addr;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::actors::gateway::Gateway;
use crate::auth::Auth;
use crate::config::Config;
use crate::protocol::error::RejectCode;
use crate::protocol::name::{ConnectionId, Name};
use crate::protocol::op::Reject;
use crate::reload::Reloadable;
use crate::routes::Routes;
use crate::socket::Socket;
use crate::state::grant::Grant;
use crate::state::peer::Peer;
use crate::state::tally::{ConnectionTally, Turned};
use crate::state::waiting_room::WaitingRoom;

/// Connections beyond `max_connections` that are still told why they are refused.
pub(crate) const REFUSED_AT_ONCE: usize = 256;

/// Large answers over HTTP that may be under way at once.
const REPORTS_AT_ONCE: usize = 8;

/// What every connection needs of the gateway.
pub(crate) struct Entrance {
    pub(crate) config: Arc<Config>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) gateway: Addr<Gateway>,
    pub(crate) routes: Arc<Routes>,
    /// Large answers over HTTP that may be under way at once.
    pub(crate) reports: Arc<Semaphore>,
    /// What can be read anew.
    pub(crate) reloads: Vec<Reloadable>,
    /// True once every connection is to be closed.
    closing: watch::Receiver<bool>,
    next_connection: AtomicU64,
    next_arrival: AtomicU64,
    unidentified: Mutex<WaitingRoom<Weak<Visitor>>>,
}

/// A connection that has not identified.
struct Visitor {
    socket: Arc<Socket>,
    is_displaced: AtomicBool,
}

impl Entrance {
    pub(crate) fn new(
        config: Arc<Config>,
        auth: Arc<Auth>,
        gateway: Addr<Gateway>,
        routes: Arc<Routes>,
        closing: watch::Receiver<bool>,
        reloads: Vec<Reloadable>,
    ) -> Self {
        let unidentified = Mutex::new(WaitingRoom::new(config.max_unidentified));
        Self {
            config,
            auth,
            gateway,
            routes,
            reports: Arc::new(Semaphore::new(REPORTS_AT_ONCE)),
            closing,
            reloads,
            next_connection: AtomicU64::new(1),
            next_arrival: AtomicU64::new(0),
            unidentified,
        }
    }

    pub(crate) fn connections(&self) -> &ConnectionTally {
        &self.routes.shared().connections
    }

    /// Counts a connection or request that was turned away.
    pub(crate) fn turn_away(&self, why: Turned) {
        self.routes.shared().turned.add(why);
    }

    /// Resolves once every connection is to be closed.
    pub(crate) fn closing(&self) -> impl Future<Output = ()> + use<> {
        let mut closing = self.closing.clone();
        async move {
            // An error means that the gateway is gone: then too.
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }

    /// Whether the credential may take the name.
    pub(crate) fn may_be(&self, grant: &Grant, name: &Name) -> Result<(), Reject> {
        if grant.may_be(name.as_str()) {
            return Ok(());
        }
        self.turn_away(Turned::Forbidden);
        log::warn!("the credential {} may not take the name {name}", grant.id);
        let message = "this credential may not take this name".to_owned();
        Err(Reject { code: RejectCode::Forbidden, message, retry_after_ms: None })
    }

    /// Ids grow: of two connections the later has the higher one.
    pub(crate) fn mint_id(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends those away who have to leave.
    pub(crate) fn make_room(&self) {
        let displaced = self.waiting_room().displaced(Instant::now());
        for visitor in displaced.iter().filter_map(Weak::upgrade) {
            self.turn_away(Turned::Displaced);
            visitor.is_displaced.store(true, Ordering::Relaxed);
            visitor.socket.shut_down();
        }
    }

    fn waiting_room(&self) -> MutexGuard<'_, WaitingRoom<Weak<Visitor>>> {
        self.unidentified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that was accepted. Dropped when it ends.
pub(crate) struct Arrival {
    id: u64,
    visitor: Arc<Visitor>,
    peer: Peer,
    entrance: Arc<Entrance>,
    /// It sent a whole request, or it was counted already why it never will.
    has_asked: Cell<bool>,
    /// Ends it, if it has not ended by then.
    cut_off: RefCell<Option<JoinHandle<()>>>,
}

impl Arrival {
    /// Lets a connection in; others may have to leave for it. `None` where there is no descriptor
    /// for a second hold on it.
    pub(crate) fn let_in(stream: &impl AsFd, peer: Peer, entrance: &Arc<Entrance>) -> Option<Rc<Self>> {
        let socket = match peer {
            Peer::Address(_) => Socket::of_tcp(stream),
            Peer::User(_) => Socket::of_unix(stream),
        };
        let socket = match socket {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                entrance.turn_away(Turned::NoDescriptor);
                log::warn!("a connection's descriptor could not be duplicated: {error}");
                return None;
            }
        };
        socket.set_user_timeout(entrance.config.stuck * 2);
        let id = entrance.next_arrival.fetch_add(1, Ordering::Relaxed);
        let visitor = Arc::new(Visitor { socket, is_displaced: AtomicBool::new(false) });
        entrance.waiting_room().enter(id, Arc::downgrade(&visitor), Instant::now());
        entrance.make_room();
        let entrance = entrance.clone();
        let (has_asked, cut_off) = (Cell::new(false), RefCell::new(None));
        Some(Rc::new(Self { id, visitor, peer, entrance, has_asked, cut_off }))
    }

    /// Where it comes from.
    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    pub(crate) fn socket(&self) -> &Arc<Socket> {
        &self.visitor.socket
    }

    /// A whole request came.
    pub(crate) fn asked(&self) {
        self.has_asked.set(true);
    }

    /// It ends without a request, for this reason.
    pub(crate) fn turn_away(&self, why: Turned) {
        self.has_asked.set(true);
        self.entrance.turn_away(why);
    }

    /// Ends the connection at its socket, if it is still there then. The first time counts: many requests
    /// may come by one connection, and nothing of them is to stay behind.
    pub(crate) fn cut_off_after(&self, time: Duration) {
        let visitor = Arc::downgrade(&self.visitor);
        self.cut_off.borrow_mut().get_or_insert_with(|| {
            actix_rt::spawn(async move {
                tokio::time::sleep(time).await;
                if let Some(visitor) = visitor.upgrade() {
                    visitor.socket.shut_down();
                }
            })
        });
    }

    /// It is a service: it waits no more.
    pub(crate) fn is_accepted(&self) {
        self.entrance.waiting_room().leave(self.id);
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.entrance.waiting_room().leave(self.id);
        if let Some(cut_off) = self.cut_off.get_mut() {
            cut_off.abort();
        }
        if !self.has_asked.get() && !self.visitor.is_displaced.load(Ordering::Relaxed) {
            self.entrance.turn_away(Turned::NoRequest);
        }
    }
}
