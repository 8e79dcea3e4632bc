//! How a connection becomes a service.

use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Handler, fut};
use actix_rt::Arbiter;

use super::{Connection, Ctx, Flow, Link, Service, Stage};
use crate::actors::client_session::{Attach, Written};
use crate::actors::gateway::{
    By, FirstMessage, Identified, Identify, LOOKS, NEXT_LOOK, Refusal, unauthorized,
};
use crate::networker::dispatch::{Dispatcher, Wishes};
use crate::networker::outgoing;
use crate::protocol::close::Close;
use crate::protocol::envelope::{Envelope, Route as Topic};
use crate::protocol::error::{ErrorCode, RejectCode};
use crate::protocol::name::Name;
use crate::protocol::op::{self, GatewayOp, Reject, ServiceOp};
use crate::protocol::scan::{Limits, scan};
use crate::state::grant::Grant;

impl Connection {
    /// The first message: IDENTIFY, or any with a name that this address holds a ticket for.
    pub(super) fn first_message(&mut self, text: &str, context: &mut Ctx) -> Flow {
        let Ok(envelope) = scan(text, Limits { max_depth: self.entrance.config.max_depth }) else {
            return self.not_identified(context);
        };
        match wish(&envelope) {
            Ok(by) => {
                let again = matches!(by, By::Name(_));
                self.ask_to_be(by, context);
                Flow::Pause { again }
            }
            Err(Refusal::Reject(reject)) => {
                self.reject(reject, context);
                Flow::End
            }
            // Only the gateway knows which names are taken.
            Err(Refusal::NotIdentified | Refusal::Taken { .. }) => self.not_identified(context),
        }
    }

    /// Asks the gateway, and reads no further until it answers.
    pub(super) fn ask_to_be(&mut self, by: By, context: &mut Ctx) {
        let grant = match self.authenticate(&by) {
            Ok(grant) => grant,
            Err(refusal) => return self.refused(refusal, context),
        };
        self.stage = Stage::Identifying;
        self.pause();
        self.entrance.gateway.do_send(Identify {
            by,
            grant,
            link: Link { id: self.id, outbound: context.address().recipient(), life: self.life.clone() },
            address: self.showing.peer,
            arbiter: Arbiter::current(),
            reply: context.address().recipient(),
        });
    }

    /// What its credential permits; `None`: it shows a ticket and no token.
    fn authenticate(&self, by: &By) -> Result<Option<Arc<Grant>>, Refusal> {
        let check = |token| {
            let grant = self.showing.authenticate(token, &self.entrance);
            grant.map_err(|refused| Refusal::Reject(unauthorized(refused.retry_after)))
        };
        match by {
            By::Op { ticket: Some(_), .. } => Ok(None),
            By::Op { name, identify, ticket: None } => {
                let grant = check(identify.token.as_ref())?;
                self.entrance.may_be(&grant, name).map_err(Refusal::Reject)?;
                Ok(Some(grant))
            }
            By::Ticket(_) => {
                let grant = self.showing.beside_ticket(&self.entrance);
                grant.map_err(|refused| Refusal::Reject(unauthorized(refused.retry_after)))
            }
            By::Name(_) if self.entrance.auth.is_in_use() => Err(Refusal::NotIdentified),
            By::Name(_) => check(None).map(Some),
        }
    }

    /// The connection that has the name may be about to end. The wait is here, since the gateway
    /// would forget it in a restart.
    fn ask_again(&mut self, by: By, context: &mut Ctx) {
        self.looks += 1;
        context.run_later(NEXT_LOOK, |connection, context| {
            if matches!(connection.stage, Stage::Identifying) {
                connection.ask_to_be(by, context);
            }
        });
    }

    fn refused(&mut self, refusal: Refusal, context: &mut Ctx) {
        self.paused = None;
        match refusal {
            Refusal::Reject(reject) | Refusal::Taken { reject, .. } => self.reject(reject, context),
            Refusal::NotIdentified => drop(self.not_identified(context)),
        }
        // The service's close frame is awaited.
        self.go_on(context);
    }

    fn accepted(&mut self, first: FirstMessage, context: &mut Ctx) {
        self.arrival.is_accepted();
        self.life.set_accepted();
        let FirstMessage { accept, receipts, acks, session, route, grant } = first;
        if let Some(deadline) = self.deadline.take() {
            context.cancel_future(deadline);
        }
        self.send(&GatewayOp::Accept(accept), None);
        let (connection, told) = (self.id, session.clone());
        self.outgoing.borrow_mut().set_on_written(Box::new(move |written: outgoing::Written| {
            told.do_send(Written { connection, bytes: written.bytes, presences: written.presences });
        }));
        let link = Link { id: self.id, outbound: context.address().recipient(), life: self.life.clone() };
        session.do_send(Attach { link, acks });
        let dispatcher = Dispatcher::new(
            route,
            self.id,
            self.entrance.routes.clone(),
            self.limits(),
            Wishes { receipts, acks },
            grant.clone(),
        );
        self.stage = Stage::Service(Box::new(Service { dispatcher, session, grant, is_confirmed: false }));
        self.go_on(context);
    }

    fn reject(&mut self, reject: Reject, context: &mut Ctx) {
        self.send(&GatewayOp::Reject(reject), None);
        self.close(Close::Rejected, context);
    }

    fn not_identified(&mut self, context: &mut Ctx) -> Flow {
        let message = "the first message must be IDENTIFY: topic gateway:opcode, d.opcode 0";
        self.send_error(op::Error::new(ErrorCode::NotIdentified, message), None);
        self.close(Close::NotIdentified, context);
        Flow::End
    }

    /// Closes the connection if it does not identify in time, or if the gateway stops before.
    pub(super) fn wait_for_identify(&mut self, context: &mut Ctx) {
        let timeout = self.entrance.config.identify_timeout;
        let closing = self.entrance.closing();
        let came = async move {
            tokio::select! {
                () = tokio::time::sleep(timeout) => Close::NotIdentified,
                () = closing => Close::Restart,
            }
        };
        let close = fut::wrap_future(came).map(|close, connection: &mut Self, context: &mut Ctx| {
            connection.close(close, context);
        });
        self.deadline = Some(context.spawn(close));
    }
}

impl Handler<Identified> for Connection {
    type Result = ();

    fn handle(&mut self, Identified(answer): Identified, context: &mut Ctx) {
        self.guarded(context, |connection, context| connection.take_answer(answer, context));
    }
}

impl Connection {
    fn take_answer(&mut self, answer: Result<FirstMessage, Refusal>, context: &mut Ctx) {
        if !matches!(self.stage, Stage::Identifying) {
            return;
        }
        match answer {
            Ok(first) => self.accepted(first, context),
            Err(Refusal::Taken { by, .. }) if self.looks < LOOKS => self.ask_again(by, context),
            Err(refusal) => self.refused(refusal, context),
        }
    }
}

fn reject(code: RejectCode, message: String) -> Refusal {
    Refusal::Reject(Reject { code, message, retry_after_ms: None })
}

/// Who the first message wants to be.
fn wish(envelope: &Envelope<'_>) -> Result<By, Refusal> {
    let parsed = (envelope.route() == Topic::Op).then(|| ServiceOp::parse(envelope.data()));
    let name = Name::new(&envelope.source().decode());
    match parsed {
        Some(Ok(ServiceOp::Identify(identify))) => match name {
            Ok(name) => Ok(By::Op { name, identify, ticket: None }),
            Err(invalid) => Err(reject(RejectCode::InvalidName, format!("`s`: {invalid}"))),
        },
        // An IDENTIFY whose fields do not fit is told so; any other op is not one.
        Some(Err(error)) if error.is_identify() => Err(reject(RejectCode::Malformed, error.message)),
        _ => name.map(By::Name).map_err(|_| Refusal::NotIdentified),
    }
}
