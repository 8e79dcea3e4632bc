//! What a service does with what comes: it checks everything.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde::Deserialize;
use tokio::time::sleep;

use super::arrivals::Arrivals;
use super::cast::Kind;
use super::desk::Desk;
use super::faults::Fault;
use super::message::{Data, Target};
use super::world::{Stage, World, count, lock};
use crate::bench::deliveries::{Deliveries, Misnumbered};
use crate::client::{Event, Lease, Message, Op, Receiver, Refused};
use crate::protocol::error::ErrorCode;
use crate::protocol::op::Opcode;

/// How long a slow service reads, and does not, in ms.
const READS_MS: std::ops::Range<u64> = 500..5_000;
const PAUSES_MS: std::ops::Range<u64> = 500..4_000;

/// What a service knows of what came, over all its connections.
#[derive(Debug)]
pub(super) struct Checks {
    /// By source and target as written: a shard's holder gets what is sent to the shard.
    arrivals: HashMap<(String, String), Arrivals>,
    pub(super) deliveries: Deliveries<(String, String, u64)>,
}

impl Checks {
    pub(super) fn new() -> Self {
        Self { arrivals: HashMap::new(), deliveries: Deliveries::new() }
    }
}

/// The reading half of one connection.
pub(super) struct Reader<'a> {
    pub(super) world: &'a World,
    pub(super) index: usize,
    pub(super) checks: &'a mut Checks,
    pub(super) desk: &'a Desk,
}

impl Reader<'_> {
    /// Reads until the connection ends, and says how it did.
    pub(super) async fn run(&mut self, receiver: &mut Receiver, mut random: Rng) -> String {
        let is_slow = self.world.role(self.index).kind == Kind::Slow;
        let mut pause_at = Instant::now();
        loop {
            if is_slow && self.world.stage() == Stage::Running && Instant::now() >= pause_at {
                sleep(Duration::from_millis(random.u64(PAUSES_MS))).await;
                pause_at = Instant::now() + Duration::from_millis(random.u64(READS_MS));
            }
            match receiver.next_text().await {
                Ok(Some(text)) => self.take(&text),
                Ok(None) => return "closed as if the service had asked for it".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    }

    fn take(&mut self, text: &str) {
        match Event::parse(text) {
            Ok(Event::Message(message)) => self.take_message(&message),
            Ok(Event::Op(op)) => {
                if let Err(error) = self.take_op(&op) {
                    self.fault(Fault::Unreadable, &format!("op {}: {error}", op.opcode));
                }
            }
            Err(error) => self.fault(Fault::Unreadable, &error.to_string()),
        }
    }

    fn take_message(&mut self, message: &Message) {
        count(&self.world.counts.arrived);
        let (Some(data), Some(source)) = (Data::of(message), self.world.index(&message.source)) else {
            let told = format!("from {}, topic {}: {:.200}", message.source, message.topic, message.data);
            return self.fault(Fault::Altered, &told);
        };
        let own = self.world.name(self.index);
        if data.to != own && !data.to.starts_with("shard/") {
            return self.fault(Fault::Misdirected, &format!("message {} to {}", data.number, data.to));
        }
        if !self.is_new(message, &data) {
            return;
        }
        let stream = self.checks.arrivals.entry((message.source.clone(), data.to.clone())).or_default();
        if let Err(fault) = stream.take(data.connection, data.number) {
            let (source, Data { connection, number, to, .. }) = (&message.source, &data);
            return self
                .fault(fault, &format!("message {number} of {source}'s connection {connection} to {to}"));
        }
        if data.to == own {
            let target = Target::Service(self.index);
            self.world.check(source, target, data.number, |stream| stream.arrived(data.number));
        }
    }

    /// Checks the delivery number. False: the message had come before, or its number is wrong.
    fn is_new(&mut self, message: &Message, data: &Data) -> bool {
        let acknowledges = self.world.role(self.index).acknowledges();
        let taken = match message.i {
            Some(i) if acknowledges => {
                let identity = (message.source.clone(), data.to.clone(), data.number);
                self.desk.delivered(i);
                self.checks.deliveries.take(i, identity).map_err(|Misnumbered| Fault::Misnumbered)
            }
            None if !acknowledges => Ok(true),
            _ => Err(Fault::Misnumbered),
        };
        match taken {
            Ok(true) => true,
            Ok(false) => {
                count(&self.world.counts.again);
                false
            }
            Err(fault) => {
                let told = format!("{:?} on message {} of {}", message.i, data.number, message.source);
                self.fault(fault, &told);
                false
            }
        }
    }

    fn take_op(&mut self, op: &Op) -> Result<(), crate::client::ClientError> {
        #[derive(Deserialize)]
        struct Receipt {
            n: String,
        }
        #[derive(Deserialize)]
        struct Presence {
            service: String,
            event: String,
        }
        if op.is(Opcode::Error) {
            self.take_error(&op.read()?);
        } else if op.is(Opcode::Receipt) {
            self.take_receipt(&op.read::<Receipt>()?.n);
        } else if op.is(Opcode::ShardAccept) {
            self.take_lease(&op.read()?);
        } else if op.is(Opcode::Presence) {
            let Presence { service, event } = op.read()?;
            count(&self.world.counts.presences);
            let is_known = ["up", "away", "resumed", "down"].contains(&event.as_str());
            if !is_known || self.world.index(&service).is_none() {
                self.fault(Fault::Unreadable, &format!("PRESENCE {event} of {service}"));
            }
        } else if !op.is(Opcode::ShardWait) {
            self.fault(Fault::Unreadable, &format!("op {} was not asked for", op.opcode));
        }
        Ok(())
    }

    fn take_error(&mut self, error: &Refused) {
        count(&self.world.counts.errors);
        let nonce = error.n.as_ref().and_then(|n| serde_json::from_str::<String>(n.get()).ok());
        let Some((target, number)) = nonce.as_deref().and_then(Target::of_nonce) else {
            if !self.desk.answered(&error.code) {
                self.fault(Fault::WrongError, &format!("{}: {}", error.code, error.message));
            }
            return;
        };
        let code = ErrorCode::ALL.into_iter().find(|code| code.as_str() == error.code);
        if !code.is_some_and(|code| self.world.may_refuse(target, code)) {
            let to = self.world.written(target);
            self.fault(Fault::WrongError, &format!("{} for message {number} to {to}", error.code));
        }
        let is_acknowledging = matches!(target, Target::Service(to) if self.world.role(to).acknowledges());
        let may_have_arrived = is_acknowledging && code == Some(ErrorCode::Expired);
        self.world.check(self.index, target, number, |stream| stream.errored(number, may_have_arrived));
    }

    fn take_receipt(&mut self, nonce: &str) {
        count(&self.world.counts.receipts);
        match Target::of_nonce(nonce) {
            Some((target, number)) => {
                self.world.check(self.index, target, number, |stream| stream.receipted(number));
            }
            None => self.fault(Fault::WrongReceipt, &format!("for {nonce}")),
        }
    }

    fn take_lease(&mut self, lease: &Lease) {
        count(&self.world.counts.leases);
        let Lease { shard_id: id, epoch, .. } = *lease;
        let granted = lock(&self.world.leases).granted(id, epoch, self.index, Instant::now());
        self.desk.got_shard(id);
        if let Err(fault) = granted {
            self.fault(fault, &format!("shard {id}, epoch {epoch}"));
        }
    }

    fn fault(&self, fault: Fault, told: &str) {
        let name = self.world.name(self.index);
        let kind = self.world.role(self.index).kind;
        self.world.faults.add(fault, || format!("{name} ({kind:?}) got {told}"));
    }
}
