//! A bot in miniature: four shards forward events to a backend that answers each, while one of
//! them is killed and restarted. Every event and every answer is accounted for.

use std::collections::VecDeque;
use std::ops::Range;
use std::thread;

use serde_json::{Value, json};

use crate::support::{Gateway, Message, Service, events};

const SHARDS: usize = 4;

/// How often each shard sends all events.
const ROUNDS: usize = 12;

/// The shard that is killed, and in which of its rounds.
const KILLED: &str = "shard-2";
const KILLED_IN: usize = 5;

/// A shard's process: its connection, and answers that came before it asked for them.
struct Shard {
    service: Service,
    name: String,
    early: VecDeque<Message>,
}

impl Shard {
    /// Starts it: it identifies, and asks for its shard id, which is told too.
    fn start(gateway: &Gateway, name: &str) -> (Self, Value) {
        let mut service = gateway.connect();
        service.identify_with(name, json!({"receipts": true}));
        service.send_op(&json!({"opcode": 10}));
        let mut shard = Self { service, name: name.to_owned(), early: VecDeque::new() };
        loop {
            let message = shard.service.next();
            if message.json["s"] == "gateway" {
                assert_eq!(message.json["d"]["opcode"], 11, "{}", message.text);
                return (shard, message.json["d"]["shard_id"].clone());
            }
            shard.early.push_back(message);
        }
    }

    fn forward(&mut self, numbers: Range<usize>, events: &[String]) {
        for number in numbers {
            let (name, event) = (&self.name, &events[number % events.len()]);
            let text = format!(
                r#"{{"s":"{name}","t":"gateway-proxy:backend:discord:event:{number}","d":{event},"n":{number}}}"#
            );
            self.service.text(&text);
        }
    }

    /// Reads until each of these events has its receipt; the answers that come are kept.
    fn expect_receipts(&mut self, numbers: Range<usize>) {
        for number in numbers {
            loop {
                let message = self.service.next();
                if message.json["s"] == "gateway" {
                    assert_eq!(message.json["d"]["opcode"], 21, "{}", message.text);
                    assert_eq!(message.json["d"]["n"], number, "{}", message.text);
                    break;
                }
                self.early.push_back(message);
            }
        }
    }

    /// Reads until each of these events has its answer: in order, once, and byte for byte.
    fn expect_answers(&mut self, numbers: Range<usize>, events: &[String]) {
        for number in numbers {
            let message = self.early.pop_front().unwrap_or_else(|| self.service.next());
            let event = &events[number % events.len()];
            let expected =
                format!(r#"{{"s":"backend","t":"answer","d":{{"number":{number},"event":{event}}}}}"#);
            assert_eq!(message.text, expected);
        }
    }
}

fn round(number: usize, events: &[String]) -> Range<usize> {
    number * events.len()..(number + 1) * events.len()
}

/// A shard's life. The one that is killed gets the answers of that round after its restart.
fn live(gateway: &Gateway, name: &str, events: &[String]) {
    let (mut shard, id) = Shard::start(gateway, name);
    for number in 0..ROUNDS {
        let numbers = round(number, events);
        shard.forward(numbers.clone(), events);
        shard.expect_receipts(numbers.clone());
        if name == KILLED && number == KILLED_IN {
            shard.service.vanish();
            gateway.wait_for_log(&format!("{name} is away"));
            gateway.service("operator").send("backend", "go-on", "null");
            let (restarted, same_id) = Shard::start(gateway, name);
            assert_eq!(same_id, id, "it keeps its id");
            shard = restarted;
        }
        shard.expect_answers(numbers, events);
    }
}

/// Answers every event to its source, and checks that each comes in order, once, and byte for
/// byte. Waits with its answers where the shard is to be killed before they come.
fn answer(mut backend: Service, events: &[String]) {
    let mut seen = [0; SHARDS];
    let mut held = VecDeque::new();
    while seen != [ROUNDS * events.len(); SHARDS] {
        let message = held.pop_front().unwrap_or_else(|| backend.next());
        let source = message.json["s"].as_str().unwrap().to_owned();
        let index: usize = source.strip_prefix("shard-").unwrap().parse().unwrap();
        let number = seen[index];
        if source == KILLED && number == KILLED_IN * events.len() {
            let meanwhile = || Some(backend.next()).filter(|next| next.topic() != "go-on");
            held.extend(std::iter::from_fn(meanwhile));
        }
        let event = &events[number % events.len()];
        let expected = format!(r#"{{"s":"{source}","t":"discord:event:{number}","d":{event},"n":{number}}}"#);
        assert_eq!(message.text, expected);
        seen[index] += 1;
        backend.send(&source, "answer", &format!(r#"{{"number":{number},"event":{event}}}"#));
    }
    backend.expect_nothing();
}

#[test]
fn every_event_and_every_answer_is_accounted_for() {
    let gateway = Gateway::start(&["--shards=4"]);
    let events = events();
    let backend = gateway.service("backend");
    thread::scope(|scope| {
        let (gateway, events) = (&gateway, &events[..]);
        scope.spawn(move || answer(backend, events));
        for index in 0..SHARDS {
            scope.spawn(move || live(gateway, &format!("shard-{index}"), events));
        }
    });
    let each = (ROUNDS * events.len()) as u64;
    for index in 0..SHARDS {
        assert_eq!(gateway.account(&format!("shard-{index}")), [each, each, 0, 0, 0]);
    }
    // The events, the word to go on, and the backend's own last probe.
    let all = SHARDS as u64 * each + 2;
    assert_eq!(gateway.account("backend"), [all, all, 0, 0, 0]);
}
