//! What others hold of a session: its mailbox's gauge, the way in, and which connection is its
//! own now.
//!
//! The name → route map that senders look into is `crate::routes`.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::account::{Accounts, Entry};
use super::gauge::{Bounds, Gauge, Total};
use super::outstanding::NeverSent;
use super::parcel::Parcel;
use super::store_health::StoreHealth;
use super::tally::{ConnectionTally, Held, Part, Tally, Turned, Warned};
use crate::protocol::close::Close;
use crate::protocol::error::ErrorCode;
use crate::protocol::name::{ConnectionId, Name};

/// Takes parcels into a session's mailbox. Must not block; may drop the parcel, which then
/// returns its messages by itself.
pub trait Inbox: Send + Sync {
    fn deliver(&self, parcel: Parcel);
}

/// What all routes share.
#[derive(Debug)]
pub struct Shared {
    pub accounts: Accounts,
    pub total: Total,
    pub errors: Tally<ErrorCode>,
    pub closes: Tally<Close>,
    pub connections: ConnectionTally,
    pub turned: Tally<Turned>,
    pub held: Tally<Held>,
    pub panics: Tally<Part>,
    pub store: StoreHealth,
    pub warned: Tally<Warned>,
    /// Whether Discord does not take the bot's token, so that it is not asked any more.
    pub discord_token_rejected: AtomicBool,
}

impl Shared {
    /// Nothing counted yet; the bounds are the settings `max_account_names` and
    /// `mailbox_total_bytes`.
    pub fn new(max_account_names: usize, mailbox_total_bytes: u64) -> Self {
        Self {
            accounts: Accounts::new(max_account_names),
            total: Total::new(mailbox_total_bytes),
            errors: Tally::default(),
            closes: Tally::default(),
            connections: ConnectionTally::default(),
            turned: Tally::default(),
            held: Tally::default(),
            panics: Tally::default(),
            store: StoreHealth::default(),
            warned: Tally::default(),
            discord_token_rejected: AtomicBool::new(false),
        }
    }
}

/// Who a session is. Unlike its [`Route`] it does not lead there, so the session's own actor can
/// hold it without keeping itself alive.
#[derive(Debug)]
pub struct Identity {
    name: Name,
    connection: AtomicU64,
    /// The number that a delivery was given last.
    last_number: AtomicU64,
    shared: Arc<Shared>,
}

impl Identity {
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether the connection is the session's own now.
    pub fn is_connection(&self, connection: ConnectionId) -> bool {
        self.connection.load(Ordering::Acquire) == connection.0
    }

    /// The session numbered its deliveries that far, and is about to send them.
    pub fn set_last_number(&self, last: u64) {
        self.last_number.store(last, Ordering::Release);
    }

    /// Checks that a delivery of that number was sent, on whichever connection.
    pub fn check_sent(&self, i: u64) -> Result<(), NeverSent> {
        let last = self.last_number.load(Ordering::Acquire);
        if (1..=last).contains(&i) { Ok(()) } else { Err(NeverSent { i, last }) }
    }

    /// Where the ERRORs that are sent are counted.
    pub fn errors(&self) -> &Tally<ErrorCode> {
        &self.shared.errors
    }

    /// Where the connections that are closed are counted.
    pub fn closes(&self) -> &Tally<Close> {
        &self.shared.closes
    }

    /// Where the panics that are caught are counted.
    pub fn panics(&self) -> &Tally<Part> {
        &self.shared.panics
    }
}

/// The way to one session. It stands as long as the session, over all its connections.
pub struct Route {
    identity: Arc<Identity>,
    gauge: Gauge,
    inbox: OnceLock<Box<dyn Inbox>>,
}

impl Route {
    pub fn new(name: Name, bounds: Bounds, shared: Arc<Shared>) -> Self {
        let identity = Arc::new(Identity {
            name,
            connection: AtomicU64::new(0),
            last_number: AtomicU64::new(0),
            shared,
        });
        Self { identity, gauge: Gauge::new(bounds), inbox: OnceLock::new() }
    }

    /// Says where parcels go; to be called once, before the route is published.
    pub fn open(&self, inbox: Box<dyn Inbox>) {
        let _ = self.inbox.set(inbox);
    }

    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    pub fn name(&self) -> &Name {
        &self.identity.name
    }

    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// Where the ERRORs that are sent are counted.
    pub fn errors(&self) -> &Tally<ErrorCode> {
        self.identity.errors()
    }

    pub(super) fn total(&self) -> &Total {
        &self.identity.shared.total
    }

    /// The place of this session, as a source, in the account of a target; `None`: the target
    /// is no service.
    pub fn entry(&self, target: Option<&Name>) -> Entry {
        self.identity.shared.accounts.entry(self.name(), target)
    }

    /// Gives the session to a connection: from now on no other sends or gets anything in its
    /// name.
    pub fn set_connection(&self, connection: ConnectionId) {
        self.identity.connection.store(connection.0, Ordering::Release);
    }

    pub fn is_connection(&self, connection: ConnectionId) -> bool {
        self.identity.is_connection(connection)
    }

    pub(super) fn deliver(&self, parcel: Parcel) {
        match self.inbox.get() {
            Some(inbox) => inbox.deliver(parcel),
            None => drop(parcel),
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Route")
            .field("name", self.name())
            .field("gauge", &self.gauge)
            .finish_non_exhaustive()
    }
}
