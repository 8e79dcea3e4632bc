//! What a service says of itself, and what it is told, as types.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ClientError;
use crate::protocol::error::ErrorCode;
use crate::protocol::op::Opcode;
use crate::protocol::{GATEWAY_NAME, OPCODE_TOPIC};

/// What a service says of itself: `s` and `d` of IDENTIFY.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Identify {
    /// The name that it claims: `s`.
    #[serde(skip)]
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// From an earlier ACCEPT: takes the place of that connection, should it still live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Secret>,
    /// Number each delivery until it is acknowledged.
    pub ack: bool,
    /// Answer each accepted message that has an `n` with RECEIPT.
    pub receipts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Text that must not stand in a log: its Debug does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

/// `d` of ACCEPT.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Accepted {
    pub service: String,
    pub session: Secret,
    /// Whether this is a session that had been there before, with its mailbox and its shards.
    pub resumed: bool,
    pub heartbeat_ms: u64,
    pub resume_window_ms: u64,
    pub max_message_bytes: u64,
    pub shards: Vec<u32>,
    pub version: u32,
}

/// `d` of REJECT.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rejected {
    /// A word of [`RejectCode`](crate::protocol::error::RejectCode).
    pub code: String,
    pub message: String,
    pub retry_after_ms: Option<u64>,
}

/// `d` of ERROR.
#[derive(Debug, Clone, Deserialize)]
pub struct Refused {
    /// A word of [`ErrorCode`].
    pub code: String,
    pub message: String,
    /// The topic of the refused message, JSON as it was sent.
    pub t: Option<Box<RawValue>>,
    /// Its `n`, JSON as it was sent.
    pub n: Option<Box<RawValue>>,
    pub target: Option<String>,
}

/// Something that came.
#[derive(Debug, Clone)]
pub enum Event {
    Message(Message),
    Op(Op),
}

/// A message that another service sent.
#[derive(Debug, Clone)]
pub struct Message {
    pub source: String,
    pub topic: String,
    /// `d`, byte for byte as its sender wrote it; `null` where there was none.
    pub data: Box<RawValue>,
    /// The sender's own id for the message.
    pub n: Option<Box<RawValue>>,
    /// The delivery number, where the service acknowledges.
    pub i: Option<u64>,
}

/// What the gateway itself says.
#[derive(Debug, Clone)]
pub struct Op {
    pub opcode: u64,
    /// All of `d`, the opcode included.
    pub data: Box<RawValue>,
}

impl Identify {
    /// IDENTIFY with nothing but the name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

impl Event {
    /// Reads one message. An op is the gateway's only if the gateway is its source: the topic
    /// alone can come from any service.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        #[derive(Deserialize)]
        struct Envelope {
            s: String,
            t: String,
            #[serde(default)]
            d: Option<Box<RawValue>>,
            n: Option<Box<RawValue>>,
            i: Option<u64>,
        }
        let envelope: Envelope =
            serde_json::from_str(text).map_err(|error| ClientError::unreadable(text, &error.to_string()))?;
        let data = envelope.d.unwrap_or_else(|| RawValue::NULL.to_owned());
        if envelope.s == GATEWAY_NAME && envelope.t == OPCODE_TOPIC {
            return Op::parse(data).map(Self::Op);
        }
        let Envelope { s: source, t: topic, n, i, .. } = envelope;
        Ok(Self::Message(Message { source, topic, data, n, i }))
    }
}

impl Op {
    fn parse(data: Box<RawValue>) -> Result<Self, ClientError> {
        #[derive(Deserialize)]
        struct Number {
            opcode: u64,
        }
        let number: Number = read(&data)?;
        Ok(Self { opcode: number.opcode, data })
    }

    /// Whether it is that one.
    pub fn is(&self, opcode: Opcode) -> bool {
        self.opcode == opcode as u64
    }

    /// `d` as a type: [`Accepted`], [`Refused`], [`Lease`](super::Lease), [`serde_json::Value`] or your own.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ClientError> {
        read(&self.data)
    }
}

impl Refused {
    /// Whether it was for that reason.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code == code.as_str()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

fn read<'a, T: Deserialize<'a>>(data: &'a RawValue) -> Result<T, ClientError> {
    serde_json::from_str(data.get()).map_err(|error| ClientError::unreadable(data.get(), &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::{Live, Revoke, Wait};
    use super::*;

    #[test]
    fn an_op_is_the_gateways_only_if_the_gateway_sent_it() {
        let forged = r#"{"s":"b","t":"gateway:opcode","d":{"opcode":3}}"#;
        assert!(matches!(Event::parse(forged), Ok(Event::Message(message)) if message.source == "b"));
    }

    #[test]
    fn data_is_kept_byte_for_byte() {
        let text = r#"{"n":"x","t":"x:y","d":{"a": 1.50, "a":"\ud800"},"s":"b","own":0}"#;
        match Event::parse(text) {
            Ok(Event::Message(message)) => assert_eq!(message.data.get(), r#"{"a": 1.50, "a":"\ud800"}"#),
            other => panic!("{other:?}"),
        }
        assert!(
            matches!(Event::parse(r#"{"s":"b","t":"x"}"#), Ok(Event::Message(m)) if m.data.get() == "null")
        );
    }

    #[test]
    fn what_is_said_of_shards_is_read() {
        let event = |fields: &str| {
            let text = format!(r#"{{"s":"gateway","t":"gateway:opcode","d":{{{fields}}}}}"#);
            match Event::parse(&text) {
                Ok(Event::Op(op)) => op,
                other => panic!("{other:?}"),
            }
        };
        let wait = event(r#""opcode":30,"reason":"identify_rate_limit","position":2,"retry_after_ms":5"#);
        let expected =
            Wait { reason: "identify_rate_limit".to_owned(), position: 2, retry_after_ms: Some(5) };
        assert_eq!(wait.read::<Wait>().expect("a wait"), expected);
        let live = event(r#""opcode":32,"shard_id":1,"shard_count":8"#);
        assert_eq!(live.read::<Live>().expect("live"), Live { shard_id: 1, shard_count: 8 });
        let revoke = event(r#""opcode":33,"shard_id":1,"shard_count":8,"reason":"x""#);
        let expected = Revoke { shard_id: 1, shard_count: 8, reason: "x".to_owned() };
        assert_eq!(revoke.read::<Revoke>().expect("a revoke"), expected);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let identify = Identify { session: Some(Secret("hush".to_owned())), ..Identify::named("a") };
        assert!(!format!("{identify:?}").contains("hush"));
    }
}
