//! A burst: what a connection reads at once, on its way into one mailbox.

use std::sync::Arc;

use gateway::protocol::envelope::Route as Topic;
use gateway::protocol::scan::{Limits, scan};
use gateway::state::account::{Amount, Entry};
use gateway::state::gauge::Refused;
use gateway::state::parcel::OpenParcel;
use gateway::state::route::Route;

use super::ledger::Message;
use super::service::BOUNDS;
use super::world::{LUMP_BYTES, TOTAL_BYTES};

/// A burst of messages from one service to another.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(super) struct Send {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Of each message's `d`.
    pub(super) sizes: Vec<usize>,
    /// How the messages are written.
    pub(super) shape: usize,
    /// The target is named in another way.
    pub(super) is_spelled: bool,
    pub(super) wants_receipts: bool,
    /// Else more may come.
    pub(super) ends_burst: bool,
    /// Where there is no room, the mailbox refuses from then on.
    pub(super) may_refuse: bool,
}

/// A burst that has not ended.
pub(super) struct Burst {
    pub(super) from: usize,
    pub(super) source: Arc<Route>,
    pub(super) target: Arc<Route>,
    pub(super) entry: Entry,
    pub(super) parcel: OpenParcel,
    pub(super) notices: OpenParcel,
    pub(super) amount: Amount,
    pub(super) notices_amount: Amount,
    pub(super) messages: Vec<(u64, Message)>,
}

impl Burst {
    pub(super) fn new(from: usize, source: Arc<Route>, target: Arc<Route>) -> Self {
        Self {
            from,
            entry: source.entry(Some(target.name())),
            parcel: OpenParcel::new(target.clone(), 0),
            notices: OpenParcel::new(source.clone(), 0),
            source,
            target,
            amount: Amount::default(),
            notices_amount: Amount::default(),
            messages: Vec::new(),
        }
    }

    /// Adds a message as a connection does: room for its RECEIPT comes first.
    pub(super) fn push(&mut self, send: &Send, text: &str, number: u64, total: u64) {
        let receipt = format!(r#"{{"s":"gateway","t":"gateway:opcode","d":{{"opcode":21,"n":{number}}}}}"#);
        if send.wants_receipts && self.notices.reserve(receipt.len()).is_err() {
            return;
        }
        let envelope = scan(text, Limits { max_depth: 128 }).expect("it is well formed");
        let Topic::Proxy(proxy) = envelope.route() else { panic!("{text} is proxied") };
        let parts = [&text.as_bytes()[..proxy.cut.start], &text.as_bytes()[proxy.cut.end..]];
        let bytes = parts[0].len() + parts[1].len();
        match self.parcel.push(parts) {
            Ok(()) => {
                self.parcel.spelled(&proxy.target);
                self.amount += Amount::message(bytes);
                let message = Message {
                    pair: (index_of(self.source.name().as_str()), index_of(self.target.name().as_str())),
                    text: [&text[..proxy.cut.start], &text[proxy.cut.end..]].concat(),
                    spelling: proxy.target.into_owned(),
                    wants_receipt: send.wants_receipts,
                    end: None,
                };
                self.messages.push((number, message));
                if send.wants_receipts {
                    self.notices.write([receipt.as_bytes(), b""]);
                    self.notices_amount += Amount::message(receipt.len());
                }
            }
            Err(refused) => {
                self.check_refused(refused, bytes as u64, total);
                if send.wants_receipts {
                    self.notices.unreserve(receipt.len());
                }
                if send.may_refuse {
                    self.target.gauge().start_refusing();
                }
            }
        }
    }

    /// Whether a message of that many bytes had to be refused so.
    fn check_refused(&self, refused: Refused, bytes: u64, total: u64) {
        let gauge = self.target.gauge();
        let held = gauge.held();
        let is_due = match refused {
            Refused::Closed => gauge.is_closed(),
            Refused::StillFull => gauge.is_crowded(),
            Refused::Full => {
                let has_room = held.messages < BOUNDS.messages && held.bytes + bytes <= BOUNDS.bytes;
                // A RECEIPT's room, which is taken first, may have been the last.
                !has_room || total + bytes + LUMP_BYTES > TOTAL_BYTES
            }
        };
        assert!(is_due, "{refused:?} for {bytes} bytes beside {held:?}, {total} in all");
    }

    /// What the open parcels hold of a gauge.
    pub(super) fn held_of(&self, route: &Arc<Route>) -> Amount {
        let mut held = Amount::default();
        if Arc::ptr_eq(route, &self.target) {
            held += self.amount;
        }
        if Arc::ptr_eq(route, &self.source) {
            held += self.notices_amount;
        }
        held
    }
}

pub(super) fn index_of(name: &str) -> usize {
    name.strip_prefix("service-").and_then(|index| index.parse().ok()).expect("one of ours")
}

/// A message in one of the ways to write one.
pub(super) fn message(send: &Send, size: usize, spelling: &str, n: u64) -> String {
    let (s, d) = (send.from, "x".repeat(size));
    match send.shape {
        0 => format!(r#"{{"s":"service-{s}","t":"gateway-proxy:{spelling}:x:{n}","n":{n},"d":"{d}"}}"#),
        1 => format!(
            " \n{{\"t\":\"gateway-proxy:{spelling}:x:{n}\",\"s\":\"service-{s}\",\"d\":\"{d}\",\"n\":{n}}} "
        ),
        2 => format!(
            r#"{{ "d" : ["{d}"] , "n" : {n} , "t" : "gateway-prox\u0079:{spelling}\u003ax:{n}" , "s" : "service-{s}" }}"#
        ),
        _ => format!(
            r#"{{"own":{{"i":1}},"s":"service-{s}","t":"\u0067ateway-proxy\u003a{spelling}:\u0078:{n}","n":{n},"d":{{"{d}":"}}"}}}}"#
        ),
    }
}
