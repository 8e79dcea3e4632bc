//! One service's process, over its restarts: what it sent and what came to it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{Gateway, Message, Service};

/// The services from this one on acknowledge.
const FIRST_ACKNOWLEDGING: usize = 2;

#[derive(Default)]
pub(super) struct Actor {
    pub(super) index: usize,
    pub(super) connection: Option<Service>,
    /// A WebSocket that was opened before others, and has not identified.
    spare: Option<Service>,
    /// Whether another connection may have its session, one that died.
    pub(super) is_contested: bool,
    /// Whether a connection of it was lost, with what it had been handed.
    pub(super) has_lost: bool,
    /// Connections of processes that are frozen, or whose host is gone: open, and silent for good.
    frozen: Vec<Service>,
    session: Value,
    /// How many more reads it lets pass: it reads nothing for a while.
    pub(super) deaf_for: usize,
    /// Whether its session ended: what was accepted for it came back.
    pub(super) was_down: bool,
    /// Per source: the message that this connection got last.
    last: BTreeMap<String, u64>,
    /// The delivery number that this connection got last.
    number: Option<u64>,
    /// By message: how often it came.
    pub(super) delivered: BTreeMap<u64, u32>,
    pub(super) receipts: BTreeSet<u64>,
    pub(super) errors: BTreeMap<u64, String>,
}

impl Actor {
    pub(super) fn new(index: usize) -> Self {
        Self { index, ..Self::default() }
    }

    pub(super) fn name(&self) -> String {
        format!("s{}", self.index)
    }

    pub(super) fn acknowledges(&self) -> bool {
        self.index >= FIRST_ACKNOWLEDGING
    }

    /// Starts the process: it identifies, with the secret of its session or without. False: its
    /// name has a live connection, a frozen one, and it does not know the secret.
    pub(super) fn start(&mut self, gateway: &Gateway, knows_secret: bool) -> bool {
        let mut service = self.spare.take().unwrap_or_else(|| gateway.connect());
        let mut fields = json!({"receipts": true, "ack": self.acknowledges()});
        if knows_secret && !self.session.is_null() {
            fields["session"] = self.session.clone();
        }
        service.send_identify(&self.name(), fields);
        // A spare one may have waited so long that it was closed.
        let answer = service.next();
        let data = &answer.json["d"];
        if data["opcode"] == 2 {
            assert!(!knows_secret && !self.frozen.is_empty(), "{}", answer.text);
            assert_eq!(data["code"], "already_connected", "{}", answer.text);
            return false;
        }
        assert_eq!(data["opcode"], 1, "{}", answer.text);
        self.session = data["session"].clone();
        self.last.clear();
        self.number = None;
        self.deaf_for = 0;
        self.is_contested = false;
        self.connection = Some(service);
        true
    }

    /// Opens a WebSocket for later.
    pub(super) fn open_spare(&mut self, gateway: &Gateway) {
        self.spare.get_or_insert_with(|| gateway.connect());
    }

    /// A process that asks to take the session over, and is killed before the answer comes.
    pub(super) fn start_and_die(&mut self, gateway: &Gateway) {
        let mut service = gateway.connect();
        let fields = json!({"session": self.session, "receipts": true, "ack": self.acknowledges()});
        service.send_identify(&self.name(), fields);
        // Whether it got so far cannot be seen, nor what it was handed.
        self.has_lost = true;
        self.is_contested = true;
    }

    pub(super) fn send(&mut self, to: usize, numbers: std::ops::Range<u64>) {
        let name = self.name();
        let Some(connection) = &mut self.connection else { return };
        connection.texts(
            numbers.map(|n| format!(r#"{{"s":"{name}","t":"gateway-proxy:s{to}:chaos","d":{n},"n":{n}}}"#)),
        );
    }

    pub(super) fn provoke(&mut self, part: &str, times: usize) {
        if let Some(connection) = &mut self.connection {
            (0..times).for_each(|_| connection.send_op(&json!({"panic": part})));
        }
    }

    /// Ends the connection without a word: FIN.
    pub(super) fn vanish(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.has_lost = true;
            connection.vanish();
        }
    }

    /// No FIN, no RST: nobody is there any more, and nobody says so.
    pub(super) fn freeze(&mut self) {
        self.has_lost = true;
        self.frozen.extend(self.connection.take());
    }

    /// Is killed with bytes unread: its socket is reset.
    pub(super) fn reset(&mut self) {
        self.has_lost = true;
        self.connection = None;
    }

    /// Leaves for good: its session is over.
    pub(super) fn leave(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close(4000);
            self.has_lost = true;
            self.was_down = true;
        }
    }

    /// Reads until nothing comes at once, at most so many messages. False: its connection ended.
    pub(super) fn read(&mut self, most: usize) -> bool {
        if self.deaf_for > 0 {
            self.deaf_for -= 1;
            return true;
        }
        for _ in 0..most {
            let Some(connection) = &mut self.connection else { return false };
            match connection.poll() {
                Ok(Some(message)) => self.got(&message),
                Ok(None) => return true,
                // All that came before the end was read.
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
            let follows = self.number.is_none_or(|before| before + 1 == i);
            assert!(follows, "{:?} before {}", self.number, message.text);
            self.number = Some(i);
        }
    }

    pub(super) fn acknowledge(&mut self) {
        if let (Some(i), Some(connection)) = (self.number, &mut self.connection) {
            connection.send_op(&json!({"opcode": 22, "i": i}));
        }
    }
}
