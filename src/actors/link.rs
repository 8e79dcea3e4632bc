//! What the other actors know of a connection: not which kind it is, only where to send what is
//! meant for the service, and how to see whether it lives.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::{Message, Recipient};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::protocol::close::Close;
use crate::protocol::name::ConnectionId;
use crate::socket::Socket;
use crate::state::pulse::Observation;
use crate::state::registry::Ended;
use crate::state::tally::Tally;

/// The most ops of a service that may be on their way, its unread answers included. While it is
/// reached, the service's socket is not read.
pub const MAX_OPS: usize = 1024;

/// Stands for one op of a service, from when it was read until its answer was written.
pub type OpPermit = OwnedSemaphorePermit;

/// Something for the service at the other end of a connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum Outbound {
    /// Proxied messages as WebSocket frames, covered by the connection's credit.
    Frames(Vec<Bytes>),
    /// One op as a WebSocket frame; goes before all frames that are not written yet.
    Op {
        frame: Bytes,
        permit: Option<OpPermit>,
        kind: OpKind,
    },
    Ping,
    /// Close, after what was handed over before.
    Close(Close),
    /// The session has handed over all that it does.
    Released,
}

/// What an op is to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// PRESENCE, of which only so many may wait to be written.
    Presence,
    /// An ERROR for an op, which counts in `max_ops_per_second`.
    Refusal,
    Other,
}

/// A connection, as its session and the gateway hold it.
#[derive(Debug, Clone)]
pub struct Link {
    pub id: ConnectionId,
    pub outbound: Recipient<Outbound>,
    pub life: Arc<Life>,
}

/// The signs of life of a connection, which it leaves here as it works.
#[derive(Debug)]
pub struct Life {
    socket: Arc<Socket>,
    began: Instant,
    heard_after_ms: AtomicU64,
    paused: AtomicBool,
    throttled: AtomicBool,
    /// How it ended, once it did.
    ended: OnceLock<Ended>,
    /// When somebody first waited for its session to tell so.
    waited_for_since: OnceLock<Instant>,
    /// Whether it has heard that it is a service.
    is_accepted: AtomicBool,
}

impl Life {
    pub(crate) fn new(socket: Arc<Socket>) -> Self {
        Self {
            socket,
            began: Instant::now(),
            heard_after_ms: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            throttled: AtomicBool::new(false),
            ended: OnceLock::new(),
            waited_for_since: OnceLock::new(),
            is_accepted: AtomicBool::new(false),
        }
    }

    /// How the connection ended, which its session still has to tell.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended.get().copied()
    }

    /// Whether that time has not passed yet since this was first asked.
    pub(crate) fn is_worth_waiting_for(&self, time: Duration, now: Instant) -> bool {
        now.saturating_duration_since(*self.waited_for_since.get_or_init(|| now)) < time
    }

    /// The connection has heard that it is a service.
    pub(crate) fn set_accepted(&self) {
        self.is_accepted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.is_accepted.load(Ordering::Relaxed)
    }

    /// To be said before its service can know of it.
    pub(crate) fn set_ended(&self, how: Ended) {
        let _ = self.ended.set(how);
    }

    /// A frame came.
    pub(crate) fn hear(&self) {
        let after = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_after_ms.store(after, Ordering::Relaxed);
    }

    /// Reading stops, or goes on: meanwhile its silence is ours.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.hear();
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// As [`set_paused`](Self::set_paused), because of its rates.
    pub(crate) fn set_throttled(&self, throttled: bool) {
        self.hear();
        self.throttled.store(throttled, Ordering::Relaxed);
    }

    /// Looks at the connection; `waiting`: whether more waits for it than its socket knows.
    pub(crate) fn observe(&self, waiting: bool, now: Instant) -> Observation {
        let traffic = self.socket.traffic();
        let last_frame = self.began + Duration::from_millis(self.heard_after_ms.load(Ordering::Relaxed));
        let last_data = now.checked_sub(traffic.silent_for).unwrap_or(self.began);
        let is_paused = self.paused.load(Ordering::Relaxed) || self.throttled.load(Ordering::Relaxed);
        let heard = if is_paused { now } else { last_frame.max(last_data) };
        Observation {
            heard,
            taken: traffic.acknowledged,
            waiting: waiting || traffic.unacknowledged,
            given: (!waiting).then_some(traffic.given),
        }
    }

    pub(crate) fn has_hung_up(&self) -> bool {
        self.socket.has_hung_up()
    }

    /// Counts how the connection ends; only the first count stands.
    pub(crate) fn count_close(&self, close: Close, closes: &Tally<Close>) {
        self.socket.count_close(close, closes);
    }

    /// Ends the connection at its socket, however stuck it is.
    pub(crate) fn cut_off(&self) {
        self.socket.shut_down();
    }

    /// As [`cut_off`](Self::cut_off), later, if the connection is still there. Independent of every
    /// actor, any of which may be stuck or restarted.
    pub(crate) fn cut_off_after(self: &Arc<Self>, time: Duration) {
        let life = Arc::downgrade(self);
        actix_rt::spawn(async move {
            actix_rt::time::sleep(time).await;
            if let Some(life) = life.upgrade() {
                life.cut_off();
            }
        });
    }

    /// Says at the socket that nothing more will be written.
    pub(crate) fn finish_writing(&self) {
        self.socket.finish_writing();
    }
}
