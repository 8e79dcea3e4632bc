//! How a connection ends: its session is told first, and through it the gateway; what the session had
//! handed over is written; then the close frames are exchanged (RFC 6455 section 7), and the socket is closed.

use std::time::Duration;

use actix::AsyncContext;
use bytes::Bytes;

use super::{Connection, Ctx, Ended, Stage};
use crate::actors::client_session::{Lost, Release};
use crate::actors::gateway::ConnectionEnded;
use crate::protocol::close::{Close, LEAVES_FOR_GOOD};
use crate::protocol::frame;

/// How long the service may take to answer our close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is left to do once the session has handed over what it does.
pub(super) struct Farewell {
    close: Bytes,
    /// Whether the service's close frame came, or its end of the socket.
    is_last: bool,
}

impl Connection {
    /// Closes: sends what was handed over, then a close frame, and waits for the service's.
    pub(super) fn close(&mut self, close: Close, context: &mut Ctx) {
        if matches!(self.stage, Stage::Releasing(_) | Stage::Closing | Stage::Ended) {
            return;
        }
        self.flush();
        self.count_close(close);
        let farewell = Farewell { close: frame::close(close), is_last: false };
        let reason = format!("closed with {}: {}", close.code(), close.reason());
        self.end(Ended::Lost, &reason, farewell, context);
        self.paused = None;
        self.go_on(context);
    }

    /// The service's close frame came, as the first or as the answer to ours.
    pub(super) fn close_came(&mut self, payload: &[u8], context: &mut Ctx) {
        if self.is_over() {
            return;
        }
        let Some((code, reason)) = parse(payload) else { return self.close(Close::ProtocolError, context) };
        self.flush();
        self.count_close(Close::Left);
        let how = if code == Some(LEAVES_FOR_GOOD) { Ended::LeftForGood } else { Ended::Closed };
        let reason: String = reason.chars().filter(|character| !character.is_control()).collect();
        let farewell = Farewell { close: frame::close_reply(code), is_last: true };
        self.end(how, &format!("it closed with {} {reason}", code.unwrap_or(1005)), farewell, context);
    }

    /// The socket ended: what was not written by then waits for the service's next connection.
    pub(super) fn lost(&mut self, context: &mut Ctx) {
        if self.is_over() {
            return;
        }
        if let Stage::Service(service) = &self.stage {
            service.session.do_send(Lost(self.id));
        }
        self.flush();
        self.count_close(Close::Lost);
        self.tell_end(Ended::Lost, "its connection was lost", context);
        self.finish();
    }

    /// The session has handed over what it does: the close frame comes behind that.
    pub(super) fn released(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Closing) {
            Stage::Releasing(Farewell { close, is_last }) => {
                self.outgoing.borrow_mut().close(close);
                if is_last {
                    self.finish();
                }
            }
            other => self.stage = other,
        }
    }

    pub(super) fn count_close(&self, close: Close) {
        self.life.count_close(close, &self.entrance.routes.shared().closes);
    }

    /// Whether a close is under way already, to which this is the service's part.
    fn is_over(&mut self) -> bool {
        match &mut self.stage {
            Stage::Releasing(farewell) => farewell.is_last = true,
            Stage::Closing => self.finish(),
            Stage::Ended => {}
            _ => return false,
        }
        true
    }

    /// Tells of the end, and closes once all is handed over.
    fn end(&mut self, how: Ended, reason: &str, farewell: Farewell, context: &mut Ctx) {
        let is_asked = self.tell_end(how, reason, context);
        self.stage = Stage::Releasing(farewell);
        self.life.cut_off_after(CLOSE_TIMEOUT);
        if is_asked {
            // The session may fail at it.
            context.run_later(CLOSE_TIMEOUT, |connection, _| connection.released());
        } else {
            self.released();
        }
    }

    fn finish(&mut self) {
        self.stage = Stage::Ended;
        self.outgoing.borrow_mut().finish();
    }

    /// Tells session and gateway, once, and before the service can know: what comes for it from now
    /// on is not for this connection. The gateway hears of it from the session, after the ops that
    /// the session still has to pass on: a SHARD_DEATH counts even as the last word. True: the session
    /// will say when it has handed over what it does.
    pub(super) fn tell_end(&mut self, how: Ended, reason: &str, context: &mut Ctx) -> bool {
        if std::mem::replace(&mut self.has_told, true) {
            return false;
        }
        self.life.set_ended(how);
        let ended = ConnectionEnded { connection: self.id, how, reason: reason.to_owned() };
        match &self.stage {
            Stage::Silent => false,
            Stage::Service(service) if service.session.connected() => {
                service.session.do_send(Release { ended, outbound: context.address().recipient() });
                true
            }
            _ => {
                self.entrance.gateway.do_send(ended);
                false
            }
        }
    }
}

/// The code and reason of a close frame; `None`: not well formed (RFC 6455 section 5.5.1).
fn parse(payload: &[u8]) -> Option<(Option<u16>, &str)> {
    match payload {
        [] => Some((None, "")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let is_allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            let reason = std::str::from_utf8(reason).ok()?;
            is_allowed.then_some((Some(code), reason))
        }
        [_] => None,
    }
}
