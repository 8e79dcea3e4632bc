//! What a service's ops, acknowledgements and pings cost it, and how they get to its session.
//!
//! Each that has an answer holds a permit until that is written, so unread answers stop the
//! reading; each counts in `max_ops_per_second`, valid acknowledgements aside.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::{Connection, Ctx, Flow, MAX_OPS, OpPermit, Stage};
use crate::actors::client_session::{Acknowledged, FromService};
use crate::protocol::error::ErrorCode;
use crate::protocol::op::{self, ServiceOp};
use crate::state::tally::Held;

/// Ops of one connection after which others on the same thread have their turn: an op costs many
/// times what a proxied message does, and its answer does so once more.
const OPS_A_TURN: usize = 64;

/// What a burst acknowledged: as ACK is cumulative, the highest says it all.
pub(super) struct Acknowledgement {
    i: u64,
    permit: OpPermit,
}

/// For how many ops one counts in `max_ops_per_second`.
fn cost_of(op: &ServiceOp) -> u64 {
    match op {
        // Makes the gateway look at every service.
        ServiceOp::Watch(_) => 1000,
        _ => 1,
    }
}

impl Connection {
    pub(super) fn op(&mut self, op: ServiceOp, context: &mut Ctx) -> Flow {
        if let Stage::Service(service) = &self.stage
            && !service.grant.may_use(&op)
        {
            let message = "this service's credential does not permit the op";
            return self.refused_op(op::Error::new(ErrorCode::Forbidden, message), context);
        }
        let Some(permit) = self.take_permit(context) else { return Flow::Pause { again: true } };
        let cost = cost_of(&op).min(self.entrance.config.max_ops_per_second);
        self.send_op(op, permit);
        self.spend_ops(cost, context)
    }

    pub(super) fn refused_op(&mut self, error: op::Error, context: &mut Ctx) -> Flow {
        let Some(permit) = self.take_permit(context) else { return Flow::Pause { again: true } };
        self.send_error(error, Some(permit));
        self.spend_ops(1, context)
    }

    /// ACK, which may come for each message: its session hears of the highest of a burst, and of none
    /// that was never sent.
    pub(super) fn acknowledged(&mut self, i: u64, context: &mut Ctx) -> Flow {
        let Stage::Service(service) = &self.stage else { return Flow::On };
        if let Err(never_sent) = service.dispatcher.identity().check_sent(i) {
            return self.refused_op(op::Error::new(ErrorCode::Malformed, never_sent.to_string()), context);
        }
        if let Some(acknowledged) = &mut self.acknowledged {
            acknowledged.i = acknowledged.i.max(i);
        } else {
            let Some(permit) = self.take_permit(context) else { return Flow::Pause { again: true } };
            self.acknowledged = Some(Acknowledgement { i, permit });
        }
        Flow::On
    }

    /// Tells the session what was acknowledged.
    pub(super) fn send_acknowledgement(&mut self) {
        let Stage::Service(service) = &self.stage else { return };
        if let Some(Acknowledgement { i, permit }) = self.acknowledged.take() {
            service.session.do_send(Acknowledged { connection: self.id, i, permit });
        }
    }

    fn send_op(&self, op: ServiceOp, permit: OpPermit) {
        #[cfg(feature = "fault-injection")]
        match op {
            ServiceOp::Fault(op::Fault { panic: op::FaultIn::Connection }) => panic!("as asked"),
            ServiceOp::Fault(op::Fault { panic: op::FaultIn::Worker }) => {
                actix::Arbiter::current().stop();
                return;
            }
            _ => {}
        }
        if let Stage::Service(service) = &self.stage {
            service.session.do_send(FromService { connection: self.id, op, permit });
        }
    }

    /// A permit for one op or its answer; without one, reading pauses until there is.
    fn take_permit(&mut self, context: &mut Ctx) -> Option<OpPermit> {
        if let Some(permit) = self.permit.take() {
            return Some(permit);
        }
        let ops = self.ops.get_or_insert_with(|| Arc::new(Semaphore::new(MAX_OPS))).clone();
        if let Ok(permit) = ops.clone().try_acquire_owned() {
            return Some(permit);
        }
        self.note_held(Held::Answers);
        self.wait_for(ops.acquire_owned(), context, |connection, permit| connection.permit = permit.ok());
        None
    }

    /// Counts an op, a ping or a refused message; reading pauses where too many came, and gives
    /// others a turn after some.
    pub(super) fn spend_ops(&mut self, cost: u64, context: &mut Ctx) -> Flow {
        self.ops_this_turn += 1;
        if let Some(wait) = self.op_rate.spend(cost, Instant::now()) {
            self.note_held(Held::Ops);
            self.wait_for(sleep(wait), context, |_, ()| ());
        } else if self.ops_this_turn >= OPS_A_TURN {
            self.give_way(context);
        } else {
            return Flow::On;
        }
        Flow::Pause { again: false }
    }
}
