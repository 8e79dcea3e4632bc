//! How a connection ends: its session is told first, and through it the gateway; what the session had
//! handed over is written; then the close frames are exchanged (RFC 6455 section 7), and the socket is closed.

use std::time::Duration;

use actix::AsyncContext;
use bytes::Bytes;

use super::{Connection, Ctx, Ended, Stage};
use crate::actors::client_session::Release;
use crate::actors::gateway::ConnectionEnded;
use crate::protocol::close::{Close, LEAVES_FOR_GOOD};
use crate::protocol::frame;

/// How long the service may take to answer our close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the session may take to say that it has handed over what it does. Half of what session and gateway
/// leave a connection that they told to close, so that the close frame is still written.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);

/// Why a connection ended of which nothing else is known.
const LOST: &str = "its connection was lost";

/// What is left to do once the session has handed over what it does.
pub(super) struct Farewell {
    /// The close frame, unless the socket has ended.
    close: Option<Bytes>,
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
        let farewell = Farewell { close: Some(frame::close(close)), is_last: false };
        let reason = format!("closed with {}: {}", close.code(), close.reason());
        self.end(Ended::Lost, &reason, farewell, context);
        self.paused = None;
        self.go_on(context);
    }

    /// The service's close frame came, as the first or as the answer to ours.
    pub(super) fn close_came(&mut self, payload: &[u8], context: &mut Ctx) {
        if self.takes_last_word() {
            return;
        }
        let Some((code, reason)) = parse(payload) else { return self.close(Close::ProtocolError, context) };
        self.flush();
        self.count_close(Close::Left);
        let how = if code == Some(LEAVES_FOR_GOOD) { Ended::LeftForGood } else { Ended::Closed };
        let reason: String = reason.chars().filter(|character| !character.is_control()).collect();
        let farewell = Farewell { close: Some(frame::close_reply(code)), is_last: true };
        self.end(how, &format!("it closed with {} {reason}", code.unwrap_or(1005)), farewell, context);
    }

    /// The service's end of the socket ended. It may still read.
    pub(super) fn lost(&mut self, context: &mut Ctx) {
        if self.takes_last_word() {
            return;
        }
        self.flush();
        self.count_close(Close::Lost);
        self.end(Ended::Lost, LOST, Farewell { close: None, is_last: true }, context);
    }

    /// The actor stops before all that.
    pub(super) fn cut_short(&mut self, context: &mut Ctx) {
        self.flush();
        self.count_close(Close::Lost);
        self.tell_end(Ended::Lost, LOST, context);
    }

    /// The session has handed over what it does: the close frame comes behind that.
    pub(super) fn released(&mut self) {
        let Stage::Releasing(Farewell { close, is_last }) = &mut self.stage else { return };
        let (close, is_last) = (close.take(), *is_last);
        self.stage = Stage::Closing;
        if let Some(close) = close {
            self.outgoing.borrow_mut().close(close);
        }
        if is_last {
            self.finish();
        }
    }

    pub(super) fn count_close(&self, close: Close) {
        self.life.count_close(close, &self.entrance.routes.shared().closes);
    }

    /// Takes the service's last word on a close that is under way already, whoever began it; whether one is.
    fn takes_last_word(&mut self) -> bool {
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
            // It may fail at it.
            context.run_later(RELEASE_TIMEOUT, |connection, _| connection.released());
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
