//! What was accepted, and what became of it: each message ends once, in the order of its pair.

use std::collections::{BTreeMap, HashMap};

use gateway::protocol::frame::TextFrames;
use gateway::state::account::Row;
use gateway::state::parcel::Parcel;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A source's and a target's index.
pub(super) type Pair = (usize, usize);

/// A message that was accepted.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) pair: Pair,
    /// What its target is to get.
    pub(super) text: String,
    /// How its source spelled the target.
    pub(super) spelling: String,
    pub(super) wants_receipt: bool,
    pub(super) end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Delivered,
    /// The ERROR came to its source, or was lost with its source's mailbox.
    Returned,
}

/// The keys of what a connection is handed.
#[derive(Debug, Deserialize)]
pub(super) struct Handed {
    pub(super) s: String,
    pub(super) t: String,
    pub(super) n: Option<u64>,
    pub(super) i: Option<u64>,
}

/// An ERROR or a RECEIPT about a message.
#[derive(Debug, Deserialize)]
struct Notice {
    d: NoticeData,
}

#[derive(Debug, Deserialize)]
struct NoticeData {
    opcode: u8,
    n: u64,
    code: Option<String>,
    t: Option<String>,
    target: Option<String>,
    #[serde(rename = "message")]
    _message: Option<IgnoredAny>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    messages: BTreeMap<u64, Message>,
    /// Of each pair, the message handed over last.
    seen: HashMap<Pair, u64>,
    /// Of each pair, the message delivered last.
    delivered: HashMap<Pair, u64>,
    receipts: BTreeMap<u64, u32>,
    counts: HashMap<Pair, Counts>,
}

/// How many messages of a pair were accepted, and have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    accepted: u64,
    delivered: u64,
    returned: u64,
}

impl Ledger {
    pub(super) fn accept(&mut self, messages: impl IntoIterator<Item = (u64, Message)>) {
        for (number, message) in messages {
            self.counts.entry(message.pair).or_default().accepted += 1;
            self.messages.insert(number, message);
        }
    }

    /// A new connection of that target: what was not delivered may come again.
    pub(super) fn begin_connection(&mut self, target: usize) {
        self.seen.retain(|pair, _| pair.1 != target);
        self.seen.extend(self.delivered.iter().filter(|(pair, _)| pair.1 == target));
    }

    /// A message was handed over; with `i` where it is numbered. Its own number.
    pub(super) fn hand_over(&mut self, target: usize, text: &[u8], handed: &Handed) -> u64 {
        let number = handed.n.expect("every message has an `n`");
        let message = self.messages.get(&number).unwrap_or_else(|| panic!("{number} was never accepted"));
        assert_eq!(handed.s, format!("service-{}", message.pair.0));
        assert_eq!(handed.t, format!("x:{number}"));
        assert_eq!(message.pair.1, target, "{number} came to another target");
        assert_eq!(message.end, None, "{number} came after its end");
        let (before, after) = message.text.split_at(message.text.find('{').expect("an object") + 1);
        let key = handed.i.map_or_else(String::new, |i| format!("\"i\":{i},"));
        let rest = text.strip_prefix(before.as_bytes()).and_then(|rest| rest.strip_prefix(key.as_bytes()));
        assert!(rest == Some(after.as_bytes()), "{number} came as another text");
        let before = self.seen.insert(message.pair, number);
        assert!(before.is_none_or(|before| before < number), "{number} came after {before:?}");
        number
    }

    pub(super) fn end(&mut self, number: u64, end: End) {
        let message = self.messages.get_mut(&number).unwrap_or_else(|| panic!("{number} was never accepted"));
        assert_eq!(message.end, None, "{number} ends again");
        message.end = Some(end);
        let counts = self.counts.entry(message.pair).or_default();
        match end {
            End::Delivered => {
                counts.delivered += 1;
                self.delivered.insert(message.pair, number);
            }
            End::Returned => counts.returned += 1,
        }
    }

    /// An ERROR or a RECEIPT came to a source, or was lost with the source's mailbox.
    pub(super) fn notice(&mut self, source: usize, text: &[u8]) {
        let Notice { d: notice } = serde_json::from_slice(text).expect("a notice is valid");
        let message = &self.messages[&notice.n];
        assert_eq!(message.pair.0, source, "{notice:?}");
        if notice.opcode == 21 {
            assert!(message.wants_receipt, "{notice:?}");
            *self.receipts.entry(notice.n).or_default() += 1;
            return;
        }
        assert_eq!(notice.opcode, 20);
        assert!(matches!(notice.code.as_deref(), Some("expired" | "internal")), "{notice:?}");
        let topic = format!("gateway-proxy:{}:x:{}", message.spelling, notice.n);
        assert_eq!(notice.t.as_deref(), Some(&*topic), "the topic as it was sent");
        assert_eq!(notice.target.as_deref(), Some(&*message.spelling));
        self.end(notice.n, End::Returned);
    }

    /// The parcel's notices, if it has any, are lost.
    pub(super) fn lose_notices(&mut self, source: usize, parcel: &Parcel) {
        if parcel.is_notice() {
            parcel.texts().for_each(|text| self.notice(source, text));
        }
    }

    /// Whether a row of the account says what is known of its pair.
    pub(super) fn check(&self, pair: Pair, row: &Row) {
        let counts = self.counts.get(&pair).copied().unwrap_or_default();
        assert!(row.balance.balances(), "{row:?}");
        assert_eq!(row.balance.accepted.messages, counts.accepted, "{row:?}");
        assert_eq!(row.balance.delivered.messages, counts.delivered, "{row:?}");
        // Some ERRORs may be on their way.
        assert!(row.balance.returned.messages >= counts.returned, "{row:?}");
    }

    /// As [`check`](Self::check), once nothing is under way.
    pub(super) fn check_end(&self, pair: Pair, row: &Row) {
        let counts = self.counts.get(&pair).copied().unwrap_or_default();
        assert!(row.balance.queued.is_zero(), "{row:?}");
        assert_eq!(row.balance.returned.messages, counts.returned, "{row:?}");
        let dead = counts.accepted - counts.delivered - counts.returned;
        assert_eq!(row.balance.dead.messages, dead, "{row:?}");
    }

    /// Whether each RECEIPT that was asked for came, or was lost with its mailbox, once.
    pub(super) fn check_receipts(&self) {
        let wanted = self.messages.iter().filter(|(_, message)| message.wants_receipt);
        let wanted: BTreeMap<u64, u32> = wanted.map(|(number, _)| (*number, 1)).collect();
        assert_eq!(self.receipts, wanted);
    }
}

/// The texts of a chunk of frames, which has nothing else.
pub(super) fn texts(frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut texts = TextFrames::new(frames);
    let whole: usize = std::iter::from_fn(|| texts.next()).count();
    assert!(whole > 0 && texts.rest().is_empty(), "{} bytes behind {whole} frames", texts.rest().len());
    TextFrames::new(frames)
}
