use std::sync::{Mutex, PoisonError};

use super::*;
use crate::state::gauge::Bounds;
use crate::state::parcel::Parcel;
use crate::state::route::{Inbox, Shared};

/// Where parcels go instead of a session's actor.
#[derive(Clone, Default)]
struct Caught(Arc<Mutex<Vec<Parcel>>>);

impl Inbox for Caught {
    fn deliver(&self, parcel: Parcel) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(parcel);
    }
}

impl Caught {
    /// The data of the messages of each parcel that came since.
    fn take(&self) -> Vec<Vec<String>> {
        let parcels = std::mem::take(&mut *self.0.lock().unwrap());
        let data_of = |parcel: Parcel| {
            let all = parcel.texts().map(data).collect();
            parcel.delivered();
            all
        };
        parcels.into_iter().map(data_of).collect()
    }
}

fn data(text: &[u8]) -> String {
    let text = std::str::from_utf8(text).unwrap();
    scan(text, Limits { max_depth: 8 }).unwrap().data().to_owned()
}

/// The connection of `source`, and two others.
struct World {
    routes: Arc<Routes>,
    own: Arc<Route>,
    to_source: Caught,
    to_target: Caught,
    dispatcher: Dispatcher,
}

fn add(routes: &Routes, name: &str) -> (Arc<Route>, Caught) {
    let caught = Caught::default();
    (add_with(routes, name, caught.clone()), caught)
}

fn add_with(routes: &Routes, name: &str, inbox: impl Inbox + 'static) -> Arc<Route> {
    let bounds = Bounds { messages: 10_000, bytes: 1 << 20 };
    let route = Arc::new(Route::new(Name::new(name).unwrap(), bounds, routes.shared().clone()));
    route.open(Box::new(inbox));
    routes.insert(route.clone());
    route
}

fn send(dispatcher: &mut Dispatcher, target: &str, data: &str) {
    let text = format!(r#"{{"s":"source","t":"gateway-proxy:{target}:x","d":{data}}}"#);
    let outcome = dispatcher.message(&text, text.len(), || true);
    assert!(matches!(outcome, Outcome::Done), "{text}: {outcome:?}");
}

const CONNECTION: ConnectionId = ConnectionId(1);

impl World {
    fn new() -> Self {
        Self::within(1 << 30)
    }

    /// So many bytes are the bound of all mailboxes.
    fn within(total_bytes: u64) -> Self {
        let shared = Arc::new(Shared::new(100, total_bytes));
        let routes = Arc::new(Routes::new(ShardTable::new(1), shared));
        let [(own, to_source), (_, to_target), _] =
            ["source", "target", "other"].map(|name| add(&routes, name));
        own.set_connection(CONNECTION);
        let limits = MessageLimits { max_topic_bytes: 100, max_depth: 8 };
        let wishes = Wishes { receipts: false, acks: false };
        let grant = Arc::new(Grant::everything());
        let dispatcher = Dispatcher::new(own.clone(), CONNECTION, routes.clone(), limits, wishes, grant);
        Self { routes, own, to_source, to_target, dispatcher }
    }

    fn add(&self, name: &str) -> Caught {
        add(&self.routes, name).1
    }

    fn send(&mut self, target: &str, data: &str) {
        send(&mut self.dispatcher, target, data);
    }

    /// A message with so many bytes of data; whether its sender is to be held for it, if it may be.
    fn is_held_at(&mut self, target: &str, bytes: usize, may_hold: bool) -> bool {
        let data = "x".repeat(bytes);
        let text = format!(r#"{{"s":"source","t":"gateway-proxy:{target}:x","d":"{data}"}}"#);
        match self.dispatcher.message(&text, text.len(), || may_hold) {
            Outcome::Done => false,
            Outcome::Full(_) => true,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Makes the connection look again.
    fn change_routes(&self) {
        self.routes.remove(&Name::new("other").unwrap());
    }
}

#[test]
fn a_burst_that_goes_on_after_others_had_their_turn_is_one_parcel() {
    let mut world = World::new();
    world.dispatcher.begin();
    world.send("target", "1");
    world.dispatcher.keep_open();
    world.dispatcher.begin();
    world.send("target", "2");
    assert_eq!(world.to_target.take(), [[""; 0]; 0], "nothing leaves before the end of the burst");
    world.dispatcher.flush();
    assert_eq!(world.to_target.take(), [["1", "2"]]);
}

#[test]
fn no_parcel_is_larger_than_a_full_write_but_that_of_one_larger_message() {
    let mut world = World::new();
    world.dispatcher.begin();
    for bytes in [50_000, 50_000, 50_000, 200_000, 100_000, 50_000] {
        world.send("target", &format!(r#""{}""#, "x".repeat(bytes)));
    }
    world.dispatcher.flush();
    let parcels = world.to_target.take();
    let sizes: Vec<Vec<usize>> =
        parcels.iter().map(|all| all.iter().map(|data| data.len() - 2).collect()).collect();
    let expected: [&[usize]; 5] = [&[50_000, 50_000], &[50_000], &[200_000], &[100_000], &[50_000]];
    assert_eq!(sizes, expected);
}

#[test]
fn what_a_burst_brought_before_a_service_went_down_is_not_lost() {
    let mut world = World::new();
    world.dispatcher.begin();
    world.send("target", "1");
    world.send("nobody", "2");
    world.change_routes();
    world.dispatcher.begin();
    assert_eq!(world.to_target.take(), [["1"]]);
    assert_eq!(world.to_source.take().len(), 1, "the ERROR about the second");
    world.send("target", "3");
    world.dispatcher.flush();
    assert_eq!(world.to_target.take(), [["3"]]);
}

#[test]
fn what_a_connection_read_that_was_replaced_is_not_accepted() {
    let mut world = World::new();
    world.dispatcher.begin();
    world.send("target", "1");
    world.own.set_connection(ConnectionId(2));
    world.change_routes();
    world.dispatcher.begin();
    world.dispatcher.flush();
    assert_eq!(world.to_target.take(), [[""; 0]; 0]);
    let rows = world.routes.shared().accounts.snapshot();
    assert!(rows.iter().all(|row| row.balance.accepted.is_zero()), "{rows:?}");
}

#[test]
fn a_connection_that_was_replaced_amid_a_burst_sends_nothing_however_much_there_is() {
    let mut world = World::new();
    world.dispatcher.begin();
    world.send("target", "1");
    world.own.set_connection(ConnectionId(2));
    let much = format!("\"{}\"", "x".repeat(PARCEL_BYTES / 2));
    (0..4).for_each(|_| world.send("target", &much));
    (0..PARCEL_BYTES / 100).for_each(|_| world.send("nobody", "1"));
    world.dispatcher.begin();
    world.dispatcher.flush();
    assert_eq!((world.to_target.take().len(), world.to_source.take().len()), (0, 0));
}

#[test]
fn few_parcels_stay_open_while_others_have_their_turn_and_hold_no_more_room_than_they_need() {
    let mut world = World::new();
    let targets: Vec<Caught> = (0..=MAX_KEPT_OPEN).map(|n| world.add(&format!("target-{n}"))).collect();
    let total = || world.routes.shared().total.held();
    let sent = |targets: &[Caught]| targets.iter().flat_map(Caught::take).count();
    world.dispatcher.begin();
    (0..MAX_KEPT_OPEN).for_each(|n| send(&mut world.dispatcher, &format!("target-{n}"), "1"));
    let message = r#"{"s":"source","t":"x","d":1}"#.len();
    assert!(total() >= MAX_KEPT_OPEN as u64 * 64 * 1024);
    world.dispatcher.keep_open();
    assert_eq!((sent(&targets), total()), (0, (MAX_KEPT_OPEN * message) as u64));
    send(&mut world.dispatcher, &format!("target-{MAX_KEPT_OPEN}"), "1");
    world.dispatcher.keep_open();
    assert_eq!((sent(&targets), total()), (MAX_KEPT_OPEN + 1, 0));
}

#[test]
fn a_message_that_has_its_receipt_is_on_its_way() {
    let mut world = World::new();
    world.dispatcher.wishes.receipts = true;
    world.dispatcher.begin();
    let text = r#"{"s":"source","t":"gateway-proxy:target:x","d":1,"n":"1"}"#;
    assert!(matches!(world.dispatcher.message(text, text.len(), || true), Outcome::Done));
    (0..PARCEL_BYTES / 100).for_each(|_| world.send("nobody", "1"));
    assert_eq!((world.to_target.take().len(), world.to_source.take().len()), (1, 1));
}

#[test]
fn of_a_connection_that_is_replaced_amid_a_burst_what_had_its_receipt_leaves() {
    let mut world = World::new();
    let to_other = world.add("fourth");
    world.dispatcher.wishes.receipts = true;
    world.dispatcher.begin();
    let large = format!("\"{}\"", "x".repeat(PARCEL_BYTES / 2 + 1));
    for (target, data) in [("target", &*large), ("fourth", "1"), ("target", &*large), ("fourth", "2")] {
        let text =
            format!(r#"{{"s":"source","t":"gateway-proxy:{target}:x","d":{data},"n":{}}}"#, data.len());
        assert!(matches!(world.dispatcher.message(&text, text.len(), || true), Outcome::Done));
    }
    world.own.set_connection(ConnectionId(2));
    world.dispatcher.flush();
    assert_eq!(world.to_source.take().concat().len(), 2, "RECEIPTs");
    assert_eq!((world.to_target.take().concat().len(), to_other.take()), (1, vec![vec!["1".to_owned()]]));
}

/// A session that is down.
struct Gone;

impl Inbox for Gone {
    fn deliver(&self, parcel: Parcel) {
        parcel.give_back(ErrorCode::Expired, "its service is gone");
    }
}

#[test]
fn the_receipt_of_a_message_that_comes_back_at_once_comes_before_its_error() {
    for bytes in [1, PARCEL_BYTES / 3, PARCEL_BYTES] {
        let mut world = World::new();
        world.dispatcher.wishes.receipts = true;
        add_with(&world.routes, "gone", Gone);
        world.dispatcher.begin();
        for n in 0..5 {
            let data = "x".repeat(bytes);
            let text = format!(r#"{{"s":"source","t":"gateway-proxy:gone:x","d":"{data}","n":{n}}}"#);
            assert!(matches!(world.dispatcher.message(&text, text.len(), || true), Outcome::Done));
        }
        world.dispatcher.flush();
        let told = world.to_source.take().concat();
        for n in 0..5 {
            let about: Vec<_> = told.iter().filter(|data| data.contains(&format!(r#""n":{n}"#))).collect();
            let [receipt, error] = &about[..] else { panic!("{bytes} bytes: {told:?}") };
            let is_in_order = receipt.contains(r#""opcode":21"#) && error.contains(r#""code":"expired""#);
            assert!(is_in_order, "{bytes} bytes: {about:?}");
        }
    }
}

#[test]
fn errors_leave_before_they_are_more_than_others_would_wait_for() {
    let mut world = World::new();
    world.dispatcher.begin();
    let sent = 2 * PARCEL_BYTES / 100;
    (0..sent).for_each(|_| world.send("nobody", "1"));
    assert!(!world.to_source.take().is_empty(), "{sent} messages were refused");
}

#[test]
fn messages_like_the_last_keep_the_same_rules_as_others() {
    let mut world = World::new();
    world.dispatcher.begin();
    world.send("target", "1");
    world.send("target", "2");
    world.send("source", "3");
    world.send("target", "4");
    let like_the_last = |rest: &str| format!(r#"{{"s":"source","t":"gateway-proxy:target:{rest}"#);
    for rest in [r#"","d":1}"#, &format!(r#"{}","d":1}}"#, "x".repeat(100))] {
        let text = like_the_last(rest);
        let outcome = world.dispatcher.message(&text, text.len(), || true);
        assert!(matches!(outcome, Outcome::Done), "{text}: {outcome:?}");
    }
    let text = like_the_last(r#"x","s":"target","d":1}"#);
    let outcome = world.dispatcher.message(&text, text.len(), || true);
    let Outcome::Error(error) = outcome else { panic!("{text}: {outcome:?}") };
    assert_eq!(error.code, ErrorCode::Malformed);
    world.dispatcher.flush();
    assert_eq!(world.to_target.take(), [["1", "2", "4"]]);
    let notices = world.to_source.take().concat();
    let codes: Vec<_> = notices.iter().filter_map(|data| data.split(r#""code":""#).nth(1)).collect();
    assert_eq!(notices[2], "3");
    assert!(codes[0].starts_with("malformed") && codes[1].starts_with("too_large"), "{notices:?}");
    assert_eq!(notices.len(), 3);
}

#[test]
fn a_message_that_begins_as_an_earlier_one_goes_where_its_target_is_now() {
    let mut world = World::new();
    let to_heir = world.add("heir");
    let held_by = |name: &str| ShardTable::of(vec![Some(Name::new(name).unwrap())]);
    world.routes.set_shards(held_by("target"));
    world.dispatcher.begin();
    world.send("shard/0", "1");
    let line = &world.dispatcher.lines[world.dispatcher.last];
    assert!(line.head.is_some(), "the next one needs no search for its parts");
    world.send("shard/0", "2");
    world.routes.set_shards(held_by("heir"));
    world.dispatcher.begin();
    world.send("shard/0", "3");
    world.send("heir", "4");
    world.send("shard/0", "5");
    world.dispatcher.flush();
    assert_eq!(world.to_target.take(), [["1", "2"]]);
    assert_eq!(to_heir.take(), [["3", "4", "5"]]);
    world.routes.drain();
    world.send("shard/0", "6");
    world.dispatcher.flush();
    assert!(world.to_source.take().concat()[0].contains("draining"));
    assert!(to_heir.take().is_empty());
}

/// How many bytes of data there are in each, and whether it is an ERROR about a full mailbox instead.
fn shown(all: &[Vec<String>]) -> Vec<Result<usize, &str>> {
    let data = all.iter().flatten();
    data.map(|data| if data.contains("mailbox_full") { Err("full") } else { Ok(data.len() - 2) }).collect()
}

#[test]
fn of_a_mailbox_below_three_quarters_what_does_not_fit_is_refused_and_what_fits_is_taken() {
    let mut world = World::new();
    world.dispatcher.begin();
    for bytes in [600_000, 500_000, 1, 500_000, 2] {
        assert!(!world.is_held_at("target", bytes, false));
    }
    world.dispatcher.flush();
    assert_eq!(shown(&world.to_target.take()), [Ok(600_000), Ok(1), Ok(2)]);
    assert_eq!(shown(&world.to_source.take()), [Err("full"); 2]);
}

#[test]
fn once_a_mailbox_above_three_quarters_is_full_nothing_is_taken_and_nobody_held_for_it() {
    let mut world = World::new();
    world.dispatcher.begin();
    assert!(!world.is_held_at("target", 900_000, true));
    assert!(world.is_held_at("target", 500_000, true), "there was none before it");
    assert!(!world.is_held_at("target", 500_000, false));
    for bytes in [500_000, 1] {
        assert!(!world.is_held_at("target", bytes, true));
    }
    world.dispatcher.flush();
    assert_eq!(shown(&world.to_target.take()), [Ok(900_000)]);
    assert_eq!(shown(&world.to_source.take()), [Err("full"); 3]);
}

#[test]
fn who_has_yet_to_acknowledge_what_fills_all_mailboxes_together_is_read() {
    for acks in [false, true] {
        let mut world = World::within(100_000);
        world.dispatcher.wishes.acks = acks;
        world.dispatcher.begin();
        assert!(!world.is_held_at("target", 90_000, true));
        assert!(world.is_held_at("target", 20_000, true), "it has nothing to acknowledge");
        assert!(!world.is_held_at("source", 1, true));
        assert_eq!(world.is_held_at("target", 20_000, true), !acks);
        world.dispatcher.flush();
        let to_source = world.to_source.take();
        assert_eq!(shown(&to_source), if acks { vec![Err("full"), Ok(1)] } else { vec![Ok(1)] });
    }
}

#[test]
fn room_of_all_mailboxes_that_its_own_parcels_do_not_need_is_no_reason_to_refuse() {
    let mut world = World::within(100_000);
    let to_third = world.add("third");
    world.dispatcher.begin();
    for target in ["target", "nobody"] {
        assert!(!world.is_held_at(target, 1, false));
    }
    assert!(!world.is_held_at("third", 90_000, false));
    world.dispatcher.flush();
    assert_eq!(shown(&to_third.take()), [Ok(90_000)]);
    assert_eq!(shown(&world.to_target.take()), [Ok(1)]);
}

#[test]
fn an_error_has_the_room_that_its_own_parcels_do_not_need() {
    let mut world = World::within(65_600);
    world.dispatcher.begin();
    for target in ["target", "nobody"] {
        assert!(!world.is_held_at(target, 1, false));
    }
    world.dispatcher.flush();
    let told = world.to_source.take().concat();
    assert!(told.len() == 1 && told[0].contains("no_such_service"), "{told:?}");
    assert_eq!(shown(&world.to_target.take()), [Ok(1)]);
}
