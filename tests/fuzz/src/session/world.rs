//! The world around the sessions: who sends, what is under way, and what time it is.

mod actions;
mod checks;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::protocol::close::Close;
use gateway::protocol::name::{ConnectionId, Epoch, Name, ShardId};
use gateway::protocol::op::{GatewayOp, Presence, PresenceEvent, ShardAccept, ShardWait, WaitReason};
use gateway::state::route::Shared;
use gateway::state::session::{Action, Input};

use self::actions::Cause;
use super::burst::{Burst, Send, message};
use super::ledger::Ledger;
use super::service::{Health, MAX_PRESENCE, Service};

pub(super) const SERVICES: usize = 3;
pub(super) const TOTAL_BYTES: u64 = 700_000;
const WINDOW: Duration = Duration::from_secs(30);
/// What an open parcel may have taken of the total beyond what it needs.
pub(super) const LUMP_BYTES: u64 = 64 * 1024;
/// Sessions that end in one life of the world.
const MAX_GONE: usize = 16;

pub(super) struct World {
    shared: Arc<Shared>,
    services: Vec<Service>,
    /// Sessions that are down and may still get what was under way.
    gone: Vec<Service>,
    burst: Option<Burst>,
    now: Instant,
    next_connection: u64,
    next_message: u64,
    next_event: u64,
    ledger: Ledger,
    /// Ops that were sent and are to be passed on, and ERRORs that are due.
    due_ops: usize,
    cause: Cause,
}

impl World {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared::new(100, TOTAL_BYTES));
        Self {
            services: (0..SERVICES).map(|index| Service::new(index, shared.clone())).collect(),
            shared,
            gone: Vec::new(),
            burst: None,
            now: Instant::now(),
            next_connection: 1,
            next_message: 0,
            next_event: 0,
            ledger: Ledger::default(),
            due_ops: 0,
            cause: Cause::Nothing,
        }
    }

    pub(super) fn send(&mut self, send: &Send) {
        let (source, target) = (self.services[send.from].route.clone(), self.services[send.to].route.clone());
        let is_same = |burst: &Burst| burst.from == send.from && Arc::ptr_eq(&burst.target, &target);
        if !self.burst.as_ref().is_some_and(is_same) {
            self.end_burst(true);
        }
        let mut burst = self.burst.take().unwrap_or_else(|| Burst::new(send.from, source, target));
        for size in &send.sizes {
            let number = self.next_message;
            self.next_message += 1;
            let spelling =
                if send.is_spelled { format!("guild/{number}") } else { format!("service-{}", send.to) };
            let text = message(send, *size, &spelling, number);
            burst.push(send, &text, number, self.shared.total.held());
        }
        self.burst = Some(burst);
        if send.ends_burst {
            self.end_burst(true);
        }
    }

    /// Ends the burst that is open: its messages are accepted, or its connection is gone.
    pub(super) fn end_burst(&mut self, is_sent: bool) {
        let Some(burst) = self.burst.take() else { return };
        if is_sent {
            self.ledger.accept(burst.messages);
            burst.parcel.send(Some((&burst.source, &burst.entry)));
            burst.notices.send(None);
        }
    }

    /// What a connection read that is not its service's any more is dropped.
    fn drop_burst_of(&mut self, index: usize) {
        if self.burst.as_ref().is_some_and(|burst| burst.from == index) {
            self.end_burst(false);
        }
    }

    pub(super) fn handle(&mut self, index: usize) {
        if let Some(parcel) = self.services[index].queue.pop() {
            self.step(index, Input::Deliver(parcel));
        }
    }

    /// The actor's queue loses a parcel: a panic, a thread that stopped.
    pub(super) fn lose(&mut self, index: usize) {
        if let Some(parcel) = self.services[index].queue.pop() {
            self.ledger.lose_notices(index, &parcel);
        }
    }

    pub(super) fn write(&mut self, index: usize, bytes: usize, presences: usize) {
        if let Some((connection, bytes, presences)) = self.services[index].write(bytes, presences) {
            self.step(index, Input::Written { connection, bytes, presences });
        }
    }

    pub(super) fn attach(&mut self, index: usize, acks: bool) {
        self.drop_burst_of(index);
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.services[index].attach(connection, acks, self.now);
        self.ledger.begin_connection(index);
        self.step(index, Input::Attach { connection, acks });
    }

    /// Acknowledges one of the deliveries that wait for it, or one that does not any more.
    pub(super) fn acknowledge(&mut self, index: usize, which: usize) {
        let service = &mut self.services[index];
        let first = service.last.saturating_sub(6).max(1);
        if service.last >= first {
            let i = first + which as u64 % (service.last - first + 1);
            service.acknowledge(i, &mut self.ledger);
            self.step(index, Input::Ack { i });
        }
    }

    pub(super) fn acknowledge_wrongly(&mut self, index: usize, is_zero: bool) {
        let service = &self.services[index];
        let i = if is_zero { 0 } else { service.last + 1 };
        self.due_ops = usize::from(service.connection.is_some());
        self.step(index, Input::Ack { i });
        assert_eq!(self.due_ops, 0, "an ACK of what was never sent passed");
    }

    /// The connection ends; or the end of the one before is told late.
    pub(super) fn detach(&mut self, index: usize, is_late: bool) {
        let service = &mut self.services[index];
        let is_current = service.connection.as_ref().is_some_and(|_| !is_late);
        if is_current {
            service.detach();
        }
        let connection = service.before;
        // Only of a connection that it had can the end be told late.
        let is_up = service.connection.is_some() && connection != ConnectionId(0);
        if is_current {
            self.drop_burst_of(index);
        }
        if is_current || is_up {
            self.step(index, Input::Detach { connection, window: WINDOW });
        }
    }

    /// The session ends, and a new one of the same name begins.
    pub(super) fn go_down(&mut self, index: usize) {
        if self.gone.len() == MAX_GONE {
            return;
        }
        self.drop_burst_of(index);
        let service = &mut self.services[index];
        service.route.gauge().close();
        service.detach();
        service.outstanding.clear();
        for parcel in service.session.mailbox() {
            self.ledger.lose_notices(index, parcel);
        }
        self.step(index, Input::GoDown { reason: "it left for good" });
        let new = Service::new(index, self.shared.clone());
        self.gone.push(std::mem::replace(&mut self.services[index], new));
    }

    pub(super) fn release(&mut self, index: usize, is_late: bool) {
        let service = &mut self.services[index];
        let connection = match &mut service.connection {
            Some(connection) if !is_late => {
                connection.is_released = true;
                connection.id
            }
            _ => service.before,
        };
        self.step(index, Input::Release { connection });
    }

    pub(super) fn presence(&mut self, index: usize, first: usize, count: usize) {
        for about in first..first + count {
            let service = Name::new(&format!("other-{}", about % 300)).unwrap();
            self.next_event += 1;
            let at = self.next_event;
            self.services[index].presence(service.clone(), at);
            let event = PresenceEvent::Up;
            let presence = Presence { service, event, reason: None, group: None, shards: Vec::new(), at };
            self.cause = Cause::Presences;
            self.step(index, Input::Presence(presence));
            let service = &self.services[index];
            let is_closing =
                service.connection.as_ref().is_none_or(|connection| connection.closing.is_some());
            assert!(service.presences.len() <= MAX_PRESENCE || is_closing, "{:?}", service.presences);
        }
    }

    pub(super) fn shard_wait(&mut self, index: usize) {
        self.next_event += 1;
        let service = &mut self.services[index];
        service.shard_wait = service.connection.as_ref().map(|_| self.next_event);
        let wait =
            ShardWait { reason: WaitReason::NoFreeShard, position: self.next_event, retry_after_ms: None };
        self.step(index, Input::ShardWait(wait));
        self.check_shard_wait(index);
    }

    fn check_shard_wait(&self, index: usize) {
        let service = &self.services[index];
        let was_told = service.shard_wait_told.is_some_and(|told| self.now - told < Duration::from_secs(1));
        assert!(service.shard_wait.is_none() || was_told, "SHARD_WAIT waits for nothing");
    }

    /// An op for the service; with `is_grant` its SHARD_ACCEPT.
    pub(super) fn op(&mut self, index: usize, is_grant: bool) {
        let service = &mut self.services[index];
        let is_up = service.connection.is_some();
        self.due_ops = usize::from(is_up);
        let op = if is_grant {
            service.shard_wait = None;
            let (shard_id, epoch) = (ShardId(0), Epoch(1));
            GatewayOp::ShardAccept(ShardAccept {
                shard_id,
                shard_count: 1,
                epoch,
                max_concurrency: 1,
                resume: None,
            })
        } else {
            GatewayOp::Shutdown { reason: String::new(), deadline_ms: 1 }
        };
        self.step(index, Input::Op(op));
        assert_eq!(self.due_ops, 0, "an op was not passed on");
    }

    pub(super) fn close_after(&mut self, index: usize, deadline: Duration, close: Close) {
        if let Some(connection) = &mut self.services[index].connection {
            connection.close_after = Some((self.now + deadline, close));
        }
        self.step(index, Input::CloseAfter { deadline, close });
    }

    pub(super) fn close(&mut self, index: usize) {
        self.cause = Cause::Asked(Close::Crashed);
        self.step(index, Input::Close(Close::Crashed));
        let connection = self.services[index].connection.as_ref();
        assert!(connection.is_none_or(|connection| connection.closing.is_some()), "it was not closed");
    }

    pub(super) fn set_health(&mut self, index: usize, health: Health) {
        if let Some(connection) = &mut self.services[index].connection {
            connection.health = health;
            connection.was_ill |= health != Health::Well;
        }
    }

    /// Something comes late to a session that is down, or it goes on.
    pub(super) fn late(&mut self, which: usize, what: usize) {
        if self.gone.is_empty() {
            return;
        }
        let gone = which % self.gone.len();
        let connection = self.gone[gone].before;
        let input = match what {
            0 => match self.gone[gone].queue.pop() {
                Some(parcel) => Input::Deliver(parcel),
                None => return,
            },
            1 => Input::Attach { connection: ConnectionId(u64::MAX), acks: true },
            2 => Input::Written { connection, bytes: 1, presences: 1 },
            3 => Input::Ack { i: self.gone[gone].last },
            4 => Input::Detach { connection, window: WINDOW },
            _ => Input::Wake(None),
        };
        self.step_gone(gone, input);
    }

    fn step_gone(&mut self, gone: usize, input: Input) {
        let service = &mut self.gone[gone];
        if let Input::Deliver(parcel) = &input {
            self.ledger.lose_notices(service.index, parcel);
        }
        if matches!(input, Input::Wake(_)) {
            service.goes_on = false;
        }
        let mut actions = VecDeque::new();
        service.session.step(input, self.now, &mut actions);
        for action in actions {
            assert!(matches!(action, Action::Continue), "{action:?} of a session that is down");
            service.goes_on = true;
        }
        assert_eq!((service.session.next_wake(), service.session.connection()), (None, None));
    }

    /// Time passes, and each session is woken when it asked for it.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wakes = self.services.iter().filter_map(|service| service.session.next_wake());
            let Some(now) = wakes.min().filter(|wake| *wake <= end) else { break };
            self.now = self.now.max(now);
            for index in 0..SERVICES {
                if self.services[index].session.next_wake().is_some_and(|wake| wake <= self.now) {
                    self.wake(index);
                }
            }
        }
        self.now = end;
    }

    fn wake(&mut self, index: usize) {
        let now = self.now;
        let seen = self.services[index].observe(now);
        self.cause = Cause::Time;
        self.step(index, Input::Wake(seen));
        let service = &self.services[index];
        assert!(service.session.next_wake().is_none_or(|wake| wake > now), "it wakes without end");
        self.check_shard_wait(index);
        if let Some(connection) = &self.services[index].connection {
            let is_late = connection.close_after.is_some_and(|(deadline, _)| now >= deadline);
            assert!(!is_late || connection.closing.is_some(), "{:?} has passed", connection.close_after);
        }
    }
}
