//! Scenes from one session's life, with a clock that only moves when told to.

use std::sync::{Arc, Mutex};

use super::attached::{CLOSE_GRACE, MAX_PRESENCE_IN_FLIGHT};
use super::*;
use crate::protocol::name::{Name, ShardId};
use crate::protocol::op::{PresenceEvent, WaitReason};
use crate::state::gauge::Bounds;
use crate::state::parcel::OpenParcel;
use crate::state::pulse::Limits;
use crate::state::route::{Inbox, Route, Shared};

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
    fn new() -> Self {
        Self { session: Session::new(SETTINGS), now: Instant::now(), actions: VecDeque::new() }
    }

    fn attached() -> Self {
        let mut scene = Self::new();
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
            self.step(Input::Wake(Some(Observation {
                heard: self.now,
                taken: 0,
                waiting: false,
                given: Some(0),
            })));
        }
        self.now = end;
    }

    fn take(&mut self) -> Vec<String> {
        self.actions.drain(..).map(|action| format!("{action:?}")).collect()
    }
}

fn presence(service: &str, event: PresenceEvent) -> Input {
    let service = Name::new(service).unwrap();
    Input::Presence(Presence { service, event, reason: None, group: None, shards: vec![ShardId(0)], at: 0 })
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
fn a_takeover_does_not_escape_the_deadline_of_shutdown() {
    for (close, expected) in [(Close::ShutDown, &["Close(ShutDown)"][..]), (Close::Rebooted, &[])] {
        let mut scene = Scene::attached();
        scene.step(Input::CloseAfter { deadline: Duration::from_millis(300), close });
        scene.step(Input::Attach { connection: ConnectionId(8), acks: false });
        scene.pass(Duration::from_millis(300));
        assert_eq!(scene.take(), expected, "{close:?}: who comes back after REBOOT has obeyed");
    }
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
    assert_eq!(scene.session.connection(), Some(ConnectionId(8)), "an old connection's end changes nothing");
}

#[test]
fn the_end_of_a_connection_that_never_came_here_makes_the_session_away_whatever_its_id() {
    for other in [ConnectionId(3), ConnectionId(9)] {
        let mut scene = Scene::attached();
        let window = Duration::from_secs(30);
        scene.step(Input::Detach { connection: other, window });
        assert_eq!(scene.session.connection(), None);
        scene.pass(window);
        assert_eq!(scene.take(), [format!("WindowElapsed({other:?})")]);
    }
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

fn shutdown() -> Input {
    Input::Op(GatewayOp::Shutdown { reason: String::new(), deadline_ms: 1 })
}

#[test]
fn what_is_ordered_before_the_connection_comes_waits_for_it() {
    let mut scene = Scene::new();
    scene.step(Input::Expect { connection: CONNECTION });
    scene.step(shutdown());
    scene.step(Input::CloseAfter { deadline: Duration::from_secs(2), close: Close::ShutDown });
    scene.step(presence("a", PresenceEvent::Up));
    assert_eq!(scene.take(), [""; 0]);
    scene.step(Input::Attach { connection: CONNECTION, acks: false });
    let told = scene.take();
    assert!(told[0].starts_with("Op(Shutdown") && told[1].starts_with("Op(Presence"), "{told:?}");
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.take(), ["Close(ShutDown)"]);
}

#[test]
fn a_connection_that_has_lost_the_name_is_told_nothing_more() {
    let mut scene = Scene::attached();
    let [second, third] = [8, 9].map(ConnectionId);
    scene.step(Input::Expect { connection: second });
    assert_eq!(scene.session.latest_connection(), Some(second));
    scene.step(shutdown());
    scene.step(Input::Written { connection: CONNECTION, bytes: 0, presences: 0 });
    scene.step(presence("a", PresenceEvent::Up));
    // The second is taken over in turn before it comes.
    scene.step(Input::Expect { connection: third });
    assert_eq!(scene.take(), [""; 0]);
    scene.step(Input::Attach { connection: third, acks: false });
    assert_eq!(scene.take().len(), 2);
    scene.step(shutdown());
    assert_eq!(scene.take().len(), 1, "it is there");
}

#[test]
fn a_connection_is_not_told_what_was_for_the_one_that_it_displaces_alone() {
    let reboot = GatewayOp::Reboot { reason: String::new(), deadline_ms: 1, keep_discord_session: true };
    let mut scene = Scene::new();
    scene.step(Input::Expect { connection: ConnectionId(8) });
    scene.step(Input::Op(reboot));
    scene.step(Input::CloseAfter { deadline: Duration::ZERO, close: Close::Rebooted });
    scene.step(Input::Close(Close::Revoked));
    scene.step(Input::Expect { connection: CONNECTION });
    scene.step(Input::Attach { connection: CONNECTION, acks: false });
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.take(), [""; 0]);
}

#[test]
fn a_connection_that_does_not_come_while_much_is_ordered_is_closed_when_it_does() {
    let mut scene = Scene::new();
    scene.step(Input::Expect { connection: CONNECTION });
    for _ in 0..100_000 {
        scene.step(shutdown());
    }
    scene.step(Input::Attach { connection: CONNECTION, acks: false });
    let told = scene.take();
    assert_eq!((told.len(), told.last().map(String::as_str)), (1_025, Some("Close(TooSlow)")));
}

#[test]
fn what_was_ordered_for_a_connection_that_never_comes_is_lost_with_it() {
    for end in [
        Input::Detach { connection: CONNECTION, window: Duration::from_secs(1) },
        Input::GoDown { reason: "it left for good" },
    ] {
        let mut scene = Scene::new();
        scene.step(Input::Expect { connection: CONNECTION });
        scene.step(shutdown());
        scene.step(end);
        assert_eq!(scene.session.latest_connection(), None);
        scene.step(Input::Expect { connection: ConnectionId(8) });
        scene.step(Input::Attach { connection: ConnectionId(8), acks: false });
        assert_eq!(scene.take(), [""; 0]);
    }
}

struct Kept(Arc<Mutex<Vec<Parcel>>>);

impl Inbox for Kept {
    fn deliver(&self, parcel: Parcel) {
        self.0.lock().unwrap().push(parcel);
    }
}

/// Parcels of one message each, from a service to itself.
fn parcels(count: usize, bytes: usize) -> Vec<Parcel> {
    let bounds = Bounds { messages: 1_000, bytes: 1 << 20 };
    let route = Arc::new(Route::new(Name::new("a").unwrap(), bounds, Arc::new(Shared::new(10, 1 << 20))));
    let kept = Arc::new(Mutex::new(Vec::new()));
    route.open(Box::new(Kept(kept.clone())));
    let entry = route.entry(Some(route.name()));
    let message = format!(r#"{{"s":"a","t":"x","d":"{}"}}"#, "x".repeat(bytes));
    for _ in 0..count {
        let mut parcel = OpenParcel::new(route.clone(), 0);
        parcel.push([message.as_bytes(), b""]).unwrap();
        parcel.send(Some((&route, &entry)));
    }
    std::mem::take(&mut *kept.lock().unwrap())
}

#[test]
fn a_session_that_is_down_goes_on_after_a_restart_until_all_is_returned() {
    let mut scene = Scene::new();
    scene.session.restart(&mut scene.actions);
    for parcel in parcels(4, 100_000) {
        scene.step(Input::Deliver(parcel));
    }
    scene.session.restart(&mut scene.actions);
    assert_eq!(scene.take(), [""; 0], "it is not down");
    scene.step(Input::GoDown { reason: "it left for good" });
    assert_eq!(scene.take(), ["Continue"]);
    while scene.session.mailbox().count() > 0 {
        // The step that was to come is forgotten.
        scene.session.restart(&mut scene.actions);
        assert_eq!(scene.take(), ["Continue"]);
        scene.step(Input::Wake(None));
        scene.take();
    }
    scene.session.restart(&mut scene.actions);
    assert_eq!(scene.take(), [""; 0]);
}

#[test]
fn a_connection_that_was_told_to_close_is_handed_what_comes_until_it_is_released() {
    let mut scene = Scene::attached();
    scene.step(Input::Close(Close::ShutDown));
    assert_eq!(scene.take(), ["Close(ShutDown)"]);
    let [last, late] = <[Parcel; 2]>::try_from(parcels(2, 10)).unwrap();
    scene.step(Input::Deliver(last));
    assert!(
        matches!(&scene.take()[..], [frames] if frames.starts_with("Frames")),
        "an answer to its last burst"
    );
    scene.step(Input::Release { connection: CONNECTION });
    scene.step(Input::Deliver(late));
    assert_eq!(scene.take(), [""; 0]);
    assert_eq!(scene.session.mailbox().count(), 1, "it waits for the next connection");
}

#[test]
fn a_connection_that_takes_or_says_nothing_is_handed_nothing_once_it_was_told_to_close() {
    for close in [Close::TooSlow, Close::Silent] {
        let mut scene = Scene::attached();
        scene.step(Input::Close(close));
        scene.take();
        scene.step(Input::Deliver(parcels(1, 10).remove(0)));
        assert_eq!(scene.take(), [""; 0]);
        assert_eq!(scene.session.mailbox().count(), 1, "{close:?}");
    }
}
