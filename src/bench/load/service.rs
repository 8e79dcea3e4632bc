//! One service: its connection, what it sends, and what it has been told.

use super::frame::TEXT;
use super::outgoing::Outgoing;
use super::wire::Wire;
use crate::bench::deliveries::Deliveries;
use crate::client::{Accepted, Identify, Secret};
use crate::protocol::op::Opcode;

pub(super) struct Service {
    pub(super) name: String,
    /// One random mask over all its connections: what it sends is masked once.
    pub(super) mask: [u8; 4],
    pub(super) wire: Option<Wire>,
    pub(super) is_accepted: bool,
    pub(super) outgoing: Option<Outgoing>,
    pub(super) deliveries: Option<Deliveries<(usize, u64)>>,
    /// Whether a delivery is to be acknowledged.
    pub(super) has_news: bool,
    /// Whether a ping is to be answered.
    pub(super) is_asked: bool,
    session: Option<Secret>,
}

impl Service {
    pub(super) fn new(name: String, mask: [u8; 4], ack: bool) -> Self {
        let deliveries = ack.then(Deliveries::new);
        Self {
            name,
            mask,
            wire: None,
            is_accepted: false,
            outgoing: None,
            deliveries,
            has_news: false,
            is_asked: false,
            session: None,
        }
    }

    /// Writes IDENTIFY; with the secret of the session that it had.
    pub(super) fn identify(&mut self, token: Option<&str>, receipts: bool) {
        let identify = Identify {
            name: self.name.clone(),
            token: token.map(|token| Secret(token.to_owned())),
            session: self.session.clone(),
            ack: self.deliveries.is_some(),
            receipts,
            group: None,
        };
        let fields = serde_json::to_value(&identify).expect("text and switches");
        self.op(Opcode::Identify, fields);
    }

    pub(super) fn accepted(&mut self, accepted: Accepted) {
        self.is_accepted = true;
        self.session = Some(accepted.session);
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.connected(accepted.resumed);
        }
    }

    /// Acknowledges what came.
    pub(super) fn acknowledge(&mut self) {
        self.has_news = false;
        if let Some(deliveries) = &self.deliveries {
            self.op(Opcode::Ack, serde_json::json!({ "i": deliveries.highest() }));
        }
    }

    fn op(&mut self, opcode: Opcode, mut data: serde_json::Value) {
        data["opcode"] = (opcode as u8).into();
        let message = serde_json::json!({ "s": self.name, "t": crate::protocol::OPCODE_TOPIC, "d": data });
        if let Some(wire) = &mut self.wire {
            wire.put(TEXT, message.to_string().as_bytes());
        }
    }

    /// The connection is gone.
    pub(super) fn cut(&mut self) {
        self.wire = None;
        self.is_accepted = false;
        self.has_news = false;
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.cut();
        }
    }

    /// How many bytes wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.wire.as_ref().map_or(0, Wire::unwritten)
    }
}
