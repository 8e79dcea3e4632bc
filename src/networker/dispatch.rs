//! The hot path: what each message of a burst asks for, and where it goes.
//!
//! A proxied message is scanned once, cut, and copied once: into the parcel for its target, as
//! the WebSocket frame that the target gets. At the end of the burst each parcel leaves as one
//! actix message. Nothing here waits: where a mailbox is full, the connection is told, and comes
//! back with the same message. What a target means is found in [`lines`], and what its sender is told
//! of a message is written in [`answers`].

mod answers;
mod lines;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use self::answers::{MAILBOX_FULL, receipt};
use self::lines::{Line, NO_SUCH_SERVICE};
use super::refusals::Refusals;
use super::upgraded::WRITE_BYTES;
use crate::protocol::envelope::{Envelope, Proxy, Route as Topic};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::MAX_SERVER_HEADER;
use crate::protocol::name::{ConnectionId, Name};
use crate::protocol::op::{self, ServiceOp};
use crate::protocol::scan::{Head, Limits, Malformed, scan};
use crate::routes::{Routes, ShardTable};
use crate::state::gauge::Refused;
use crate::state::grant::Grant;
use crate::state::parcel::OpenParcel;
use crate::state::route::{Identity, Route};
use crate::state::session::CREDIT_BYTES;

/// A parcel is sent before the end of its burst when it has so much, or would have more: a full write to its
/// target's socket. Two fit into what a connection may hold.
const PARCEL_BYTES: usize = WRITE_BYTES;

const _: () = assert!(2 * PARCEL_BYTES <= CREDIT_BYTES);

/// So many parcels may stay open while others have their turn: each holds memory, and room that others
/// could want.
const MAX_KEPT_OPEN: usize = 8;

/// What a message asks of the connection.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing: it is accepted, refused, or a heartbeat.
    Done,
    /// An op, for the session.
    Op(ServiceOp),
    /// To be answered with this ERROR.
    Error(op::Error),
    /// The target's mailbox is full: hold the sender, then come back with the same message.
    Full(Arc<Route>),
}

/// The settings that bound a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessageLimits {
    pub(crate) max_topic_bytes: usize,
    pub(crate) max_depth: u32,
}

/// What the service asked for in IDENTIFY.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes {
    pub(crate) receipts: bool,
    pub(crate) acks: bool,
}

/// Takes a service's messages where they ask to go.
pub(crate) struct Dispatcher {
    own: Arc<Route>,
    connection: ConnectionId,
    routes: Arc<Routes>,
    limits: MessageLimits,
    wishes: Wishes,
    grant: Arc<Grant>,
    version: u64,
    shards: Arc<ShardTable>,
    lines: Vec<Line>,
    by_name: HashMap<Name, usize, foldhash::fast::RandomState>,
    /// Lines with an open parcel.
    open: Vec<usize>,
    last: usize,
    /// ERROR and RECEIPT about proxied messages, for our own mailbox.
    notices: Option<OpenParcel>,
    refusals: Refusals,
}

impl Dispatcher {
    pub(crate) fn new(
        own: Arc<Route>,
        connection: ConnectionId,
        routes: Arc<Routes>,
        limits: MessageLimits,
        wishes: Wishes,
        grant: Arc<Grant>,
    ) -> Self {
        let (version, shards) = (routes.version(), routes.shards());
        Self {
            own,
            connection,
            routes,
            limits,
            wishes,
            grant,
            version,
            shards,
            lines: Vec::new(),
            by_name: HashMap::default(),
            open: Vec::new(),
            last: 0,
            notices: None,
            refusals: Refusals::default(),
        }
    }

    /// Who the service is.
    pub(crate) fn identity(&self) -> &Identity {
        self.own.identity()
    }

    /// Whether the service is still this connection's.
    pub(crate) fn is_current(&self) -> bool {
        self.own.is_connection(self.connection)
    }

    /// To be called before the first message of a burst, and where one goes on: forgets what may be
    /// wrong by now. What it took in before goes where it was meant to.
    pub(crate) fn begin(&mut self) {
        let version = self.routes.version();
        if self.version != version || !self.is_current() {
            self.flush();
            self.version = version;
            self.shards = self.routes.shards();
            self.forget_lines();
        }
    }

    /// Takes one message. `room` is how many bytes this burst may still bring; `may_hold`, whether its sender
    /// may be held for it, is asked where a mailbox is full.
    pub(crate) fn message(&mut self, text: &str, room: usize, may_hold: impl FnOnce() -> bool) -> Outcome {
        let (envelope, route) = match self.find(text) {
            Ok(found) => found,
            Err(malformed) => {
                return Outcome::Error(op::Error::new(ErrorCode::Malformed, malformed.to_string()));
            }
        };
        if !is_text(envelope.source(), self.own.name().as_str()) {
            let message =
                format!("`s` must be {}, the name that this connection identified as", self.own.name());
            return Outcome::Error(self.about(&envelope, ErrorCode::SourceMismatch, message));
        }
        let is_too_large = envelope.topic().raw().len() > self.limits.max_topic_bytes;
        match route {
            Topic::Proxy(_) | Topic::Malformed(_) if is_too_large => {
                self.refuse_topic(&envelope, ErrorCode::TooLarge)
            }
            Topic::Proxy(proxy) => self.proxy(&envelope, &proxy, room, may_hold),
            Topic::Malformed(expected) => {
                self.refuse(&envelope, None, None, ErrorCode::Malformed, expected);
                Outcome::Done
            }
            _ if is_too_large => {
                Outcome::Error(self.about(&envelope, ErrorCode::TooLarge, self.topic_bound()))
            }
            Topic::Op => match ServiceOp::parse(envelope.data()) {
                Ok(op) => Outcome::Op(op),
                Err(error) => Outcome::Error(self.about(&envelope, error.code, error.message)),
            },
            Topic::Heartbeat(name) if name == self.own.name().as_str() => Outcome::Done,
            Topic::Heartbeat(_) => {
                let message =
                    format!("a heartbeat of this service has the topic heartbeat:{}", self.own.name());
                Outcome::Error(self.about(&envelope, ErrorCode::Malformed, message))
            }
            Topic::Unroutable => {
                let message =
                    "a topic must be gateway-proxy:<target>:<topic>, gateway:opcode or heartbeat:<name>";
                Outcome::Error(self.about(&envelope, ErrorCode::UnroutableTopic, message))
            }
        }
    }

    /// What is in a message, and where it asks to go.
    fn find<'a>(&self, text: &'a str) -> Result<(Envelope<'a>, Topic<'a>), Malformed> {
        let limits = Limits { max_depth: self.limits.max_depth };
        let head = self.lines.get(self.last).and_then(|line| line.head.as_ref());
        if let Some(found) = head.and_then(|head| head.scan(text, limits)) {
            return found.map(|(envelope, proxy)| (envelope, Topic::Proxy(proxy)));
        }
        let envelope = scan(text, limits)?;
        Ok((envelope, envelope.route()))
    }

    fn proxy(
        &mut self,
        envelope: &Envelope<'_>,
        proxy: &Proxy<'_>,
        room: usize,
        may_hold: impl FnOnce() -> bool,
    ) -> Outcome {
        let spelling = &*proxy.target;
        if self.routes.is_draining() {
            self.refuse(envelope, Some(spelling), None, ErrorCode::Draining, "the gateway is stopping");
            return Outcome::Done;
        }
        let line = match self.resolve(spelling) {
            Ok(line) => line,
            Err((code, message)) => {
                self.refuse(envelope, Some(spelling), None, code, message);
                return Outcome::Done;
            }
        };
        let text = envelope.text().as_bytes();
        let parts = [&text[..proxy.cut.start], &text[proxy.cut.end..]];
        let pushed = match self.push(line, parts, envelope.nonce(), room) {
            Err(Refused::Full) if self.release_spare() => self.push(line, parts, envelope.nonce(), room),
            pushed => pushed,
        };
        match pushed {
            Ok(()) => {
                let head = &mut self.lines[line].head;
                if head.is_none() {
                    *head = Head::of(envelope, proxy);
                }
                self.accepted(line, spelling);
                Outcome::Done
            }
            // The session went down since it was found: look again, once.
            Err(Refused::Closed) if self.forget_closed(line) => self.proxy(envelope, proxy, room, may_hold),
            Err(refused) => {
                let Line { route, entry, .. } = &self.lines[line];
                if refused == Refused::Full && !self.must_be_read() {
                    if may_hold() {
                        return Outcome::Full(route.clone());
                    }
                    // Unless it is below three quarters: then smaller messages may fit, and are taken.
                    route.gauge().start_refusing();
                }
                let entry = entry.clone();
                let (code, message) = match refused {
                    Refused::Closed => NO_SUCH_SERVICE,
                    Refused::Full | Refused::StillFull => MAILBOX_FULL,
                };
                self.refuse(envelope, Some(spelling), Some(entry), code, message);
                Outcome::Done
            }
        }
    }

    fn push(
        &mut self,
        line: usize,
        parts: [&[u8]; 2],
        nonce: Option<&str>,
        room: usize,
    ) -> Result<(), Refused> {
        let frame_bytes = parts[0].len() + parts[1].len() + MAX_SERVER_HEADER;
        let is_beyond = |open: &OpenParcel| open.frame_bytes() + frame_bytes > PARCEL_BYTES;
        if self.lines[line].open.as_ref().is_some_and(is_beyond) {
            self.send_early(line);
        }
        let receipt = nonce.filter(|_| self.wishes.receipts).map(receipt);
        if let Some(receipt) = &receipt {
            // Room for it comes first. Its lack is no reason to hold: we would wait for ourselves.
            self.own_notices().reserve(receipt.len()).map_err(|_| Refused::StillFull)?;
        }
        let Line { route, open, .. } = &mut self.lines[line];
        if open.is_none() {
            *open = Some(OpenParcel::new(route.clone(), room.min(PARCEL_BYTES.max(frame_bytes))));
            self.open.push(line);
        }
        let pushed = open.as_mut().map_or(Ok(()), |open| open.push(parts));
        if let Some(receipt) = receipt {
            match pushed {
                Ok(()) => self.own_notices().write([receipt.as_bytes(), b""]),
                Err(_) => self.own_notices().unreserve(receipt.len()),
            }
        }
        pushed
    }

    /// Whether holding this sender could keep its own mailbox full, or all together: what it acknowledges must
    /// be read.
    fn must_be_read(&self) -> bool {
        let own = self.own.gauge();
        let frees_total = || self.routes.shared().total.is_crowded() && !own.held().is_zero();
        self.wishes.acks && (own.is_crowded() || frees_total())
    }

    /// Notes how the target was spelled, and sends the parcel if it is large.
    fn accepted(&mut self, line: usize, spelling: &str) {
        let Some(open) = &mut self.lines[line].open else { return };
        open.spelled(spelling);
        if open.frame_bytes() >= PARCEL_BYTES {
            self.send_early(line);
        }
    }

    /// Others have their turn amid a burst. What there is for each target stays together, since cut in two
    /// it would cost its target's session and socket twice; unless it is much.
    pub(crate) fn keep_open(&mut self) {
        if self.open.len() > MAX_KEPT_OPEN {
            return self.flush();
        }
        self.release_spare();
    }

    /// Gives back what our own parcels took of the room of all mailboxes and do not need: it may be what one of
    /// them lacks. Whether that was anything.
    fn release_spare(&mut self) -> bool {
        let mut is_any = false;
        for line in &self.open {
            is_any |= self.lines[*line].open.as_mut().is_some_and(OpenParcel::release_spare);
        }
        is_any | self.notices.as_mut().is_some_and(OpenParcel::release_spare)
    }

    /// Sends all parcels: the end of a burst, or before the sender is held. What a connection
    /// read that is not its service's any more is dropped.
    pub(crate) fn flush(&mut self) {
        if self.is_current() {
            self.send_all();
        } else {
            self.forget_lines();
            self.notices = None;
        }
        self.refusals.log(self.own.name());
    }

    /// Sends a parcel before the end of its burst, and with notices all of them.
    fn send_early(&mut self, line: usize) {
        if !self.is_current() {
            self.lines[line].open = None;
        } else if self.notices.is_some() {
            return self.send_all();
        } else {
            self.send_line(line);
        }
        self.open.retain(|open| *open != line);
    }

    /// The notices go before the messages that they are about: whoever is told that a message is accepted hears
    /// that before it can come back. And the messages go with them: from then on they are, whoever has the
    /// service's name.
    fn send_all(&mut self) {
        if let Some(notices) = self.notices.take() {
            notices.send(None);
        }
        for line in std::mem::take(&mut self.open) {
            self.send_line(line);
        }
    }

    fn send_line(&mut self, line: usize) {
        let Line { open, entry, .. } = &mut self.lines[line];
        if let Some(open) = open.take() {
            open.send(Some((&self.own, entry)));
        }
    }
}

/// Whether a JSON string stands for that text.
fn is_text(string: crate::protocol::envelope::JsonString<'_>, text: &str) -> bool {
    string.raw() == text || matches!(string.decode(), Cow::Owned(decoded) if decoded == text)
}

#[cfg(test)]
mod tests;
