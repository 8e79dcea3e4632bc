//! Random lives of a few services, with every rule checked after each step.
//!
//! Around the real structs stands a small world: each session's actor mailbox is a queue, each
//! connection a list of what it was handed, and time only passes when a step says so.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::account::Amount;
use super::gauge::Bounds;
use super::parcel::{OpenParcel, Parcel};
use super::pulse::Limits;
use super::route::{Inbox, Route, Shared};
use super::session::{Action, CREDIT_BYTES, Input, Session, Settings};
use crate::protocol::frame::TextFrames;
use crate::protocol::name::{ConnectionId, Name};

const SERVICES: usize = 3;
const BOUNDS: Bounds = Bounds { messages: 12, bytes: 400_000 };
const TOTAL_BYTES: u64 = 700_000;
/// All mailboxes are full before one is.
const TIGHT_TOTAL_BYTES: u64 = 2_000;
/// With so much more no message is smaller than the ERROR that returns it.
const PADDING: usize = 250;
const MAX_UNACKED: usize = 5;
const WINDOW: Duration = Duration::from_secs(30);

/// One step of the world.
#[derive(Debug, Clone)]
enum Step {
    /// A service sends messages of these sizes to another in one burst.
    Send {
        from: usize,
        to: usize,
        sizes: Vec<usize>,
        spelled: bool,
    },
    /// As `Send`, but the connection ends before the burst does.
    SendAndDrop {
        from: usize,
        to: usize,
        sizes: Vec<usize>,
    },
    /// The session's actor handles the next messages in its queue.
    Handle {
        service: usize,
        parcels: usize,
    },
    /// The actor's queue loses a parcel: a panic, a thread that stopped.
    Lose {
        service: usize,
    },
    /// The connection writes some of what it was handed.
    Write {
        service: usize,
        bytes: usize,
    },
    /// A connection is given the name, and has not come to the session yet.
    Accept {
        service: usize,
    },
    Attach {
        service: usize,
        acks: bool,
    },
    /// The service acknowledges a part of what it was handed.
    Ack {
        service: usize,
        part: prop::sample::Index,
    },
    Detach {
        service: usize,
    },
    /// The session ends, and a new one of the same name begins.
    GoDown {
        service: usize,
    },
    Pass {
        seconds: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let service = || 0..SERVICES;
    let sizes = || prop::collection::vec(prop_oneof![8 => 0..200_usize, 1 => 60_000..150_000_usize], 1..5);
    let step = prop_oneof![
        6 => (service(), service(), sizes(), any::<bool>())
            .prop_map(|(from, to, sizes, spelled)| Step::Send { from, to, sizes, spelled }),
        1 => (service(), service(), sizes()).prop_map(|(from, to, sizes)| Step::SendAndDrop { from, to, sizes }),
        6 => (service(), 1..4_usize).prop_map(|(service, parcels)| Step::Handle { service, parcels }),
        1 => service().prop_map(|service| Step::Lose { service }),
        3 => (service(), 1..200_000_usize).prop_map(|(service, bytes)| Step::Write { service, bytes }),
        1 => service().prop_map(|service| Step::Accept { service }),
        2 => (service(), any::<bool>()).prop_map(|(service, acks)| Step::Attach { service, acks }),
        3 => (service(), any::<prop::sample::Index>()).prop_map(|(service, part)| Step::Ack { service, part }),
        1 => service().prop_map(|service| Step::Detach { service }),
        1 => service().prop_map(|service| Step::GoDown { service }),
        1 => (1..40_u64).prop_map(|seconds| Step::Pass { seconds }),
    ];
    prop::collection::vec(step, 1..40)
}

/// A session's actor, with its queue.
#[derive(Default)]
struct Queue(Mutex<VecDeque<Parcel>>);

struct QueueInbox(Arc<Queue>);

impl Inbox for QueueInbox {
    fn deliver(&self, parcel: Parcel) {
        self.0.0.lock().unwrap().push_back(parcel);
    }
}

struct Service {
    route: Arc<Route>,
    queue: Arc<Queue>,
    session: Session,
    /// The connection, and what it was handed and has not written.
    connection: Option<(ConnectionId, VecDeque<usize>)>,
    /// The one that is accepted, and has not come yet.
    accepted: Option<ConnectionId>,
    /// What was handed with a number and is not acknowledged: the message and its pair.
    numbered: BTreeMap<u64, (u64, Pair)>,
    /// The next number that this connection is to be handed.
    next_number: u64,
    /// The number acknowledged last.
    acknowledged: u64,
}

/// A source, and a target's index.
type Pair = (String, usize);

struct World {
    shared: Arc<Shared>,
    total_bytes: u64,
    services: Vec<Service>,
    /// Sessions that are down and may still get what was under way.
    gone: Vec<Service>,
    now: Instant,
    next_connection: u64,
    next_message: u64,
    /// Of each pair, the number handed over last.
    last_seen: HashMap<Pair, u64>,
    /// Of each pair, the number delivered last.
    last_delivered: HashMap<Pair, u64>,
    /// How the source of each message spelled its target.
    spellings: HashMap<u64, String>,
    /// Messages that a connection was handed, and ERRORs for those that came back.
    ends: BTreeMap<u64, u32>,
    accepted: u64,
    /// Messages that were queued when their source went down.
    orphans: u64,
}

impl World {
    fn new(total_bytes: u64) -> Self {
        let shared = Arc::new(Shared::new(100, total_bytes));
        let mut world = Self {
            services: Vec::new(),
            gone: Vec::new(),
            now: Instant::now(),
            next_connection: 1,
            next_message: 0,
            last_seen: HashMap::new(),
            last_delivered: HashMap::new(),
            spellings: HashMap::new(),
            ends: BTreeMap::new(),
            accepted: 0,
            orphans: 0,
            total_bytes,
            shared,
        };
        for index in 0..SERVICES {
            let service = world.begin(index);
            world.services.push(service);
        }
        world
    }

    fn begin(&self, index: usize) -> Service {
        let name = Name::new(&format!("service-{index}")).unwrap();
        let route = Arc::new(Route::new(name, BOUNDS, self.shared.clone()));
        let queue = Arc::new(Queue::default());
        route.open(Box::new(QueueInbox(queue.clone())));
        let pulse =
            Limits { heartbeat: Duration::from_hours(1), stuck: Duration::from_hours(1), min_drain_bytes: 1 };
        let session = Session::new(Settings { pulse, max_unacked: MAX_UNACKED as u64, max_presence: 10 });
        Service {
            route,
            queue,
            session,
            connection: None,
            accepted: None,
            numbered: BTreeMap::new(),
            next_number: 1,
            acknowledged: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Send { from, to, sizes, spelled } => self.send(*from, *to, sizes, *spelled, true),
            Step::SendAndDrop { from, to, sizes } => self.send(*from, *to, sizes, false, false),
            Step::Handle { service, parcels } => (0..*parcels).for_each(|_| self.handle(*service)),
            Step::Lose { service } => {
                let lost = self.services[*service].queue.0.lock().unwrap().pop_front();
                drop(lost);
            }
            Step::Write { service, bytes } => self.write(*service, *bytes),
            Step::Accept { service } => drop(self.accept(*service)),
            Step::Attach { service, acks } => self.attach(*service, *acks),
            Step::Ack { service, part } => self.acknowledge(*service, *part),
            Step::Detach { service } => self.detach(*service),
            Step::GoDown { service } => self.go_down(*service),
            Step::Pass { seconds } => self.pass(Duration::from_secs(*seconds)),
        }
    }

    fn send(&mut self, from: usize, to: usize, sizes: &[usize], spelled: bool, is_sent: bool) {
        let (source, target) = (self.services[from].route.clone(), self.services[to].route.clone());
        let entry = source.entry(Some(target.name()));
        let mut parcel = OpenParcel::new(target, 0);
        let mut taken = 0;
        for size in sizes {
            let number = self.next_message + taken;
            let head = format!(r#"{{"s":"{}","t":""#, source.name());
            let padding = if self.is_tight() { PADDING } else { 0 };
            let rest = format!(r#"x:{number}","d":"{}","n":{number}}}"#, "x".repeat(size + padding));
            if parcel.push([head.as_bytes(), rest.as_bytes()]).is_ok() {
                let spelling = if spelled { format!("guild/{number}") } else { format!("service-{to}") };
                parcel.spelled(&spelling);
                self.spellings.insert(number, spelling);
                taken += 1;
            }
        }
        if is_sent {
            self.accepted += taken;
            self.next_message += taken;
            parcel.send(Some((&source, &entry)));
        }
    }

    fn handle(&mut self, index: usize) {
        let Some(parcel) = self.services[index].queue.0.lock().unwrap().pop_front() else { return };
        self.step(index, Input::Deliver(parcel));
    }

    /// Steps a session and does what it says.
    fn step(&mut self, index: usize, input: Input) {
        let mut actions = VecDeque::new();
        self.services[index].session.step(input, self.now, &mut actions);
        for action in actions {
            match action {
                Action::Frames(frames) => frames.iter().for_each(|frames| self.hand_over(index, frames)),
                Action::Continue => self.step(index, Input::Wake(None)),
                // The name was given to another.
                Action::WindowElapsed(_) if self.services[index].accepted.is_some() => {}
                Action::WindowElapsed(since) => {
                    assert!(self.services[index].connection.is_none(), "its connection {since:?} is there");
                    self.go_down(index);
                }
                Action::Ping => {}
                other => panic!("nothing asked for {other:?}"),
            }
        }
    }

    fn hand_over(&mut self, index: usize, frames: &[u8]) {
        let Service { route, connection, .. } = &mut self.services[index];
        let (current, handed) = connection.as_mut().expect("it has a connection");
        assert!(route.is_connection(*current), "frames for a connection that is not its own");
        handed.push_back(frames.len());
        let in_flight: usize = handed.iter().sum();
        assert!(
            in_flight <= CREDIT_BYTES || handed.len() == 1,
            "{in_flight} bytes in {} chunks",
            handed.len()
        );
        for text in TextFrames::new(frames) {
            let json: serde_json::Value = serde_json::from_slice(text).unwrap();
            if json["s"] == "gateway" {
                self.returned(&json["d"]);
            } else {
                self.delivered(index, &json);
            }
        }
    }

    fn delivered(&mut self, index: usize, json: &serde_json::Value) {
        let number = json["n"].as_u64().unwrap();
        assert_eq!(json["t"], format!("x:{number}"));
        let pair = (json["s"].as_str().unwrap().to_owned(), index);
        let before = self.last_seen.insert(pair.clone(), number);
        assert!(before.is_none_or(|before| before < number), "{number} came after {before:?}");
        let Some(i) = json["i"].as_u64() else {
            *self.ends.entry(number).or_default() += 1;
            self.last_delivered.insert(pair, number);
            return;
        };
        let service = &mut self.services[index];
        if service.numbered.is_empty() {
            // What came between was delivered without numbers.
            service.next_number = i;
            service.acknowledged = i - 1;
        }
        assert_eq!(i, service.next_number, "numbers have no gaps");
        service.next_number += 1;
        let told = service.numbered.insert(i, (number, pair));
        assert!(told.as_ref().is_none_or(|(message, _)| *message == number), "{i} stood for {told:?}");
        assert!(service.numbered.len() <= MAX_UNACKED, "{:?}", service.numbered);
    }

    fn returned(&mut self, error: &serde_json::Value) {
        let number = error["n"].as_u64().unwrap();
        let target = &self.spellings[&number];
        assert_eq!(error["target"], *target, "{error}");
        assert_eq!(error["t"], format!("gateway-proxy:{target}:x:{number}"), "the topic as it was sent");
        assert!(error["code"] == "expired" || error["code"] == "internal", "{error}");
        *self.ends.entry(number).or_default() += 1;
    }

    fn write(&mut self, index: usize, bytes: usize) {
        let Some((connection, handed)) = &mut self.services[index].connection else { return };
        let connection = *connection;
        let mut written = 0;
        while written < bytes
            && let Some(chunk) = handed.pop_front()
        {
            written += chunk;
        }
        self.step(index, Input::Written { connection, bytes: written, presences: 0 });
    }

    fn accept(&mut self, index: usize) -> ConnectionId {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.services[index].route.set_connection(connection);
        self.services[index].accepted = Some(connection);
        self.step(index, Input::Expect { connection });
        connection
    }

    fn attach(&mut self, index: usize, acks: bool) {
        let accepted = self.services[index].accepted;
        let connection = accepted.unwrap_or_else(|| self.accept(index));
        let service = &mut self.services[index];
        service.accepted = None;
        service.connection = Some((connection, VecDeque::new()));
        service.next_number = service.acknowledged + 1;
        if !acks {
            service.numbered.clear();
        }
        // What was not delivered may come again.
        let (seen, delivered) = (&mut self.last_seen, &self.last_delivered);
        seen.retain(|pair, _| pair.1 != index);
        seen.extend(delivered.iter().filter(|(pair, _)| pair.1 == index).map(|(pair, n)| (pair.clone(), *n)));
        self.step(index, Input::Attach { connection, acks });
    }

    fn acknowledge(&mut self, index: usize, part: prop::sample::Index) {
        let service = &mut self.services[index];
        let numbers: Vec<u64> =
            service.numbered.range(..service.next_number).map(|(number, _)| *number).collect();
        // Only who has the name acknowledges.
        if numbers.is_empty() || service.connection.is_none() || service.accepted.is_some() {
            return;
        }
        let i = numbers[part.index(numbers.len())];
        service.acknowledged = i;
        let behind = service.numbered.split_off(&(i + 1));
        for (message, pair) in std::mem::replace(&mut service.numbered, behind).into_values() {
            *self.ends.entry(message).or_default() += 1;
            self.last_delivered.insert(pair, message);
        }
        self.step(index, Input::Ack { i });
    }

    fn detach(&mut self, index: usize) {
        let service = &mut self.services[index];
        let last = service.connection.take().map(|(connection, _)| connection);
        if let Some(connection) = service.accepted.take().or(last) {
            self.step(index, Input::Detach { connection, window: WINDOW });
        }
    }

    fn is_tight(&self) -> bool {
        self.total_bytes == TIGHT_TOTAL_BYTES
    }

    /// How many messages a service sent that have not ended.
    fn queued_of(&self, index: usize) -> u64 {
        let (name, rows) = (format!("service-{index}"), self.shared.accounts.snapshot());
        rows.iter().filter(|row| *row.source == *name).map(|row| row.balance.queued.messages).sum()
    }

    fn go_down(&mut self, index: usize) {
        self.orphans += self.queued_of(index);
        self.services[index].route.gauge().close();
        self.services[index].connection = None;
        self.step(index, Input::GoDown { reason: "it left for good" });
        let new = self.begin(index);
        let gone = std::mem::replace(&mut self.services[index], new);
        self.gone.push(gone);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for index in 0..SERVICES {
            if self.services[index].session.next_wake().is_some_and(|at| at <= self.now) {
                self.step(index, Input::Wake(None));
            }
        }
    }

    /// What is to be found by walking over every place where parcels can be.
    fn found(service: &Service) -> Amount {
        let mut found = Amount::default();
        service.queue.0.lock().unwrap().iter().for_each(|parcel| found += parcel.amount());
        service.session.mailbox().for_each(|parcel| found += parcel.amount());
        found
    }

    fn check(&self) {
        let mut everywhere = 0;
        for service in self.services.iter().chain(&self.gone) {
            let (held, found) = (service.route.gauge().held(), Self::found(service));
            assert_eq!(held, found, "{}'s gauge", service.route.name());
            assert!(
                held.messages <= BOUNDS.messages && held.bytes <= BOUNDS.bytes,
                "{held:?} over {BOUNDS:?}"
            );
            everywhere += found.bytes;
        }
        assert_eq!(self.shared.total.held(), everywhere);
        assert!(everywhere <= self.total_bytes);
        let (mut accepted, mut dead) = (0, 0);
        for row in self.shared.accounts.snapshot() {
            assert!(row.balance.balances(), "{row:?}");
            accepted += row.balance.accepted.messages;
            dead += row.balance.dead.messages;
        }
        assert_eq!(accepted, self.accepted);
        // There is room for every ERROR that takes its message's, and too little in all for a full mailbox.
        assert!(!self.is_tight() || dead <= self.orphans, "{dead} messages are dead whose sources live");
    }

    /// Everything that is under way comes to its end.
    fn settle(&mut self) {
        for _ in 0..3 {
            for index in 0..SERVICES {
                while !self.services[index].queue.0.lock().unwrap().is_empty() {
                    self.handle(index);
                }
            }
            let mut late = std::mem::take(&mut self.gone);
            for service in &mut late {
                let parcels = std::mem::take(&mut *service.queue.0.lock().unwrap());
                for parcel in parcels {
                    service.session.step(Input::Deliver(parcel), self.now, &mut VecDeque::new());
                }
            }
            self.gone.extend(late);
            (0..SERVICES).for_each(|index| self.attach(index, false));
            (0..SERVICES * 20).for_each(|index| self.write(index % SERVICES, usize::MAX));
        }
    }

    /// Each accepted message has ended once: it was delivered, returned, or is dead.
    fn check_ends(&self) {
        let mut dead = 0;
        for row in self.shared.accounts.snapshot() {
            assert_eq!(row.balance.queued, Amount::default(), "{row:?}");
            dead += row.balance.dead.messages;
        }
        assert!(self.ends.values().all(|ends| *ends == 1), "{:?}", self.ends);
        // A notice that was lost with its own mailbox was still sent: its message is returned.
        let returned_and_lost = self.accepted - dead - self.ends.len() as u64;
        let returned: u64 =
            self.shared.accounts.snapshot().iter().map(|row| row.balance.returned.messages).sum();
        assert!(returned_and_lost <= returned, "{returned_and_lost} messages have no end");
        assert_eq!(self.shared.total.held(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_somewhere_and_ends_once(
        total_bytes in prop_oneof![Just(TOTAL_BYTES), Just(TIGHT_TOTAL_BYTES)],
        steps in steps(),
    ) {
        let mut world = World::new(total_bytes);
        for step in &steps {
            world.take(step);
            world.check();
        }
        world.settle();
        world.check();
        world.check_ends();
    }
}
