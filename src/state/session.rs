//! One service's session: its mailbox, what its connection may be handed, and every deadline.
//!
//! A session outlives its connections. It is *up* with one, *away* without one until its resume
//! window ends, and then *down* for good. Which connection is its own, and when it is down, the
//! registry decides; this struct obeys and asks.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::outstanding::Outstanding;
use super::parcel::Parcel;
use super::pulse::{Limits, Observation, Pulse};
use crate::protocol::close::Close;
use crate::protocol::error::ErrorCode;
use crate::protocol::name::{ConnectionId, Name};
use crate::protocol::op::{self, GatewayOp, Presence, ShardWait};

/// What a connection may hold of ours before it has written it: what can be lost with it.
pub const CREDIT_BYTES: usize = 256 * 1024;

/// PRESENCE events that a connection may hold before it has written them.
const MAX_PRESENCE_IN_FLIGHT: usize = 256;

/// SHARD_WAIT comes at most this often.
const SHARD_WAIT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection that was told to close may take to end by itself.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// How many bytes of messages are returned in one go when a session is down: a full mailbox
/// must not hold up its neighbours on the same thread.
const RETURN_SLICE_BYTES: usize = 128 * 1024;

/// The settings of a session.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub pulse: Limits,
    /// How many deliveries may be unacknowledged.
    pub max_unacked: u64,
    /// How many PRESENCE events may wait for a watcher before it is too slow.
    pub max_presence: usize,
}

/// What happens to a session.
#[derive(Debug)]
pub enum Input {
    /// Messages came for the service.
    Deliver(Parcel),
    /// The connection wrote what it was handed.
    Written {
        connection: ConnectionId,
        bytes: usize,
        presences: usize,
    },
    /// A connection identified and is now the session's own. With `acks`, deliveries are numbered
    /// and kept until they are acknowledged.
    Attach {
        connection: ConnectionId,
        acks: bool,
    },
    /// The service acknowledged that delivery and all before it.
    Ack {
        i: u64,
    },
    /// The connection is about to end: it is handed nothing more.
    Release {
        connection: ConnectionId,
    },
    /// The session's connection ended; it waits for another for that long.
    Detach {
        connection: ConnectionId,
        window: Duration,
    },
    /// An op for the service. Lost, where it is away.
    Op(GatewayOp),
    Presence(Presence),
    ShardWait(ShardWait),
    /// SHUTDOWN or REBOOT was sent: after `deadline` the connection is closed.
    CloseAfter {
        deadline: Duration,
        close: Close,
    },
    /// Closes the connection now.
    Close(Close),
    /// The session is over: the mailbox is to be returned.
    GoDown,
    /// A deadline came, or [`Action::Continue`] asked for it; `None`: no connection to look at.
    Wake(Option<Observation>),
}

/// What is to be done for a session.
#[derive(Debug)]
pub enum Action {
    /// Hand these frames to the connection.
    Frames(Vec<Bytes>),
    Op(GatewayOp),
    Ping,
    /// Close the connection with a close frame.
    Close(Close),
    /// End the connection at its socket: it did not close when told to, since it is stuck.
    CutOff(Close),
    /// Ask the registry to end the session: nobody came within the resume window after that
    /// connection.
    WindowElapsed(ConnectionId),
    /// Step again with [`Input::Wake`] soon, after others had their turn.
    Continue,
}

#[derive(Debug)]
enum Phase {
    Up(Up),
    /// `None`: a new session that waits for its first connection.
    Away {
        window: Option<Window>,
    },
    Down,
}

/// After which connection a session is away, and until when.
#[derive(Debug, Clone, Copy)]
struct Window {
    since: ConnectionId,
    until: Instant,
}

#[derive(Debug)]
struct Up {
    connection: ConnectionId,
    acks: bool,
    /// It is about to end.
    is_released: bool,
    in_flight_bytes: usize,
    in_flight_presences: usize,
    pulse: Pulse,
    next_check: Instant,
    next_ping: Instant,
    /// It was told to close so: when to cut it off.
    closing: Option<(Instant, Close)>,
    /// The deadline of SHUTDOWN or REBOOT.
    close_after: Option<(Instant, Close)>,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    phase: Phase,
    mailbox: VecDeque<Parcel>,
    outstanding: Outstanding,
    presences: PresenceQueue,
    shard_wait: Option<ShardWait>,
    shard_wait_after: Option<Instant>,
}

impl Session {
    /// A session that waits for its first connection.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            phase: Phase::Away { window: None },
            mailbox: VecDeque::new(),
            outstanding: Outstanding::default(),
            presences: PresenceQueue::default(),
            shard_wait: None,
            shard_wait_after: None,
        }
    }

    /// Takes one input and appends what is to be done to `actions`.
    pub fn step(&mut self, input: Input, now: Instant, actions: &mut VecDeque<Action>) {
        match input {
            Input::Deliver(parcel) => self.deliver(parcel, actions),
            Input::Written { connection, bytes, presences } => {
                self.written(connection, bytes, presences, actions);
            }
            Input::Attach { connection, acks } => self.attach(connection, acks, now, actions),
            Input::Ack { i } => self.acknowledge(i, actions),
            Input::Release { connection } => self.release(connection),
            Input::Detach { connection, window } => self.detach(connection, now + window),
            Input::Op(op) => self.op(op, actions),
            Input::Presence(presence) => self.presence(presence, now, actions),
            Input::ShardWait(wait) => self.shard_wait(wait, now, actions),
            Input::CloseAfter { deadline, close } => self.close_after(now + deadline, close),
            Input::Close(close) => self.close(close, now, actions),
            Input::GoDown => self.go_down(actions),
            Input::Wake(seen) => self.wake(seen, now, actions),
        }
    }

    /// When to step with [`Input::Wake`], if nothing else comes before.
    pub fn next_wake(&self) -> Option<Instant> {
        match &self.phase {
            // Nothing else matters for a connection that was told to close.
            Phase::Up(Up { closing: Some((cut_off, _)), .. }) => Some(*cut_off),
            Phase::Up(up) => [
                Some(up.next_check),
                Some(up.next_ping),
                up.close_after.map(|(deadline, _)| deadline),
                self.shard_wait.and(self.shard_wait_after),
            ]
            .into_iter()
            .flatten()
            .min(),
            Phase::Away { window } => window.map(|window| window.until),
            Phase::Down => None,
        }
    }

    /// The connection that the session is up with.
    pub fn connection(&self) -> Option<ConnectionId> {
        match &self.phase {
            Phase::Up(up) => Some(up.connection),
            _ => None,
        }
    }

    /// Whether something waits for the connection to take it. What waits for an acknowledgement
    /// does not.
    pub fn has_waiting(&self) -> bool {
        let Phase::Up(up) = &self.phase else { return false };
        let is_kept_back = up.acks && self.outstanding.messages() >= self.settings.max_unacked;
        up.in_flight_bytes > 0 || !self.presences.is_empty() || (!self.mailbox.is_empty() && !is_kept_back)
    }

    /// The parcels in the mailbox, in order, those that are not acknowledged among them.
    pub fn mailbox(&self) -> impl Iterator<Item = &Parcel> {
        self.outstanding.parcels().chain(&self.mailbox)
    }

    fn deliver(&mut self, parcel: Parcel, actions: &mut VecDeque<Action>) {
        if matches!(self.phase, Phase::Down) {
            return expire(parcel);
        }
        self.mailbox.push_back(parcel);
        self.hand_over(actions);
    }

    /// Hands over what the connection has credit for: parcels that fit, or one that is larger
    /// than all credit when nothing else is under way.
    fn hand_over(&mut self, actions: &mut VecDeque<Action>) {
        let Phase::Up(up) = &mut self.phase else { return };
        if up.closing.is_some() || up.is_released {
            return;
        }
        let mut frames = Vec::new();
        let max_unacked = self.settings.max_unacked;
        while let Some(next) = next_frames(up, &mut self.mailbox, &mut self.outstanding, max_unacked) {
            up.in_flight_bytes += next.len();
            frames.push(next);
        }
        if !frames.is_empty() {
            actions.push_back(Action::Frames(frames));
        }
    }

    fn release(&mut self, connection: ConnectionId) {
        if let Phase::Up(up) = &mut self.phase {
            up.is_released |= up.connection == connection;
        }
    }

    /// Puts what is not acknowledged back before the rest of the mailbox.
    fn unnumber(&mut self) {
        for parcel in self.outstanding.take().rev() {
            self.mailbox.push_front(parcel);
        }
    }

    fn acknowledge(&mut self, i: u64, actions: &mut VecDeque<Action>) {
        match self.outstanding.acknowledge(i) {
            Ok(()) => self.hand_over(actions),
            Err(never_sent) => {
                let error = op::Error::new(ErrorCode::Malformed, never_sent.to_string());
                self.op(GatewayOp::Error(error), actions);
            }
        }
    }

    fn hand_over_presences(&mut self, actions: &mut VecDeque<Action>) {
        let Phase::Up(up) = &mut self.phase else { return };
        while up.in_flight_presences < MAX_PRESENCE_IN_FLIGHT {
            let Some(presence) = self.presences.pop() else { return };
            up.in_flight_presences += 1;
            actions.push_back(Action::Op(GatewayOp::Presence(presence)));
        }
    }

    fn written(
        &mut self,
        connection: ConnectionId,
        bytes: usize,
        presences: usize,
        actions: &mut VecDeque<Action>,
    ) {
        let Phase::Up(up) = &mut self.phase else { return };
        if up.connection != connection {
            return;
        }
        up.in_flight_bytes = up.in_flight_bytes.saturating_sub(bytes);
        up.in_flight_presences = up.in_flight_presences.saturating_sub(presences);
        self.hand_over(actions);
        self.hand_over_presences(actions);
    }

    fn attach(&mut self, connection: ConnectionId, acks: bool, now: Instant, actions: &mut VecDeque<Action>) {
        if matches!(self.phase, Phase::Down) {
            return;
        }
        if acks {
            self.outstanding.rewind();
        } else {
            // What was not acknowledged is delivered once more, without numbers.
            self.unnumber();
        }
        let limits = self.settings.pulse;
        self.phase = Phase::Up(Up {
            connection,
            acks,
            is_released: false,
            in_flight_bytes: 0,
            in_flight_presences: 0,
            pulse: Pulse::new(limits, now),
            next_check: now + Pulse::interval(limits),
            next_ping: now + limits.heartbeat,
            closing: None,
            close_after: None,
        });
        self.hand_over(actions);
        self.hand_over_presences(actions);
    }

    fn detach(&mut self, connection: ConnectionId, until: Instant) {
        match &self.phase {
            // A later connection is there already.
            Phase::Up(up) if up.connection > connection => {}
            Phase::Down => {}
            Phase::Up(_) | Phase::Away { .. } => {
                self.phase = Phase::Away { window: Some(Window { since: connection, until }) };
                self.presences = PresenceQueue::default();
                self.shard_wait = None;
            }
        }
    }

    fn op(&mut self, op: GatewayOp, actions: &mut VecDeque<Action>) {
        if !matches!(self.phase, Phase::Up(_)) {
            return;
        }
        if matches!(op, GatewayOp::ShardAccept(_)) {
            self.shard_wait = None;
        }
        actions.push_back(Action::Op(op));
    }

    fn presence(&mut self, presence: Presence, now: Instant, actions: &mut VecDeque<Action>) {
        if matches!(self.phase, Phase::Down) {
            return;
        }
        // Without a connection it waits for the one that has just been accepted.
        self.presences.push(presence);
        self.hand_over_presences(actions);
        if self.presences.len() > self.settings.max_presence {
            self.close(Close::TooSlow, now, actions);
        }
    }

    fn shard_wait(&mut self, wait: ShardWait, now: Instant, actions: &mut VecDeque<Action>) {
        if matches!(self.phase, Phase::Up(_)) {
            self.shard_wait = Some(wait);
            self.flush_shard_wait(now, actions);
        }
    }

    fn flush_shard_wait(&mut self, now: Instant, actions: &mut VecDeque<Action>) {
        if self.shard_wait_after.is_some_and(|after| now < after) {
            return;
        }
        if let Some(wait) = self.shard_wait.take() {
            self.shard_wait_after = Some(now + SHARD_WAIT_INTERVAL);
            actions.push_back(Action::Op(GatewayOp::ShardWait(wait)));
        }
    }

    fn close_after(&mut self, deadline: Instant, close: Close) {
        if let Phase::Up(up) = &mut self.phase {
            up.close_after = Some((deadline, close));
        }
    }

    fn close(&mut self, close: Close, now: Instant, actions: &mut VecDeque<Action>) {
        let Phase::Up(up) = &mut self.phase else { return };
        if up.closing.is_none() {
            up.closing = Some((now + CLOSE_GRACE, close));
            actions.push_back(Action::Close(close));
        }
    }

    fn go_down(&mut self, actions: &mut VecDeque<Action>) {
        self.phase = Phase::Down;
        self.unnumber();
        self.presences = PresenceQueue::default();
        self.shard_wait = None;
        self.return_some(actions);
    }

    fn return_some(&mut self, actions: &mut VecDeque<Action>) {
        let mut bytes = 0;
        while bytes < RETURN_SLICE_BYTES {
            let Some(parcel) = self.mailbox.pop_front() else { return };
            bytes += parcel.frame_bytes();
            expire(parcel);
        }
        actions.push_back(Action::Continue);
    }

    fn wake(&mut self, seen: Option<Observation>, now: Instant, actions: &mut VecDeque<Action>) {
        match &mut self.phase {
            Phase::Down => self.return_some(actions),
            Phase::Away { window } => {
                if let Some(window) = window.take_if(|window| now >= window.until) {
                    actions.push_back(Action::WindowElapsed(window.since));
                }
            }
            Phase::Up(_) => self.wake_up(seen, now, actions),
        }
    }

    fn wake_up(&mut self, seen: Option<Observation>, now: Instant, actions: &mut VecDeque<Action>) {
        self.flush_shard_wait(now, actions);
        let Phase::Up(up) = &mut self.phase else { return };
        if let Some((cut_off, close)) = up.closing {
            if now >= cut_off {
                up.closing = Some((now + CLOSE_GRACE, close));
                actions.push_back(Action::CutOff(close));
            }
            return;
        }
        if now >= up.next_ping {
            up.next_ping = now + self.settings.pulse.heartbeat;
            actions.push_back(Action::Ping);
        }
        let mut close = up.close_after.filter(|(deadline, _)| now >= *deadline).map(|(_, close)| close);
        if now >= up.next_check {
            up.next_check = now + Pulse::interval(self.settings.pulse);
            close = close.or_else(|| up.pulse.check(seen?, now));
        }
        if let Some(close) = close {
            self.close(close, now, actions);
        }
    }
}

/// The next frames that the connection has credit for.
fn next_frames(
    up: &Up,
    mailbox: &mut VecDeque<Parcel>,
    outstanding: &mut Outstanding,
    max_unacked: u64,
) -> Option<Bytes> {
    let in_flight = up.in_flight_bytes;
    let fits = |bytes: usize| in_flight == 0 || in_flight + bytes <= CREDIT_BYTES;
    if up.acks && outstanding.has_more() {
        return outstanding.hand_again(fits);
    }
    let is_numbered = |parcel: &Parcel| up.acks && !parcel.is_notice();
    let bytes = |parcel: &Parcel| {
        if is_numbered(parcel) { Outstanding::numbered_bytes(parcel) } else { parcel.frame_bytes() }
    };
    let front = mailbox.front_mut().filter(|front| fits(bytes(front)))?;
    if !is_numbered(front) {
        return mailbox.pop_front().map(Parcel::delivered);
    }
    let room = max_unacked.saturating_sub(outstanding.messages());
    if room == 0 {
        return None;
    }
    if front.amount().messages > room {
        return Some(outstanding.hand(front.split_front(room)));
    }
    mailbox.pop_front().map(|parcel| outstanding.hand(parcel))
}

fn expire(parcel: Parcel) {
    parcel.give_back(ErrorCode::Expired, "its service did not come back within resume_window_ms");
}

/// PRESENCE events that wait for a watcher: the last one of each service, oldest first.
#[derive(Debug, Default)]
struct PresenceQueue {
    order: VecDeque<Name>,
    latest: HashMap<Name, Presence>,
}

impl PresenceQueue {
    fn push(&mut self, presence: Presence) {
        let service = presence.service.clone();
        if self.latest.insert(service.clone(), presence).is_none() {
            self.order.push_back(service);
        }
    }

    fn pop(&mut self) -> Option<Presence> {
        self.latest.remove(&self.order.pop_front()?)
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::name::ShardId;
    use crate::protocol::op::{PresenceEvent, WaitReason};

    const HEARTBEAT: Duration = Duration::from_secs(5);
    const SETTINGS: Settings = Settings {
        pulse: Limits { heartbeat: HEARTBEAT, stuck: Duration::from_secs(30), min_drain_bytes: 65_536 },
        max_unacked: 4,
        max_presence: 3,
    };
    const CONNECTION: ConnectionId = ConnectionId(7);

    /// A session, its clock, and what it wanted done since it was last asked.
    struct Scene {
        session: Session,
        now: Instant,
        actions: VecDeque<Action>,
    }

    impl Scene {
        fn attached() -> Self {
            let mut scene =
                Self { session: Session::new(SETTINGS), now: Instant::now(), actions: VecDeque::new() };
            scene.step(Input::Attach { connection: CONNECTION, acks: false });
            scene
        }

        fn step(&mut self, input: Input) {
            self.session.step(input, self.now, &mut self.actions);
        }

        /// Lets time pass, waking the session when it asks for it; its connection is well.
        fn pass(&mut self, time: Duration) {
            let end = self.now + time;
            while let Some(at) = self.session.next_wake().filter(|at| *at <= end) {
                self.now = at.max(self.now);
                self.step(Input::Wake(Some(Observation { heard: self.now, taken: 0, waiting: false })));
            }
            self.now = end;
        }

        fn take(&mut self) -> Vec<String> {
            self.actions.drain(..).map(|action| format!("{action:?}")).collect()
        }
    }

    fn presence(service: &str, event: PresenceEvent) -> Input {
        let service = Name::new(service).unwrap();
        Input::Presence(Presence {
            service,
            event,
            reason: None,
            group: None,
            shards: vec![ShardId(0)],
            at: 0,
        })
    }

    fn wait(position: u64) -> Input {
        Input::ShardWait(ShardWait { reason: WaitReason::NoFreeShard, position, retry_after_ms: None })
    }

    #[test]
    fn a_ping_goes_out_each_heartbeat() {
        let mut scene = Scene::attached();
        scene.pass(HEARTBEAT * 3);
        assert_eq!(scene.take(), ["Ping"; 3]);
    }

    #[test]
    fn shard_wait_comes_at_most_once_a_second_with_the_latest_position() {
        let mut scene = Scene::attached();
        for position in (1..=5).rev() {
            scene.step(wait(position));
        }
        assert_eq!(scene.take().len(), 1, "the first goes out at once");
        scene.pass(Duration::from_millis(999));
        assert_eq!(scene.take().len(), 0);
        scene.pass(Duration::from_millis(1));
        let told = scene.take();
        assert!(told.len() == 1 && told[0].contains("position: 1"), "{told:?}");
        scene.pass(Duration::from_secs(3));
        assert_eq!(scene.take().len(), 0, "nothing has changed");
    }

    #[test]
    fn presence_is_coalesced_by_service_and_bounded() {
        let mut scene = Scene::attached();
        for index in 0..MAX_PRESENCE_IN_FLIGHT {
            scene.step(presence(&format!("s{index}"), PresenceEvent::Up));
        }
        assert_eq!(scene.take().len(), MAX_PRESENCE_IN_FLIGHT);
        for event in [PresenceEvent::Away, PresenceEvent::Resumed, PresenceEvent::Down] {
            scene.step(presence("flapping", event));
        }
        assert_eq!(scene.take().len(), 0, "the connection has enough to write");
        scene.step(Input::Written { connection: CONNECTION, bytes: 0, presences: 1 });
        let told = scene.take();
        assert!(told.len() == 1 && told[0].contains("Down"), "{told:?}");
        for index in 0..4 {
            scene.step(presence(&format!("more-{index}"), PresenceEvent::Up));
        }
        assert_eq!(scene.take(), ["Close(TooSlow)"], "it does not take them");
    }

    #[test]
    fn a_connection_that_does_not_close_when_told_is_cut_off() {
        let mut scene = Scene::attached();
        scene.step(Input::CloseAfter { deadline: Duration::from_millis(300), close: Close::ShutDown });
        scene.pass(Duration::from_millis(299));
        assert_eq!(scene.take().len(), 0);
        scene.pass(Duration::from_millis(1));
        assert_eq!(scene.take(), ["Close(ShutDown)"]);
        scene.pass(CLOSE_GRACE);
        assert_eq!(scene.take(), ["CutOff(ShutDown)"]);
    }

    #[test]
    fn the_window_of_the_last_connection_ends_once() {
        let mut scene = Scene::attached();
        let window = Duration::from_secs(30);
        scene.step(Input::Detach { connection: CONNECTION, window });
        scene.pass(window * 2);
        assert_eq!(scene.take(), ["WindowElapsed(ConnectionId(7))"]);
        scene.step(Input::Attach { connection: ConnectionId(8), acks: false });
        scene.step(Input::Detach { connection: CONNECTION, window });
        assert_eq!(
            scene.session.connection(),
            Some(ConnectionId(8)),
            "an old connection's end changes nothing"
        );
    }

    #[test]
    fn ops_for_a_service_that_is_away_are_lost() {
        let mut scene = Scene::attached();
        scene.step(Input::Detach { connection: CONNECTION, window: Duration::from_secs(30) });
        let shutdown = || GatewayOp::Shutdown { reason: String::new(), deadline_ms: 1 };
        scene.step(Input::Op(shutdown()));
        scene.step(Input::Attach { connection: ConnectionId(8), acks: false });
        assert_eq!(scene.take().len(), 0);
        scene.step(Input::Op(shutdown()));
        assert_eq!(scene.take().len(), 1);
    }
}
