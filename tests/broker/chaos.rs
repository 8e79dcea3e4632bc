//! Random services send numbered messages while random faults are injected; at the end every
//! message has exactly one end, and the account says so.
//!
//! Each run is made from a seed, which is printed where it fails. `GATEWAY_CHAOS_SEEDS` says how
//! many are run (200), `GATEWAY_CHAOS_FIRST` which is the first (0).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::{Gateway, Message, Service, eventually};

const SERVICES: usize = 4;
const STEPS: usize = 80;

/// The services from this one on acknowledge.
const FIRST_ACKNOWLEDGING: usize = 2;

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// One service's process, over its restarts.
struct Actor {
    index: usize,
    connection: Option<Service>,
    session: Value,
    /// Per source: the message that this connection got last.
    last: BTreeMap<String, u64>,
    /// The delivery number that this connection got last, and acknowledged last.
    number: Option<u64>,
    /// By message: how often it came.
    delivered: BTreeMap<u64, u32>,
    receipts: BTreeSet<u64>,
    errors: BTreeMap<u64, String>,
}

impl Actor {
    fn name(&self) -> String {
        format!("s{}", self.index)
    }

    fn acknowledges(&self) -> bool {
        self.index >= FIRST_ACKNOWLEDGING
    }

    /// Starts the process: it identifies, with the secret of its session or without.
    fn start(&mut self, gateway: &Gateway, knows_secret: bool) {
        let mut service = gateway.connect();
        let mut fields = json!({"receipts": true, "ack": self.acknowledges()});
        if knows_secret && !self.session.is_null() {
            fields["session"] = self.session.clone();
        }
        let accept = service.identify_with(&self.name(), fields);
        self.session = accept["session"].clone();
        self.last.clear();
        self.number = None;
        self.connection = Some(service);
    }

    fn send(&mut self, to: usize, numbers: std::ops::Range<u64>) {
        let name = self.name();
        let Some(connection) = &mut self.connection else { return };
        connection.texts(
            numbers.map(|n| format!(r#"{{"s":"{name}","t":"gateway-proxy:s{to}:chaos","d":{n},"n":{n}}}"#)),
        );
    }

    fn provoke(&mut self, part: &str) {
        if let Some(connection) = &mut self.connection {
            connection.send_op(&json!({"panic": part}));
        }
    }

    /// Reads until nothing comes at once, at most so many messages. False: its connection ended.
    fn read(&mut self, most: usize) -> bool {
        for _ in 0..most {
            let Some(connection) = &mut self.connection else { return false };
            match connection.poll() {
                Ok(Some(message)) => self.got(&message),
                Ok(None) => return true,
                Err(()) => {
                    self.connection = None;
                    return false;
                }
            }
        }
        true
    }

    fn got(&mut self, message: &Message) {
        let data = &message.json["d"];
        if message.json["s"] != "gateway" {
            return self.got_message(message, data.as_u64().unwrap());
        }
        // ERRORs about a panic name no message.
        let Some(number) = data["n"].as_u64() else { return };
        match data["opcode"].as_u64() {
            Some(21) => assert!(self.receipts.insert(number), "two receipts for {number}"),
            Some(20) => {
                let code = data["code"].as_str().unwrap().to_owned();
                let before = self.errors.insert(number, code);
                assert!(before.is_none(), "a second error for {number}: {before:?}, {}", message.text);
            }
            _ => panic!("{}", message.text),
        }
    }

    fn got_message(&mut self, message: &Message, number: u64) {
        let source = message.json["s"].as_str().unwrap().to_owned();
        let before = self.last.insert(source, number);
        assert!(before.is_none_or(|before| before < number), "{} came after {before:?}", message.text);
        *self.delivered.entry(number).or_default() += 1;
        let i = message.json["i"].as_u64();
        assert_eq!(i.is_some(), self.acknowledges(), "{}", message.text);
        if let Some(i) = i {
            assert!(
                self.number.is_none_or(|before| before + 1 == i),
                "{:?} before {}",
                self.number,
                message.text
            );
            self.number = Some(i);
        }
    }

    fn acknowledge(&mut self) {
        if let (Some(i), Some(connection)) = (self.number, &mut self.connection) {
            connection.send_op(&json!({"opcode": 22, "i": i}));
        }
    }
}

struct Run {
    gateway: Gateway,
    random: Random,
    actors: Vec<Actor>,
    /// By message: its source and target.
    sent: BTreeMap<u64, (usize, usize)>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let gateway = Gateway::start(&[
            "--workers=2",
            "--mailbox-messages=40",
            "--max-unacked=8",
            "--hold-ms=5",
            "--resume-window-ms=600000",
            "--heartbeat-ms=60000",
            "--log=warn,gateway::server=info",
        ]);
        let actors = (0..SERVICES).map(|index| Actor {
            index,
            connection: None,
            session: Value::Null,
            last: BTreeMap::new(),
            number: None,
            delivered: BTreeMap::new(),
            receipts: BTreeSet::new(),
            errors: BTreeMap::new(),
        });
        let mut run = Self { gateway, random: Random(seed), actors: actors.collect(), sent: BTreeMap::new() };
        for actor in &mut run.actors {
            actor.start(&run.gateway, false);
        }
        run
    }

    fn step(&mut self) {
        let index = self.random.below(SERVICES);
        let choice = self.random.below(100);
        if self.actors[index].connection.is_none() {
            let knows_secret = choice.is_multiple_of(2);
            return self.actors[index].start(&self.gateway, knows_secret);
        }
        match choice {
            0..45 => self.send(index),
            45..70 => drop(self.actors[index].read(50)),
            70..82 => self.actors[index].acknowledge(),
            82..85 => self.kill(index),
            85..88 => {
                // Killed with bytes unread: its socket is reset.
                self.actors[index].connection = None;
            }
            88..91 => {
                // Another process takes it over.
                let old = self.actors[index].connection.take();
                self.actors[index].start(&self.gateway, true);
                drop(old);
            }
            91..94 => self.actors[index].provoke("session"),
            94..96 => self.actors[index].provoke("connection"),
            96..98 => self.actors[index].provoke("gateway"),
            _ => self.actors[index].provoke("allocator"),
        }
    }

    fn send(&mut self, from: usize) {
        let (to, count) = (self.random.below(SERVICES), 1 + self.random.below(12) as u64);
        let first = self.sent.len() as u64;
        for number in first..first + count {
            self.sent.insert(number, (from, to));
        }
        self.actors[from].send(to, first..first + count);
    }

    fn kill(&mut self, index: usize) {
        if let Some(connection) = self.actors[index].connection.take() {
            connection.vanish();
        }
    }

    /// Everybody comes back and takes and acknowledges all there is, until nothing is queued.
    fn settle(&mut self) {
        for index in 0..SERVICES {
            if !self.actors[index].read(1) || self.actors[index].connection.is_none() {
                self.actors[index].start(&self.gateway, true);
            }
        }
        let Self { gateway, actors, .. } = self;
        eventually("nothing is queued", || {
            for actor in actors.iter_mut() {
                if !actor.read(10_000) {
                    actor.start(gateway, true);
                }
                actor.acknowledge();
            }
            let sum = &gateway.get_json("/api/v1/accounting")["sum"];
            (sum["queued"]["messages"] == 0 && gateway.metric("gateway_mailbox_bytes", "") == 0).then_some(())
        });
        for actor in actors {
            actor.read(10_000);
        }
    }

    fn check(&self) {
        let accounting = self.gateway.get_json("/api/v1/accounting");
        assert_eq!(accounting["balanced"], true, "{accounting}");
        for (target, account) in accounting["targets"].as_object().unwrap() {
            let count = |part: &str| account["sum"][part]["messages"].as_u64().unwrap();
            let ends = count("delivered") + count("returned") + count("dead");
            assert_eq!(count("accepted"), ends, "{target}: {account}");
        }
        for (number, (from, to)) in &self.sent {
            self.check_message(*number, &self.actors[*from], &self.actors[*to]);
        }
    }

    fn check_message(&self, number: u64, source: &Actor, target: &Actor) {
        let came = target.delivered.get(&number).copied().unwrap_or(0);
        let (receipt, error) = (source.receipts.contains(&number), source.errors.get(&number));
        // No session went down, so nothing accepted came back.
        assert!(!(receipt && error.is_some()), "{number} was accepted and refused: {error:?}");
        assert!(!(came > 0 && error.is_some()), "{number} was delivered and refused: {error:?}");
        if target.acknowledges() {
            assert!(!receipt || came > 0, "{number} was accepted and never delivered");
        } else {
            assert!(came <= 1, "{number} was delivered {came} times");
        }
        for other in self.actors.iter().filter(|other| other.index != target.index) {
            assert!(!other.delivered.contains_key(&number), "{number} went to {}", other.name());
        }
    }
}

fn run(seed: u64) {
    let mut run = Run::new(seed);
    for _ in 0..STEPS {
        run.step();
    }
    run.settle();
    run.check();
    run.actors.clear();
    run.gateway.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(run.gateway.wait().code(), Some(0));
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

#[test]
fn whatever_fails_every_message_has_one_end() {
    let first = setting("GATEWAY_CHAOS_FIRST", 0);
    let end = first + setting("GATEWAY_CHAOS_SEEDS", 200);
    let next = AtomicU64::new(first);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let failed = thread::Builder::new().name(format!("seed {seed}")).spawn(move || run(seed));
                    assert!(
                        failed.unwrap().join().is_ok(),
                        "failed with seed {seed}: GATEWAY_CHAOS_FIRST={seed} GATEWAY_CHAOS_SEEDS=1"
                    );
                }
            });
        }
    });
}
