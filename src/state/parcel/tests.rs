use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::account::Balance;
use super::super::gauge::Bounds;
use super::super::route::{Inbox, Shared};
use super::*;
use crate::protocol::name::Name;

/// A mailbox from which nothing is taken.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Parcel>>>);

impl Inbox for Kept {
    fn deliver(&self, parcel: Parcel) {
        self.0.lock().unwrap().push(parcel);
    }
}

impl Kept {
    fn take(&self) -> Vec<Parcel> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

struct World {
    shared: Arc<Shared>,
}

impl World {
    fn new(total_bytes: u64) -> Self {
        Self { shared: Arc::new(Shared::new(10, total_bytes)) }
    }

    fn service(&self, name: &str, max_messages: u64) -> (Arc<Route>, Kept) {
        let bounds = Bounds { messages: max_messages, bytes: 1 << 20 };
        let route = Arc::new(Route::new(Name::new(name).unwrap(), bounds, self.shared.clone()));
        let kept = Kept::default();
        route.open(Box::new(kept.clone()));
        (route, kept)
    }

    /// How the only source stands with the only target.
    fn balance(&self) -> Balance {
        self.shared.accounts.snapshot()[0].balance
    }
}

/// Sends messages of so many bytes, each in a parcel of its own or all in one, until there is no room; how many.
fn fill(source: &Arc<Route>, target: &Arc<Route>, bytes: usize, each_alone: bool) -> u64 {
    let entry = source.entry(Some(target.name()));
    let start = br#"{"s":"a","t":"x","d":""#;
    let rest = format!("{}\"}}", "x".repeat(bytes - start.len() - 2));
    let (mut sent, mut parcel) = (0, OpenParcel::new(target.clone(), 0));
    while parcel.push([start, rest.as_bytes()]).is_ok() {
        sent += 1;
        if each_alone {
            std::mem::replace(&mut parcel, OpenParcel::new(target.clone(), 0)).send(Some((source, &entry)));
        }
    }
    parcel.send(Some((source, &entry)));
    sent
}

fn give_back(parcels: Vec<Parcel>) {
    for parcel in parcels {
        parcel.give_back(ErrorCode::Expired, "it is gone");
    }
}

#[test]
fn what_took_all_the_room_there_is_is_returned_in_its_own() {
    for each_alone in [true, false] {
        let world = World::new(10_000);
        let ((source, to_source), (target, to_target)) = (world.service("a", 100), world.service("b", 100));
        assert_eq!(fill(&source, &target, 500, each_alone), 20);
        assert_eq!(world.shared.total.held(), 10_000);
        give_back(to_target.take());
        assert_eq!((world.balance().returned.messages, world.balance().queued.messages), (20, 0));
        assert_eq!((source.gauge().held().messages, target.gauge().held()), (20, Amount::default()));
        assert_eq!(world.shared.total.held(), source.gauge().held().bytes);
        drop(to_source.take());
        assert_eq!(world.shared.total.held(), 0);
    }
}

#[test]
fn where_errors_are_larger_than_their_messages_what_finds_no_room_is_dead() {
    for each_alone in [true, false] {
        let world = World::new(10_000);
        let ((source, to_source), (target, to_target)) =
            (world.service("a", 1_000), world.service("b", 1_000));
        assert_eq!(fill(&source, &target, 25, each_alone), 400);
        give_back(to_target.take());
        let Balance { returned, dead, .. } = world.balance();
        assert_eq!(returned.messages + dead.messages, 400);
        let held = source.gauge().held();
        assert_eq!((held.messages, held.bytes), (returned.messages, world.shared.total.held()));
        let error_bytes = held.bytes / held.messages;
        assert!(error_bytes > 100 && held.bytes + error_bytes > 10_000, "{held:?} is all that fits");
        drop(to_source.take());
        assert_eq!(world.shared.total.held(), 0);
    }
}

#[test]
fn what_is_returned_keeps_within_its_sources_own_mailbox() {
    let world = World::new(10_000);
    let ((source, _to_source), (target, to_target)) = (world.service("a", 3), world.service("b", 100));
    fill(&source, &target, 500, false);
    give_back(to_target.take());
    assert_eq!((world.balance().returned.messages, world.balance().dead.messages), (3, 17));
    assert_eq!(world.shared.total.held(), source.gauge().held().bytes);
}

#[test]
fn what_a_service_sent_to_itself_is_no_reason_that_it_cannot_be_told() {
    let world = World::new(10_000);
    let (own, to_own) = world.service("a", 3);
    assert_eq!(fill(&own, &own, 500, false), 3);
    drop(to_own.take());
    assert_eq!((world.balance().returned.messages, world.balance().dead.messages), (3, 0));
}

#[test]
fn while_messages_are_returned_nobody_finds_that_nothing_is_held() {
    let world = World::new(10_000);
    let ((source, to_source), (target, to_target)) = (world.service("a", 100), world.service("b", 1));
    let is_over = AtomicBool::new(false);
    fill(&source, &target, 500, true);
    let found = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let looks = std::iter::repeat_with(|| world.shared.total.held());
            looks.take_while(|_| !is_over.load(Ordering::Relaxed)).min()
        });
        for _ in 0..5_000 {
            give_back(to_target.take());
            let notices = to_source.take();
            assert_eq!((fill(&source, &target, 500, true), notices.len()), (1, 1));
        }
        is_over.store(true, Ordering::Relaxed);
        looking.join().unwrap()
    });
    assert_ne!(found, Some(0));
}
