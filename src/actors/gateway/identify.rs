//! IDENTIFY, by WebSocket and by HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Addr, AsyncContext, Context, Handler, Message, Recipient, Supervisor};
use actix_rt::ArbiterHandle;

use super::ends::VANISHED;
use super::{Gateway, Handle};
use crate::actors::client_session::{ClientSession, Order};
use crate::actors::link::{Link, Outbound};
use crate::protocol::VERSION;
use crate::protocol::close::Close;
use crate::protocol::error::RejectCode;
use crate::protocol::name::{ConnectionId, Name};
use crate::protocol::op::{self, Accept, Hidden, PresenceEvent, Reject, Ticket};
use crate::state::gauge::Bounds;
use crate::state::grant::{Grant, Ops};
use crate::state::peer::Peer;
use crate::state::registry::{Claim, Finds, Redeemed, Taken};
use crate::state::route::Route;
use crate::state::secret::Secret;
use crate::state::shards::Input;
use crate::state::tally::Turned;

/// Before a name is refused as taken, whoever asked waits so long and asks again: the close frame
/// of the connection that has it may still be on the way through another thread.
pub const NEXT_LOOK: Duration = Duration::from_millis(50);

/// So often it asks: once more after it was seen that the connection has ended, since what its service said
/// last may still be on the way then.
pub const LOOKS: usize = 3;

/// How long a connection that is closed may take to end by itself.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A connection asks to be a service.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Identify {
    pub by: By,
    /// What the credential permits that was shown. `None`: none was, it is the ticket's.
    pub grant: Option<Arc<Grant>>,
    pub link: Link,
    pub address: Peer,
    /// The thread that serves the connection: a new session goes there too.
    pub arbiter: ArbiterHandle,
    pub reply: Recipient<Identified>,
}

/// What a connection identifies by.
#[derive(Debug)]
pub enum By {
    /// An IDENTIFY as its first message.
    Op {
        name: Name,
        identify: op::Identify,
        /// What came with a ticket that was redeemed before: the session secret told with it, and what
        /// its credential permits.
        ticket: Option<(Secret, Arc<Grant>)>,
    },
    /// A ticket in its URL.
    Ticket(Hidden),
    /// Nothing but `s` of its first message, a name that its address may hold a ticket for.
    Name(Name),
}

/// The answer to [`Identify`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Identified(pub Result<FirstMessage, Refusal>);

/// Why a connection is no service.
#[derive(Debug)]
pub enum Refusal {
    Reject(Reject),
    /// The name has a live connection. It may be worth to ask again, by this, after
    /// [`NEXT_LOOK`].
    Taken {
        by: By,
        reject: Reject,
    },
    /// It did not ask to be one.
    NotIdentified,
}

/// A connection is a service now.
#[derive(Debug)]
pub struct FirstMessage {
    pub accept: Accept,
    pub receipts: bool,
    pub acks: bool,
    pub session: Addr<ClientSession>,
    pub route: Arc<Route>,
    pub grant: Arc<Grant>,
}

impl Handler<Identify> for Gateway {
    type Result = ();

    fn handle(&mut self, message: Identify, context: &mut Self::Context) {
        let reply = message.reply.clone();
        if self.guarded(context, |gateway, context| gateway.identify(message, context)).is_none() {
            reply.do_send(Identified(Err(Refusal::Reject(failed()))));
        }
    }
}

/// What is known of a connection that identifies, whichever way it does.
struct Applicant {
    name: Name,
    identify: op::Identify,
    grant: Arc<Grant>,
    /// The session secret that came with its ticket.
    told: Option<Secret>,
}

impl Applicant {
    fn of(name: Name, redeemed: Redeemed) -> Self {
        let Redeemed { identify, session, grant } = redeemed;
        Self { name, identify, grant, told: Some(session) }
    }
}

/// The answer to a credential that is missing or wrong; which of them is not told.
pub fn unauthorized(retry_after: Option<Duration>) -> Reject {
    let message = match retry_after {
        None => "a valid credential is needed: `token` of IDENTIFY, or Authorization: Bearer",
        Some(_) => "too many wrong credentials came from this address (auth_failures_per_minute)",
    };
    let retry_after_ms = retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    Reject { code: RejectCode::Unauthorized, message: message.to_owned(), retry_after_ms }
}

impl Gateway {
    fn identify(&mut self, message: Identify, context: &mut Context<Self>) {
        let Identify { by, grant, link, address, arbiter, reply } = message;
        let accepted = self
            .applicant(by, grant, address, Instant::now())
            .and_then(|applicant| self.admit(applicant, address, link, &arbiter, context));
        reply.do_send(Identified(accepted));
    }

    fn admit(
        &mut self,
        applicant: Applicant,
        address: Peer,
        link: Link,
        arbiter: &ArbiterHandle,
        context: &mut Context<Self>,
    ) -> Result<FirstMessage, Refusal> {
        // The credentials may have changed since it was checked.
        if !self.auth.stands(&applicant.grant) {
            return Err(Refusal::Reject(unauthorized(None)));
        }
        let Applicant { name, identify, grant, .. } = &applicant;
        let claim = Claim { name, session: identify.session.as_ref().map(Hidden::reveal), address, grant };
        let now = Instant::now();
        match self.look(claim, now) {
            Ok(finds) => self.accept(applicant, finds, link, arbiter, context).map_err(Refusal::Reject),
            Err(reject) => {
                log::info!("{} was rejected: {}", applicant.name, reject.code.as_str());
                let Applicant { name, identify, grant, told } = applicant;
                let is_taken = reject.code == RejectCode::AlreadyConnected;
                let ticket = told.map(|told| (told, grant));
                let taken = |reject| Refusal::Taken { by: By::Op { name, identify, ticket }, reject };
                Err(if is_taken { taken(reject) } else { Refusal::Reject(reject) })
            }
        }
    }

    fn applicant(
        &mut self,
        by: By,
        grant: Option<Arc<Grant>>,
        address: Peer,
        now: Instant,
    ) -> Result<Applicant, Refusal> {
        match by {
            By::Op { name, identify, ticket: Some((told, grant)) } => {
                Ok(Applicant { name, identify, grant, told: Some(told) })
            }
            By::Op { name, identify, ticket: None } => {
                let grant = grant.ok_or_else(|| Refusal::Reject(unauthorized(None)))?;
                Ok(Applicant { name, identify, grant, told: None })
            }
            By::Ticket(ticket) => {
                let redeemed = self.registry.redeem(ticket.reveal(), grant.as_deref(), now);
                let (name, redeemed) = redeemed.ok_or_else(|| self.no_ticket(address))?;
                Ok(Applicant::of(name, redeemed))
            }
            By::Name(name) => {
                let redeemed = self.registry.redeem_by_address(&name, address, now);
                Ok(Applicant::of(name, redeemed.ok_or(Refusal::NotIdentified)?))
            }
        }
    }

    /// The answer to a ticket that is none, which counts as a wrong credential.
    fn no_ticket(&self, address: Peer) -> Refusal {
        if let Some(retry_after) = self.auth.must_wait(address) {
            self.routes.shared().turned.add(Turned::TooManyFailures);
            return Refusal::Reject(unauthorized(Some(retry_after)));
        }
        self.auth.note_failure(address);
        self.routes.shared().turned.add(Turned::Unauthorized);
        log::warn!("{address} showed no valid ticket");
        let message = "the ticket is not known, used up or older than 30 s".to_owned();
        Refusal::Reject(Reject { code: RejectCode::Unauthorized, message, retry_after_ms: None })
    }

    /// Gives the name to the connection.
    fn accept(
        &mut self,
        applicant: Applicant,
        finds: Finds,
        link: Link,
        arbiter: &ArbiterHandle,
        context: &mut Context<Self>,
    ) -> Result<FirstMessage, Reject> {
        let Applicant { name, identify, grant, told } = applicant;
        let secret = random_secret()?;
        let connection = link.id;
        let handle = match self.registry.get(&name) {
            Some(known) => {
                let (session, route) = (known.handle.session.clone(), known.handle.route.clone());
                if matches!(finds, Finds::Live | Finds::HungUp)
                    && let Some(link) = &known.handle.link
                {
                    self.close_at_once(link, Close::Replaced);
                }
                Handle { session, route, link: Some(link) }
            }
            None => self.start_session(&name, arbiter, link, context),
        };
        self.restrict(&name, grant.ops);
        if !self.shards_of(&name).is_empty() {
            // Their end may be under way: it goes by ACCEPT until it is told of that.
            self.tell_allocator(Input::Heard { service: name.clone() });
        }
        self.tell_allocator(Input::Resumed { service: name.clone() });
        handle.route.set_connection(connection);
        // Whatever it is told from here on is for this connection, which comes there by way of its own thread.
        handle.session.do_send(Order::Expect { connection });
        let (session, route) = (handle.session.clone(), handle.route.clone());
        let group = identify.group.as_deref().and_then(|group| Name::new(group).ok());
        let secret_told = secret.clone();
        let taken = Taken {
            name: &name,
            connection,
            grant: grant.clone(),
            group: group.clone(),
            secret: secret_told,
            told,
        };
        self.registry.take(taken, handle, Instant::now());
        self.announce_arrival(&name, group, finds);
        let accept = self.acceptance(&name, &secret, finds != Finds::Nothing, None);
        self.listed.tell(&name, &accept.shards);
        Ok(FirstMessage { accept, receipts: identify.receipts, acks: identify.ack, session, route, grant })
    }

    /// What an earlier connection had by ops that this one may not use is over.
    fn restrict(&mut self, name: &Name, ops: Ops) {
        if !ops.watch {
            self.watchers.remove(name);
        }
        if !ops.shards {
            self.withhold_shards(name);
            // Whoever held them may not know: nobody gets them before it must have noticed.
            self.tell_allocator(Input::Down { service: name.clone(), departure: VANISHED });
        }
    }

    fn start_session(
        &self,
        name: &Name,
        arbiter: &ArbiterHandle,
        link: Link,
        context: &Context<Self>,
    ) -> Handle {
        let bounds = Bounds { messages: self.config.mailbox_messages, bytes: self.config.mailbox_bytes };
        let route = Arc::new(Route::new(name.clone(), bounds, self.routes.shared().clone()));
        let (settings, gateway, identity) =
            (self.session_settings(), context.address(), route.identity().clone());
        let session =
            Supervisor::start_in_arbiter(arbiter, move |_| ClientSession::new(identity, settings, gateway));
        route.open(Box::new(session.clone()));
        self.routes.insert(route.clone());
        Handle { session, route, link: Some(link) }
    }

    /// Closes a connection without its session, and cuts it off if it does not end soon.
    pub(super) fn close_at_once(&self, link: &Link, close: Close) {
        link.life.count_close(close, &self.routes.shared().closes);
        link.outbound.do_send(Outbound::Close(close));
        link.life.cut_off_after(CLOSE_GRACE);
    }

    fn announce_arrival(&mut self, name: &Name, group: Option<Name>, finds: Finds) {
        let (event, reason) = match finds {
            Finds::Nothing => (PresenceEvent::Up, "it identified"),
            Finds::Away | Finds::HungUp => (PresenceEvent::Resumed, "it came back"),
            Finds::Live => (PresenceEvent::Resumed, "it took its connection over"),
        };
        self.announce(name, group, event, reason);
        // While it was away it was told nothing.
        self.tell_all_presences(name);
    }

    pub(super) fn acceptance(
        &self,
        name: &Name,
        secret: &Secret,
        resumed: bool,
        ticket: Option<Ticket>,
    ) -> Accept {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Accept {
            service: name.clone(),
            session: secret.reveal().to_owned(),
            resumed,
            heartbeat_ms: ms(self.config.heartbeat),
            resume_window_ms: ms(self.config.resume_window),
            max_message_bytes: self.config.max_message_bytes as u64,
            shards: self.shards_of(name),
            version: VERSION,
            ticket,
        }
    }
}

/// The answer to an IDENTIFY that made the gateway panic.
pub(super) fn failed() -> Reject {
    let message = "the gateway failed at this message".to_owned();
    Reject { code: RejectCode::AtCapacity, message, retry_after_ms: Some(1000) }
}

pub(super) fn random_secret() -> Result<Secret, Reject> {
    Secret::random().map_err(|error| {
        log::error!("the operating system gives no randomness: {error}");
        let message = "the gateway has no randomness for a session".to_owned();
        Reject { code: RejectCode::AtCapacity, message, retry_after_ms: Some(1000) }
    })
}

/// The first message after ACCEPT came: the service has its new secret.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Confirm(pub ConnectionId);

impl Handler<Confirm> for Gateway {
    type Result = ();

    fn handle(&mut self, Confirm(connection): Confirm, context: &mut Self::Context) {
        self.guarded(context, |gateway, _| gateway.registry.confirm(connection));
    }
}
