//! How a connection ends: its gateway is told first, then the close frames are exchanged (RFC
//! 6455 section 7), then the socket is closed.

use std::time::Duration;

use super::{Connection, Ctx, Ended, Stage};
use crate::actors::client_session::Release;
use crate::actors::gateway::ConnectionEnded;
use crate::protocol::close::{Close, LEAVES_FOR_GOOD};
use crate::protocol::frame;

/// How long the service may take to answer our close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

impl Connection {
    /// Closes: sends what was handed over, then a close frame, and waits for the service's.
    pub(super) fn close(&mut self, close: Close, context: &mut Ctx) {
        if matches!(self.stage, Stage::Closing | Stage::Ended) {
            return;
        }
        self.flush();
        self.count_close(close);
        self.tell_end(Ended::Lost, &format!("closed with {}: {}", close.code(), close.reason()));
        self.stage = Stage::Closing;
        self.outgoing.borrow_mut().close(frame::close(close));
        self.paused = None;
        self.go_on(context);
        self.life.cut_off_after(CLOSE_TIMEOUT);
    }

    /// The service's close frame came, as the first or as the answer to ours.
    pub(super) fn close_came(&mut self, payload: &[u8], context: &mut Ctx) {
        if matches!(self.stage, Stage::Closing) {
            return self.finish();
        }
        let Some((code, reason)) = parse(payload) else { return self.close(Close::ProtocolError, context) };
        self.flush();
        self.count_close(Close::Left);
        let how = if code == Some(LEAVES_FOR_GOOD) { Ended::LeftForGood } else { Ended::Closed };
        let reason: String = reason.chars().filter(|character| !character.is_control()).collect();
        self.tell_end(how, &format!("it closed with {} {reason}", code.unwrap_or(1005)));
        self.stage = Stage::Closing;
        self.outgoing.borrow_mut().close(frame::close_reply(code));
        self.life.cut_off_after(CLOSE_TIMEOUT);
        self.finish();
    }

    /// The socket ended.
    pub(super) fn lost(&mut self) {
        self.flush();
        self.count_close(Close::Lost);
        self.tell_end(Ended::Lost, "its connection was lost");
        self.finish();
    }

    pub(super) fn count_close(&self, close: Close) {
        self.life.count_close(close, &self.entrance.routes.shared().closes);
    }

    fn finish(&mut self) {
        self.stage = Stage::Ended;
        self.outgoing.borrow_mut().finish();
    }

    /// Tells session and gateway, once, and before the service can know: what comes for it from now
    /// on is not for this connection. The gateway hears of it from the session, after the ops that
    /// the session still has to pass on: a SHARD_DEATH counts even as the last word.
    pub(super) fn tell_end(&mut self, how: Ended, reason: &str) {
        if std::mem::replace(&mut self.has_told, true) {
            return;
        }
        self.life.set_ended(how);
        let ended = ConnectionEnded { connection: self.id, how, reason: reason.to_owned() };
        match &self.stage {
            Stage::Silent => {}
            Stage::Service(service) if service.session.connected() => {
                service.session.do_send(Release(ended));
            }
            _ => self.entrance.gateway.do_send(ended),
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
