//! `Connection`: one WebSocket, from its handshake to its end.
//!
//! It keeps nothing: what comes in goes to other actors at the end of the burst (others on its thread
//! may have their turn before that), and what goes out is what its session hands it within its credit.
//! Before it is a service, it waits for IDENTIFY; while a mailbox is full or too many answers are
//! unread, it does not read.

mod end;
mod identify;
mod open;
mod ops;
mod pause;

pub(crate) use self::open::{NoHandshake, Opening, open};

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Addr, AsyncContext, Handler, Running, SpawnHandle, StreamHandler};
use actix_web_actors::ws::{self, WebsocketContext};
use tokio::sync::Semaphore;

use self::end::Farewell;
use self::ops::Acknowledgement;
use super::bursts::{self, Burst, Bursts, Gate, Item, Paused};
use super::dispatch::{Dispatcher, MessageLimits, Outcome};
use super::entrance::{Arrival, Entrance};
use super::outgoing::Outgoing;
use super::showing::Showing;
use crate::actors::client_session::ClientSession;
use crate::actors::gateway::{By, Confirm};
use crate::actors::link::{Life, Link, MAX_OPS, OpKind, OpPermit, Outbound};
use crate::actors::supervision::{guard, text_of};
use crate::actors::turn::{self, Turn};
use crate::config::Config;
use crate::protocol::close::Close;
use crate::protocol::error::{ErrorCode, RejectCode};
use crate::protocol::frame;
use crate::protocol::name::ConnectionId;
use crate::protocol::op::{self, Ack, GatewayOp, Reject, ServiceOp};
use crate::state::grant::Grant;
use crate::state::hold::HoldBudget;
use crate::state::rate::Rate;
use crate::state::registry::Ended;
use crate::state::tally::{Part, Turned};

/// The actor.
pub(crate) struct Connection {
    id: ConnectionId,
    entrance: Arc<Entrance>,
    arrival: Rc<Arrival>,
    life: Arc<Life>,
    opening: Opening,
    /// What the handshake showed.
    showing: Showing,
    bursts: Option<Bursts>,
    gate: Rc<Gate>,
    outgoing: Rc<RefCell<Outgoing>>,
    stage: Stage,
    /// The burst at which reading was paused, and how far it is done.
    paused: Option<Paused>,
    /// Whether the next message waits for room in a mailbox.
    hold: Hold,
    budget: HoldBudget,
    op_rate: Rate,
    turn: Turn,
    ops_this_turn: usize,
    ops: Option<Arc<Semaphore>>,
    permit: Option<OpPermit>,
    /// The highest delivery that this burst acknowledged, until its session is told.
    acknowledged: Option<Acknowledgement>,
    /// The deadline of IDENTIFY, until it came.
    deadline: Option<SpawnHandle>,
    /// How often it has asked for a name, where that seemed to be taken.
    looks: usize,
    /// Whether the gateway was told of the end.
    has_told: bool,
}

/// How a message stands whose target's mailbox is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    No,
    Waiting,
    /// It has waited long enough.
    Spent,
}

/// How far a connection has come.
enum Stage {
    /// IDENTIFY must come next.
    Silent,
    /// The gateway was asked.
    Identifying,
    Service(Box<Service>),
    /// It ends once its session has handed over what it does.
    Releasing(Farewell),
    /// A close frame was sent; the service's own is awaited.
    Closing,
    Ended,
}

/// A connection that is a service.
struct Service {
    dispatcher: Dispatcher,
    session: Addr<ClientSession>,
    grant: Arc<Grant>,
    is_confirmed: bool,
}

/// How far a burst was worked through, and the item at which it goes on.
enum Until {
    End,
    /// For room, for a permit, until its rate allows more, or for others after many ops.
    Waits {
        at: usize,
    },
    /// For others on the same thread, amid proxied messages.
    TurnIsOver {
        at: usize,
    },
}

/// Whether to go on with the next item of a burst.
enum Flow {
    On,
    /// Pause; come back to this item if `again`.
    Pause {
        again: bool,
    },
    End,
}

type Ctx = WebsocketContext<Connection>;

/// The clock is looked at once for so many items.
const LOOK_AT_CLOCK: usize = 16;

impl Connection {
    fn new(entrance: Arc<Entrance>, arrival: Rc<Arrival>, opening: Opening, showing: Showing) -> Self {
        Self {
            id: entrance.mint_id(),
            life: Arc::new(Life::new(arrival.socket().clone())),
            arrival,
            opening,
            showing,
            bursts: None,
            gate: Rc::default(),
            outgoing: Rc::default(),
            stage: Stage::Silent,
            paused: None,
            hold: Hold::No,
            budget: HoldBudget::new(entrance.config.hold),
            op_rate: Rate::new(entrance.config.max_ops_per_second),
            turn: Turn::default(),
            ops_this_turn: 0,
            ops: None,
            permit: None,
            acknowledged: None,
            deadline: None,
            looks: 1,
            has_told: false,
            entrance,
        }
    }

    fn limits(&self) -> MessageLimits {
        let Config { max_topic_bytes, max_depth, .. } = *self.entrance.config;
        MessageLimits { max_topic_bytes, max_depth }
    }

    /// Works through a burst from that item on.
    fn work(&mut self, mut burst: Burst, from: usize, context: &mut Ctx) {
        self.life.hear();
        if let Stage::Service(service) = &mut self.stage {
            service.dispatcher.begin();
        }
        self.ops_this_turn = 0;
        self.turn.start(Instant::now());
        let until = self.items(&mut burst, from, context);
        match &mut self.stage {
            // A service that does not take what is written to it is not polled: nothing may wait for that.
            Stage::Service(service)
                if matches!(until, Until::TurnIsOver { .. }) && self.outgoing.borrow().is_idle() =>
            {
                service.dispatcher.keep_open();
            }
            _ => self.flush(),
        }
        let now = Instant::now();
        self.turn.stop(now);
        match until {
            Until::Waits { at } | Until::TurnIsOver { at } => self.paused = Some(Paused::new(burst, at)),
            Until::End => {
                bursts::give_back(burst);
                if self.turn.is_over(now) {
                    self.give_way(context);
                }
            }
        }
    }

    /// Handles the items from that one on, as far as it gets.
    fn items(&mut self, burst: &mut Burst, from: usize, context: &mut Ctx) -> Until {
        for index in from..burst.len() {
            if index % LOOK_AT_CLOCK == LOOK_AT_CLOCK - 1 && self.turn.is_over(Instant::now()) {
                self.give_way(context);
                return Until::TurnIsOver { at: index };
            }
            let room = burst.bytes_from(index);
            let Some((item, bytes)) = burst.get(index) else { break };
            match self.guarded_item(item, bytes, room, context) {
                Flow::On => {}
                Flow::Pause { again } => return Until::Waits { at: if again { index } else { index + 1 } },
                Flow::End => break,
            }
        }
        Until::End
    }

    /// Runs a handler. A panic that is not about one message ends the connection, as its end would:
    /// an actor that panics is not told that it stops.
    fn guarded(&mut self, context: &mut Ctx, handler: impl FnOnce(&mut Self, &mut Ctx)) {
        let shared = self.entrance.routes.shared().clone();
        guard::<Self, ()>("a connection", Part::Connection, &shared.panics, context, |context| {
            handler(self, context);
        });
    }

    /// Handles an item; if that panics, the offending message is answered with `internal` and
    /// the connection stays.
    fn guarded_item(&mut self, item: Item, bytes: &[u8], room: usize, context: &mut Ctx) -> Flow {
        let handled = std::panic::AssertUnwindSafe(|| self.item(item, bytes, room, context));
        std::panic::catch_unwind(handled).unwrap_or_else(|panic| {
            self.entrance.routes.shared().panics.add(Part::Connection);
            log::error!(
                "a message on connection {} made the gateway panic: {}",
                self.id.0,
                text_of(panic.as_ref())
            );
            self.send_error(op::Error::new(ErrorCode::Internal, "the gateway failed at this message"), None);
            Flow::On
        })
    }

    fn item(&mut self, item: Item, bytes: &[u8], room: usize, context: &mut Ctx) -> Flow {
        match item {
            Item::Text => self.text(bytes, room, context),
            Item::Ping => {
                self.outgoing.borrow_mut().set_pong(frame::pong(bytes));
                self.spend_ops(1, context)
            }
            Item::Pong => self.spend_ops(1, context),
            Item::Close => {
                self.close_came(bytes, context);
                Flow::End
            }
            Item::Violation(close) => {
                self.close(close, context);
                Flow::End
            }
            Item::End => {
                self.lost(context);
                Flow::End
            }
        }
    }

    fn text(&mut self, bytes: &[u8], room: usize, context: &mut Ctx) -> Flow {
        let Ok(text) = simdutf8::basic::from_utf8(bytes) else {
            self.close(Close::NotUtf8, context);
            return Flow::End;
        };
        match &mut self.stage {
            Stage::Silent => self.first_message(text, context),
            Stage::Identifying => Flow::Pause { again: true },
            Stage::Service(service) => {
                if !service.is_confirmed {
                    service.is_confirmed = true;
                    self.entrance.gateway.do_send(Confirm(self.id));
                }
                let (hold, budget) = (self.hold, &mut self.budget);
                // A wait for no time at all would still be one, and a timer's is a millisecond at least.
                let may_hold = || hold != Hold::Spent && !budget.left(Instant::now()).is_zero();
                let outcome = service.dispatcher.message(text, room, may_hold);
                if !matches!(outcome, Outcome::Full(_)) {
                    self.hold = Hold::No;
                }
                self.follow(outcome, context)
            }
            // The service's close frame may be behind it.
            Stage::Releasing(_) | Stage::Closing => Flow::On,
            Stage::Ended => Flow::End,
        }
    }

    fn follow(&mut self, outcome: Outcome, context: &mut Ctx) -> Flow {
        match outcome {
            Outcome::Done => Flow::On,
            Outcome::Op(ServiceOp::Ack(Ack { i })) => self.acknowledged(i, context),
            Outcome::Op(op) => self.op(op, context),
            Outcome::Error(error) => self.refused_op(error, context),
            Outcome::Full(route) => {
                self.hold(route, context);
                Flow::Pause { again: true }
            }
        }
    }

    fn send_error(&self, error: op::Error, permit: Option<OpPermit>) {
        self.entrance.routes.shared().errors.add(error.code);
        self.send(&GatewayOp::Error(error), permit);
    }

    fn send(&self, op: &GatewayOp, permit: Option<OpPermit>) {
        self.outgoing.borrow_mut().push_op(frame::text(&op.to_json()), permit, false);
    }

    fn flush(&mut self) {
        self.send_acknowledgement();
        if let Stage::Service(service) = &mut self.stage {
            service.dispatcher.flush();
        }
    }

    fn refuse_over_capacity(&mut self, context: &mut Ctx) {
        self.entrance.turn_away(Turned::AtCapacity);
        let message =
            format!("there are max_connections = {} connections", self.entrance.config.max_connections);
        let retry_after_ms = Some(1000);
        self.send(&GatewayOp::Reject(Reject { code: RejectCode::AtCapacity, message, retry_after_ms }), None);
        self.close(Close::Rejected, context);
    }
}

impl Actor for Connection {
    type Context = Ctx;

    fn started(&mut self, context: &mut Ctx) {
        self.entrance.connections().began();
        if let Some(bursts) = self.bursts.take() {
            context.add_stream(bursts);
        }
        if self.entrance.connections().now() > self.entrance.config.max_connections as u64 {
            return self.refuse_over_capacity(context);
        }
        self.wait_for_identify(context);
        if let Some(ticket) = self.opening.ticket.take() {
            self.ask_to_be(By::Ticket(ticket), context);
        }
    }

    fn stopping(&mut self, context: &mut Ctx) -> Running {
        self.cut_short(context);
        Running::Stop
    }

    fn stopped(&mut self, _: &mut Ctx) {
        self.entrance.connections().ended();
    }
}

impl StreamHandler<Burst> for Connection {
    fn handle(&mut self, burst: Burst, context: &mut Ctx) {
        self.guarded(context, |connection, context| connection.work(burst, 0, context));
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Connection {
    fn handle(&mut self, _: Result<ws::Message, ws::ProtocolError>, _: &mut Ctx) {
        // `WebsocketContext` asks for this handler; its stream never yields.
    }
}

impl Handler<Outbound> for Connection {
    type Result = ();

    fn handle(&mut self, outbound: Outbound, context: &mut Ctx) {
        self.turn.start(Instant::now());
        self.guarded(context, |connection, context| connection.take_outbound(outbound, context));
        turn::stop(self, context, |connection| &mut connection.turn);
    }
}

impl Connection {
    fn take_outbound(&mut self, outbound: Outbound, context: &mut Ctx) {
        if self.paused.is_some() {
            self.flush();
        }
        match outbound {
            Outbound::Frames(frames) => self.outgoing.borrow_mut().push_frames(frames),
            Outbound::Op { frame, permit, kind } => {
                if kind == OpKind::Refusal {
                    // Felt at the next op.
                    self.op_rate.spend(1, Instant::now());
                }
                self.outgoing.borrow_mut().push_op(frame, permit, kind == OpKind::Presence);
            }
            Outbound::Ping => self.outgoing.borrow_mut().push_op(frame::ping(), None, false),
            Outbound::Close(close) => self.close(close, context),
            Outbound::Released => self.released(),
        }
    }
}
