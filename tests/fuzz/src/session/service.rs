//! One service: its real session, and what its connection must be handed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway::protocol::close::Close;
use gateway::protocol::name::{ConnectionId, Name};
use gateway::protocol::op::Presence;
use gateway::state::account::Amount;
use gateway::state::gauge::Bounds;
use gateway::state::parcel::Parcel;
use gateway::state::pulse::{Limits, Observation};
use gateway::state::route::{Inbox, Route, Shared};
use gateway::state::session::{CREDIT_BYTES, Session, Settings};

use super::ledger::{End, Ledger, texts};

pub(super) const BOUNDS: Bounds = Bounds { messages: 12, bytes: 400_000 };
pub(super) const MAX_UNACKED: usize = 5;
pub(super) const MAX_PRESENCE: usize = 10;
const MAX_PRESENCE_IN_FLIGHT: usize = 256;
const PULSE: Limits =
    Limits { heartbeat: Duration::from_secs(5), stuck: Duration::from_secs(30), min_drain_bytes: 65_536 };

/// A session's actor mailbox.
#[derive(Default)]
pub(super) struct Queue(Mutex<VecDeque<Parcel>>);

impl Queue {
    pub(super) fn pop(&self) -> Option<Parcel> {
        self.0.lock().unwrap().pop_front()
    }
}

struct QueueInbox(Arc<Queue>);

impl Inbox for QueueInbox {
    fn deliver(&self, parcel: Parcel) {
        self.0.0.lock().unwrap().push_back(parcel);
    }
}

/// How a connection's peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It is heard and takes what it is sent.
    Well,
    /// It takes, but is not heard.
    Silent,
    /// It is heard, but takes nothing.
    Stuck,
}

pub(super) struct Connection {
    pub(super) id: ConnectionId,
    acks: bool,
    /// What it was handed and has not written, chunk by chunk.
    handed: VecDeque<usize>,
    presences: usize,
    /// How many of the outstanding messages it was handed.
    numbered: usize,
    pub(super) is_released: bool,
    /// It was told to close: with what, and when to cut it off.
    pub(super) closing: Option<(Instant, Close)>,
    pub(super) close_after: Option<(Instant, Close)>,
    pub(super) health: Health,
    pub(super) was_ill: bool,
    heard: Instant,
    taken: u64,
}

impl Connection {
    /// Whether it was told to close since it takes or says nothing.
    fn is_given_up(&self) -> bool {
        self.closing.is_some_and(|(_, close)| matches!(close, Close::TooSlow | Close::Silent))
    }
}

pub(super) struct Service {
    pub(super) index: usize,
    pub(super) route: Arc<Route>,
    pub(super) queue: Arc<Queue>,
    pub(super) session: Session,
    pub(super) connection: Option<Connection>,
    /// The connection that was there last.
    pub(super) before: ConnectionId,
    /// The delivery number given last.
    pub(super) last: u64,
    /// Delivery numbers that wait to be acknowledged, with their messages.
    pub(super) outstanding: VecDeque<(u64, u64)>,
    /// PRESENCE that waits: about whom, and when.
    pub(super) presences: Vec<(Name, u64)>,
    pub(super) shard_wait: Option<u64>,
    pub(super) shard_wait_told: Option<Instant>,
    /// The session asked to go on.
    pub(super) goes_on: bool,
}

impl Service {
    pub(super) fn new(index: usize, shared: Arc<Shared>) -> Self {
        let name = Name::new(&format!("service-{index}")).unwrap();
        let route = Arc::new(Route::new(name, BOUNDS, shared));
        let queue = Arc::new(Queue::default());
        route.open(Box::new(QueueInbox(queue.clone())));
        let settings = Settings { pulse: PULSE, max_unacked: MAX_UNACKED as u64, max_presence: MAX_PRESENCE };
        Self {
            index,
            route,
            queue,
            session: Session::new(settings),
            connection: None,
            before: ConnectionId(0),
            last: 0,
            outstanding: VecDeque::new(),
            presences: Vec::new(),
            shard_wait: None,
            shard_wait_told: None,
            goes_on: false,
        }
    }

    pub(super) fn attach(&mut self, id: ConnectionId, acks: bool, now: Instant) {
        self.route.set_connection(id);
        if !acks {
            self.outstanding.clear();
        }
        let replaced = self.connection.take();
        self.before = replaced.as_ref().map_or(self.before, |replaced| replaced.id);
        let close_after = replaced.and_then(|replaced| replaced.close_after);
        self.connection = Some(Connection {
            id,
            acks,
            handed: VecDeque::new(),
            presences: 0,
            numbered: 0,
            is_released: false,
            closing: None,
            close_after: close_after.filter(|(_, close)| *close == Close::ShutDown),
            health: Health::Well,
            was_ill: false,
            heard: now,
            taken: 0,
        });
    }

    /// The connection ended.
    pub(super) fn detach(&mut self) {
        self.before = self.connection.take().map_or(self.before, |connection| connection.id);
        self.presences.clear();
        self.shard_wait = None;
    }

    /// How the connection looks at its socket.
    pub(super) fn observe(&mut self, now: Instant) -> Option<Observation> {
        let waiting = self.session.has_waiting();
        let connection = self.connection.as_mut()?;
        if connection.health != Health::Silent {
            connection.heard = now;
        }
        if connection.health != Health::Stuck {
            connection.taken += 1 << 20;
        }
        Some(Observation { heard: connection.heard, taken: connection.taken, waiting, given: None })
    }

    /// The connection is handed a chunk of frames.
    pub(super) fn hand_over(&mut self, frames: &[u8], ledger: &mut Ledger) {
        let connection = self.connection.as_mut().expect("frames, and nobody is connected");
        assert!(self.route.is_connection(connection.id), "frames for a connection that is not its own");
        assert!(!connection.is_released, "frames for a connection that is about to end");
        assert!(!connection.is_given_up(), "frames for a connection that takes nothing");
        connection.handed.push_back(frames.len());
        let in_flight: usize = connection.handed.iter().sum();
        assert!(
            in_flight <= CREDIT_BYTES || connection.handed.len() == 1,
            "{in_flight} bytes are in flight, in {} chunks",
            connection.handed.len()
        );
        for text in texts(frames) {
            let handed: super::ledger::Handed = serde_json::from_slice(text).expect("it is valid");
            if handed.s == "gateway" {
                assert_eq!(handed.i, None, "a notice has no number");
                ledger.notice(self.index, text);
            } else {
                let message = ledger.hand_over(self.index, text, &handed);
                self.number(message, handed.i, ledger);
            }
        }
    }

    /// Numbers have no gaps, and what was not acknowledged comes again with the number it had.
    fn number(&mut self, message: u64, i: Option<u64>, ledger: &mut Ledger) {
        let connection = self.connection.as_mut().expect("it was handed something");
        let Some(i) = i.filter(|_| connection.acks) else {
            assert_eq!((i, connection.acks), (None, false), "numbers are for those who acknowledge");
            return ledger.end(message, End::Delivered);
        };
        if let Some(expected) = self.outstanding.get(connection.numbered) {
            assert_eq!((i, message), *expected, "it comes again as another");
        } else {
            assert_eq!(i, self.last + 1, "numbers have no gaps");
            self.last = i;
            self.outstanding.push_back((i, message));
        }
        connection.numbered += 1;
        assert!(self.outstanding.len() <= MAX_UNACKED, "{:?}", self.outstanding);
    }

    pub(super) fn acknowledge(&mut self, i: u64, ledger: &mut Ledger) {
        while let Some((_, message)) = self.outstanding.pop_front_if(|(first, _)| *first <= i) {
            ledger.end(message, End::Delivered);
            if let Some(connection) = &mut self.connection {
                connection.numbered = connection.numbered.saturating_sub(1);
            }
        }
    }

    /// The connection writes chunks of that many bytes, and presences. What it wrote.
    pub(super) fn write(&mut self, bytes: usize, presences: usize) -> Option<(ConnectionId, usize, usize)> {
        let connection = self.connection.as_mut()?;
        let mut written = 0;
        while written < bytes
            && let Some(chunk) = connection.handed.pop_front()
        {
            written += chunk;
        }
        let presences = presences.min(connection.presences);
        connection.presences -= presences;
        Some((connection.id, written, presences))
    }

    pub(super) fn presence(&mut self, service: Name, at: u64) {
        match self.presences.iter_mut().find(|(waiting, _)| *waiting == service) {
            Some((_, latest)) => *latest = at,
            None => self.presences.push((service, at)),
        }
    }

    /// The connection is handed a PRESENCE: the latest about who waits longest.
    pub(super) fn hand_over_presence(&mut self, presence: &Presence) {
        let connection = self.connection.as_mut().expect("PRESENCE, and nobody is connected");
        assert!(!self.presences.is_empty(), "{presence:?} was not asked for");
        assert_eq!(self.presences.remove(0), (presence.service.clone(), presence.at));
        connection.presences += 1;
        assert!(connection.presences <= MAX_PRESENCE_IN_FLIGHT);
    }

    pub(super) fn hand_over_shard_wait(&mut self, position: u64, now: Instant) {
        assert!(self.connection.is_some(), "SHARD_WAIT, and nobody is connected");
        assert_eq!(self.shard_wait.take(), Some(position), "the latest SHARD_WAIT");
        let told = self.shard_wait_told.replace(now);
        assert!(told.is_none_or(|told| now - told >= Duration::from_secs(1)), "SHARD_WAIT again so soon");
    }

    /// What walking the queue and the mailbox finds: all, and what is no notice.
    pub(super) fn found(&self) -> (Amount, Amount) {
        let (mut all, mut messages) = (Amount::default(), Amount::default());
        let queue = self.queue.0.lock().unwrap();
        for parcel in queue.iter().chain(self.session.mailbox()) {
            all += parcel.amount();
            if !parcel.is_notice() {
                messages += parcel.amount();
            }
        }
        (all, messages)
    }

    /// What could be handed over was.
    pub(super) fn check(&self) {
        let up = self.connection.as_ref().map(|connection| connection.id);
        assert_eq!(self.session.connection(), up);
        let Some(connection) = &self.connection else { return };
        if connection.presences < MAX_PRESENCE_IN_FLIGHT {
            assert!(self.presences.is_empty(), "{:?} wait for nothing", self.presences);
        }
        let takes = !connection.is_released && !connection.is_given_up();
        if takes && connection.handed.is_empty() {
            let (outstanding, numbered) = (self.outstanding.len(), connection.numbered);
            assert_eq!(numbered, if connection.acks { outstanding } else { 0 }, "they are to come again");
            let waiting = self.session.mailbox().map(|parcel| parcel.amount().messages).sum::<u64>();
            let waiting = waiting - outstanding as u64;
            let is_kept_back = connection.acks && outstanding == MAX_UNACKED;
            assert!(waiting == 0 || is_kept_back, "{waiting} messages wait for nothing");
        }
    }

    /// Whether something is still to be done for it.
    pub(super) fn is_busy(&self) -> bool {
        self.goes_on || self.found().0.messages > 0
    }
}
