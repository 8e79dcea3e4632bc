//! `ClientSession`: a service, as the others see it.
//!
//! One actor for each service, whose address stays the same while connections come and go. The
//! rules are in [`state::session`](crate::state::session); here messages become its inputs, its
//! actions become messages, and its deadlines become timers.

#[cfg(debug_assertions)]
pub mod walk;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, Recipient, SpawnHandle, Supervised,
    fut,
};

use super::gateway::{ConnectionEnded, Gateway, GiveUp, ServiceRequest, WindowElapsed};
use super::link::{Link, OpKind, OpPermit, Outbound};
use super::supervision::guard;
use super::turn::{self, Turn};
use crate::protocol::close::Close;
use crate::protocol::frame;
use crate::protocol::name::ConnectionId;
#[cfg(feature = "fault-injection")]
use crate::protocol::op;
use crate::protocol::op::{GatewayOp, Presence, ServiceOp, ShardWait};
use crate::state::parcel::Parcel;
use crate::state::registry::Ended;
use crate::state::restarts::Restarts;
use crate::state::route::{Identity, Inbox};
use crate::state::session::{Action, Input, Session, Settings};
use crate::state::tally::Part;

/// How long a session that is down and returns its mailbox lets others have their turn: a message
/// to itself would be handled before any of them.
const YIELD: Duration = Duration::from_millis(1);

/// The actor.
#[derive(Debug)]
pub struct ClientSession {
    identity: Arc<Identity>,
    session: Session,
    link: Option<Link>,
    gateway: Addr<Gateway>,
    timer: Option<(Instant, SpawnHandle)>,
    /// What is still to be done: nothing between two messages, unless a panic came between.
    actions: VecDeque<Action>,
    restarts: Restarts,
    turn: Turn,
    is_given_up: bool,
}

impl ClientSession {
    pub fn new(identity: Arc<Identity>, settings: Settings, gateway: Addr<Gateway>) -> Self {
        Self {
            identity,
            session: Session::new(settings),
            link: None,
            gateway,
            timer: None,
            actions: VecDeque::new(),
            restarts: Restarts::default(),
            turn: Turn::default(),
            is_given_up: false,
        }
    }

    /// Steps the rules and does what they say. `permit` goes with the op that answers.
    fn step(&mut self, input: Input, permit: Option<OpPermit>, context: &mut Context<Self>) {
        self.session.step(input, Instant::now(), &mut self.actions);
        self.perform_all(permit, context);
    }

    /// Takes each action off before it is done, so that a panic in one does not cost the others.
    fn perform_all(&mut self, mut permit: Option<OpPermit>, context: &mut Context<Self>) {
        while let Some(action) = self.actions.pop_front() {
            self.perform(action, &mut permit, context);
        }
    }

    /// As [`step`](Self::step), for inputs that may move a deadline.
    fn step_and_arm(&mut self, input: Input, permit: Option<OpPermit>, context: &mut Context<Self>) {
        self.step(input, permit, context);
        self.arm(context);
    }

    fn perform(&mut self, action: Action, permit: &mut Option<OpPermit>, context: &mut Context<Self>) {
        match action {
            Action::Frames(frames) => {
                // The service can acknowledge what it gets, so this comes first.
                self.identity.set_last_number(self.session.last_number());
                self.send(Outbound::Frames(frames));
            }
            Action::Op(op) => self.send_op(&op, permit.take()),
            Action::Ping => self.send(Outbound::Ping),
            Action::Close(close) => self.send(Outbound::Close(close)),
            Action::CutOff(close) => self.cut_off(close),
            Action::WindowElapsed(since) => {
                self.gateway.do_send(WindowElapsed { service: self.identity.name().clone(), since });
            }
            Action::Continue => {
                context.run_later(YIELD, Self::wake);
            }
        }
    }

    fn send_op(&self, op: &GatewayOp, permit: Option<OpPermit>) {
        let kind = match op {
            GatewayOp::Error(error) => {
                self.identity.errors().add(error.code);
                OpKind::Refusal
            }
            GatewayOp::Presence(_) => OpKind::Presence,
            _ => OpKind::Other,
        };
        self.send(Outbound::Op { frame: frame::text(&op.to_json()), permit, kind });
    }

    /// To the connection, also where the service has been given to another meanwhile: what is handed over
    /// counts as delivered, and is written before that connection closes.
    fn send(&self, outbound: Outbound) {
        if let Some(link) = &self.link {
            link.outbound.do_send(outbound);
        }
    }

    /// Ends a connection that is stuck: the gateway hears of it from here, since the connection
    /// itself is not polled.
    fn cut_off(&self, close: Close) {
        let Some(link) = &self.link else { return };
        link.life.count_close(close, self.identity.closes());
        let reason = format!("cut off with {}: {}", close.code(), close.reason());
        self.gateway.do_send(ConnectionEnded { connection: link.id, how: Ended::Lost, reason });
        link.life.cut_off();
    }

    /// Sets the timer to the next deadline.
    fn arm(&mut self, context: &mut Context<Self>) {
        let next = self.session.next_wake();
        if self.timer.map(|(at, _)| at) == next {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            context.cancel_future(timer);
        }
        self.timer = next.map(|at| {
            let after = at.saturating_duration_since(Instant::now());
            (at, context.run_later(after, ClientSession::wake))
        });
    }

    /// Begins, or goes on after a restart.
    fn go_on(&mut self, context: &mut Context<Self>) {
        self.guarded(context, |session, context| {
            session.session.restart(&mut session.actions);
            session.perform_all(None, context);
            session.arm(context);
        });
    }

    fn wake(&mut self, context: &mut Context<Self>) {
        self.guarded(context, |session, context| {
            session.timer = None;
            let waiting = session.session.has_waiting();
            let seen = session.link.as_ref().map(|link| link.life.observe(waiting, Instant::now()));
            session.step_and_arm(Input::Wake(seen), None, context);
        });
    }

    fn guarded(&mut self, context: &mut Context<Self>, handler: impl FnOnce(&mut Self, &mut Context<Self>)) {
        let identity = self.identity.clone();
        self.turn.start(Instant::now());
        guard::<Self, ()>(identity.name().as_str(), Part::Session, identity.panics(), context, |context| {
            handler(self, context);
        });
        turn::stop(self, context, |session| &mut session.turn);
    }
}

impl Actor for ClientSession {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Timers that were cancelled right before a restart are still to be taken out, by numbers that the next
        // ones get again. What waits runs after that.
        context.wait(fut::ready(()).map(|(), session: &mut Self, context: &mut Context<Self>| {
            session.go_on(context);
        }));
    }
}

impl Supervised for ClientSession {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.timer = None;
        if self.restarts.note(Instant::now()) && !self.is_given_up {
            // Being given up is a state, not a stop: a supervisor would restart it for ever.
            self.is_given_up = true;
            self.gateway.do_send(GiveUp { session: self.identity.clone() });
        }
    }
}

/// Messages for the service.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Deliver(pub Parcel);

impl Handler<Deliver> for ClientSession {
    type Result = ();

    fn handle(&mut self, Deliver(parcel): Deliver, context: &mut Self::Context) {
        self.guarded(context, |session, context| session.step(Input::Deliver(parcel), None, context));
    }
}

impl Inbox for Addr<ClientSession> {
    fn deliver(&self, parcel: Parcel) {
        self.do_send(Deliver(parcel));
    }
}

/// The connection wrote what it was handed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Written {
    pub connection: ConnectionId,
    /// Of proxied messages, as frames.
    pub bytes: usize,
    pub presences: usize,
}

impl Handler<Written> for ClientSession {
    type Result = ();

    fn handle(&mut self, written: Written, context: &mut Self::Context) {
        let Written { connection, bytes, presences } = written;
        self.guarded(context, |session, context| {
            session.step(Input::Written { connection, bytes, presences }, None, context);
        });
    }
}

/// A connection has been accepted for this service and is ready for its messages.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Attach {
    pub link: Link,
    /// Whether deliveries are to be numbered until acknowledged.
    pub acks: bool,
}

impl Handler<Attach> for ClientSession {
    type Result = ();

    fn handle(&mut self, Attach { link, acks }: Attach, context: &mut Self::Context) {
        let connection = link.id;
        // Another may have been accepted since, and be here already.
        if !self.identity.is_connection(connection) {
            return;
        }
        self.link = Some(link);
        self.guarded(context, |session, context| {
            session.step_and_arm(Input::Attach { connection, acks }, None, context);
        });
    }
}

/// The connection is about to end; told before its service can know of it, and passed on. What the session
/// has handed over by then is still written: [`Outbound::Released`] comes behind that.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Release {
    pub ended: ConnectionEnded,
    pub outbound: Recipient<Outbound>,
}

impl Handler<Release> for ClientSession {
    type Result = ();

    fn handle(&mut self, Release { ended, outbound }: Release, context: &mut Self::Context) {
        let connection = ended.connection;
        self.gateway.do_send(ended);
        self.guarded(context, |session, context| session.step(Input::Release { connection }, None, context));
        outbound.do_send(Outbound::Released);
    }
}

/// An op that the service sent on that connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct FromService {
    pub connection: ConnectionId,
    pub op: ServiceOp,
    pub permit: OpPermit,
}

impl Handler<FromService> for ClientSession {
    type Result = ();

    fn handle(&mut self, request: FromService, context: &mut Self::Context) {
        self.guarded(context, |session, _| session.pass_on(request));
    }
}

/// The service acknowledged that delivery and all before it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Acknowledged {
    pub connection: ConnectionId,
    pub i: u64,
    /// Bounds how many of these are on their way.
    pub permit: OpPermit,
}

impl Handler<Acknowledged> for ClientSession {
    type Result = ();

    fn handle(&mut self, Acknowledged { connection, i, permit }: Acknowledged, context: &mut Self::Context) {
        if self.identity.is_connection(connection) {
            self.guarded(context, |session, context| {
                session.step(Input::Ack { i }, Some(permit), context);
            });
        }
    }
}

/// Something that the gateway wants of the session.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum Order {
    /// That connection has the service's name from now on, and will attach itself.
    Expect {
        connection: ConnectionId,
    },
    /// Tell the service. With a connection it is an answer, lost where that is not the service's
    /// any more.
    Op {
        op: GatewayOp,
        answers: Option<ConnectionId>,
        permit: Option<OpPermit>,
    },
    Presence(Presence),
    ShardWait {
        wait: ShardWait,
        answers: ConnectionId,
    },
    /// The connection ended; wait that long for another.
    Detach {
        connection: ConnectionId,
        window: Duration,
    },
    /// Close the connection after that time.
    CloseAfter {
        deadline: Duration,
        close: Close,
    },
    /// Close the connection now.
    Close(Close),
    /// The session is over, for that reason: return the mailbox.
    GoDown {
        reason: &'static str,
    },
}

impl Handler<Order> for ClientSession {
    type Result = ();

    fn handle(&mut self, order: Order, context: &mut Self::Context) {
        self.guarded(context, |session, context| session.obey(order, context));
    }
}

impl ClientSession {
    fn pass_on(&self, FromService { connection, op, permit }: FromService) {
        if !self.identity.is_connection(connection) {
            return;
        }
        #[cfg(feature = "fault-injection")]
        assert!(op != ServiceOp::Fault(op::Fault { panic: op::FaultIn::Session }), "as asked");
        let service = self.identity.name().clone();
        self.gateway.do_send(ServiceRequest { service, connection, op, permit });
    }

    fn obey(&mut self, order: Order, context: &mut Context<Self>) {
        let current = self.session.latest_connection();
        let (input, permit) = match order {
            Order::Op { answers: Some(connection), .. } if current != Some(connection) => return,
            Order::ShardWait { answers, .. } if current != Some(answers) => return,
            Order::Expect { connection } => (Input::Expect { connection }, None),
            Order::Op { op, permit, .. } => (Input::Op(op), permit),
            Order::Presence(presence) => (Input::Presence(presence), None),
            Order::ShardWait { wait, .. } => (Input::ShardWait(wait), None),
            Order::Detach { connection, window } => (Input::Detach { connection, window }, None),
            Order::CloseAfter { deadline, close } => (Input::CloseAfter { deadline, close }, None),
            Order::Close(close) => (Input::Close(close), None),
            Order::GoDown { reason } => (Input::GoDown { reason }, None),
        };
        self.step_and_arm(input, permit, context);
        if self.session.connection().is_none() {
            self.link = None;
        }
    }
}
